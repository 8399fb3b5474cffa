#!/usr/bin/env python3
"""make_nfc_table.py - writes src/tokenizer/nfc_table.c from Python's Unicode data.

    tools/make_nfc_table.py            rewrites the file

Normalisation is stable: a newer Unicode only adds characters. The same Python gives the same bytes.
"""
import os
import sys
import unicodedata

TARGET = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src", "tokenizer", "nfc_table.c")
WIDTH = 130
POINTS = [p for p in range(sys.maxunicode + 1) if not 0xD800 <= p < 0xE000]
HANGUL = range(0xAC00, 0xD7A4)  # composed by arithmetic


def rows(items):
    lines, line = [], "    "
    for item in items:
        if len(line) + len(item) + 1 > WIDTH:
            lines.append(line)
            line = "    "
        line += f"{item},"
    return "\n".join(lines + [line])


def decompositions():
    """(point, first, second or 0) of every canonical decomposition, by one step."""
    for point in POINTS:
        mapping = unicodedata.decomposition(chr(point))
        if mapping and not mapping.startswith("<") and point not in HANGUL:
            parts = [int(part, 16) for part in mapping.split()]
            yield point, parts[0], parts[1] if len(parts) > 1 else 0


def classes():
    """Runs (first, last, class) of equal combining classes but 0."""
    runs = []
    for point in POINTS:
        kind = unicodedata.combining(chr(point))
        if kind and runs and runs[-1][1] == point - 1 and runs[-1][2] == kind:
            runs[-1][1] = point
        elif kind:
            runs.append([point, point, kind])
    return runs


def main():
    table = list(decompositions())
    pairs = [i for i, (point, _, second) in enumerate(table)
             if second and unicodedata.normalize("NFC", chr(point)) == chr(point)]
    pairs.sort(key=lambda i: table[i][1:])
    runs = classes()
    with open(TARGET, "w") as file:
        file.write(f'''/* nfc_table.c - canonical decompositions, compositions and combining classes of Unicode {unicodedata.unidata_version}.
 * Written by tools/make_nfc_table.py. */
#include "tokenizer/nfc_table.h"

const octavo_nfc_split OCTAVO_NFC_SPLITS[NFC_SPLIT_COUNT] = {{
{rows(f"{{{p:#x},{a:#x},{b:#x}}}" for p, a, b in table)}
}};

const uint16_t OCTAVO_NFC_PAIRS[NFC_PAIR_COUNT] = {{
{rows(str(i) for i in pairs)}
}};

const octavo_nfc_class OCTAVO_NFC_CLASSES[NFC_CLASS_COUNT] = {{
{rows(f"{{{a:#x},{b:#x},{c}}}" for a, b, c in runs)}
}};
''')
    print(f"NFC_SPLIT_COUNT = {len(table)}, NFC_PAIR_COUNT = {len(pairs)}, NFC_CLASS_COUNT = {len(runs)}")


main()
