#!/usr/bin/env python3
"""make_tokenizer_golden.py - trains small tokenizers of every kind and writes what the `tokenizers` package makes of odd texts.

    tools/make_tokenizer_golden.py                      rewrites tests/golden/tokenizer_*.json
    tools/make_tokenizer_golden.py --random N --out DIR  the same with N random texts a kind, for a longer comparison

Needs the Python package `tokenizers`. A file holds a whole tokenizer.json and cases: the text, its ids, whether special tokens were
left unparsed (`plain`), and the decoded text where that is valid UTF-8.
"""
import argparse
import json
import os
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
VOCABULARY = 420
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace("{1,3}", "")
O200K = (r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
         r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PUNCTUATED = (r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|"""
              r"\s*[\r\n]+|\s+(?!\S)|\s+")

TEXTS = [
    "", " ", "  ", "\n", "\r\n\r\n x", "\t\tx", "a", "Hello, world!", " leading and trailing  ", "it's I'M we've THEY'LL don'T 'ſ 'S",
    "1234567890 12 3456 ½ ² ٣٤٥ Ⅷ", "def f(x):\n    return x + 1\n\n\n", "naïve café — “quotes”…", "cafe\u0301 A\u030a \u1e9b\u0323 q\u0307\u0323 \u0344\u0301",
    "일본 한국어 \u1112\u1161\u11ab \u1100\u1161", "日本語のテキスト。漢字", "🙂👩‍👩‍👧 emoji 🇩🇪", "مرحبا بالعالم", "Привет, мир! ЁЖ", "ααα ΑΒΓ ὕδωρ",
    "x" * 70, " " * 40 + "y", "\n" * 9 + " z", "a\u00a0b\u2003c\u3000d\u0085e\u180ef\u200bg", "zero\u0001\u001b[31m\u007f\ufffd\ufeff",
    "▁ already ▁▁ marked", "<0x41><0x0A> text", "a<|endoftext|>b<|endoftext|>", "<s>x</s> y<unk>", "  <mask>  x<mask>y<mask>", "one<tool>two <tool> three",
    "wordword word xword word.", "Élan elan ＡＢＣ ﬁ Å \u212b", "snake_case __init__ a_b", "http://example.org/a?b=c&d=%20#e", "𝒳 𐐷 \U0010ffff \ue000",
    "deutsch: Straße, Größe, ß; ŒUVRE œuvre", "if(a&&b||!c){return -1;}//ok", "…—–‐ ‚‘’“”„ ¿¡", "The the THE tHe thE", "\u0301\u0300 lone marks \u0327\u0301",
]
ALPHABET = (" \n\t\r'.,_-/<>|▁" + "aabcdeehiilmnorsttuABCST" + "0123459" + "éßſKñ" + "\u0301\u0327\u0323\u00a0\u3000" + "日本語한글ЖжΩ" + "🙂½²")


def corpus():
    lines = []
    for name in ("README.md", "docs/ARCHITECTURE.md", "src/tokenizer/bpe.c"):
        with open(os.path.join(ROOT, name), encoding="utf-8") as file:
            lines += file.read().split("\n")
    return [line + "\n" for line in lines[:500]] + TEXTS[:30] * 2


def added(text, special=True, **switches):
    return AddedToken(text, special=special, normalized=switches.pop("normalized", not special), **switches)


def byte_level(pre, normalizer=None, special=("<|endoftext|>",), ignore_merges=False):
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(
        vocab_size=VOCABULARY, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), special_tokens=[added(s) for s in special],
        show_progress=False))
    return tokenizer


def split(pattern, behavior="isolated", invert=False):
    return pre_tokenizers.Split(pattern, behavior, invert)


def then_bytes(*steps):
    return pre_tokenizers.Sequence([*steps, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def gpt2():
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))


def prefixed():
    return byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))


def llama3():
    tokenizer = byte_level(then_bytes(split(Regex(LLAMA3))), special=("<|begin_of_text|>", "<|end_of_text|>"), ignore_merges=True)
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), processors.TemplateProcessing(
        single="<|begin_of_text|> $A", pair="<|begin_of_text|> $A <|begin_of_text|> $B", special_tokens=[("<|begin_of_text|>", 0)])])
    return tokenizer


def qwen2():
    tokenizer = byte_level(then_bytes(split(Regex(QWEN2))), normalizers.NFC())
    tokenizer.add_tokens([added("<tool>", special=False), added("caf\u00e9", special=False), added("word", special=False, single_word=True),
                          added("<mask>", lstrip=True, rstrip=True), added("<m", special=False, normalized=False)])
    return tokenizer


def o200k():
    return byte_level(then_bytes(split(Regex(O200K))))


def punctuated():
    return byte_level(then_bytes(split(Regex(r"\p{N}{1,3}")), split(Regex("[一-龥\u3040-ゟ゠-ヿ]+")), split(Regex(PUNCTUATED))))


def behaviors():
    """Every behaviour of Split and Digits, over a vocabulary without a fallback."""
    steps = [pre_tokenizers.Digits(individual_digits=False), split(" ", "merged_with_next"), split(Regex(r"[.,!?]"), "merged_with_previous"),
             split(Regex(r"\w+"), "contiguous", invert=True), split(Regex("_|<|-+"), "removed"), split(Regex("(?<=a)|\\b(?=t)"), "isolated"),
             split("e", "contiguous")]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=False))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.Fuse()
    tokenizer.train_from_iterator(corpus(), trainers.BpeTrainer(vocab_size=300, limit_alphabet=60, special_tokens=[added("<unk>")], show_progress=False))
    return tokenizer


SENTENCE = "The quick brown fox jumps over the lazy dog. der die das und ist nicht ein eine it's we have return value ".split()


def sentence_piece(normalizer, pre, decoder, fuse=True, fallback=True):
    """The shape of a converted SentencePiece model: marks for blanks, bytes as tokens of their own."""
    words = [word for line in corpus() for word in line.split()] + SENTENCE * 3
    trained = Tokenizer(models.BPE())
    trained.train_from_iterator(["▁" + word for word in words], trainers.BpeTrainer(vocab_size=VOCABULARY - 260, limit_alphabet=80, show_progress=False))
    model = json.loads(trained.to_str())["model"]
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2}
    for byte in range(256 if fallback else 0):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    for token in model["vocab"]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(merge) for merge in model["merges"]]
    for run in (["▁", "▁"], ["▁▁", "▁▁"], ["▁▁▁▁", "▁▁▁▁"]):
        vocabulary.setdefault("".join(run), len(vocabulary))
        merges.append(tuple(run))
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=fuse, byte_fallback=fallback))
    tokenizer.add_special_tokens([added("<unk>"), added("<s>"), added("</s>")])
    tokenizer.normalizer, tokenizer.decoder = normalizer, decoder
    if pre:
        tokenizer.pre_tokenizer = pre
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def joined():
    return decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])


def llama2():
    return sentence_piece(normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]), None, joined())


def mistral():
    return sentence_piece(None, pre_tokenizers.Metaspace("▁", prepend_scheme="first", split=False), joined())


def metaspace():
    return sentence_piece(normalizers.Replace(Regex(" {3,}"), "  "), pre_tokenizers.Metaspace("▁", prepend_scheme="always", split=True),
                          decoders.Metaspace("▁", prepend_scheme="always", split=True), fuse=True, fallback=False)


KINDS = {"gpt2": gpt2, "prefixed": prefixed, "llama3": llama3, "qwen2": qwen2, "o200k": o200k, "punctuated": punctuated,
         "behaviors": behaviors, "llama2": llama2, "mistral": mistral, "metaspace": metaspace}


def random_texts(count):
    draw = random.Random(7)
    for _ in range(count):
        yield "".join(draw.choice(ALPHABET) for _ in range(draw.randrange(1, 40)))


def case(tokenizer, text, plain):
    tokenizer.encode_special_tokens = plain
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    result = {"text": text, "ids": ids}
    if plain:
        result["plain"] = True
    decoded = tokenizer.decode(ids, skip_special_tokens=False)
    if "\ufffd" not in decoded:
        result["decoded"] = decoded
    return result


def legacy(description):
    """GPT-2's own file: merges as strings, empty strings for what there is not."""
    model = description["model"]
    model["merges"] = ["#version: 0.2"] + [" ".join(merge) for merge in model["merges"]]
    model.update(unk_token="", continuing_subword_prefix="", end_of_word_suffix="")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--random", type=int, default=25)
    parser.add_argument("--out", default=os.path.join(ROOT, "tests", "golden"))
    arguments = parser.parse_args()
    for name, make in KINDS.items():
        tokenizer = make()
        texts = TEXTS + list(random_texts(arguments.random))
        cases = [case(tokenizer, text, False) for text in texts]
        cases += [case(tokenizer, text, True) for text in texts if "<" in text][:12]
        tokenizer.encode_special_tokens = False
        description = json.loads(tokenizer.to_str())
        if name == "gpt2":
            legacy(description)
        path = os.path.join(arguments.out, f"tokenizer_{name}.json")
        with open(path, "w", encoding="utf-8") as file:
            file.write('{"tokenizer":' + json.dumps(description, ensure_ascii=False, separators=(",", ":")) + ',\n"cases":[\n')
            file.write(",\n".join(json.dumps(c, ensure_ascii=True, separators=(",", ":")) for c in cases) + "\n]}\n")
        print(f"{path}: {os.path.getsize(path)} bytes")


main()
