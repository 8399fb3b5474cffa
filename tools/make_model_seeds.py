#!/usr/bin/env python3
"""make_model_seeds.py - writes the seed corpora of fuzz_model_config, fuzz_model_index and fuzz_model_load.

    tools/make_model_seeds.py            rewrites tests/fuzz/corpus/{model_config,model_index,model_load}/

Each seed is small and reaches one branch of a reader; the same run gives the same bytes.
"""
import json
import os
import shutil
import struct

CORPUS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fuzz", "corpus")
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1}
LLAMA = {"architectures": ["LlamaForCausalLM"], "hidden_act": "silu", "hidden_size": 4, "intermediate_size": 6, "num_hidden_layers": 1,
         "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "vocab_size": 3,
         "bos_token_id": 1, "eos_token_id": 2}
GPT2 = {"architectures": ["GPT2LMHeadModel"], "activation_function": "gelu_new", "n_embd": 4, "n_head": 2, "n_inner": None, "n_layer": 1,
        "n_positions": 5, "layer_norm_epsilon": 1e-5, "vocab_size": 3}
WEIGHTS = {"num_bits": 8, "type": "float", "strategy": "channel", "symmetric": True}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8}
YARN = {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 1.0, "mscale_all_dim": 0.7, "beta_fast": 32,
        "beta_slow": 1, "truncate": False}


def text(value):
    return json.dumps(value, separators=(",", ":")).encode()


def config(base=LLAMA, **changes):
    return text({key: value for key, value in {**base, **changes}.items() if value != "drop"})


def family(name, **changes):
    return config(architectures=[name], **changes)


def quantised(**fields):
    return config(quantization_config=fields)


def compressed(weights=WEIGHTS, **fields):
    return quantised(**{"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"g": {"weights": weights}}, **fields})


def modelopt(**fields):
    return config() + b"\0" + text({"quantization": fields})


MOE = {"num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 3}
CONFIGS = {
    "llama": config(), "llama_bias": config(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, head_dim=6, hidden_act="gelu"),
    "eos_list": config(eos_token_id=[1, 2, 3], bos_token_id=None), "eos_many": config(eos_token_id=list(range(9))),
    "eos_text": config(eos_token_id="2"), "no_hidden": config(hidden_size="drop"), "hidden_text": config(hidden_size="8"),
    "hidden_zero": config(hidden_size=0), "heads_three": config(num_attention_heads=3), "kv_heads": config(num_key_value_heads=3),
    "eps_text": config(rms_norm_eps="a"), "eps_negative": config(rms_norm_eps=-1), "bias_number": config(attention_bias=1),
    "act_number": config(hidden_act=1), "act_unknown": config(hidden_act="mish"), "text_config": config(text_config={}),
    "unknown": family("Mamba"), "no_architecture": config(architectures=[]), "architectures_text": config(architectures="x"),
    "list": b"[]", "broken": b'{"a":', "twice": b'{"a":1,"a":2}', "empty": b"", "head_dim_odd": config(head_dim=3),
    "gpt2": config(GPT2), "gpt2_scale": config(GPT2, scale_attn_by_inverse_layer_idx=True), "gpt2_plain": config(GPT2, scale_attn_weights=False),
    "mistral": family("MistralForCausalLM", sliding_window=32), "qwen2": family("Qwen2ForCausalLM", use_sliding_window=True, sliding_window=8,
                                                                                max_window_layers=0),
    "qwen2_types": family("Qwen2ForCausalLM", use_sliding_window=True, sliding_window=8, layer_types=["sliding_attention"]),
    "qwen2_full": family("Qwen2ForCausalLM", layer_types=["full_attention"]), "types_few": family("Qwen2ForCausalLM", layer_types=[]),
    "types_number": family("Qwen2ForCausalLM", layer_types=[1]), "types_unknown": family("Qwen2ForCausalLM", layer_types=["linear"]),
    "types_no_window": family("Qwen2ForCausalLM", layer_types=["sliding_attention"]), "types_text": family("Qwen2ForCausalLM", layer_types="x"),
    "qwen3": family("Qwen3ForCausalLM", head_dim=8), "olmo2": family("Olmo2ForCausalLM"),
    "mixtral": family("MixtralForCausalLM", num_local_experts=4, num_experts_per_tok=2), "olmoe": family("OlmoeForCausalLM", clip_qkv=5.5, **MOE),
    "qwen3_moe": family("Qwen3MoeForCausalLM", decoder_sparse_step=2, mlp_only_layers=[0], norm_topk_prob=True, **MOE),
    "moe_none": family("Qwen3MoeForCausalLM", num_experts=0), "moe_list": family("Qwen3MoeForCausalLM", mlp_only_layers=["a"], **MOE),
    "rope_theta": config(rope_theta=500000.0), "rope_llama3": config(rope_parameters={**LLAMA3, "rope_theta": 1e5}),
    "rope_llama3_equal": config(rope_scaling={**LLAMA3, "high_freq_factor": 1.0}), "rope_yarn": config(rope_scaling=YARN),
    "rope_yarn_given": config(rope_scaling={"type": "yarn", "attention_factor": 0.5}, original_max_position_embeddings=8),
    "rope_linear": config(rope_scaling={"type": "linear", "factor": 2}), "rope_no_factor": config(rope_scaling={"type": "linear"}),
    "rope_dynamic": config(rope_scaling={"type": "dynamic", "factor": 2}), "rope_number": config(rope_scaling=2),
    "rope_partial": config(partial_rotary_factor=0.5),
    "rope_layers": config(rope_parameters={"full_attention": {"rope_theta": 100.0}, "sliding_attention": {"rope_theta": 100.0}}),
    "rope_used": config(layer_types=["full_attention"], rope_parameters={"full_attention": {"rope_theta": 100.0}, "b": {"rope_theta": 9.0}}),
    "rope_differs": config(rope_parameters={"a": {"rope_theta": 100.0}, "b": {"rope_theta": 9.0}}),
    "fp8": quantised(quant_method="fp8", weight_block_size=[128, 128], modules_to_not_convert=["lm_head"]),
    "fp8_tensor": quantised(quant_method="fp8", activation_scheme="static"), "fp8_fmt": quantised(quant_method="fp8", fmt="e5m2"),
    "fp8_block": quantised(quant_method="fp8", weight_block_size=[0, 1]), "fp8_list": quantised(quant_method="fp8", ignored_layers=[1]),
    "gptq": quantised(quant_method="gptq"), "quant_number": config(quantization_config=1), "quant_empty": quantised(bits=8),
    "compressed": compressed(ignore=["lm_head", "re:.*\\.mlp\\..*_proj$", "re:^model.*gate", "re:(a|b)", "*.mlp.*"]),
    "compressed_tensor": compressed({**WEIGHTS, "strategy": "tensor"}), "compressed_group": compressed({**WEIGHTS, "strategy": "group"}),
    "compressed_block": compressed({**WEIGHTS, "strategy": "block", "block_structure": [128, 128]}),
    "compressed_no_block": compressed({**WEIGHTS, "strategy": "block"}), "compressed_bits": compressed({**WEIGHTS, "num_bits": 4}),
    "compressed_int": compressed({**WEIGHTS, "type": "int"}), "compressed_lopsided": compressed({**WEIGHTS, "symmetric": False}),
    "compressed_none": compressed(config_groups={}), "compressed_number": compressed(config_groups={"g": 1}),
    "compressed_activations": compressed(config_groups={"g": {}}), "compressed_packed": compressed(format="pack-quantized"),
    "compressed_two": compressed(config_groups={str(n): {"weights": {**WEIGHTS, "strategy": "block", "block_structure": [n, 8]}} for n in (4, 8)}),
    "modelopt": modelopt(quant_algo="FP8", exclude_modules=["lm_head", "model.layers.0.*"]), "modelopt_none": modelopt(quant_algo=None),
    "modelopt_channel": modelopt(quant_algo="FP8_PER_CHANNEL_PER_TOKEN"), "modelopt_unknown": modelopt(quant_algo="NVFP4"),
    "modelopt_inside": quantised(quant_method="modelopt", quant_algo="FP8", ignore=["lm_head"]), "modelopt_broken": config() + b"\0{",
    "modelopt_other": config() + b"\0{}", "modelopt_twice": quantised(quant_method="fp8") + b"\0{}",
}

INDICES = {
    "two": text({"metadata": {"total_size": 1}, "weight_map": {"a": "y.safetensors", "b": "x.safetensors", "c": "y.safetensors"}}),
    "no_map": b"{}", "map_list": text({"weight_map": []}), "map_empty": text({"weight_map": {}}), "number": text({"weight_map": {"a": 1}}),
    "absolute": text({"weight_map": {"a": "/x.safetensors"}}), "up": text({"weight_map": {"a": "..safetensors.safetensors"}}),
    "hidden": text({"weight_map": {"a": ".x.safetensors"}}), "suffix": text({"weight_map": {"a": "x.bin"}}), "broken": b"{", "list": b"[]",
}


def safetensors(specs):
    header, end = {}, 0
    data = b""
    for number, (name, (dtype, shape, *value)) in enumerate(specs.items()):
        count = 1
        for extent in shape:
            count *= extent
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + count * BYTES[dtype]]}
        element = {"F32": lambda i: struct.pack("<f", value[0] if value else 0.01 * (i % 7 + 1)), "BF16": lambda i: struct.pack("<H", 0x3c00 + i % 9),
                   "F16": lambda i: struct.pack("<H", 0x3800 + i % 9), "F8_E4M3": lambda i: bytes([(i + number) % 120])}[dtype]
        data += b"".join(element(i) for i in range(count))
        end += count * BYTES[dtype]
    raw = text(header)
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + data


def llama(dtype="F32", prefix="model.", biases=False, qk_norm=None, experts=0, eight_bit=None):
    specs = {prefix + "embed_tokens.weight": (dtype, [3, 4]), prefix + "norm.weight": (dtype, [4]), "lm_head.weight": (dtype, [3, 4])}
    layer = prefix + "layers.0."
    linears = {"self_attn.q_proj": [4, 4], "self_attn.k_proj": [2, 4], "self_attn.v_proj": [2, 4], "self_attn.o_proj": [4, 4]}
    if experts:
        specs[layer + "mlp.gate.weight"] = (dtype, [experts, 4])
    for e in range(experts):
        linears.update({f"mlp.experts.{e}.{part}_proj": [4, 3] if part == "down" else [3, 4] for part in ("gate", "up", "down")})
    if not experts:
        linears.update({"mlp.gate_proj": [6, 4], "mlp.up_proj": [6, 4], "mlp.down_proj": [4, 6]})
    for name, shape in linears.items():
        specs[f"{layer}{name}.weight"] = ("F8_E4M3" if eight_bit else dtype, shape)
        if eight_bit:
            suffix, scale_dtype, scale_shape = eight_bit
            specs[f"{layer}{name}.{suffix}"] = (scale_dtype, scale_shape(shape))
        if biases:
            specs[f"{layer}{name}.bias"] = (dtype, shape[:1])
    for name in ("input_layernorm", "post_attention_layernorm"):
        specs[f"{layer}{name}.weight"] = (dtype, [4])
    if qk_norm:
        specs[layer + "self_attn.q_norm.weight"], specs[layer + "self_attn.k_norm.weight"] = ((dtype, [width]) for width in qk_norm)
    return specs


def gpt2(dtype="F32"):
    specs = {"wte.weight": (dtype, [3, 4]), "wpe.weight": (dtype, [5, 4])}
    for name, shape in {"ln_1": [4], "ln_2": [4], "attn.c_attn": [4, 12], "attn.c_proj": [4, 4], "mlp.c_fc": [4, 16], "mlp.c_proj": [16, 4]}.items():
        specs[f"h.0.{name}.weight"], specs[f"h.0.{name}.bias"] = (dtype, shape), (dtype, shape[-1:])
    specs["ln_f.weight"], specs["ln_f.bias"] = (dtype, [4]), (dtype, [4])
    return specs


def checkpoint(linear, settings, specs):
    """linear: -1 as stored, 0 f32, 1 bf16, 2 fp8, 3 int8."""
    return bytes([linear + 1]) + settings + b"\0" + safetensors(specs)


def without(specs, name):
    return {key: value for key, value in specs.items() if key != name}


CHANNEL = ("weight_scale", "BF16", lambda shape: [shape[0], 1])
TENSOR = ("weight_scale", "F32", lambda shape: [1])
BLOCK = ("weight_scale_inv", "F32", lambda shape: [-(-shape[0] // 2), -(-shape[1] // 4)])
UP = "model.layers.0.mlp.up_proj."
FP8 = quantised(quant_method="fp8")
FP8_BLOCK = quantised(quant_method="fp8", weight_block_size=[2, 4])
STATIC = {UP + "input_scale": ("F32", []), "model.layers.0.self_attn.q_proj.input_scale": ("F32", [1]),
          "model.layers.0.self_attn.k_scale": ("F32", [1]), "model.layers.0.self_attn.v_proj.v_scale": ("F16", [1])}
CHECKPOINTS = {
    **{f"llama_{linear}": checkpoint(linear, config(), llama()) for linear in (-1, 0, 1, 2, 3)},
    **{f"llama_bf16_{linear}": checkpoint(linear, config(), llama("BF16")) for linear in (-1, 2)},
    "llama_f16": checkpoint(-1, config(), llama("F16")), "bare": checkpoint(0, config(), llama(prefix="")),
    "bias": checkpoint(0, config(attention_bias=True, mlp_bias=True), llama(biases=True)),
    "tied": checkpoint(0, config(tie_word_embeddings=True), without(llama(), "lm_head.weight")),
    "tied_bf16": checkpoint(1, config(tie_word_embeddings=True), without(llama(), "lm_head.weight")),
    "no_head": checkpoint(0, config(), without(llama(), "lm_head.weight")), "no_up": checkpoint(0, config(), without(llama(), UP + "weight")),
    "shape": checkpoint(0, config(), {**llama(), UP + "weight": ("F32", [4, 6])}),
    "norm_e4m3": checkpoint(0, config(), {**llama(), "model.norm.weight": ("F8_E4M3", [4])}),
    "embedding_e4m3": checkpoint(0, config(), {**llama(), "model.embed_tokens.weight": ("F8_E4M3", [3, 4])}),
    "qwen3": checkpoint(0, family("Qwen3ForCausalLM"), llama(qk_norm=(2, 2))), "olmoe": checkpoint(
        0, family("OlmoeForCausalLM", intermediate_size=3, **{**MOE, "moe_intermediate_size": "drop"}), llama(qk_norm=(4, 2), experts=2)),
    "qwen3_moe": checkpoint(2, family("Qwen3MoeForCausalLM", **MOE), llama(qk_norm=(2, 2), experts=2)),
    "gpt2": checkpoint(-1, config(GPT2), gpt2()), "gpt2_f16": checkpoint(0, config(GPT2), gpt2("F16")), "gpt2_int8": checkpoint(3, config(GPT2), gpt2()),
    "gpt2_e4m3": checkpoint(0, config(GPT2), {**gpt2(), "h.0.mlp.c_fc.weight": ("F8_E4M3", [4, 16])}),
    **{f"channel_{linear}": checkpoint(linear, compressed(), llama("BF16", eight_bit=CHANNEL)) for linear in (-1, 2, 3)},
    **{f"block_{linear}": checkpoint(linear, FP8_BLOCK, llama("BF16", eight_bit=BLOCK)) for linear in (-1, 3)},
    "tensor": checkpoint(2, FP8, {**llama("BF16", eight_bit=TENSOR), **STATIC}),
    "static_zero": checkpoint(2, FP8, {**llama("BF16", eight_bit=TENSOR), UP + "input_scale": ("F32", [1], 0.0)}),
    "static_two": checkpoint(2, FP8, {**llama("BF16", eight_bit=TENSOR), UP + "input_scale": ("F32", [2])}),
    "unannounced": checkpoint(1, config(), llama("BF16", eight_bit=TENSOR)),
    "excluded": checkpoint(1, compressed(ignore=["model.layers.0.*"]), llama("BF16", eight_bit=CHANNEL)),
    "no_scale": checkpoint(1, FP8, without(llama("BF16", eight_bit=TENSOR), UP + "weight_scale")),
    "scale_negative": checkpoint(1, FP8, {**llama("BF16", eight_bit=TENSOR), UP + "weight_scale": ("F32", [1], -1.0)}),
    "scale_e4m3": checkpoint(1, FP8, {**llama("BF16", eight_bit=TENSOR), UP + "weight_scale": ("F8_E4M3", [1])}),
    **{f"scale_shape_{n}": checkpoint(1, settings, llama("BF16", eight_bit=("weight_scale", "F32", lambda shape: [9])))
       for n, settings in enumerate((FP8, FP8_BLOCK, compressed()))},
    "nan": checkpoint(2, config(), {**llama(), UP + "weight": ("F32", [6, 4], float("nan"))}),
    "no_weights": b"\1" + config() + b"\0", "no_zero": b"\1{}",
}


def main():
    for folder, seeds in (("model_config", CONFIGS), ("model_index", INDICES), ("model_load", CHECKPOINTS)):
        path = os.path.join(CORPUS, folder)
        shutil.rmtree(path, ignore_errors=True)
        os.makedirs(path)
        for name, data in seeds.items():
            with open(os.path.join(path, name), "wb") as file:
                file.write(data)


main()
