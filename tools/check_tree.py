#!/usr/bin/env python3
"""check_tree.py - file names are unique, files open with their sentence, name no machine's folders, and the tree stays small."""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
LIMIT_BYTES = 40 << 20
CODE = {".c", ".cpp", ".cu", ".cuh", ".h", ".py", ".sh"}
# A folder of somebody's machine; the pattern of a temporary name is none.
FOREIGN = re.compile(rb"(?<![\w.}/-])/(?:work|root|home|tmp)/(?![\w.-]*XXXXXX)")


def files():
    listing = subprocess.run(["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
                             cwd=ROOT, capture_output=True)
    if listing.returncode == 0:
        names = listing.stdout.decode().split("\0")
        paths = [ROOT / name for name in names if name]
    else:  # an unpacked archive
        paths = [path for path in ROOT.rglob("*") if path.relative_to(ROOT).parts[0] not in ("build", ".git")]
    return sorted(path for path in set(paths) if path.is_file())


def main():
    wrong, total, seen = [], 0, {}
    for path in files():
        name = path.relative_to(ROOT)
        data = path.read_bytes()
        total += len(data)
        if re.search(r"\s", str(name)):
            wrong.append(f"{name}: a blank in the name")
        if path.suffix in CODE and name.parts[0] != "include":  # a public header may share its name with the private one
            if path.name in seen:
                wrong.append(f"{name}: {seen[path.name]} has the same name")
            seen[path.name] = name
        if path.suffix in CODE:
            opening = data[:400].decode(errors="replace")
            if f"{path.name} - " not in opening.replace('"""', ""):
                wrong.append(f"{name}: does not open with '{path.name} - what it is'")
        if b"\0" in data[:4096] or "corpus" in name.parts:
            continue
        for number, line in enumerate(data.splitlines(), 1):
            hit = FOREIGN.search(line)
            if hit:
                wrong.append(f"{name}:{number}: names the folder {hit[0].decode()}")
    if total > LIMIT_BYTES:
        wrong.append(f"the tree holds {total} bytes, at most {LIMIT_BYTES} are allowed")
    print("\n".join(wrong), end="\n" if wrong else "")
    return bool(wrong)


sys.exit(main())
