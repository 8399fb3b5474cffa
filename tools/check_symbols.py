#!/usr/bin/env python3
"""check_symbols.py - the symbols that the shared libraries export are those that the headers declare, no more, no fewer.

check_symbols.py [--nm NM] LIBRARY...   (public: OCTAVO_API in include/; for the siblings: OCTAVO_SIBLING in src/)"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent


def declared(folder, word):
    names = set()
    for header in sorted((ROOT / folder).rglob("*.h")):
        text = re.sub(r"/\*.*?\*/|//[^\n]*", " ", header.read_text(), flags=re.S)
        text = re.sub(r"^\s*#.*(?:\\\n.*)*", "", text, flags=re.M)
        for declaration in re.findall(rf"\b{word}\b([^;{{]*)[;{{]", text):
            name = re.search(r"\b(octavo_\w+)\s*(?:\(|\[|$)", declaration.strip())
            if not name:
                sys.exit(f"{header}: no name found in '{word}{declaration}'")
            names.add(name[1])
    return names


def main():
    arguments, nm = sys.argv[1:], "nm"
    if arguments[:1] == ["--nm"]:
        nm, arguments = arguments[1], arguments[2:]
    if not arguments:
        sys.exit(__doc__)
    wanted = declared("include", "OCTAVO_API") | declared("src", "OCTAVO_SIBLING")
    if not any("octavo-cuda" in library for library in arguments):  # the plug-in is a build of its own
        wanted -= declared("src/cuda", "OCTAVO_SIBLING")
    owner, wrong = {}, 0
    for library in arguments:
        listing = subprocess.run([nm, "-D", "--defined-only", library], capture_output=True, text=True, check=True).stdout
        for symbol in (line.split()[-1].split("@")[0] for line in listing.splitlines()):
            if symbol in owner:
                print(f"{symbol}: exported by {owner[symbol]} and by {library}")
                wrong += 1
            owner[symbol] = library
            if symbol not in wanted:
                print(f"{symbol}: exported by {library}, but no header declares it")
                wrong += 1
    for symbol in sorted(wanted - owner.keys()):
        print(f"{symbol}: declared in a header, but no library exports it")
        wrong += 1
    print(f"{len(owner)} symbols exported, {wrong} wrong")
    return wrong != 0


sys.exit(main())
