#!/usr/bin/env python3
"""make_tokenizer_seeds.py - writes the seed corpus of fuzz_tokenizer.

    tools/make_tokenizer_seeds.py            rewrites tests/fuzz/corpus/tokenizer/

Each seed is a small tokenizer.json, a zero byte and a text; the same run gives the same bytes.
"""
import json
import os

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fuzz", "corpus", "tokenizer")
LETTERS = "abcdefgh \u0120\u010a\u2581<>0x1'"
BYTES_ONLY = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
TEXT = "abc  <s>ab\n\u00e9e\u0301 12 it's \ud55c\u1112\u1161\u11ab \u212b x\u3000<m> word aword \U0001f642"


def added(index, content, **switches):
    names = ("single_word", "lstrip", "rstrip", "normalized", "special")
    return {"id": index, "content": content, **{name: switches.get(name, False) for name in names}}


def tokenizer(**parts):
    """A small file; `model` and the other parts replace what is usual, None leaves them out."""
    vocabulary = {letter: i for i, letter in enumerate(LETTERS)}
    vocabulary.update({"ab": 40, "abc": 41, "\u2581a": 42, "<0x0A>": 43, "<0xC3>": 44, "<0xA9>": 45, "<unk>": 46})
    root = {"version": "1.0", "added_tokens": [added(50, "<s>", special=True)], "normalizer": None, "pre_tokenizer": BYTES_ONLY,
            "post_processor": None, "decoder": {"type": "ByteLevel"},
            "model": {"type": "BPE", "dropout": None, "vocab": vocabulary, "merges": ["a b", "ab c", ["\u2581", "a"]]}}
    root["model"].update(parts.pop("model", {}))
    root.update(parts)
    return root


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def regex(text):
    return {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split({"Regex": text}), BYTES_ONLY]}}


def sequence(name, *steps):
    return {"type": "Sequence", name: list(steps)}


JOINED = sequence("decoders", {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}, {"type": "ByteFallback"},
                  {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0})
FALLBACK = {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
TEMPLATE = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [50], "tokens": ["<s>"]}}}

VALID = {
    "plain": {},
    "gpt2": {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": True},
             "model": {"unk_token": "", "continuing_subword_prefix": "", "end_of_word_suffix": "", "merges": ["#version: 0.2", "a b"]}},
    "llama3": {**regex(r"(?i:'s|'t)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"),
               "model": {"ignore_merges": True}, "post_processor": sequence("processors", {"type": "ByteLevel"}, TEMPLATE)},
    "escapes": regex(r"(?i)[\w\h\d\S\v\n\b\]\x41\u0042\x{43}]|\W|\H|\bx\B|\Az|\z|\Z|\p{^Lu}\P{Letter}|\p{Greek}|\p{L}|(?>x)(?<=y)(?<!z)|x{2,3}?|x{2}|x{2,}|(a)|]|}|\D"),
    "nfc": {"normalizer": {"type": "NFC"}, "added_tokens": [added(50, "e\u0301", normalized=True), added(51, "<m>", lstrip=True, rstrip=True),
                                                             added(52, "word", single_word=True)]},
    "llama2": {"normalizer": sequence("normalizers", {"type": "Prepend", "prepend": "\u2581"},
                                      {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}),
               "pre_tokenizer": None, "decoder": JOINED, "model": FALLBACK},
    "mistral": {"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "first", "split": False}, "decoder": JOINED,
                "model": {**FALLBACK, "fuse_unk": False}},
    "metaspace": {"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
                  "decoder": {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": "always", "split": True},
                  "normalizer": {"type": "Replace", "pattern": {"Regex": " {2,}|$"}, "content": " "}},
    "metaspace_old": {"pre_tokenizer": {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": False},
                      "decoder": {"type": "Metaspace", "replacement": "\u2581", "add_prefix_space": True}},
    "behaviors": {"pre_tokenizer": sequence("pretokenizers", split({"String": " "}, "Removed"), split({"String": "b"}, "MergedWithPrevious"),
                                            split({"Regex": "c|"}, "MergedWithNext"), split({"Regex": "\\w+"}, "Contiguous", True),
                                            {"type": "Digits", "individual_digits": True}, {"type": "Digits", "individual_digits": False}),
                  "decoder": {"type": "Fuse"}},
    "roberta": {"post_processor": {"type": "RobertaProcessing", "cls": ["<s>", 50], "sep": ["a", 0]}},
    "sparse_ids": {"model": {"vocab": {"z": 2147483646, "a": 70000, "b": 3}, "merges": []}, "added_tokens": None},
    "hostile": regex("(?:a*)*b|."),
    "memory": regex("(?:a|aa)+b|a"),
    "no_bytes": {"decoder": {"type": "ByteLevel"}, "added_tokens": [added(60, "\uff5c", special=True), added(61, "")]},
}

REFUSED = {
    "model_type": {"model": {"type": "Unigram"}}, "model_member": {"model": {"speed": 1}}, "dropout": {"model": {"dropout": 0.5}},
    "prefix": {"model": {"continuing_subword_prefix": "##"}}, "unknown": {"model": {"unk_token": "<none>"}},
    "merge_one": {"model": {"merges": ["ab"]}}, "merge_list": {"model": {"merges": [["a"]]}}, "merge_lost": {"model": {"merges": ["a zz"]}},
    "id_negative": {"model": {"vocab": {"a": -1}}}, "id_text": {"model": {"vocab": {"a": "1"}}}, "id_twice": {"model": {"vocab": {"a": 1, "b": 1}, "merges": []}},
    "bool": {"model": {"fuse_unk": 1}}, "merges": {"model": {"merges": 7}}, "vocab_empty": {"model": {"vocab": {}, "merges": []}, "added_tokens": []},
    "added_list": {"added_tokens": 7}, "added_id": {"added_tokens": [{"id": "x"}]}, "added_other": {"added_tokens": [added(9, "a")]},
    "added_long": {"added_tokens": [added(90, "x" * 1025)]}, "added_bool": {"added_tokens": [{"id": 90, "content": "q", "special": 1}]},
    "normalizer_type": {"normalizer": {"type": "Lowercase"}}, "normalizer_deep": {"normalizer": None},
    "normalizer_many": {"normalizer": sequence("normalizers", *[{"type": "NFC"}] * 17)}, "prepend_long": {"normalizer": {"type": "Prepend", "prepend": "x" * 300}},
    "pattern_empty": {"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": ""}},
    "pre_type": {"pre_tokenizer": {"type": "Whitespace"}}, "pre_twice": {"pre_tokenizer": sequence("pretokenizers", BYTES_ONLY, BYTES_ONLY)},
    "pre_many": {"pre_tokenizer": sequence("pretokenizers", *[split({"String": "x"})] * 33)}, "pre_behavior": {"pre_tokenizer": split({"String": "x"}, "Odd")},
    "pre_scheme": {"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "odd"}},
    "pre_mark": {"pre_tokenizer": {"type": "Metaspace", "replacement": "__"}},
    "regex_empty": regex(""), "regex_long": regex("x" * 3000), "regex_group": regex("(?<n>x)"), "regex_open": regex("(x"), "regex_close": regex("x)"),
    "regex_class": regex("[x"), "regex_nested": regex("[[x]]"), "regex_and": regex("[a&&b]"), "regex_first": regex("[]x]"), "regex_property": regex(r"\p{L"),
    "regex_name": regex(r"\p{a b}"), "regex_brace": regex(r"\pL"), "regex_none": regex(r"\p{}"), "regex_script": regex(r"\p{Nosuch}"), "regex_hex": regex(r"\u00g"),
    "regex_byte": regex(r"\xff"), "regex_end": regex("x\\"), "regex_reference": regex(r"(x)\1"), "regex_interval": regex("x{,2}"),
    "regex_order": regex("x{3,1}"), "regex_many": regex("x{1,5000}"), "regex_comma": regex("x{1;2}"), "regex_repeat": regex("x{1,2}+"),
    "decoder_none": {"decoder": None}, "decoder_type": {"decoder": {"type": "CTC"}}, "decoder_order": {"decoder": sequence("decoders", {"type": "Fuse"}, {"type": "ByteLevel"})},
    "decoder_late": {"decoder": sequence("decoders", {"type": "Fuse"}, {"type": "Replace", "pattern": {"String": "x"}, "content": ""})},
    "decoder_many": {"decoder": sequence("decoders", *[{"type": "Replace", "pattern": {"String": "x"}, "content": "y"}] * 5)},
    "decoder_grows": {"decoder": {"type": "Replace", "pattern": {"String": "a"}, "content": "b" * 9000}},
    "decoder_empty": {"decoder": {"type": "Replace", "pattern": {"String": ""}, "content": ""}},
    "strip_alone": {"decoder": {"type": "Strip", "content": " ", "start": 1, "stop": 0}}, "strip_stop": {"decoder": {"type": "Strip", "content": " ", "start": 0, "stop": 2}},
    "strip_text": {"decoder": sequence("decoders", {"type": "Fuse"}, {"type": "Strip", "content": "ab", "start": 1, "stop": 0})},
    "mark_empty": {"decoder": {"type": "Metaspace", "replacement": ""}}, "post_id": {"post_processor": {"type": "BertProcessing", "cls": ["x", 999], "sep": ["x", 0]}},
    "post_single": {"post_processor": {"type": "TemplateProcessing", "single": []}}, "post_list": {"post_processor": {"type": "Sequence", "processors": 7}},
}


def deep(kind, name, leaf):
    for _ in range(10):
        leaf = {"type": "Sequence", name: [leaf]}
    return {kind: leaf}


REFUSED["normalizer_deep"] = deep("normalizer", "normalizers", {"type": "NFC"})
REFUSED["pre_deep"] = deep("pre_tokenizer", "pretokenizers", BYTES_ONLY)
REFUSED["decoder_deep"] = deep("decoder", "decoders", {"type": "Fuse"})
REFUSED["post_deep"] = deep("post_processor", "processors", {"type": "ByteLevel"})


def main():
    os.makedirs(CORPUS, exist_ok=True)
    texts = {"hostile": "a" * 3000, "memory": "a" * 4000, "sparse_ids": "abzb"}
    seeds = {name: json.dumps(tokenizer(**parts), ensure_ascii=False, separators=(",", ":")).encode() + b"\0" + texts.get(name, TEXT).encode()
             for name, parts in {**VALID, **REFUSED}.items()}
    usual = json.dumps(tokenizer(), separators=(",", ":")).encode()
    marks = "".join("a" + "\u0301\u0327\u0315" * 8 for _ in range(4)).encode()
    nfc = json.dumps(tokenizer(**VALID["nfc"]), ensure_ascii=False, separators=(",", ":")).encode()
    seeds.update(not_json=b"{", list=b"[]\0x", not_utf8=usual + b"\0ab\xff\xc3", marks=nfc + b"\0" + marks, empty_text=usual + b"\0", text_alone=TEXT.encode())
    for name, data in seeds.items():
        with open(os.path.join(CORPUS, name), "wb") as file:
            file.write(data)


main()
