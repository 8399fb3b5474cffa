#!/usr/bin/env python3
"""test_python.py - python/octavo.py against NumPy: quantise, a cache of nested planes, the caller's own tensors, prefill, refusals; and
the same from PyTorch's tensors on a GPU, on its current stream and in a CUDA graph, where there is one.

Ends with status 77 (skipped) where NumPy is missing."""
import os
import pathlib
import re
import sys

try:
    import numpy as np
except ImportError:
    print("no NumPy: the Python API is not tried")
    sys.exit(77)
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "python"))
import octavo  # noqa: E402

STRUCTS = {"octavo_tensor": octavo._Tensor, "octavo_exec": octavo._Exec, "octavo_section": octavo._Section, "octavo_kv_view": octavo._View,
           "octavo_page_config": octavo._PageConfig, "octavo_kvcache_config": octavo._CacheConfig, "octavo_decode_params": octavo._Decode,
           "octavo_prefill_params": octavo._Prefill, "octavo_quantize_params": octavo._Quantize, "octavo_dequantize_params": octavo._Dequantize}
BATCH, TOKENS, Q_HEADS, KV_HEADS, DIM = 2, 700, 6, 2, 64


def check_structs():
    """The fields that Python names are those of the headers, in their order."""
    include = pathlib.Path(__file__).resolve().parent.parent / "include" / "octavo"
    headers = "".join(re.sub(r"/\*.*?\*/", "", header.read_text(), flags=re.S) for header in sorted(include.glob("*.h")))
    for name, structure in STRUCTS.items():
        body = re.search(rf"typedef struct {name} \{{(.*?)\n\}} {name};", headers, flags=re.S)[1]
        wanted = []
        for declaration in body.split(";"):
            callback = re.search(r"\(\*(\w+)\)", declaration)
            wanted += [callback[1]] if callback else re.findall(r"(\w+)(?:\[\w+\])?\s*(?:,|$)", declaration.strip())
        assert wanted == [field[0] for field in structure._fields_], (name, wanted)


def attention(q, k, v):
    """Float64, each query head over its group's kv head; q [B, 1, HQ, D]."""
    out = np.empty(q.shape)
    for b in range(q.shape[0]):
        for h in range(q.shape[2]):
            g = h // (q.shape[2] // k.shape[2])
            scores = k[b, :, g].astype(np.float64) @ q[b, 0, h].astype(np.float64) / np.sqrt(q.shape[3])
            weights = np.exp(scores - scores.max())
            out[b, 0, h] = weights @ v[b, :, g].astype(np.float64) / weights.sum()
    return out


def many(q, k, v):
    """The same of as many queries as keys, causal; q [B, T, HQ, D]."""
    return np.concatenate([attention(q[:, t:t + 1], k[:, :t + 1], v[:, :t + 1]) for t in range(q.shape[1])], axis=1)


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def expect_error(word, call):
    try:
        call()
    except octavo.Error as error:
        assert word in str(error), str(error)
        return
    raise AssertionError(f"no error that speaks of {word}")


def e5m2_bits(x):
    """The codes nearest to x: the upper bytes of f16, rounded."""
    half = x.astype(np.float16).view(np.uint16).astype(np.uint32)
    return ((half + 0x7f + (half >> 8 & 1)) >> 8).astype(np.uint8)


def e5m2_values(codes):
    return (codes.astype(np.uint16) << 8).view(np.float16).astype(np.float32)


def check_own_tensors(device, q, k, v):
    """Planes and prefill over the caller's own arrays."""
    base = e5m2_bits(k)
    residual = e5m2_bits(k - e5m2_values(base))
    assert distance(device.decode(q, base, v, k_residual=residual, k_dtype="e5m2").out, attention(q, k, v)) < 0.02
    exact = many(q[:, :1].repeat(40, axis=1), k[:, :40], v[:, :40])
    causal = device.prefill(q[:, :1].repeat(40, axis=1), k[:, :40], v[:, :40])
    assert distance(causal.out, exact) < 1e-5 and causal.lse.shape == (BATCH, Q_HEADS, 40)
    assert distance(device.prefill(q, k, v, mask="full", precision="sage1", results=()).out, attention(q, k, v)) < 0.05
    coarse = device.prefill(q, k, v, mask="full", precision="fp8", scales="tensor", results=()).out
    given = {name: np.abs(x).max().reshape(1).astype("f4") for name, x in (("q_amax", q), ("k_amax", k), ("v_amax", v))}
    assert distance(coarse, attention(q, k, v)) < 0.1
    assert np.array_equal(coarse, device.prefill(q, k, v, mask="full", precision="fp8", scales="tensor", results=(), **given).out)


def random_inputs(torch, tokens):
    generator = torch.Generator("cuda").manual_seed(5)
    return [scale * torch.randn(BATCH, count, heads, DIM, device="cuda", dtype=torch.bfloat16, generator=generator)
            for scale, count, heads in ((3, 1, Q_HEADS), (1, tokens, KV_HEADS), (1, tokens, KV_HEADS))]


def on_host(x):
    return x.detach().double().cpu().numpy()


def check_gpu(torch):
    device = octavo.Device("cuda:0")
    q, k, v = random_inputs(torch, TOKENS)
    exact = attention(on_host(q), on_host(k), on_host(v))

    x = k[0, :, 0].float()
    codes, scales = device.quantize(x, "e4m3", per="token")
    assert codes.dtype == torch.float8_e4m3fn and codes.is_cuda and distance(on_host(device.dequantize(codes, scales)), on_host(x)) < 0.04
    there, factors = octavo.Device("cpu").quantize(x.cpu().numpy(), "e4m3", per="token")
    assert (codes.view(torch.uint8).cpu().numpy() == there).all() and (scales.cpu().numpy() == factors).all()

    cache = device.cache(kv_heads=KV_HEADS, head_dim=DIM, k="e4m3x2", v="int8", max_tokens=1024, max_sequences=BATCH)
    sequences = [cache.sequence() for _ in range(BATCH)]
    cache.append(sequences, k, v)
    out = torch.full_like(q, float("nan"))
    dense = cache.decode(sequences, q, out=out, results=("bytes_read",))
    assert dense.out is out and dense.lse is None and distance(on_host(out), exact) < 0.02
    pruned = cache.decode(sequences, q, select="mass", epsilon=0.6)
    assert distance(on_host(pruned.out), exact) < 0.6 and bool((pruned.bytes_read < dense.bytes_read).all()) and bool((pruned.kept == 2).any())
    device.check()
    k[0, 0, 0, 0] = float("nan")
    cache.append(sequences, k[:, :1], v[:, :1])
    expect_error("cuda:0", device.check)
    device.check()

    q, k, v = random_inputs(torch, TOKENS)
    base = k.to(torch.float8_e5m2)
    residual = (k.float() - base.float()).to(torch.float8_e5m2)
    assert distance(on_host(device.decode(q, base, v, k_residual=residual).out), exact) < 0.03
    bits = device.decode(q, k, v).out
    assert distance(on_host(bits), exact) < 0.005
    assert bool((device.decode(q, k.transpose(1, 2).contiguous(), v.transpose(1, 2).contiguous(), head_major=True).out == bits).all())
    queries = q.repeat(1, TOKENS, 1, 1)
    wanted = many(on_host(queries[:, :50]), on_host(k[:, :50]), on_host(v[:, :50]))
    assert distance(on_host(device.prefill(queries[:, :50], k[:, :50], v[:, :50]).out), wanted) < 0.01

    # in order with the work on the current stream, which is not the default one
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        late = torch.zeros_like(k)
        torch.cuda._sleep(50_000_000)
        late.copy_(k)
        after = device.decode(q, late, v).out
    stream.synchronize()
    assert bool((after == bits).all())

    # captured, and replayed with other inputs
    alone = device.decode(q, k, v, results=()).out
    asked, answer, graph = torch.zeros_like(q), torch.empty_like(q), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        device.decode(asked, k, v, out=answer, results=())
    asked.copy_(q)
    graph.replay()
    assert bool((answer == alone).all()) and distance(on_host(answer), exact) < 0.005
    print(f"liboctavo {octavo.version()}: the Python API agrees with NumPy on {torch.cuda.get_device_name()}, too")


def check_example():
    """What the module's first lines show runs as it stands there, on the CPU."""
    lines = re.search(r"import torch, octavo\n(.*?)\n\n", octavo.__doc__, flags=re.S)[1].replace("cuda:0", "cpu").replace("131072", "512")
    rng = np.random.default_rng(7)
    names = {"octavo": octavo, "print": lambda *shown: None, "q": rng.standard_normal((1, 1, 32, 128)).astype(np.float32),
             "k": rng.standard_normal((1, 300, 8, 128)).astype(np.float32), "v": rng.standard_normal((1, 300, 8, 128)).astype(np.float32),
             "x": rng.standard_normal((5, 64)).astype(np.float32)}
    exec("\n".join(line[4:] for line in lines.splitlines()), names)  # noqa: S102 - our own text
    assert names["result"].out.shape == (1, 1, 32, 128) and distance(names["exact"].out, attention(names["q"], names["k"], names["v"])) < 1e-5


def try_gpu():
    try:
        import torch
    except ImportError:
        print("no PyTorch: the Python API is not tried on a GPU")
        return
    if torch.cuda.is_available():
        check_gpu(torch)
    else:
        print("no GPU for PyTorch: the Python API is not tried on one")


def main():
    check_structs()
    rng = np.random.default_rng(5)
    q = rng.standard_normal((BATCH, 1, Q_HEADS, DIM)).astype(np.float32) * 3
    k = rng.standard_normal((BATCH, TOKENS, KV_HEADS, DIM)).astype(np.float32)
    v = rng.standard_normal((BATCH, TOKENS, KV_HEADS, DIM)).astype(np.float32)
    exact = attention(q, k, v)
    device = octavo.Device("cpu")

    for dtype, per, limit in (("e4m3", "token", 0.04), ("int8", "channel", 0.02), ("e5m2", "tensor", 0.08)):
        x = k[0, :, 0]
        codes, scales = device.quantize(x, dtype, per=per)
        assert distance(device.dequantize(codes, scales, dtype, per=per), x) < limit, dtype
        again, _ = device.quantize(x, dtype, per=per, scales=scales)
        assert (again == codes).all()

    assert distance(device.decode(q, k, v).out, exact) < 1e-5
    major = device.decode(q, np.ascontiguousarray(k.transpose(0, 2, 1, 3)), np.ascontiguousarray(v.transpose(0, 2, 1, 3)), head_major=True)
    assert distance(major.out, exact) < 1e-5
    short = device.decode(q, k, v, lengths=np.array([100, TOKENS], dtype=np.int32))
    assert distance(short.out[:1], attention(q[:1], k[:1, :100], v[:1, :100])) < 1e-5

    cache = device.cache(kv_heads=KV_HEADS, head_dim=DIM, k="int8x2", v="int8", max_tokens=1024, max_sequences=3)
    sequences = [cache.sequence() for _ in range(BATCH)]
    cache.append(sequences, k[:, :300], v[:, :300])
    cache.append(sequences, k[:, 300:], v[:, 300:])
    dense = cache.decode(sequences, q)
    assert distance(dense.out, exact) < 0.02 and (dense.skip_ratio == 0).all()
    pruned = cache.decode(sequences, q, select="mass", epsilon=0.6)
    assert distance(pruned.out, exact) < 0.6 and (pruned.skip_ratio > 0).all()
    assert (pruned.bytes_read < dense.bytes_read).all() and (pruned.kept == 2).any() and (pruned.dropped_mass <= 0.65).all()
    child = cache.fork(sequences[0])
    assert (cache.decode([child], q[:1]).out == cache.decode(sequences[:1], q[:1]).out).all()
    assert (cache.decode([child], q[:1], splits="fixed").out == cache.decode(sequences, q, splits="fixed").out[:1]).all()
    cache.truncate(child, 100)
    assert distance(cache.decode([child], q[:1]).out, attention(q[:1], k[:1, :100], v[:1, :100])) < 0.02

    check_own_tensors(device, q, k, v)
    check_example()
    expect_error("epsilon", lambda: cache.decode(sequences, q, select="mass", epsilon=2.0))
    expect_error("there is no device", lambda: octavo.Device("tpu"))
    expect_error("1024", lambda: cache.append(sequences, k, v))
    expect_error("head_dim", lambda: octavo.Device("cpu").cache(kv_heads=1, head_dim=0, max_tokens=64))
    print(f"liboctavo {octavo.version()}: the Python API agrees with NumPy ({os.environ.get('OCTAVO_LIBRARY', 'found by itself')})")
    try_gpu()


main()
