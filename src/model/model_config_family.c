/* model_config_family.c - the architectures: in what they differ, and what their files call things. */
#include "model/model_config.h"
#include <stdio.h>
#include <string.h>

static const octavo_model_fields LLAMA_FIELDS = {
    .layers = "num_hidden_layers", .hidden = "hidden_size", .q_heads = "num_attention_heads", .kv_heads = "num_key_value_heads",
    .head_dim = "head_dim", .intermediate = "intermediate_size", .max_tokens = "max_position_embeddings", .norm_eps = "rms_norm_eps",
    .activation = "hidden_act",
};

static const octavo_model_fields GPT2_FIELDS = {
    .layers = "n_layer", .hidden = "n_embd", .q_heads = "n_head", .intermediate = "n_inner", .max_tokens = "n_positions",
    .norm_eps = "layer_norm_epsilon", .activation = "activation_function",
};

#define LLAMA_ATTENTION                                                                                                         \
    .prefix = "model.", .embedding = "embed_tokens", .final_norm = "norm", .head = "lm_head",                                   \
    .q = "layers.#.self_attn.q_proj", .k = "layers.#.self_attn.k_proj", .v = "layers.#.self_attn.v_proj",                       \
    .o = "layers.#.self_attn.o_proj", .attention = "layers.#.self_attn"
#define LLAMA_NORMS .attention_norm = "layers.#.input_layernorm", .ffn_norm = "layers.#.post_attention_layernorm"
#define LLAMA_QK_NORMS .q_norm = "layers.#.self_attn.q_norm", .k_norm = "layers.#.self_attn.k_norm"
#define LLAMA_FFN .gate = "layers.#.mlp.gate_proj", .up = "layers.#.mlp.up_proj", .down = "layers.#.mlp.down_proj"
#define MLP_EXPERTS                                                                                                             \
    .router = "layers.#.mlp.gate", .expert_gate = "layers.#.mlp.experts.@.gate_proj",                                           \
    .expert_up = "layers.#.mlp.experts.@.up_proj", .expert_down = "layers.#.mlp.experts.@.down_proj"

static const octavo_model_names LLAMA_NAMES = { LLAMA_ATTENTION, LLAMA_NORMS, LLAMA_FFN };
static const octavo_model_names QWEN3_NAMES = { LLAMA_ATTENTION, LLAMA_NORMS, LLAMA_QK_NORMS, LLAMA_FFN };
static const octavo_model_names QWEN3_MOE_NAMES = { LLAMA_ATTENTION, LLAMA_NORMS, LLAMA_QK_NORMS, LLAMA_FFN, MLP_EXPERTS };
static const octavo_model_names OLMOE_NAMES = { LLAMA_ATTENTION, LLAMA_NORMS, LLAMA_QK_NORMS, MLP_EXPERTS };
static const octavo_model_names MIXTRAL_NAMES = {
    LLAMA_ATTENTION, LLAMA_NORMS,
    .router = "layers.#.block_sparse_moe.gate", .expert_gate = "layers.#.block_sparse_moe.experts.@.w1",
    .expert_up = "layers.#.block_sparse_moe.experts.@.w3", .expert_down = "layers.#.block_sparse_moe.experts.@.w2",
};
static const octavo_model_names OLMO2_NAMES = {
    LLAMA_ATTENTION, LLAMA_QK_NORMS, LLAMA_FFN,
    .attention_norm = "layers.#.post_attention_layernorm", .ffn_norm = "layers.#.post_feedforward_layernorm",
};
static const octavo_model_names GPT2_NAMES = {
    .prefix = "transformer.", .embedding = "wte", .positions = "wpe", .final_norm = "ln_f", .head = "lm_head",
    .attention_norm = "h.#.ln_1", .ffn_norm = "h.#.ln_2", .q = "h.#.attn.c_attn", .k = "h.#.attn.c_attn", .v = "h.#.attn.c_attn",
    .o = "h.#.attn.c_proj", .up = "h.#.mlp.c_fc", .down = "h.#.mlp.c_proj",
};

#define LLAMA_LIKE .fields = &LLAMA_FIELDS, .ffn = OCTAVO_FFN_GATED, .activation = "silu", .rope_theta = 10000.0

static const octavo_model_family FAMILIES[] = {
    { .architecture = "LlamaForCausalLM", LLAMA_LIKE, .names = &LLAMA_NAMES, .qkv_bias = OCTAVO_BIAS_BY_FIELD,
      .o_bias = OCTAVO_BIAS_BY_FIELD, .ffn_bias = OCTAVO_BIAS_BY_FIELD },
    { .architecture = "MistralForCausalLM", LLAMA_LIKE, .names = &LLAMA_NAMES, .window = OCTAVO_WINDOW_ALL },
    { .architecture = "Qwen2ForCausalLM", LLAMA_LIKE, .names = &LLAMA_NAMES, .qkv_bias = OCTAVO_BIAS_ALWAYS,
      .window = OCTAVO_WINDOW_BY_LAYER },
    { .architecture = "Qwen3ForCausalLM", LLAMA_LIKE, .names = &QWEN3_NAMES, .qkv_bias = OCTAVO_BIAS_BY_FIELD,
      .o_bias = OCTAVO_BIAS_BY_FIELD, .window = OCTAVO_WINDOW_BY_LAYER, .qk_norm = OCTAVO_QK_NORM_HEAD },
    { .architecture = "Olmo2ForCausalLM", LLAMA_LIKE, .names = &OLMO2_NAMES, .qkv_bias = OCTAVO_BIAS_BY_FIELD,
      .o_bias = OCTAVO_BIAS_BY_FIELD, .norm_place = OCTAVO_NORM_AFTER, .qk_norm = OCTAVO_QK_NORM_FULL },
    { .architecture = "MixtralForCausalLM", .fields = &LLAMA_FIELDS, .ffn = OCTAVO_FFN_GATED, .activation = "silu", .rope_theta = 1e6,
      .names = &MIXTRAL_NAMES, .window = OCTAVO_WINDOW_ALL, .experts = OCTAVO_EXPERTS_ALL, .expert_intermediate = "intermediate_size",
      .route = OCTAVO_ROUTE_RENORMALISE },
    { .architecture = "Qwen3MoeForCausalLM", LLAMA_LIKE, .names = &QWEN3_MOE_NAMES, .qkv_bias = OCTAVO_BIAS_BY_FIELD,
      .o_bias = OCTAVO_BIAS_BY_FIELD, .window = OCTAVO_WINDOW_ALL_BY_USE, .qk_norm = OCTAVO_QK_NORM_HEAD,
      .experts = OCTAVO_EXPERTS_BY_STEP, .expert_intermediate = "moe_intermediate_size", .route = OCTAVO_ROUTE_SOFTMAX },
    { .architecture = "OlmoeForCausalLM", LLAMA_LIKE, .names = &OLMOE_NAMES, .qkv_bias = OCTAVO_BIAS_BY_FIELD,
      .o_bias = OCTAVO_BIAS_BY_FIELD, .qk_norm = OCTAVO_QK_NORM_FULL, .experts = OCTAVO_EXPERTS_ALL,
      .expert_intermediate = "intermediate_size", .route = OCTAVO_ROUTE_SOFTMAX },
    { .architecture = "GPT2LMHeadModel", .fields = &GPT2_FIELDS, .names = &GPT2_NAMES, .norm = OCTAVO_NORM_LAYER,
      .position = OCTAVO_POSITION_LEARNED, .ffn = OCTAVO_FFN_PLAIN, .activation = "gelu_new", .qkv_bias = OCTAVO_BIAS_ALWAYS,
      .o_bias = OCTAVO_BIAS_ALWAYS, .ffn_bias = OCTAVO_BIAS_ALWAYS, .weight_order = OCTAVO_WEIGHT_IN_OUT, .tied = 1 },
};
enum { FAMILY_COUNT = sizeof FAMILIES / sizeof *FAMILIES };

const octavo_model_family *octavo_model_family_by_name(const char *architecture)
{
    for (size_t i = 0; i < FAMILY_COUNT; i++)
        if (!strcmp(FAMILIES[i].architecture, architecture)) return &FAMILIES[i];
    return NULL;
}

void octavo_model_family_list(char *text, size_t bytes)
{
    size_t length = 0;
    for (size_t i = 0; i < FAMILY_COUNT && length < bytes; i++)
        length += (size_t)snprintf(text + length, bytes - length, "%s%s", i ? ", " : "", FAMILIES[i].architecture);
}
