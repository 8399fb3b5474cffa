#!/usr/bin/env python3
"""make_tiny_checkpoint.py - writes a very small Llama checkpoint with random weights, its tokenizer, and its exact logits.

    tools/make_tiny_checkpoint.py tests/golden/tiny-llama

The logits come from a forward pass in float64, written here from the architecture's definition and independent of the library.
The same script gives the same bytes: weights come from Python's Mersenne Twister, merges from the passage below. Needs numpy."""
import json
import os
import random
import struct
import sys

import numpy as np

LAYERS, HIDDEN, Q_HEADS, KV_HEADS, HEAD_DIM, INTERMEDIATE = 2, 32, 4, 2, 16, 56
CONTEXT, THETA, EPS, MERGES, BATCH, TOKENS = 256, 10000.0, 1e-5, 40, 2, 24
PASSAGE = """def mean(values):
    total = 0.0
    for value in values:
        total += value
    return total / len(values)

def largest(values):
    best = values[0]
    for value in values[1:]:
        if value > best:
            best = value
    return best
"""
SPECIAL = ["<|begin_of_text|>", "<|end_of_text|>"]
SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"


# ---- the tokenizer ----

def byte_characters():
    """The printable character that stands for each byte in a byte-level vocabulary."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    table, extra = {}, 0
    for byte in range(256):
        if byte in printable:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def words(text):
    """Runs of letters with a blank in front, and single characters: coarser than SPLIT, which is all that merges need."""
    found, word = [], ""
    for character in text:
        if character.isalpha() and (not word or word[-1].isalpha() or word == " "):
            word += character
        else:
            found.append(word)
            word = character
    return [piece for piece in [*found, word] if piece]


def make_tokenizer():
    characters = byte_characters()
    vocab = {text: i for i, text in enumerate(SPECIAL)}
    for byte in range(256):
        vocab[characters[byte]] = len(vocab)
    pieces = [[characters[b] for b in word.encode()] for word in words(PASSAGE)]
    merges = []
    while len(merges) < MERGES:
        counts = {}
        for piece in pieces:
            for pair in zip(piece, piece[1:]):
                counts[pair] = counts.get(pair, 0) + 1
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(list(best))
        vocab["".join(best)] = len(vocab)
        for piece in pieces:
            for i in range(len(piece) - 1, 0, -1):
                if (piece[i - 1], piece[i]) == best:
                    piece[i - 1:i + 1] = ["".join(best)]
    special = [{"id": i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
               for i, text in enumerate(SPECIAL)]
    split = {"type": "Split", "pattern": {"Regex": SPLIT}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    model = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
             "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab, "merges": merges}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": special, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}, "post_processor": None,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}, "model": model}


# ---- the model ----

def make_weights(vocab):
    draw = random.Random(20261121)

    def matrix(rows, columns, deviation):
        spread = deviation * 12 ** 0.5
        return np.array([(draw.random() - 0.5) * spread for _ in range(rows * columns)], np.float32).reshape(rows, columns)

    def near_one(width):
        return (1 + 0.1 * matrix(1, width, 1.0)[0]).astype(np.float32)

    weights = {"model.embed_tokens.weight": matrix(vocab, HIDDEN, 0.4), "model.norm.weight": near_one(HIDDEN)}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        weights[at + "input_layernorm.weight"] = near_one(HIDDEN)
        weights[at + "post_attention_layernorm.weight"] = near_one(HIDDEN)
        for name, rows, columns in (("self_attn.q_proj", Q_HEADS * HEAD_DIM, HIDDEN), ("self_attn.k_proj", KV_HEADS * HEAD_DIM, HIDDEN),
                                    ("self_attn.v_proj", KV_HEADS * HEAD_DIM, HIDDEN), ("self_attn.o_proj", HIDDEN, Q_HEADS * HEAD_DIM),
                                    ("mlp.gate_proj", INTERMEDIATE, HIDDEN), ("mlp.up_proj", INTERMEDIATE, HIDDEN),
                                    ("mlp.down_proj", HIDDEN, INTERMEDIATE)):
            weights[f"{at}{name}.weight"] = matrix(rows, columns, 1.2 * columns ** -0.5)
    return weights


def rms_norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + EPS) * weight


def rotate(x):
    """x [tokens, heads, HEAD_DIM]: element i and i + HEAD_DIM / 2 are a pair."""
    half = HEAD_DIM // 2
    angles = np.arange(x.shape[0])[:, None] * THETA ** (-np.arange(half) * 2.0 / HEAD_DIM)
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]
    a, b = x[..., :half], x[..., half:]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def attention(h, weights, at):
    tokens = h.shape[0]
    q = rotate((h @ weights[at + "q_proj.weight"].T).reshape(tokens, Q_HEADS, HEAD_DIM))
    k = rotate((h @ weights[at + "k_proj.weight"].T).reshape(tokens, KV_HEADS, HEAD_DIM))
    v = (h @ weights[at + "v_proj.weight"].T).reshape(tokens, KV_HEADS, HEAD_DIM)
    out = np.empty_like(q)
    for head in range(Q_HEADS):
        kv = head // (Q_HEADS // KV_HEADS)
        scores = q[:, head] @ k[:, kv].T * HEAD_DIM ** -0.5
        scores[np.triu_indices(tokens, 1)] = -np.inf
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        out[:, head] = shares / shares.sum(-1, keepdims=True) @ v[:, kv]
    return out.reshape(tokens, -1) @ weights[at + "o_proj.weight"].T


def logits_of(ids, weights):
    weights = {name: value.astype(np.float64) for name, value in weights.items()}
    x = weights["model.embed_tokens.weight"][ids]
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        x = x + attention(rms_norm(x, weights[at + "input_layernorm.weight"]), weights, at + "self_attn.")
        h = rms_norm(x, weights[at + "post_attention_layernorm.weight"])
        gate, up = h @ weights[at + "mlp.gate_proj.weight"].T, h @ weights[at + "mlp.up_proj.weight"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ weights[at + "mlp.down_proj.weight"].T
    return rms_norm(x, weights["model.norm.weight"]) @ weights["model.embed_tokens.weight"].T


# ---- files ----

def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, value in sorted(tensors.items()):
        dtype = {"float32": "F32", "int32": "I32"}[value.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(value.shape), "data_offsets": [len(data), len(data) + value.nbytes]}
        data += value.tobytes()
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text + data)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: make_tiny_checkpoint.py FOLDER")
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    tokenizer = make_tokenizer()
    vocab = len(tokenizer["model"]["vocab"])
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "attention_bias": False,
              "mlp_bias": False, "tie_word_embeddings": True, "torch_dtype": "float32", "bos_token_id": 0, "eos_token_id": 1,
              "vocab_size": vocab, "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": Q_HEADS,
              "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "intermediate_size": INTERMEDIATE, "rope_theta": THETA,
              "rope_scaling": None, "rms_norm_eps": EPS, "max_position_embeddings": CONTEXT}
    weights = make_weights(vocab)
    draw = random.Random(7)
    ids = np.array([[draw.randrange(vocab) for _ in range(TOKENS)] for _ in range(BATCH)], np.int32)
    logits = np.stack([logits_of(row, weights) for row in ids]).astype(np.float32)
    for name, value in (("config.json", config), ("tokenizer.json", tokenizer)):
        with open(os.path.join(folder, name), "w", encoding="utf-8") as out:
            json.dump(value, out, ensure_ascii=True, indent=1 if name == "config.json" else None)
            out.write("\n")
    write_safetensors(os.path.join(folder, "model.safetensors"), weights)
    write_safetensors(os.path.join(folder, "golden.safetensors"), {"input_ids": ids, "logits": logits})


if __name__ == "__main__":
    main()
