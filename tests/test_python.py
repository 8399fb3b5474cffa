#!/usr/bin/env python3
"""test_python.py - python/octavo.py against NumPy: quantise, a cache of nested planes, the caller's own tensors, refusals.

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
           "octavo_quantize_params": octavo._Quantize, "octavo_dequantize_params": octavo._Dequantize}
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


def distance(a, b):
    return np.linalg.norm(a - b) / np.linalg.norm(b)


def expect_error(word, call):
    try:
        call()
    except octavo.Error as error:
        assert word in str(error), str(error)
        return
    raise AssertionError(f"no error that speaks of {word}")


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
    cache.truncate(child, 100)
    assert distance(cache.decode([child], q[:1]).out, attention(q[:1], k[:1, :100], v[:1, :100])) < 0.02

    expect_error("epsilon", lambda: cache.decode(sequences, q, select="mass", epsilon=2.0))
    expect_error("there is no device", lambda: octavo.Device("tpu"))
    expect_error("1024", lambda: cache.append(sequences, k, v))
    expect_error("head_dim", lambda: octavo.Device("cpu").cache(kv_heads=1, head_dim=0, max_tokens=64))
    print(f"liboctavo {octavo.version()}: the Python API agrees with NumPy ({os.environ.get('OCTAVO_LIBRARY', 'found by itself')})")


main()
