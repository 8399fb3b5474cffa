#!/usr/bin/env python3
"""peers.py - decode and prefill of Octavo beside PyTorch's attention and other libraries: the same tensors, the same run, one GPU.

    OCTAVO_LIBRARY=build/liboctavo.so bench/peers.py [--only decode,prefill,product,ffa] [--shapes 256k,32k] [--json FILE] [--ffa FOLDER]

Every call is timed in a CUDA graph whose calls take copies of their inputs in turn, together 64 times the second-level cache; the
median of the replays counts. Of a peer that can be asked in several ways (keys by token or by head; query heads as such or as query
tokens of their kv head) the fastest is shown. Errors are against float64 on a few heads. What does not import is named.
--ffa: a folder that holds the FFA prototype's attn_kernel/, for the section of that name; it is public, but no part of this tree."""
import argparse
import importlib
import json
import math
import pathlib
import statistics
import sys

try:
    import torch
    import torch.nn.functional as F
    from torch.nn.attention import SDPBackend, sdpa_kernel
except ImportError as error:
    sys.exit(f"{__doc__}\n\npeers.py: PyTorch is needed: {error}")

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
import octavo  # noqa: E402

CACHES_LONG, CALLS_LEAST, HEADS_SAMPLED, ROWS_SAMPLED, GIB, BUSY_SECONDS = 64, 8, 4, 16, 1 << 30, 0.01
DECODE = {"256k": (1, 24, 8, 128, 262144), "128k": (1, 24, 8, 128, 131072), "32k": (1, 32, 8, 128, 32768), "8x32k": (8, 32, 8, 128, 32768),
          "32x8k": (32, 32, 8, 128, 8192), "4k": (1, 32, 8, 128, 4096)}  # batch, q heads, kv heads, head_dim, tokens
PREFILL = {"128-2k": (128, 2048, False), "128-8k": (128, 8192, False), "128-16k": (128, 16384, False), "128-16k-causal": (128, 16384, True),
           "64-16k": (64, 16384, False), "64-16k-causal": (64, 16384, True), "256-16k": (256, 16384, False),
           "256-16k-causal": (256, 16384, True)}  # head_dim, tokens, causal; 16 K tokens of width 2048 in all
PREFILL_TOKENS, PREFILL_WIDTH = 16384, 2048
OURS = [("bf16", "bf16", {}), ("e4m3", "e4m3", {}), ("int8", "int8", {}),
        ("e4m3x2", "e4m3", {"select": "mass", "epsilon": 0.1}), ("int4x2", "int8", {"select": "mass", "epsilon": 0.1}),
        ("e4m3x2", "e4m3", {"select": "delta", "delta": 5 * math.log(2)})]
BACKENDS = {"flash": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION,
            "math": SDPBackend.MATH}
PEERS = ("flash_attn", "flash_attn_interface", "flashinfer", "sageattention", "transformer_engine")
FFA_HOT, FFA_BLOCK, FFA_UNITS = 0.055, 256, (256, 64)
PRODUCT_TOKENS, PRODUCT_HIDDEN, PRODUCT_ROWS = (1, 4, 16, 64), 4096, 1024


# ---- time and error -------------------------------------------------------------------------------------------------


def copies_of(size):
    return 1 + CACHES_LONG * torch.cuda.get_device_properties(0).L2_cache_size // size


def seconds(calls, repeat):
    """Median time of one of `calls`, which a graph runs in turn."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in calls:
            call()
    torch.cuda.synchronize()
    count, graph = max(len(calls), CALLS_LEAST), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(count):
            calls[i % len(calls)]()

    def replay(times):  # seconds of that many replays in a row, which nothing separates
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        for i in range(times):
            if i == times - 1:
                begin.record()
            graph.replay()
        end.record()
        end.synchronize()
        return 1e-3 * begin.elapsed_time(end)

    busy = 1 + min(100, int(BUSY_SECONDS / replay(1)))  # a device that had nothing to do runs slower for the first milliseconds
    return statistics.median(replay(busy + 1) / count for _ in range(repeat))


def read_speed(repeat):
    """Bytes a second of a sum over 2 GiB."""
    data = torch.randint(1 << 60, (2 * GIB // 8,), device="cuda")
    return 2 * GIB / seconds([lambda: data.sum()], repeat)


def distance(out, wanted):
    return float((out.double() - wanted).norm() / wanted.norm())


def attention(q, k, v, causal=False):
    """Float64 of one kv head: q [rows, D], k and v [tokens, D]; causal: q are the last rows that see as many keys as their number."""
    scores = q.double() @ k.double().T / math.sqrt(q.shape[-1])
    if causal is not False:
        scores.masked_fill_(torch.arange(k.shape[0], device=q.device)[None, :] > causal[:, None], float("-inf"))
    return scores.softmax(-1) @ v.double()


# ---- the table ------------------------------------------------------------------------------------------------------


class Table:
    def __init__(self, speed, repeat):
        self.rows, self.speed, self.repeat = [], speed, repeat

    def add(self, kind, shape, name, variants, size=None, flop=None, error=None, **more):
        """variants: {how: (calls, out of the first)}; the fastest counts. size: bytes read; flop: operations."""
        best, refused = None, None
        for how, make in variants.items():
            try:
                calls, out = make()
                took = seconds(calls, self.repeat)
                if best is None or took < best["seconds"]:
                    best = {"seconds": took, "variant": how, "error": error(out) if error else None}
                del calls, out
            except Exception as reason:  # a peer may refuse a shape in any way it likes
                refused = f"{type(reason).__name__}: {reason}".splitlines()[0][:100]
            torch.cuda.synchronize()
        row = {"kind": kind, "shape": shape, "name": name, **more, **(best or {"refused": refused})}
        if best and size:
            row.update(gbps=1e-9 * size / best["seconds"], read_share=size / best["seconds"] / self.speed)
        if best and flop:
            row["tflops"] = 1e-12 * flop / best["seconds"]
        self.rows.append(row)
        self.show(row)
        return row

    def show(self, row):
        head = f"{row['kind']:8}{row['shape']:16}{row['name']:28}"
        if "refused" in row:
            print(head + "refused: " + str(row["refused"]), flush=True)
            return
        text = head + f"{1e6 * row['seconds']:9.1f} us"
        text += f"{row['read_share']:7.0%} of the read speed" if "read_share" in row else ""
        text += f"{row['tflops']:8.0f} TFLOP/s" if "tflops" in row else ""
        text += f"{row['error']:9.2%} error" if row.get("error") is not None else ""
        text += f"{row['skip_ratio']:6.0%} skipped" if row.get("skip_ratio") is not None else ""
        print(text + f"  {row['variant']}", flush=True)


# ---- decode ---------------------------------------------------------------------------------------------------------


def decode_inputs(batch, q_heads, kv_heads, dim, tokens, hot=0.25, seed=1):
    """The synthetic data of `octavo bench decode`, by their description: q [B, 1, HQ, D], k and v [B, T, HKV, D] in bf16."""
    generator = torch.Generator("cuda").manual_seed(seed)
    unit = torch.randn(batch, 1, kv_heads, dim, device="cuda", generator=generator)
    unit /= unit.norm(dim=-1, keepdim=True)
    blocks = -(-tokens // 128)
    weight = torch.zeros(batch, blocks, 128, kv_heads, 1, device="cuda")
    chosen = torch.rand(batch, blocks, 1, kv_heads, 1, device="cuda", generator=generator) < hot
    place = torch.randint(128, (batch, blocks, 1, kv_heads, 1), device="cuda", generator=generator)
    weight.scatter_(2, place, 10 * chosen.float())
    weight = weight.reshape(batch, blocks * 128, kv_heads, 1)[:, :tokens]
    weight[:, :4], weight[:, -16:] = 10, 9
    k = torch.empty(batch, tokens, kv_heads, dim, device="cuda", dtype=torch.bfloat16)
    v = torch.empty_like(k)
    for b in range(batch):
        k[b] = torch.randn(tokens, kv_heads, dim, device="cuda", generator=generator) + weight[b] * unit[b]
        v[b] = torch.randn(tokens, kv_heads, dim, device="cuda", generator=generator)
    q = 0.5 * torch.randn(batch, 1, q_heads, dim, device="cuda", generator=generator)
    return (q + math.sqrt(dim) * unit.repeat_interleave(q_heads // kv_heads, dim=2)).bfloat16(), k, v


def decode_error(q, k, v):
    """A function of out [B, 1, HQ, D] that compares a few kv heads."""
    group, pairs = q.shape[2] // k.shape[2], [(i * q.shape[0] // HEADS_SAMPLED, i * k.shape[2] // HEADS_SAMPLED) for i in range(HEADS_SAMPLED)]
    wanted = torch.stack([attention(q[b, 0, g * group:(g + 1) * group], k[b, :, g], v[b, :, g]) for b, g in pairs])
    return lambda out: distance(torch.stack([out[b, 0, g * group:(g + 1) * group] for b, g in pairs]), wanted)


def sdpa_variants(backend, q, k, v, by_head):
    """By token, k and v as they lie; by head, copied once before. Query heads as such, or as tokens of their kv head."""
    batch, _, q_heads, dim = q.shape
    group = q_heads // k.shape[2]

    def make(layout, grouped):
        def prepared():
            pairs = [(a.transpose(1, 2), b.transpose(1, 2)) for a, b in zip(k_copies, v_copies)] if layout == "by token" else by_head()
            asked = q.reshape(batch, -1, group, dim) if grouped else q.transpose(1, 2)

            def call(a, b):
                with sdpa_kernel(BACKENDS[backend]):
                    return F.scaled_dot_product_attention(asked, a, b, enable_gqa=not grouped and group > 1)

            calls = [lambda a=a, b=b: call(a, b) for a, b in pairs]
            return calls, calls[0]().reshape(batch, q_heads, 1, dim).transpose(1, 2)

        return prepared

    k_copies, v_copies = k if isinstance(k, list) else [k], v if isinstance(v, list) else [v]
    return {f"{layout}, {'grouped' if grouped else 'heads'}": make(layout, grouped) for layout in ("by token", "by head") for grouped in (False, True)}


def sdpa_decode(table, shape, q, ks, vs, size, error):
    made = {}

    def by_head():
        if not made:
            made["pairs"] = [(a.transpose(1, 2).contiguous(), b.transpose(1, 2).contiguous()) for a, b in zip(ks, vs)]
        return made["pairs"]

    for backend in BACKENDS:
        variants = {}
        for name, make in sdpa_variants(backend, q, Copies(ks), Copies(vs), by_head).items():
            if backend in ("flash", "cudnn") or name == "by token, grouped":
                variants[name] = make
        table.add("decode", shape, f"SDPA {backend}, bf16", variants, size=size, error=error)


class Copies(list):
    """Copies of one tensor; its shape is the first's."""

    @property
    def shape(self):
        return self[0].shape


def import_peers():
    found, missing = {}, {}
    for name in PEERS:
        try:
            found[name] = importlib.import_module(name)
        except Exception as reason:  # a module may fail in any way while it is loaded
            missing[name] = f"{type(reason).__name__}: {reason}".splitlines()[0][:100]
    return found, missing


def library_decode(table, shape, found, q, ks, vs, size, error):
    for name in ("flash_attn", "flash_attn_interface"):
        if name in found:
            call = found[name].flash_attn_with_kvcache
            take = lambda a, b, call=call: (lambda out: out[0] if isinstance(out, tuple) else out)(call(q, a, b))  # noqa: E731
            table.add("decode", shape, f"{name}, bf16", {"kvcache": lambda take=take: make_calls(take, ks, vs)}, size=size, error=error)
    if "flashinfer" in found and q.shape[0] == 1:
        one = lambda a, b: found["flashinfer"].single_decode_with_kv_cache(q[0, 0], a[0], b[0], use_tensor_cores=True)[None, None]  # noqa: E731
        table.add("decode", shape, "flashinfer, bf16", {"single": lambda: make_calls(one, ks, vs)}, size=size, error=error)


def make_calls(call, *copies):
    calls = [lambda inputs=inputs: call(*inputs) for inputs in zip(*copies)]
    return calls, calls[0]()


def filled_cache(device, k, v, k_format, v_format, **options):
    """A cache of the sequences k and v, and their numbers in it."""
    batch, tokens, kv_heads, dim = k.shape
    cache = device.cache(kv_heads=kv_heads, head_dim=dim, k=k_format, v=v_format, max_tokens=tokens, max_sequences=batch, **options)
    sequences = [cache.sequence() for _ in range(batch)]
    cache.append(sequences, k, v)
    return cache, sequences


def ours_decode(table, shape, device, q, k, v, error):
    for k_format, v_format, options in OURS:
        name = f"Octavo {k_format} {v_format}" + (f" {options['select']}" if options else "")
        cache, sequences = filled_cache(device, k, v, k_format, v_format)
        facts = cache.decode(sequences, q, **options)
        size, skipped = int(facts.bytes_read.sum()), float(facts.skip_ratio.mean())
        caches = [(cache, sequences)] + [filled_cache(device, k, v, k_format, v_format) for _ in range(copies_of(size) - 1)]
        variants = {"graph": lambda: ([lambda c=c, s=s: c.decode(s, q, results=(), **options) for c, s in caches], facts.out)}
        table.add("decode", shape, name, variants, size=size, error=error, skip_ratio=skipped)
        del cache, caches, variants


def ffa(table, shape, device, found, folder):
    """The prototype at its defaults, and `delta` at the same settings: 5 ln 2, blocks of 256, e5m2 + e5m2, V in f16, on data of which such blocks
    drop about nine in ten; whole blocks dropped or sub-blocks of 64, ours over the same tensors and over pages."""
    sys.path.insert(0, folder)
    q, k, v = decode_inputs(*DECODE[shape], hot=FFA_HOT)
    error = decode_error(q, k, v)
    kernel = importlib.import_module("attn_kernel.attn_kernel_v1210_fused_bsz_fp8fp8")
    asked, base = q.half(), k.to(torch.float8_e5m2)
    residual, values = (k.float() - base.float()).to(torch.float8_e5m2), v.half()
    count = copies_of(base.numel())
    planes = [(base, residual, values)] + [tuple(x.clone() for x in (base, residual, values)) for _ in range(count - 1)]
    options = {"select": "delta", "delta": 5 * math.log(2)}
    skipped = {}

    def theirs(unit):
        make = getattr(kernel, "FP8FP8DecodeWorkspace", None)  # its older versions allocate in every call
        room = {"workspace": make(q.shape[0], q.shape[2], k.shape[2], v.shape[3], -(-k.shape[1] // unit), q.device, asked.dtype)} if make else {}
        settings = {"BS": FFA_BLOCK, "SBS": unit, "delta": 5.0}
        call = lambda a, b, c: kernel.attn_forward_decode_fp8fp8(asked, a, c, k_residual=b, **settings, **room)  # noqa: E731
        skipped["theirs"] = kernel.attn_forward_decode_fp8fp8(asked, base, values, k_residual=residual, return_skip_ratio=True, **settings)[1]
        calls = [lambda p=p: call(*p) for p in planes]
        return calls, calls[0]().reshape(q.shape[0], 1, q.shape[2], -1).clone()

    def own(unit):
        more = {**options, "compensate": 0, "block_tokens": FFA_BLOCK, "sub_block_tokens": unit}
        facts = device.decode(asked, base, values, k_residual=residual, **more)
        skipped["own"] = float(facts.skip_ratio.mean())
        return [lambda p=p: device.decode(asked, p[0], p[2], k_residual=p[1], results=(), **more) for p in planes], facts.out

    def paged(unit, compensate):
        caches = [filled_cache(device, k, v, "e5m2x2", "f16", block_tokens=FFA_BLOCK, sub_block_tokens=unit) for _ in range(count)]
        facts = caches[0][0].decode(caches[0][1], asked, compensate=compensate, **options)
        skipped["own"] = float(facts.skip_ratio.mean())
        return [lambda c=c, s=s: c.decode(s, asked, results=(), compensate=compensate, **options) for c, s in caches], facts.out

    for unit in FFA_UNITS:
        skipped.clear()
        rows = [("FFA prototype", lambda: theirs(unit)), ("Octavo e5m2x2 f16", lambda: own(unit)), ("Octavo e5m2x2 f16, pages", lambda: paged(unit, 0))]
        if unit < FFA_BLOCK:
            rows.append(("Octavo e5m2x2 f16, means", lambda: paged(unit, 1)))
        taken = []
        for name, make in rows:
            skipped.pop("own", None)
            taken.append(table.add("ffa", shape, name, {f"units of {unit}": make}, error=error))
            torch.cuda.empty_cache()
            taken[-1]["skip_ratio"] = skipped.get("own" if taken[1:] else "theirs")
            if taken[1:] and "seconds" in taken[0] and "seconds" in taken[-1]:
                print(f"{'':24}{taken[0]['seconds'] / taken[-1]['seconds']:.2f} times its speed; skipped {skipped['theirs']:.0%} and {skipped['own']:.0%}", flush=True)


def decode(table, shape, device, found, _):
    q, k, v = decode_inputs(*DECODE[shape])
    size = 2 * k.numel() * k.element_size()
    count = copies_of(size)
    ks, vs = [k] + [k.clone() for _ in range(count - 1)], [v] + [v.clone() for _ in range(count - 1)]
    error = decode_error(q, k, v)
    sdpa_decode(table, shape, q, ks, vs, size, error)
    library_decode(table, shape, found, q, ks, vs, size, error)
    del ks, vs
    ours_decode(table, shape, device, q, k, v, error)


# ---- prefill --------------------------------------------------------------------------------------------------------


def prefill_error(q, k, v, causal):
    """A function of out [B, S, H, D] that compares a few rows of a few heads."""
    rows = torch.arange(ROWS_SAMPLED, device="cuda") * (q.shape[1] - 1) // (ROWS_SAMPLED - 1)
    pairs = [(i * q.shape[0] // HEADS_SAMPLED, i * q.shape[2] // HEADS_SAMPLED) for i in range(HEADS_SAMPLED)]
    wanted = torch.stack([attention(q[b, rows, h], k[b, :, h], v[b, :, h], rows if causal else False) for b, h in pairs])
    return lambda out: distance(torch.stack([out[b, rows, h] for b, h in pairs]), wanted)


def prefill(table, shape, device, found, _):
    dim, tokens, causal = PREFILL[shape]
    batch, heads = PREFILL_TOKENS // tokens, PREFILL_WIDTH // dim
    generator = torch.Generator("cuda").manual_seed(1)
    one = [torch.randn(batch, tokens, heads, dim, device="cuda", generator=generator).bfloat16() for _ in range(3)]
    copies = [one] + [[x.clone() for x in one] for _ in range(copies_of(3 * one[0].numel() * 2) - 1)]
    flop, error = 4 * batch * heads * tokens * tokens * dim / (2 if causal else 1), prefill_error(*one, causal)

    def sdpa(backend):
        def call(q, k, v):
            with sdpa_kernel(BACKENDS[backend]):
                return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=causal).transpose(1, 2)
        return lambda: make_calls(call, *zip(*copies))

    for backend in ("flash", "cudnn", "efficient"):
        table.add("prefill", shape, f"SDPA {backend}, bf16", {"by token": sdpa(backend)}, flop=flop, error=error)
    calls = {}
    for name in ("flash_attn", "flash_attn_interface"):
        if name in found:
            calls[f"{name}, bf16"] = lambda q, k, v, f=found[name].flash_attn_func: (lambda out: out[0] if isinstance(out, tuple) else out)(f(q, k, v, causal=causal))
    if "sageattention" in found:
        calls["sageattention"] = lambda q, k, v: found["sageattention"].sageattn(q, k, v, tensor_layout="NHD", is_causal=causal)
    if "flashinfer" in found and batch == 1:
        calls["flashinfer, bf16"] = lambda q, k, v: found["flashinfer"].single_prefill_with_kv_cache(q[0], k[0], v[0], causal=causal)[None]
    if "transformer_engine" in found:
        attend = importlib.import_module("transformer_engine.pytorch").DotProductAttention(heads, dim, qkv_format="bshd", attention_dropout=0.0)
        calls["transformer_engine, bf16"] = lambda q, k, v: attend(q, k, v, attn_mask_type="causal" if causal else "no_mask").reshape(q.shape)
    for name, call in calls.items():
        table.add("prefill", shape, name, {"by token": lambda call=call: make_calls(call, *zip(*copies))}, flop=flop, error=error)
    for precision in ("exact", "fp8", "sage1", "sage2"):
        call = lambda q, k, v, p=precision: device.prefill(q, k, v, precision=p, mask="causal" if causal else "full", results=()).out  # noqa: E731
        table.add("prefill", shape, f"Octavo {precision}", {"by token": lambda call=call: make_calls(call, *zip(*copies))}, flop=flop, error=error)


# ---- the product that the K projection begins with -------------------------------------------------------------------


def product(table, shape, *_):
    tokens = int(shape)
    weights = [torch.randn(PRODUCT_ROWS, PRODUCT_HIDDEN, device="cuda", dtype=torch.bfloat16) for _ in range(copies_of(2 * PRODUCT_ROWS * PRODUCT_HIDDEN))]
    h = torch.randn(tokens, PRODUCT_HIDDEN, device="cuda", dtype=torch.bfloat16)
    table.add("product", shape, "PyTorch linear, bf16", {"cuBLAS": lambda: make_calls(lambda w: F.linear(h, w), weights)}, size=2 * weights[0].numel())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", help="decode,prefill,product, and ffa where there is --ffa")
    parser.add_argument("--shapes", help="names of shapes, all of them if not given")
    parser.add_argument("--repeat", type=int, default=15)
    parser.add_argument("--json", help="file for the results")
    parser.add_argument("--ffa", help="folder with the FFA prototype's attn_kernel/")
    options = parser.parse_args()
    sections = {"decode": (decode, DECODE), "prefill": (prefill, PREFILL), "product": (product, [str(n) for n in PRODUCT_TOKENS])}
    if options.ffa:
        sections["ffa"] = (ffa, DECODE)
    asked = options.only.split(",") if options.only else list(sections)
    if set(asked) - set(sections):
        parser.error(f"--only is {options.only}, expected some of {', '.join(sections)}" + ("" if options.ffa else "; ffa needs --ffa"))
    if not torch.cuda.is_available():
        sys.exit("peers.py: PyTorch finds no GPU here")
    found, missing = import_peers()
    speed = read_speed(options.repeat)
    table, device = Table(speed, options.repeat), octavo.Device("cuda:0")
    print(f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}, liboctavo {octavo.version()}, "
          f"read speed {1e-12 * speed:.2f} TB/s; not here: {', '.join(missing) or 'nothing'}", flush=True)
    for section in asked:
        run, shapes = sections[section]
        for shape in options.shapes.split(",") if options.shapes else shapes:
            if shape in shapes:
                run(table, shape, device, found, options.ffa)
                torch.cuda.empty_cache()
    device.check()
    if options.json:
        machine = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "cuda": torch.version.cuda, "octavo": octavo.version(), "read_gbps": 1e-9 * speed}
        pathlib.Path(options.json).write_text(json.dumps({"schema": "octavo-peers-1", "machine": machine, "missing": missing, "results": table.rows}, indent=1))


main()
