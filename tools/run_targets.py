#!/usr/bin/env python3
"""run_targets.py - reruns the rows of bench/targets.tsv that fit this machine and prints measured against limit.

run_targets.py [WORD]     only rows whose name holds WORD
Columns, separated by tabs: name, command, field, relation (<= >= ==), limit, device. Lines that begin with '#' are comments.
command   run by sh in the root of the tree, the built program in PATH, $OCTAVO_SHARED set; rows with the same command share one run
field     a path into the JSON that the command prints, as results[0].rel_error; A / B divides two of them; `status` is the exit status
limit     a number, or FACTOR * NAME: times what the row of that name measures
device    cpu; cpu+shared: needs the folder $OCTAVO_SHARED; h100: needs that GPU;
          h100+shared: both"""
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
RELATIONS = {"<=": lambda a, b: a <= b, ">=": lambda a, b: a >= b, "==": lambda a, b: a == b}
STATUS = "status"


def read_rows():
    rows = {}
    for number, line in enumerate((ROOT / "bench" / "targets.tsv").read_text().splitlines(), 1):
        if not line.strip() or line.startswith("#") or line.startswith("name\t"):
            continue
        columns = line.split("\t")
        if len(columns) != 6 or columns[3] not in RELATIONS:
            sys.exit(f"bench/targets.tsv:{number}: expected name, command, field, relation, limit, device")
        if columns[0] in rows:
            sys.exit(f"bench/targets.tsv:{number}: a second row {columns[0]}")
        rows[columns[0]] = columns
    return rows


def fits(device, shared):
    if device == "cpu+shared":
        return shared.is_dir()
    if device == "h100+shared":
        return shared.is_dir() and fits("h100", shared)
    if device == "h100":
        if not shutil.which("nvidia-smi"):
            return False
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True)
        return "H100" in listing.stdout
    return device == "cpu"


def value_at(document, path):
    for key, index in re.findall(r"([A-Za-z_]\w*)|\[(-?\d+)\]", path):
        document = document[key] if key else document[int(index)]
    return float(document)


def measure(run, field):
    """The number that the row asks for; raises what explains why there is none."""
    if field == STATUS:
        return float(run.returncode)
    if run.returncode != 0:
        raise ValueError(f"exit status {run.returncode}: {run.stderr.strip().splitlines()[-1:]}")
    document = json.loads(run.stdout)
    over, _, under = (part.strip() for part in field.partition("/"))
    return value_at(document, over) / (value_at(document, under) if under else 1.0)


class Runs:
    """What commands printed; each runs once."""

    def __init__(self, rows):
        self.rows, self.of = rows, {}

    def measured(self, name):
        _, command, field, *_ = self.rows[name]
        if command not in self.of:
            print(f"  {command}", file=sys.stderr, flush=True)
            self.of[command] = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL)
        return measure(self.of[command], field)

    def limit(self, text):
        factor, _, name = (part.strip() for part in text.partition("*"))
        return float(factor) * (self.measured(name) if name else 1.0)


def main():
    every = read_rows()
    rows = [row for name, row in every.items() if (sys.argv[1] if len(sys.argv) > 1 else "") in name]
    shared = pathlib.Path(os.environ.setdefault("OCTAVO_SHARED", str(ROOT.parent / "shared")))
    os.environ["PATH"] = os.environ.get("OCTAVO_BUILD", str(ROOT / "build")) + os.pathsep + os.environ["PATH"]
    runs, met, missed, skipped = Runs(every), 0, 0, 0
    width = max((len(row[0]) for row in rows), default=0)
    for name, _, _, relation, limit, device in rows:
        if not fits(device, shared):
            print(f"{name:{width}}  {'-':>12} {relation} {limit:12} skipped: needs {device}", flush=True)
            skipped += 1
            continue
        try:
            measured, wanted = runs.measured(name), runs.limit(limit)
            good, shown, why = RELATIONS[relation](measured, wanted), f"{measured:.6g}", f" ({wanted:.6g})" if "*" in limit else ""
        except (ValueError, KeyError, IndexError, TypeError, ZeroDivisionError) as error:
            good, shown, why = False, "?", f" ({type(error).__name__}: {error})"
        met, missed = met + good, missed + (not good)
        print(f"{name:{width}}  {shown:>12} {relation} {limit:12} {'ok' if good else 'MISSED'}{why}", flush=True)
    print(f"{met} met, {missed} missed, {skipped} skipped")
    return missed != 0


sys.exit(main())
