#!/usr/bin/env python3
"""precision_table.py - what every choice of precision costs a model in loss: the tables of docs/NUMERICS.md, measured.

precision_table.py MODEL TEXT [--tokens N] [--last N] [--program FILE] [--keep FILE] [--only WORD]
Runs `octavo perplexity` for linear layers x cache format x selection of blocks, each over the last tokens of the text through decode, and prints
Markdown. --keep names a file of JSON lines: what it has is not run again, so that a run that was stopped goes on."""
import argparse
import json
import pathlib
import subprocess
import sys

LINEAR = ["bf16", "fp8", "int8"]
DENSE = [("bf16", "bf16"), ("e4m3", "e4m3"), ("int8", "int8")]
NESTED = [("e4m3x2", "e4m3"), ("int8x2", "int8"), ("int4x2", "int8")]
EPSILON = "0.1"
RULES = {
    "none": [],
    "base": ["--select", "base"],
    "delta 8 ln 2": ["--select", "delta", "--compensate", "mean"],
    "mass 0.1": ["--select", "mass", "--epsilon", EPSILON, "--compensate", "mean"],
    "certified 0.1": ["--select", "certified", "--epsilon", EPSILON, "--compensate", "mean"],
}
WITH_ANY_LINEAR = ["none", "mass 0.1"]
ATTENTION = ["exact", "fp8", "sage1", "sage"]


def choices():
    """(name, what is shown, options) of every run; the first is what the others are compared with."""
    for linear in LINEAR:
        for k, v in DENSE + NESTED:
            for rule, options in RULES.items():
                if rule != "none" and (k, v) in DENSE:
                    continue
                if linear != LINEAR[0] and rule not in WITH_ANY_LINEAR:  # the rules do not see what the linear layers are
                    continue
                yield (f"{linear} {k} {v} {rule}", (linear, k, v, rule),
                       ["--linear", linear, "--cache-k", k, "--cache-v", v, "--decode", *options])
    for attention in ATTENTION:
        yield f"attention {attention}", None, ["--linear", "bf16", "--attention", attention]


def read_kept(path):
    if not path or not path.exists():
        return {}
    return {entry["name"]: entry["result"] for entry in map(json.loads, path.read_text().splitlines())}


def run(arguments, name, options, last):
    command = [arguments.program, "perplexity", "-m", arguments.model, "--text", arguments.text, "--tokens", str(arguments.tokens), "--json", *options]
    if last:
        command += ["--last", str(arguments.last)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{name}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def percent(value, base):
    return f"{100.0 * (value / base - 1.0):+.2f} %"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("text")
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--last", type=int, default=1024)
    parser.add_argument("--program", default="build/octavo")
    parser.add_argument("--keep", type=pathlib.Path)
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    results = read_kept(arguments.keep)
    for name, shown, options in choices():
        if name in results or arguments.only not in name:
            continue
        print(name, file=sys.stderr, flush=True)
        results[name] = run(arguments, name, options, shown is not None)
        if arguments.keep:
            with arguments.keep.open("a") as kept:
                kept.write(json.dumps({"name": name, "result": results[name]}) + "\n")
    rows = [(shown, results[name]) for name, shown, _ in choices() if shown and name in results]
    if rows:
        base = rows[0][1]
        print("| linear | K | V | rule | loss | to bf16 | cache bytes a token | of bf16 | skipped |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
        for (linear, k, v, rule), result in rows:
            share = result["cache_bytes_per_token"] / base["cache_bytes_per_token"]
            print(f"| {linear} | {k} | {v} | {rule} | {result['mean_loss']:.5f} | {percent(result['mean_loss'], base['mean_loss'])} | "
                  f"{result['cache_bytes_per_token'] / 1e6:.1f} MB | {100 * share:.0f} % | {100 * result['skip_ratio']:.0f} % |")
    prompts = [(name, results[name]) for name, shown, _ in choices() if not shown and name in results]
    if prompts:
        print("\n| attention of the prompt | loss, all tokens | to exact | tokens/s |\n| --- | --- | --- | --- |")
        for name, result in prompts:
            print(f"| {name.split()[1]} | {result['mean_loss']:.5f} | {percent(result['mean_loss'], prompts[0][1]['mean_loss'])} | {result['tokens_per_second']:.0f} |")


main()
