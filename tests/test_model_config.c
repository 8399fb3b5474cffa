/* test_model_config.c - config.json of every architecture is read as it is meant, and refused by file and field where it is wrong. */
#define _GNU_SOURCE 1
#include "model/model_config.h"
#include "model_fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>

#define LENGTH(list) (sizeof(list) / sizeof *(list))

static octavo_status read_config(const char *base, const char *patch, octavo_model_description *d)
{
    char *text = fixture_config(base, patch);
    const octavo_status status = octavo_model_description_init(d, "config.json", text, strlen(text));
    free(text);
    return status;
}

static void expect(const char *base, const char *patch, octavo_model_description *d)
{
    if (read_config(base, patch, d) != OCTAVO_OK) fail_msg("%s: %s", patch, octavo_last_error());
}

static void expect_refusal(const char *base, const char *patch, octavo_status status, const char *fragment)
{
    octavo_model_description d;
    const octavo_status found = read_config(base, patch, &d);
    if (found != status) fail_msg("%s gives %d '%s', expected %d", patch, (int)found, octavo_last_error(), (int)status);
    if (!strstr(octavo_last_error(), fragment) || !strstr(octavo_last_error(), "config.json"))
        fail_msg("%s gives '%s', which does not say '%s' and config.json", patch, octavo_last_error(), fragment);
}

/* ---- what is read ---- */

static void reads_llama(void **state)
{
    (void)state;
    octavo_model_description d;
    expect(FIXTURE_LLAMA, "{}", &d);
    const octavo_model_config *c = &d.config;
    assert_string_equal(c->architecture, "LlamaForCausalLM");
    assert_int_equal(c->layers, 2);
    assert_int_equal(c->hidden, 8);
    assert_int_equal(c->vocab, 10);
    assert_int_equal(c->max_tokens, 512);
    assert_int_equal(c->q_heads, 2);
    assert_int_equal(c->kv_heads, 1);
    assert_int_equal(c->head_dim, 4);
    assert_true(c->softmax_scale == 0.5f);
    assert_true(c->norm == OCTAVO_NORM_RMS && c->norm_place == OCTAVO_NORM_BEFORE && c->qk_norm == OCTAVO_QK_NORM_NONE);
    assert_true(c->norm_eps == 1e-6f && c->clip_qkv == 0 && c->activation == OCTAVO_ACTIVATION_SILU);
    assert_true(c->position == OCTAVO_POSITION_ROPE && c->ffn == OCTAVO_FFN_GATED && c->intermediate == 12 && c->experts == 0);
    assert_true(c->windows[0] == 0 && c->windows[1] == 0 && c->sparse == NULL);
    assert_true(c->bos == 1 && c->eos_count == 1 && c->eos[0] == 2);
    assert_true(c->rope.style == OCTAVO_ROPE_ROTATE_HALF && c->rope.rotary_dim == 4 && c->rope.scale == 1);
    assert_true(c->rope.inv_freq[0] == 1 && fabsf(c->rope.inv_freq[1] - 0.01f) < 1e-9f);
    assert_true(!d.qkv_bias && !d.o_bias && !d.ffn_bias && !d.tied && !d.quant.source);
    octavo_model_description_fini(&d);
}

static void reads_options_of_llama(void **state)
{
    (void)state;
    octavo_model_description d;
    expect(FIXTURE_LLAMA, "{\"attention_bias\":true,\"mlp_bias\":true,\"tie_word_embeddings\":true,\"head_dim\":6,\"hidden_size\":9,"
           "\"eos_token_id\":[3,4,5],\"bos_token_id\":null,\"drop\":\"num_key_value_heads\",\"hidden_act\":\"gelu_pytorch_tanh\"}", &d);
    assert_true(d.qkv_bias && d.o_bias && d.ffn_bias && d.tied);
    assert_true(d.config.head_dim == 6 && d.config.kv_heads == 2 && d.config.bos == -1 && d.config.eos_count == 3 && d.config.eos[2] == 5);
    assert_int_equal(d.config.activation, OCTAVO_ACTIVATION_GELU_TANH);
    octavo_model_description_fini(&d);
    expect(FIXTURE_LLAMA, "{\"head_dim\":null,\"eos_token_id\":null,\"drop\":\"rope_theta\"}", &d);
    assert_true(d.config.head_dim == 4 && d.config.eos_count == 0 && fabsf(d.inv_freq[1] - 0.01f) < 1e-9f);
    octavo_model_description_fini(&d);
}

/* Reads config.json with eos 2, then `text` as generation_config.json. */
static octavo_status read_generation(const char *text, octavo_model_description *d)
{
    expect(FIXTURE_LLAMA, "{}", d);
    return octavo_model_description_add_generation(d, "generation_config.json", text, strlen(text));
}

static void reads_generation(void **state)
{
    (void)state;
    octavo_model_description d;
    const octavo_model_config *c = &d.config;
    assert_int_equal(read_generation("{\"eos_token_id\":[5,2,7,5],\"temperature\":0.6,\"top_p\":0.9,\"transformers_version\":\"4\"}", &d), OCTAVO_OK);
    assert_true(c->eos_count == 3 && c->eos[0] == 2 && c->eos[1] == 5 && c->eos[2] == 7);
    assert_true(c->temperature == 0.6f && c->top_p == 0.9f && c->min_p == -1 && c->top_k == -1);
    octavo_model_description_fini(&d);
    assert_int_equal(read_generation("{\"eos_token_id\":3,\"do_sample\":false,\"temperature\":0.6,\"top_k\":-1,\"min_p\":0.05}", &d), OCTAVO_OK);
    assert_true(c->eos_count == 2 && c->eos[1] == 3 && c->temperature == 0 && c->top_k == 0 && c->min_p == 0.05f && c->top_p == -1);
    octavo_model_description_fini(&d);
    assert_int_equal(read_generation("{\"top_k\":null,\"eos_token_id\":null}", &d), OCTAVO_OK);
    assert_true(c->eos_count == 1 && c->temperature == -1 && c->top_k == -1);
    octavo_model_description_fini(&d);
}

static void refuses_generation(void **state)
{
    (void)state;
    static const struct { const char *text, *fragment; octavo_status status; } CASES[] = {
        { "{\"temperature\":-1}", "'temperature' is -1", OCTAVO_E_FORMAT },
        { "{\"temperature\":\"hot\"}", "'temperature' is not a number", OCTAVO_E_FORMAT },
        { "{\"top_p\":1.5}", "'top_p' is 1.5", OCTAVO_E_FORMAT },
        { "{\"min_p\":2}", "'min_p' is 2", OCTAVO_E_FORMAT },
        { "{\"top_k\":-2}", "'top_k' is -2", OCTAVO_E_FORMAT },
        { "{\"top_k\":0.5}", "'top_k' is not a whole number", OCTAVO_E_FORMAT },
        { "{\"do_sample\":1}", "'do_sample' is not true or false", OCTAVO_E_FORMAT },
        { "{\"eos_token_id\":[1,-2]}", "'eos_token_id' is not a token", OCTAVO_E_FORMAT },
        { "{\"eos_token_id\":[1,3,4,5,6,7,8,9]}", "'eos_token_id' names the model more than 8", OCTAVO_E_UNSUPPORTED },
        { "[]", "is not a JSON object", OCTAVO_E_FORMAT },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) {
        octavo_model_description d;
        assert_int_equal(read_generation(CASES[i].text, &d), CASES[i].status);
        if (!strstr(octavo_last_error(), CASES[i].fragment) || !strstr(octavo_last_error(), "generation_config.json"))
            fail_msg("%s gives '%s'", CASES[i].text, octavo_last_error());
        assert_true(d.windows == NULL);
    }
}

static void reads_gpt2(void **state)
{
    (void)state;
    octavo_model_description d;
    expect(FIXTURE_GPT2, "{}", &d);
    const octavo_model_config *c = &d.config;
    assert_true(c->norm == OCTAVO_NORM_LAYER && c->position == OCTAVO_POSITION_LEARNED && c->ffn == OCTAVO_FFN_PLAIN);
    assert_true(c->intermediate == 32 && c->kv_heads == 2 && c->head_dim == 4 && c->max_tokens == 16 && c->softmax_scale == 0.5f);
    assert_true(c->activation == OCTAVO_ACTIVATION_GELU_TANH && c->rope.style == OCTAVO_ROPE_NONE);
    assert_true(d.qkv_bias && d.o_bias && d.ffn_bias && d.tied && d.family->weight_order == OCTAVO_WEIGHT_IN_OUT);
    octavo_model_description_fini(&d);
    expect(FIXTURE_GPT2, "{\"n_inner\":20,\"activation_function\":\"relu\",\"scale_attn_weights\":false,\"n_embd\":6,\"n_head\":2}", &d);
    assert_true(d.config.intermediate == 20 && d.config.activation == OCTAVO_ACTIVATION_RELU && d.config.softmax_scale == 1);
    assert_int_equal(d.config.head_dim, 3); /* nothing rotates, so that it may be odd */
    octavo_model_description_fini(&d);
}

static void reads_windows(void **state)
{
    (void)state;
    static const struct { const char *patch; int64_t first, second; } CASES[] = {
        { "{\"architectures\":[\"MistralForCausalLM\"],\"sliding_window\":32}", 32, 32 },
        { "{\"architectures\":[\"MistralForCausalLM\"],\"sliding_window\":null}", 0, 0 },
        { "{\"architectures\":[\"LlamaForCausalLM\"],\"sliding_window\":32}", 0, 0 },
        { "{\"architectures\":[\"Qwen2ForCausalLM\"],\"sliding_window\":32,\"use_sliding_window\":false}", 0, 0 },
        { "{\"architectures\":[\"Qwen2ForCausalLM\"],\"sliding_window\":32,\"use_sliding_window\":true,\"max_window_layers\":1}", 0, 32 },
        { "{\"architectures\":[\"Qwen3ForCausalLM\"],\"sliding_window\":32,\"use_sliding_window\":true,"
          "\"layer_types\":[\"sliding_attention\",\"full_attention\"]}", 32, 0 },
        { "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"sliding_window\":32,\"use_sliding_window\":true,\"num_experts\":0}", 32, 32 },
        { "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"sliding_window\":32,\"num_experts\":0}", 0, 0 },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) {
        octavo_model_description d;
        expect(FIXTURE_LLAMA, CASES[i].patch, &d);
        if (d.config.windows[0] != CASES[i].first || d.config.windows[1] != CASES[i].second)
            fail_msg("%s gives %d and %d", CASES[i].patch, (int)d.config.windows[0], (int)d.config.windows[1]);
        octavo_model_description_fini(&d);
    }
}

static void reads_norms_and_biases(void **state)
{
    (void)state;
    octavo_model_description d;
    expect(FIXTURE_LLAMA, "{\"architectures\":[\"Qwen2ForCausalLM\"]}", &d);
    assert_true(d.qkv_bias && !d.o_bias && d.config.qk_norm == OCTAVO_QK_NORM_NONE);
    octavo_model_description_fini(&d);
    expect(FIXTURE_LLAMA, "{\"architectures\":[\"Qwen3ForCausalLM\"],\"attention_bias\":true}", &d);
    assert_true(d.qkv_bias && d.o_bias && !d.ffn_bias && d.config.qk_norm == OCTAVO_QK_NORM_HEAD);
    octavo_model_description_fini(&d);
    expect(FIXTURE_LLAMA, "{\"architectures\":[\"Olmo2ForCausalLM\"]}", &d);
    assert_true(d.config.norm_place == OCTAVO_NORM_AFTER && d.config.qk_norm == OCTAVO_QK_NORM_FULL);
    octavo_model_description_fini(&d);
}

static void reads_experts(void **state)
{
    (void)state;
    octavo_model_description d;
    expect(FIXTURE_LLAMA, "{\"architectures\":[\"MixtralForCausalLM\"],\"num_local_experts\":4,\"num_experts_per_tok\":2,"
           "\"norm_topk_prob\":false}", &d);
    assert_true(d.config.experts == 4 && d.config.experts_per_token == 2 && d.config.expert_intermediate == 12 && !d.config.sparse);
    assert_int_equal(d.config.route, OCTAVO_ROUTE_RENORMALISE);
    octavo_model_description_fini(&d);
    expect(FIXTURE_LLAMA, "{\"architectures\":[\"OlmoeForCausalLM\"],\"num_experts\":8,\"num_experts_per_tok\":3,\"clip_qkv\":5}", &d);
    assert_true(d.config.experts == 8 && d.config.qk_norm == OCTAVO_QK_NORM_FULL && d.config.clip_qkv == 5);
    assert_int_equal(d.config.route, OCTAVO_ROUTE_SOFTMAX);
    octavo_model_description_fini(&d);
    expect(FIXTURE_LLAMA, "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"num_experts\":8,\"num_experts_per_tok\":3,\"norm_topk_prob\":true,"
           "\"moe_intermediate_size\":5,\"num_hidden_layers\":4,\"decoder_sparse_step\":2,\"mlp_only_layers\":[3,9]}", &d);
    assert_true(d.config.expert_intermediate == 5 && d.config.route == OCTAVO_ROUTE_RENORMALISE);
    assert_memory_equal(d.config.sparse, ((uint8_t[]){ 0, 1, 0, 0 }), 4);
    octavo_model_description_fini(&d);
}

/* Frequencies that the transformers library (5.23) computes from the same parameters: some of them, and the factor. */
static void computes_frequencies(void **state)
{
    (void)state;
    static const struct { const char *patch; float scale; int count; struct { int i; float value; } at[4]; } CASES[] = {
        { "{\"head_dim\":16,\"rope_parameters\":{\"rope_type\":\"llama3\",\"rope_theta\":500000.0,\"factor\":8.0,\"low_freq_factor\":1.0,"
          "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":64}}", 1, 4,
          { { 1, 0.079403013f }, { 2, 0.00470075384f }, { 3, 0.000911583134f }, { 7, 1.28917316e-06f } } },
        { "{\"head_dim\":128,\"rope_theta\":500000.0,\"rope_scaling\":{\"type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,"
          "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}}", 1, 4,
          { { 28, 0.00321144611f }, { 31, 0.000762541255f }, { 34, 9.70828623e-05f }, { 63, 7.67231469e-08f } } },
        { "{\"head_dim\":128,\"rope_theta\":1e6,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,"
          "\"original_max_position_embeddings\":32768}}", 1.13862944f, 4,
          { { 23, 0.00697830599f }, { 24, 0.00537532149f }, { 39, 6.4903943e-05f }, { 63, 3.10234441e-07f } } },
        { "{\"head_dim\":64,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":40.0,\"original_max_position_embeddings\":4096,\"mscale\":1.0,"
          "\"mscale_all_dim\":0.707,\"beta_fast\":32,\"beta_slow\":1}}", 1.0857264f, 4,
          { { 10, 0.0562341288f }, { 11, 0.0390069261f }, { 22, 0.00017782794f }, { 31, 3.33380353e-06f } } },
        { "{\"head_dim\":64,\"rope_theta\":150000.0,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32.0,"
          "\"original_max_position_embeddings\":4096,\"beta_fast\":32.0,\"beta_slow\":1.0,\"truncate\":false}}", 1.34657359f, 4,
          { { 9, 0.0317056961f }, { 10, 0.0193350017f }, { 17, 0.000129318694f }, { 31, 3.0235114e-07f } } },
        { "{\"head_dim\":16,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":8.0,\"original_max_position_embeddings\":64,"
          "\"attention_factor\":0.75}}", 0.75f, 3, { { 1, 0.223994657f }, { 2, 0.0416666642f }, { 7, 3.95284733e-05f } } },
        { "{\"head_dim\":16,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.5}}", 1, 3,
          { { 0, 0.4f }, { 1, 0.1264911f }, { 7, 0.000126491112f } } },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) {
        octavo_model_description d;
        expect(FIXTURE_LLAMA, CASES[i].patch, &d);
        if (fabsf(d.config.rope.scale / CASES[i].scale - 1) > 1e-6f) fail_msg("%s: factor %.9g", CASES[i].patch, (double)d.config.rope.scale);
        for (int k = 0; k < CASES[i].count; k++) {
            const float found = d.inv_freq[CASES[i].at[k].i], wanted = CASES[i].at[k].value;
            if (fabsf(found / wanted - 1) > 2.5e-7f) /* two last bits, for where torch's powf rounds otherwise */
                fail_msg("%s: frequency %d is %.9g, expected %.9g", CASES[i].patch, CASES[i].at[k].i, (double)found, (double)wanted);
        }
        octavo_model_description_fini(&d);
    }
}

static void finds_positions_elsewhere(void **state)
{
    (void)state;
    octavo_model_description d;
    expect(FIXTURE_LLAMA, "{\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\",\"rope_theta\":100.0},"
           "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":100.0}}}", &d);
    assert_true(fabsf(d.inv_freq[1] - 0.1f) < 1e-8f);
    octavo_model_description_fini(&d);
    expect(FIXTURE_LLAMA, "{\"layer_types\":[\"full_attention\",\"full_attention\"],\"rope_parameters\":{\"full_attention\":"
           "{\"rope_theta\":100.0},\"sliding_attention\":{\"rope_theta\":400.0}}}", &d);
    assert_true(fabsf(d.inv_freq[1] - 0.1f) < 1e-8f);
    octavo_model_description_fini(&d);
    /* max_position_embeddings may still be the length before scaling */
    expect(FIXTURE_LLAMA, "{\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4.0,\"original_max_position_embeddings\":512}}", &d);
    assert_int_equal(d.config.max_tokens, 2048);
    octavo_model_description_fini(&d);
    expect(FIXTURE_LLAMA, "{\"rope_scaling\":{\"type\":\"yarn\",\"original_max_position_embeddings\":128}}", &d);
    assert_int_equal(d.config.max_tokens, 512);
    assert_true(fabsf(d.config.rope.scale - 1.13862944f) < 1e-6f);
    octavo_model_description_fini(&d);
}

static void reads_quantisation(void **state)
{
    (void)state;
    static const char COMPRESSED[] = "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\","
        "\"ignore\":[\"lm_head\",\"re:.*\\\\.mlp\\\\.gate$\"],\"config_groups\":{\"a\":{\"weights\":{\"num_bits\":8,\"type\":\"float\","
        "\"strategy\":\"channel\"}},\"b\":{\"weights\":{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"block\",\"block_structure\":[64,32]}}}}}";
    octavo_model_description d;
    expect(FIXTURE_LLAMA, COMPRESSED, &d);
    assert_int_equal(d.quant.layouts, OCTAVO_SCALE_CHANNEL | OCTAVO_SCALE_BLOCK);
    assert_true(d.quant.block_rows == 64 && d.quant.block_cols == 32);
    assert_true(octavo_model_quant_excludes(&d.quant, "lm_head") && octavo_model_quant_excludes(&d.quant, "model.layers.1.mlp.gate"));
    assert_false(octavo_model_quant_excludes(&d.quant, "model.layers.1.mlp.gate_proj"));
    octavo_model_description_fini(&d);

    expect(FIXTURE_LLAMA, "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128,64]}}", &d);
    assert_true(d.quant.layouts == OCTAVO_SCALE_BLOCK && d.quant.block_rows == 128 && d.quant.block_cols == 64);
    octavo_model_description_fini(&d);
    expect(FIXTURE_LLAMA, "{\"quantization_config\":{\"quant_method\":\"fp8\",\"activation_scheme\":\"static\"}}", &d);
    assert_int_equal(d.quant.layouts, OCTAVO_SCALE_TENSOR);
    octavo_model_description_fini(&d);

    static const char MODELOPT[] = "{\"quantization\":{\"quant_algo\":\"FP8\",\"exclude_modules\":[\"lm_head\",\"model.layers.1.*\"]}}";
    expect(FIXTURE_LLAMA, "{}", &d);
    assert_int_equal(octavo_model_description_add_quant(&d, "hf_quant_config.json", MODELOPT, strlen(MODELOPT)), OCTAVO_OK);
    assert_int_equal(d.quant.layouts, OCTAVO_SCALE_TENSOR);
    assert_true(octavo_model_quant_excludes(&d.quant, "model.layers.1.mlp.up_proj"));
    assert_false(octavo_model_quant_excludes(&d.quant, "model.layers.11.mlp.up_proj"));
    octavo_model_description_fini(&d);
    static const char UNKNOWN[] = "{\"quantization\":{\"quant_algo\":\"W4A16\"}}";
    expect(FIXTURE_LLAMA, "{}", &d);
    assert_int_equal(octavo_model_description_add_quant(&d, "hf_quant_config.json", UNKNOWN, strlen(UNKNOWN)), OCTAVO_E_UNSUPPORTED);
    assert_non_null(strstr(octavo_last_error(), "hf_quant_config.json"));
    expect(FIXTURE_LLAMA, "{\"quantization_config\":{\"quant_method\":\"modelopt\",\"quant_algo\":\"FP8_PER_CHANNEL_PER_TOKEN\"}}", &d);
    assert_int_equal(d.quant.layouts, OCTAVO_SCALE_CHANNEL);
    octavo_model_description_fini(&d);
}

static void matches_patterns(void **state)
{
    (void)state;
    static const struct { const char *pattern, *module; int matches; } CASES[] = {
        { "a.b", "a.b", 1 },       { "a.b", "a.bc", 0 },      { "*.b", "a.a.b", 1 },        { "a*b*c", "a1b2b3c", 1 },
        { "a*b*c", "a1b2b3", 0 },  { "re:a.c", "abcd", 1 },   { "re:a\\.c", "abc", 0 },     { "re:^a.*c$", "abbc", 1 },
        { "re:^a.*c$", "abbcd", 0 }, { "re:.*gate.*", "x.gate.y", 1 }, { "re:b", "ab", 0 }, { "re:(a|b)", "a", 0 },
        { "*", "", 1 },            { "re:a[bc]", "ab", 0 },   { "re:a\\d", "a1", 0 },       { "re:trailing\\", "trailing\\", 0 },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) {
        json_t *patch = json_pack("{s{sss[s]}}", "quantization_config", "quant_method", "fp8", "ignored_layers", CASES[i].pattern);
        char *text = json_dumps(patch, 0);
        octavo_model_description d;
        expect(FIXTURE_LLAMA, text, &d);
        if (octavo_model_quant_excludes(&d.quant, CASES[i].module) != CASES[i].matches)
            fail_msg("'%s' and '%s': expected %d", CASES[i].pattern, CASES[i].module, CASES[i].matches);
        octavo_model_description_fini(&d);
        free(text);
        json_decref(patch);
    }
}

/* ---- what is refused ---- */

static void refuses_fields(void **state)
{
    (void)state;
    static const struct { const char *patch, *fragment; } CASES[] = {
        { "{\"drop\":\"architectures\"}", "'architectures'" },
        { "{\"architectures\":[]}", "'architectures'" },
        { "{\"architectures\":\"LlamaForCausalLM\"}", "'architectures'" },
        { "{\"drop\":\"hidden_size\"}", "no field 'hidden_size'" },
        { "{\"hidden_size\":null}", "no field 'hidden_size'" },
        { "{\"hidden_size\":\"8\"}", "'hidden_size' is not a whole number" },
        { "{\"hidden_size\":8.5}", "'hidden_size' is not a whole number" },
        { "{\"hidden_size\":0}", "'hidden_size' is 0" },
        { "{\"hidden_size\":9223372036854775807}", "'hidden_size' is 9223372036854775807" },
        { "{\"hidden_size\":9}", "'hidden_size' is 9, expected a multiple of num_attention_heads, 2" },
        { "{\"num_hidden_layers\":-1}", "'num_hidden_layers' is -1" },
        { "{\"num_hidden_layers\":100000}", "'num_hidden_layers' is 100000" },
        { "{\"num_attention_heads\":0}", "'num_attention_heads' is 0" },
        { "{\"num_attention_heads\":4,\"num_key_value_heads\":3}", "'num_attention_heads' is 4, expected a multiple" },
        { "{\"num_key_value_heads\":0}", "'num_key_value_heads' is 0" },
        { "{\"head_dim\":-4}", "'head_dim' is -4" },
        { "{\"head_dim\":5}", "heads have 5 dimensions" },
        { "{\"vocab_size\":0}", "'vocab_size' is 0" },
        { "{\"intermediate_size\":0}", "'intermediate_size' is 0" },
        { "{\"max_position_embeddings\":0}", "'max_position_embeddings' is 0" },
        { "{\"rms_norm_eps\":-1}", "'rms_norm_eps' is -1" },
        { "{\"rms_norm_eps\":\"small\"}", "'rms_norm_eps' is not a number" },
        { "{\"attention_bias\":1}", "'attention_bias' is not true or false" },
        { "{\"tie_word_embeddings\":\"no\"}", "'tie_word_embeddings' is not true or false" },
        { "{\"hidden_act\":7}", "'hidden_act' is not a string" },
        { "{\"eos_token_id\":-1}", "'eos_token_id'" },
        { "{\"eos_token_id\":[1,\"2\"]}", "'eos_token_id'" },
        { "{\"bos_token_id\":[1]}", "'bos_token_id'" },
        { "{\"rope_theta\":0}", "'rope_theta' is 0" },
        { "{\"rope_scaling\":3}", "'rope_scaling' is not an object" },
        { "{\"rope_scaling\":{\"type\":\"linear\"}}", "no field 'rope_scaling.factor'" },
        { "{\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}}", "'rope_scaling.factor' is 0" },
        { "{\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8}}", "no field 'rope_scaling.low_freq_factor'" },
        { "{\"rope_scaling\":{\"type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4}}", "'rope_scaling.high_freq_factor'" },
        { "{\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":-2}}", "'rope_parameters.factor' is -2" },
        { "{\"rope_parameters\":{\"rope_type\":\"yarn\",\"original_max_position_embeddings\":0}}", "'rope_parameters.original_max" },
        { "{\"architectures\":[\"MistralForCausalLM\"],\"sliding_window\":0}", "'sliding_window' is 0" },
        { "{\"architectures\":[\"Qwen2ForCausalLM\"],\"layer_types\":[\"full_attention\"]}", "'layer_types' has 1 entries" },
        { "{\"architectures\":[\"Qwen2ForCausalLM\"],\"layer_types\":[\"full_attention\",2]}", "'layer_types' has an entry 1" },
        { "{\"architectures\":[\"Qwen2ForCausalLM\"],\"layer_types\":[\"full_attention\",\"sliding_attention\"]}", "no sliding_window" },
        { "{\"architectures\":[\"MixtralForCausalLM\"]}", "no field 'num_local_experts'" },
        { "{\"architectures\":[\"MixtralForCausalLM\"],\"num_local_experts\":0}", "'num_local_experts' is 0" },
        { "{\"architectures\":[\"MixtralForCausalLM\"],\"num_local_experts\":4,\"num_experts_per_tok\":5}", "'num_experts_per_tok' is 5" },
        { "{\"architectures\":[\"OlmoeForCausalLM\"],\"num_experts\":4,\"num_experts_per_tok\":2,\"clip_qkv\":-1}", "'clip_qkv' is -1" },
        { "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"num_experts\":4,\"num_experts_per_tok\":2,\"moe_intermediate_size\":4,"
          "\"mlp_only_layers\":[\"1\"]}", "'mlp_only_layers' has an entry 0" },
        { "{\"quantization_config\":[]}", "'quantization_config' is not an object" },
        { "{\"quantization_config\":{}}", "no field 'quantization_config.quant_method'" },
        { "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[128]}}", "'quantization_config.weight_block_size'" },
        { "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[0,128]}}", "'quantization_config.weight_block_size'" },
        { "{\"quantization_config\":{\"quant_method\":\"fp8\",\"ignored_layers\":[1]}}", "'quantization_config.ignored_layers'" },
        { "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\"}}", "names no group" },
        { "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"config_groups\":{\"g\":1}}}",
          "'quantization_config.config_groups.g' is not an object" },
        { "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"config_groups\":{\"g\":"
          "{\"weights\":{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"block\"}}}}}", "block_structure" },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) expect_refusal(FIXTURE_LLAMA, CASES[i].patch, OCTAVO_E_FORMAT, CASES[i].fragment);
}

#define COMPRESSED_WEIGHTS(fields)                                                                                                \
    "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"config_groups\":{\"g\":"    \
    "{\"weights\":{" fields "}}}}}"

static void refuses_what_nothing_does(void **state)
{
    (void)state;
    static const struct { const char *patch, *fragment; } CASES[] = {
        { "{\"architectures\":[\"MambaForCausalLM\"]}", "'MambaForCausalLM', expected one of LlamaForCausalLM" },
        { "{\"text_config\":{}}", "'text_config'" },
        { "{\"scale_attn_by_inverse_layer_idx\":true}", "'scale_attn_by_inverse_layer_idx' is true" },
        { "{\"add_cross_attention\":true}", "'add_cross_attention' is true" },
        { "{\"hidden_act\":\"quick_gelu\"}", "'quick_gelu'" },
        { "{\"eos_token_id\":[1,2,3,4,5,6,7,8,9]}", "'eos_token_id' names the model more than 8" },
        { "{\"partial_rotary_factor\":0.5}", "'partial_rotary_factor' is 0.5" },
        { "{\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2}}", "'dynamic'" },
        { "{\"rope_scaling\":{\"rope_type\":\"longrope\"}}", "'longrope'" },
        { "{\"rope_parameters\":{\"full_attention\":{\"rope_theta\":100.0},\"sliding_attention\":{\"rope_theta\":200.0}}}", "differs" },
        { "{\"architectures\":[\"Qwen2ForCausalLM\"],\"layer_types\":[\"full_attention\",\"linear_attention\"]}", "'linear_attention'" },
        { "{\"quantization_config\":{\"quant_method\":\"gptq\"}}", "'gptq'" },
        { "{\"quantization_config\":{\"quant_method\":\"fp8\",\"fmt\":\"e5m2\"}}", "'e5m2'" },
        { "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\"}}", "'pack-quantized'" },
        { "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"sparsity_config\":"
          "{\"format\":\"sparse-24-bitmask\"}}}", "'sparse-24-bitmask'" },
        { COMPRESSED_WEIGHTS("\"num_bits\":4,\"type\":\"float\",\"strategy\":\"channel\""), "num_bits' is 4" },
        { COMPRESSED_WEIGHTS("\"num_bits\":8,\"type\":\"int\",\"strategy\":\"channel\""), "type' is 'int'" },
        { COMPRESSED_WEIGHTS("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"group\""), "strategy' is 'group'" },
        { COMPRESSED_WEIGHTS("\"num_bits\":8,\"type\":\"float\",\"strategy\":\"channel\",\"symmetric\":false"), "symmetric' is false" },
        { "{\"quantization_config\":{\"quant_method\":\"modelopt\",\"quant_algo\":\"NVFP4\"}}", "'NVFP4'" },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) expect_refusal(FIXTURE_LLAMA, CASES[i].patch, OCTAVO_E_UNSUPPORTED, CASES[i].fragment);
}

static void refuses_other_text(void **state)
{
    (void)state;
    static const char *const TEXTS[] = { "", "{", "[]", "7", "{\"a\":1,\"a\":2}", "{\"rms_norm_eps\":NaN}", "{\"rms_norm_eps\":1e999}",
                                         "{\"vocab_size\":99999999999999999999}", "{}}" };
    octavo_model_description d;
    for (size_t i = 0; i < LENGTH(TEXTS); i++) {
        assert_int_equal(octavo_model_description_init(&d, "config.json", TEXTS[i], strlen(TEXTS[i])), OCTAVO_E_FORMAT);
        assert_non_null(strstr(octavo_last_error(), "config.json: "));
    }
    char wide[2048] = "{\"rope_scaling\":{";
    for (int i = 0; i < 65; i++) snprintf(wide + strlen(wide), sizeof wide - strlen(wide), "%s\"k%d\":{}", i ? "," : "", i);
    strcat(wide, "}}");
    expect_refusal(FIXTURE_LLAMA, wide, OCTAVO_E_FORMAT, "'rope_scaling' has 65 fields");
    char *deep = malloc(100000);
    memset(deep, '[', 100000);
    assert_int_equal(octavo_model_description_init(&d, "config.json", deep, 100000), OCTAVO_E_FORMAT);
    free(deep);
    assert_int_equal(octavo_model_description_init(&d, "config.json", "{}", (size_t)OCTAVO_CONFIG_BYTES_MAX + 1), OCTAVO_E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_llama),           cmocka_unit_test(reads_options_of_llama),
        cmocka_unit_test(reads_generation),      cmocka_unit_test(refuses_generation),
        cmocka_unit_test(reads_gpt2),            cmocka_unit_test(reads_windows),
        cmocka_unit_test(reads_norms_and_biases), cmocka_unit_test(reads_experts),
        cmocka_unit_test(computes_frequencies),  cmocka_unit_test(finds_positions_elsewhere),
        cmocka_unit_test(reads_quantisation),    cmocka_unit_test(matches_patterns),
        cmocka_unit_test(refuses_fields),        cmocka_unit_test(refuses_what_nothing_does),
        cmocka_unit_test(refuses_other_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
