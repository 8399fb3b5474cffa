#!/usr/bin/env python3
"""check_cuda_loops.py - what the loops that multiply with Hopper's warpgroup instructions hold beside their products, from the machine code.

check_cuda_loops.py LIBRARY|OBJECT...   liboctavo-cuda.so, or objects of it; cuobjdump is looked for in PATH and beside nvcc
For each kernel with such instructions, of its smallest loop around one: products, waits for products (as many as products: they run one by
one, which ptxas calls serialised), and loads and stores of local memory, which are spills. Ends with 1 where a loop has spills or runs its
products one by one."""
import os
import re
import shutil
import subprocess
import sys

LINE = re.compile(r"/\*([0-9a-f]{4,6})\*/\s+(.*?);")
BRANCH = re.compile(r"\bBRA\b.*?0x([0-9a-f]+)")
PRODUCT, WAIT, LOCAL = re.compile(r"\b[HQI]GMMA\b"), re.compile(r"\bWARPGROUP\.DEPBAR\b"), re.compile(r"\b(STL|LDL)\b")
EXIT = re.compile(r"\bEXIT\b")


def find_tool():
    nvcc = shutil.which("nvcc") or "/usr/local/cuda/bin/nvcc"
    found = shutil.which("cuobjdump", path=os.pathsep.join([os.environ["PATH"], os.path.dirname(os.path.realpath(nvcc))]))
    if not found:
        sys.exit("check_cuda_loops.py: cuobjdump is missing; it comes with the CUDA toolkit")
    return found


def kernels(path):
    """(name, [(address, instruction)]) of each kernel."""
    name, code = None, []
    with subprocess.Popen([find_tool(), "-sass", path], stdout=subprocess.PIPE, text=True) as dump:
        for line in dump.stdout:
            begins, found = re.search(r"Function : (\S+)", line), LINE.search(line)
            if begins:
                if name:
                    yield name, code
                name, code = begins[1], []
            elif found:
                code.append((int(found[1], 16), found[2]))
    if dump.returncode != 0:
        sys.exit(f"check_cuda_loops.py: cuobjdump could not read {path}")
    if name:
        yield name, code


def main_loop(code):
    """The instructions of the smallest loop that holds a product; None where there is none but what goes back from the kernel's end."""
    loops = [(int(branch[1], 16), at) for at, text in code if (branch := BRANCH.search(text)) and int(branch[1], 16) <= at]
    products = [at for at, text in code if PRODUCT.search(text)]
    exits = [at for at, text in code if EXIT.search(text)] # behind them lie repeated waits, which go back into the loop
    inside = lambda loop, places: any(loop[0] <= at <= loop[1] for at in places)
    around = [loop for loop in loops if inside(loop, products) and not inside(loop, exits)]
    if not around:
        return None
    begin, end = min(around, key=lambda loop: loop[1] - loop[0])
    if end - begin > code[-1][0] * 3 // 4:
        return None
    return [text for at, text in code if begin <= at <= end]


def readable(name):
    tool = shutil.which("c++filt")
    return subprocess.run([tool, name], capture_output=True, text=True).stdout.strip().rpartition("(")[0] if tool else name


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__.split("\n\n")[1])
    bad = 0
    print(f"{'products':>8} {'waits':>6} {'local':>6}  kernel")
    for path in sys.argv[1:]:
        for name, code in kernels(path):
            loop = main_loop(code)
            if not loop:
                continue
            products, waits, local = (sum(1 for text in loop if what.search(text)) for what in (PRODUCT, WAIT, LOCAL))
            wrong = local > 0 or waits >= products
            bad += wrong
            print(f"{products:8} {waits:6} {local:6}  {readable(name)}{' WRONG' if wrong else ''}")
    return bad != 0


sys.exit(main())
