#!/usr/bin/env python3
"""check_layers.py - fail when a file includes from a layer above its own; with --self-test, fail to miss planted ones.

docs/ARCHITECTURE.md explains the order; this list is the order."""
import pathlib
import re
import sys
import tempfile

UP_TO_KERNEL = {"base", "format", "kernel"}
MAY_USE = {  # folder under src/ -> folders it may include besides its own and octavo/
    "base":      set(),
    "format":    {"base"},
    "kernel":    {"base", "format"},
    "ref":       UP_TO_KERNEL,
    "cpu":       UP_TO_KERNEL,
    "cuda":      UP_TO_KERNEL,
    "device":    UP_TO_KERNEL | {"ref", "cpu", "cuda"},
    # Above the device, arithmetic is reached through its table: the backends are out of sight.
    "dist":      UP_TO_KERNEL | {"device"},
    "quant":     UP_TO_KERNEL | {"device"},
    "kvcache":   UP_TO_KERNEL | {"device", "quant"},
    "attention": UP_TO_KERNEL | {"device", "quant", "kvcache"},
    "layer":     UP_TO_KERNEL | {"device", "quant", "kvcache", "attention", "dist"},
    "tokenizer": {"base"},
    "model":     UP_TO_KERNEL | {"device", "quant", "kvcache", "attention", "dist", "layer", "tokenizer"},
    "train":     UP_TO_KERNEL | {"device", "quant", "kvcache", "attention", "dist", "layer", "tokenizer", "model"},
}
SOURCES = {".c", ".h", ".cc", ".cpp", ".cu", ".cuh", ".inc"}
GENERATED = {("base", "octavo_build.h")}
INCLUDE = re.compile(r'\s*#\s*include\s*(.*)')


def reason_against(root, path, form, name):
    """Why the file may not include this, or None."""
    parts = path.relative_to(root).parts
    top, folder = parts[0], parts[1] if len(parts) > 2 else ""
    used, _, rest = name.partition("/")
    if form == "<" and top == "examples" and used == "octavo":  # as a user of the library writes it
        return None if (root / "include" / name).is_file() else "does not exist"
    if form == "<":
        return "is written with quotes" if used == "octavo" or used in MAY_USE else None
    if ".." in name.split("/") or "." in name.split("/"):
        return "is a relative path"
    if used == "octavo" and rest:
        return None if (root / "include" / name).is_file() else "does not exist"
    if top == "src":
        if (folder, name) in GENERATED:
            return None
        if not rest:
            return "does not name its folder"
        if used not in MAY_USE:
            return "is in a folder that nobody knows"
        if used != folder and used not in MAY_USE[folder]:
            return f"is above {folder}/, or beside it"
        return None if (root / "src" / name).is_file() else "does not exist"
    if top == "tests":
        if rest and used in MAY_USE:
            return None if (root / "src" / name).is_file() else "does not exist"
        found = any((folder / name).is_file() for folder in (path.parent, root / "tests", root / "cli"))
        return None if found else "is neither ours nor a test's"
    if top == "cli":
        return None if not rest and (root / "cli" / name).is_file() else "is not a public header"
    return "is not a public header"  # include/, examples/ and bench/ see octavo/ alone


def check(root):
    complaints = []
    for top in ("include", "src", "cli", "tests", "examples", "bench"):
        for path in sorted((root / top).rglob("*")):
            if path.suffix not in SOURCES:
                continue
            parts = path.relative_to(root).parts
            where = "/".join(parts)
            if top == "src" and (len(parts) < 3 or parts[1] not in MAY_USE):
                complaints.append(f"{where}: is in no known layer")
                continue
            for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
                hit = INCLUDE.match(line)
                if not hit:
                    continue
                quoted = re.match(r'(["<])([^">]+)[">]', hit[1])
                if not quoted:
                    complaints.append(f"{where}:{number}: '{hit[1]}' is computed, so that nobody can check it")
                    continue
                reason = reason_against(root, path, quoted[1], quoted[2])
                if reason:
                    complaints.append(f'{where}:{number}: "{quoted[2]}" {reason}')
    return complaints


def self_test():
    """Every planted include is reported, and nothing else is."""
    good = {"include/octavo/a.h": "<stdio.h>", "src/base/b.h": '"octavo/a.h"', "src/ref/r.h": '"base/b.h"',
            "src/ref/r.c": '"ref/r.h"', "src/device/d.h": '"ref/r.h"', "src/layer/l.c": '"device/d.h"',
            "cli/c.h": '"octavo/a.h"', "cli/c.c": '"c.h"', "tests/t.c": '"ref/r.h"', "examples/e.c": '"octavo/a.h"',
            "examples/user.c": "<octavo/a.h>"}
    bad = {"src/base/up.c": '"ref/r.h"', "src/cpu/beside.c": '"ref/r.h"', "src/ref/relative.c": '"../base/b.h"',
           "src/base/bare.c": '"b.h"', "src/base/unknown.c": '"misc/x.h"', "src/misc/x.h": '"base/b.h"',
           "src/attention/backend.c": '"ref/r.h"', "src/base/angle.c": "<octavo/a.h>", "src/base/macro.c": "HEADER",
           "cli/inside.c": '"base/b.h"', "examples/inside.c": '"base/b.h"', "include/octavo/inside.h": '"base/b.h"',
           "src/base/missing.c": '"octavo/missing.h"'}
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for name, include in {**good, **bad}.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(f"#include {include}\n")
        reported = {complaint.split(":")[0] for complaint in check(root)}
    for name in sorted(reported ^ set(bad)):
        print(f"self-test: {name} is {'wrongly reported' if name in good else 'not reported'}")
    return reported != set(bad)


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    complaints = check(pathlib.Path(__file__).resolve().parent.parent)
    print("\n".join(complaints), end="\n" if complaints else "")
    return bool(complaints)


sys.exit(main())
