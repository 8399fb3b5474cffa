#!/usr/bin/env python3
"""make_sample.py - cuts the small recording in data/ out of a full one.

    tools/make_sample.py SOURCE.safetensors data/sample-layers.safetensors

Keeps the last TOKENS positions of k_rope and v and the last QUERIES rows of q_rope of each layer, so that the queries are
still those of the last kept positions. Keys and queries carry the rotary angles of their positions in the full recording;
scores depend on differences of positions only, so the cut is attention over a context that begins later. The optional h,
q_unrope and k_unrope are left out: a recording may have h of its first positions only, which the cut drops.
The same source gives the same bytes.
"""
import argparse
import json
import os
import struct
import sys

ELEMENT_BYTES = {"BF16": 2, "F16": 2, "F32": 4}
DATA_ALIGNMENT = 64  # a cache line; the header is padded to it
PREFIX_BYTES = 8


def read_header(source):
    (length,) = struct.unpack("<Q", source.read(PREFIX_BYTES))
    header = json.loads(source.read(length))
    header.pop("__metadata__", None)
    return header, PREFIX_BYTES + length


def last_rows(source, data_start, entry, rows):
    """The last `rows` of dimension 2 of a [batch, heads, rows, dim] tensor: (shape, bytes)."""
    batch, heads, total, dim = entry["shape"]
    if rows > total:
        sys.exit(f"make_sample.py: {rows} rows wanted, the source has {total}")
    row_bytes = dim * ELEMENT_BYTES[entry["dtype"]]
    parts = []
    for head in range(batch * heads):
        source.seek(data_start + entry["data_offsets"][0] + (head * total + total - rows) * row_bytes)
        parts.append(source.read(rows * row_bytes))
    return [batch, heads, rows, dim], b"".join(parts)


def write_file(path, metadata, tensors):
    header, data = {"__metadata__": metadata}, []
    end = 0
    for name, dtype, shape, content in tensors:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + len(content)]}
        end += len(content)
        data.append(content)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(PREFIX_BYTES + len(text)) % DATA_ALIGNMENT)
    partial = path + ".partial"
    with open(partial, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + b"".join(data))
    os.replace(partial, path)
    return PREFIX_BYTES + len(text) + end


def main():
    parser = argparse.ArgumentParser(description="Cuts the last tokens of recorded layers into a small file.")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("--layers", default="1", help="numbers of the layers, with commas (default 1)")
    parser.add_argument("--tokens", type=int, default=4096, help="positions of k_rope and v to keep (default 4096)")
    parser.add_argument("--queries", type=int, default=64, help="rows of q_rope to keep (default 64)")
    arguments = parser.parse_args()

    tensors = []
    with open(arguments.source, "rb") as source:
        header, data_start = read_header(source)
        for layer in arguments.layers.split(","):
            for suffix, rows in (("k_rope", arguments.tokens), ("q_rope", arguments.queries), ("v", arguments.tokens)):
                name = f"layer_{layer}.{suffix}"
                if name not in header:
                    sys.exit(f"make_sample.py: {arguments.source} has no tensor '{name}'")
                shape, content = last_rows(source, data_start, header[name], rows)
                tensors.append((name, header[name]["dtype"], shape, content))
    metadata = {
        "what": f"the last {arguments.tokens} positions of layer {arguments.layers} of a 32 M parameter transformer reading "
                "held-out Python code, 16384 tokens of context",
        "layout": f"k_rope, v: [B, kv_heads, {arguments.tokens}, D]; q_rope: [B, q_heads, {arguments.queries}, D], the last "
                  "positions; all after RoPE at their positions in the full context",
        "source": f"cut from {os.path.basename(arguments.source)} by tools/make_sample.py",
        "licence": "Apache-2.0",
    }
    print(f"{arguments.target}: {write_file(arguments.target, metadata, tensors)} bytes")


if __name__ == "__main__":
    main()
