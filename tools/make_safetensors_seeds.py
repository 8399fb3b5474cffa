#!/usr/bin/env python3
"""make_safetensors_seeds.py - writes the seed corpora of fuzz_safetensors and fuzz_recording.

    tools/make_safetensors_seeds.py            rewrites tests/fuzz/corpus/{safetensors,recording}/

Each seed is one small file that reaches one branch of a reader; the same run gives the same bytes.
"""
import json
import os
import struct

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fuzz", "corpus")
BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F4": 0.5}


def frame(text, data=b"", length=None):
    """The file whose header is `text`; `length` is what it claims to be long."""
    raw = text if isinstance(text, bytes) else text.encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def tensors(specs, metadata=None):
    """A valid file of (name, dtype, shape) in order."""
    header, end = {}, 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name, dtype, shape in specs:
        size = BYTES[dtype]
        for extent in shape:
            size *= extent
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + int(size)]}
        end += int(size)
    return frame(json.dumps(header, separators=(",", ":")), bytes(i & 255 for i in range(end)))


def one(shape="[2]", offsets="[0,8]", dtype='"F32"', data=8):
    return frame(f'{{"a":{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}}}', bytes(data))


def two(first, second, data):
    entry = '"%s":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}'
    parts = [entry % (name, end - begin, begin, end) for name, (begin, end) in (("a", first), ("b", second))]
    return frame("{" + ",".join(parts) + "}", bytes(data))


SAFETENSORS = {
    "valid": tensors([("a", "F64", [1]), ("b", "F32", [2, 1]), ("c", "BF16", [0, 3]), ("d", "F8_E4M3", [])], {"layout": "x"}),
    "unsupported": tensors([("a", "BOOL", [2]), ("b", "U8", [1] * 7), ("c", "F4", [2]), ("d", "BF16", [1])]),
    "no_tensors": frame("{}"),
    "short": b"\x02\0\0",
    "length_over_limit": frame("{}", length=100000001),
    "length_past_end": frame("{}", length=99),
    "not_an_object": frame("[1,2]"),
    "broken_json": frame('{"a":'),
    "not_utf8": frame(b'{"\xff":{}}'),
    "duplicate": frame('{"a":{},"a":{}}'),
    "tensor_not_object": frame('{"a":1}'),
    "dtype_missing": frame('{"a":{}}'),
    "dtype_unknown": one(dtype='"F7"'),
    "shape_missing": frame('{"a":{"dtype":"U8"}}'),
    "shape_negative": one(shape="[-1]"),
    "shape_real": one(shape="[2.0]"),
    "shape_overflow": one(shape="[4294967296,4294967296]"),
    "shape_bytes_overflow": one(shape="[4611686018427387904]"),
    "offsets_missing": one(offsets="[0]"),
    "offsets_outside": one(offsets="[0,9]"),
    "offsets_mismatch": one(offsets="[0,4]"),
    "overlap": two((0, 4), (2, 6), 6),
    "hole": two((0, 4), (5, 6), 6),
    "trailing": two((0, 4), (4, 6), 9),
    "empty_overlap": two((0, 4), (0, 0), 4),
    "metadata_not_object": frame('{"__metadata__":7}'),
    "metadata_not_string": frame('{"__metadata__":{"k":7}}'),
}

Q, K, V = ("layer_3.q_rope", "BF16", [1, 2, 1, 2]), ("layer_3.k_rope", "BF16", [1, 1, 2, 2]), ("layer_3.v", "BF16", [1, 1, 2, 1])
H, QU, KU = ("layer_3.h", "F32", [1, 2, 2]), ("layer_3.q_unrope", "BF16", [1, 2, 1, 2]), ("layer_3.k_unrope", "BF16", [1, 1, 2, 2])

RECORDING = {
    "valid": tensors([H, K, KU, Q, QU, V]),
    "required_only": tensors([K, Q, V]),
    "two_layers": tensors([K, Q, V, ("layer_10.v", "F16", [1])]),
    "no_layer": tensors([("lm_head", "F32", [1])]),
    "many_layers": tensors([(f"layer_{i}.v", "U8", [1]) for i in range(14)]),
    "odd_names": tensors([(f"layer_{n}", "U8", [1]) for n in ("", "1", "01.v", "4294967296.v", "2.w")] + [("layer_0.v", "U8", [1])]),
    "q_missing": tensors([K, V]),
    "k_dtype": tensors([(K[0], "I64", K[2]), Q, V]),
    "v_dtype": tensors([K, Q, (V[0], "F16", V[2])]),
    "k_rank": tensors([(K[0], "BF16", [4]), Q, V]),
    "v_rank_unsupported": tensors([K, Q, (V[0], "BF16", [1] * 7)]),
    "k_empty": tensors([(K[0], "BF16", [1, 1, 0, 2]), Q, V]),
    "v_shape": tensors([K, Q, (V[0], "BF16", [1, 1, 1, 1])]),
    "q_shape": tensors([K, (Q[0], "BF16", [1, 2, 3, 2]), V]),
    "h_shape": tensors([K, Q, V, (H[0], "BF16", [1, 3, 1])]),
    "q_unrope_shape": tensors([K, Q, V, (QU[0], "BF16", [1, 1, 1, 2])]),
    "k_unrope_shape": tensors([K, Q, V, (KU[0], "BF16", [1, 1, 1, 2])]),
}


def main():
    for folder, seeds in (("safetensors", SAFETENSORS), ("recording", RECORDING)):
        os.makedirs(os.path.join(CORPUS, folder), exist_ok=True)
        for name, content in seeds.items():
            with open(os.path.join(CORPUS, folder, name), "wb") as out:
                out.write(content)


if __name__ == "__main__":
    main()
