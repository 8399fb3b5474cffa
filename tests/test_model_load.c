/* test_model_load.c - weights arrive as their files have them: mapped, rounded, turned, quantised, from one file or from shards. */
#define _GNU_SOURCE 1
#include "checkpoint_fixture.h"
#include "model/model_weights.h"
#include "octavo/quant.h"
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>

#define LENGTH(list) (sizeof(list) / sizeof *(list))

static octavo_context *context;
static octavo_device *device;
static checkpoint at;

static int set_up(void **state)
{
    if (checkpoint_make_folder(state) || octavo_context_create(NULL, &context)) return -1;
    return octavo_device_open(context, "cpu", &device) ? -1 : 0;
}

static int tear_down(void **state)
{
    checkpoint_free(&at);
    octavo_device_close(device);
    octavo_context_destroy(context);
    return checkpoint_remove_folder(state);
}

static octavo_model *open_folder(const char *folder, int32_t linear)
{
    octavo_model_options options = OCTAVO_MODEL_OPTIONS_INIT;
    octavo_model *model = NULL;
    options.linear = linear;
    if (octavo_model_open(device, folder, &options, &model)) fail_msg("%s: %s", folder, octavo_last_error());
    return model;
}

static octavo_model *open_here(int32_t linear) { return open_folder(checkpoint_folder, linear); }

static void expect_floats(const float *found, const char *name)
{
    const octavo_tensor *t = checkpoint_find(&at, name);
    assert_non_null(found);
    for (int64_t i = 0; i < checkpoint_elements(t); i++)
        if (found[i] != checkpoint_load(t, i)) fail_msg("%s: element %d differs", name, (int)i);
}

static void expect_same(const octavo_tensor *found, const char *name)
{
    const octavo_tensor *t = checkpoint_find(&at, name);
    assert_int_equal(found->dtype, t->dtype);
    assert_true(found->ndim == 2 && found->shape[0] == t->shape[0] && found->shape[1] == t->shape[1]);
    assert_memory_equal(found->data, t->data, (size_t)checkpoint_elements(t) * octavo_dtype_bytes(t->dtype));
}

/* Whether the bytes are the file's own. */
static bool is_mapped(const void *data)
{
    char line[1024];
    bool found = false;
    FILE *maps = fopen("/proc/self/maps", "re");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps)) {
        uintptr_t begin, end;
        if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR, &begin, &end) == 2 && (uintptr_t)data >= begin && (uintptr_t)data < end)
            found = strstr(line, "model.safetensors") != NULL;
    }
    fclose(maps);
    return found;
}

/* ---- floats ---- */

static void maps_what_fits(void **state)
{
    (void)state;
    static const octavo_dtype DTYPES[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    checkpoint_write_config(FIXTURE_LLAMA, "{}");
    for (size_t i = 0; i < LENGTH(DTYPES); i++) {
        checkpoint_llama(&at, DTYPES[i]);
        checkpoint_write(&at);
        octavo_model *model = open_here(OCTAVO_LINEAR_F32);
        const octavo_lm_weights *w = octavo_model_weights(model);
        expect_same(&w->embedding, "model.embed_tokens.weight");
        expect_same(&w->head.weight.codes, "lm_head.weight");
        expect_same(&w->layers[1].k.weight.codes, "model.layers.1.self_attn.k_proj.weight");
        expect_same(&w->layers[1].ffn.down.weight.codes, "model.layers.1.mlp.down_proj.weight");
        expect_floats(w->layers[0].ffn_norm.weight, "model.layers.0.post_attention_layernorm.weight");
        expect_floats(w->final_norm.weight, "model.norm.weight");
        assert_true(!w->layers[0].q.weight.scales && !w->layers[0].q.bias && !w->layers[0].q_norm.weight && !w->positions.data);
        assert_true(w->layers[0].ffn.gate.weight.codes.data && !w->layers[0].experts && !w->layers[0].router.weight.codes.data);
        assert_true(octavo_model_linear(model) == OCTAVO_LINEAR_F32 && octavo_model_head_precision(model) == OCTAVO_LINEAR_F32);
        assert_true(is_mapped(w->embedding.data) && is_mapped(w->layers[1].q.weight.codes.data));
        assert_true(is_mapped(w->final_norm.weight) == (DTYPES[i] == OCTAVO_F32));
        assert_ptr_equal(octavo_model_device(model), device);
        octavo_model_close(model);
    }
}

static void chooses_a_precision(void **state)
{
    (void)state;
    checkpoint_write_config(FIXTURE_LLAMA, "{}");
    checkpoint_llama(&at, OCTAVO_F32);
    checkpoint_write(&at);
    octavo_model *model = NULL;
    assert_int_equal(octavo_model_open(device, checkpoint_folder, NULL, &model), OCTAVO_OK);
    assert_int_equal(octavo_model_linear(model), OCTAVO_LINEAR_F32);
    const int64_t exact = octavo_model_bytes_per_token(model);
    octavo_model_close(model);
    /* 8 floats of the embedding, 2 layers of 16 + 480 floats, a norm and a head */
    assert_int_equal(exact, 4 * (8 + 2 * (16 + 192 + 288) + 8 + 80));
    checkpoint_llama(&at, OCTAVO_F16);
    checkpoint_write(&at);
    model = open_here(OCTAVO_LINEAR_AS_STORED);
    assert_int_equal(octavo_model_linear(model), OCTAVO_LINEAR_BF16);
    assert_int_equal(octavo_model_bytes_per_token(model), 2 * (8 + 2 * 480 + 80) + 4 * (2 * 16 + 8));
    const octavo_tensor *q = &octavo_model_weights(model)->layers[0].q.weight.codes;
    const octavo_tensor *stored = checkpoint_find(&at, "model.layers.0.self_attn.q_proj.weight");
    assert_int_equal(q->dtype, OCTAVO_BF16);
    for (int64_t i = 0; i < 64; i++) assert_int_equal(((uint16_t *)q->data)[i], octavo_bf16_from_float(checkpoint_load(stored, i)));
    expect_same(&octavo_model_weights(model)->embedding, "model.embed_tokens.weight");
    octavo_model_close(model);
}

static void reads_unaligned_data(void **state)
{
    (void)state;
    char path[CHECKPOINT_PATH];
    uint8_t bytes[1 << 15], moved[1 << 15];
    checkpoint_write_config(FIXTURE_LLAMA, "{}");
    checkpoint_llama(&at, OCTAVO_F32);
    checkpoint_write(&at);
    checkpoint_path(path, "model.safetensors");
    FILE *file = fopen(path, "rbe");
    assert_non_null(file);
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    assert_true(size < sizeof bytes && bytes[0] < 255);
    const size_t header = (size_t)bytes[0] + ((size_t)bytes[1] << 8); /* one blank more puts every tensor at an odd byte */
    memcpy(moved, bytes, 8 + header);
    moved[0]++;
    moved[8 + header] = ' ';
    memcpy(moved + 9 + header, bytes + 8 + header, size - 8 - header);
    file = fopen(path, "wbe");
    assert_non_null(file);
    assert_int_equal(fwrite(moved, 1, size + 1, file), size + 1);
    assert_int_equal(fclose(file), 0);
    octavo_model *model = open_here(OCTAVO_LINEAR_F32);
    const octavo_lm_weights *w = octavo_model_weights(model);
    assert_int_equal((uintptr_t)w->layers[0].o.weight.codes.data % 4, 0);
    expect_same(&w->layers[0].o.weight.codes, "model.layers.0.self_attn.o_proj.weight");
    expect_same(&w->embedding, "model.embed_tokens.weight");
    expect_floats(w->final_norm.weight, "model.norm.weight");
    octavo_model_close(model);
}

static void ties_the_head(void **state)
{
    (void)state;
    checkpoint_llama(&at, OCTAVO_F32);
    checkpoint_drop(&at, "lm_head.weight");
    checkpoint_write(&at);
    checkpoint_write_config(FIXTURE_LLAMA, "{\"tie_word_embeddings\":true}");
    octavo_model *model = open_here(OCTAVO_LINEAR_F32);
    const octavo_lm_weights *w = octavo_model_weights(model);
    assert_ptr_equal(w->head.weight.codes.data, w->embedding.data);
    octavo_model_close(model);
    model = open_here(OCTAVO_LINEAR_BF16);
    w = octavo_model_weights(model);
    assert_true(w->embedding.dtype == OCTAVO_F32 && w->head.weight.codes.dtype == OCTAVO_BF16);
    octavo_model_close(model);
    checkpoint_add(&at, "lm_head.weight", OCTAVO_F32, 10, 8); /* a head of its own is used */
    checkpoint_write(&at);
    model = open_here(OCTAVO_LINEAR_F32);
    expect_same(&octavo_model_weights(model)->head.weight.codes, "lm_head.weight");
    octavo_model_close(model);
}

/* ---- architectures ---- */

static void turns_gpt2(void **state)
{
    (void)state;
    static const struct { const char *name; int64_t rows, cols; } PARTS[] = {
        { "ln_1.weight", 8, 0 },        { "ln_1.bias", 8, 0 },        { "ln_2.weight", 8, 0 },     { "ln_2.bias", 8, 0 },
        { "attn.c_attn.weight", 8, 24 }, { "attn.c_attn.bias", 24, 0 }, { "attn.c_proj.weight", 8, 8 }, { "attn.c_proj.bias", 8, 0 },
        { "mlp.c_fc.weight", 8, 32 },   { "mlp.c_fc.bias", 32, 0 },   { "mlp.c_proj.weight", 32, 8 }, { "mlp.c_proj.bias", 8, 0 },
    };
    checkpoint_write_config(FIXTURE_GPT2, "{}");
    for (int bare = 0; bare < 2; bare++) { /* with "transformer." and, as first published, without */
        const char *prefix = bare ? "" : "transformer.";
        char name[CHECKPOINT_NAME];
        checkpoint_free(&at);
        for (int i = 0; i < 2; i++) {
            snprintf(name, sizeof name, "%s%s.weight", prefix, i ? "wpe" : "wte");
            checkpoint_add(&at, name, OCTAVO_F32, i ? 16 : 10, 8);
        }
        for (int i = 0; i < 2 * (int)LENGTH(PARTS); i++) {
            const size_t part = (size_t)i % LENGTH(PARTS);
            snprintf(name, sizeof name, "%sh.%d.%s", prefix, i / (int)LENGTH(PARTS), PARTS[part].name);
            checkpoint_add(&at, name, OCTAVO_F32, PARTS[part].rows, PARTS[part].cols);
        }
        snprintf(name, sizeof name, "%sln_f.weight", prefix);
        checkpoint_add(&at, name, OCTAVO_F32, 8, 0);
        snprintf(name, sizeof name, "%sln_f.bias", prefix);
        checkpoint_add(&at, name, OCTAVO_F32, 8, 0);
        checkpoint_write(&at);
        octavo_model *model = open_here(OCTAVO_LINEAR_AS_STORED);
        const octavo_lm_weights *w = octavo_model_weights(model);
        const octavo_lm_linear *qkv[] = { &w->layers[1].q, &w->layers[1].k, &w->layers[1].v };
        snprintf(name, sizeof name, "%sh.1.attn.c_attn.weight", prefix);
        const float *stored = checkpoint_find(&at, name)->data;
        snprintf(name, sizeof name, "%sh.1.attn.c_attn.bias", prefix);
        const float *bias = checkpoint_find(&at, name)->data;
        for (int part = 0; part < 3; part++)
            for (int out = 0; out < 8; out++) {
                assert_true(qkv[part]->bias[out] == bias[8 * part + out]);
                for (int in = 0; in < 8; in++)
                    assert_true(((float *)qkv[part]->weight.codes.data)[8 * out + in] == stored[24 * in + 8 * part + out]);
            }
        assert_true(w->layers[0].ffn.up.weight.codes.shape[0] == 32 && w->layers[0].ffn.down.weight.codes.shape[1] == 32);
        assert_true(w->positions.shape[0] == 16 && w->head.weight.codes.data == w->embedding.data && w->final_norm.bias);
        assert_true(!w->layers[0].ffn.gate.weight.codes.data);
        octavo_model_close(model);
    }
}

static void loads_experts(void **state)
{
    (void)state;
    checkpoint_llama(&at, OCTAVO_F32);
    checkpoint_write_config(FIXTURE_LLAMA, "{\"architectures\":[\"Qwen3MoeForCausalLM\"],\"num_experts\":3,\"num_experts_per_tok\":2,"
                            "\"moe_intermediate_size\":5,\"mlp_only_layers\":[0],\"head_dim\":4}");
    char name[CHECKPOINT_NAME];
    checkpoint_add(&at, "model.layers.1.mlp.gate.weight", OCTAVO_F32, 3, 8);
    for (int i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "model.layers.%d.self_attn.%c_norm.weight", i / 2, i % 2 ? 'k' : 'q');
        checkpoint_add(&at, name, OCTAVO_F32, 4, 0);
    }
    for (int i = 0; i < 9; i++) {
        static const char *const PARTS[] = { "gate_proj", "up_proj", "down_proj" };
        snprintf(name, sizeof name, "model.layers.1.mlp.experts.%d.%s.weight", i / 3, PARTS[i % 3]);
        checkpoint_add(&at, name, OCTAVO_F32, i % 3 == 2 ? 8 : 5, i % 3 == 2 ? 5 : 8);
    }
    checkpoint_write(&at);
    octavo_model *model = open_here(OCTAVO_LINEAR_FP8);
    const octavo_lm_layer *layer = octavo_model_weights(model)->layers;
    assert_true(!layer[0].experts && layer[0].ffn.up.weight.codes.data);
    assert_true(layer[1].experts && !layer[1].ffn.up.weight.codes.data);
    assert_int_equal(layer[1].router.weight.codes.dtype, OCTAVO_BF16); /* routing is not quantised */
    assert_int_equal(layer[1].experts[2].down.weight.codes.dtype, OCTAVO_E4M3);
    octavo_model_close(model);
    model = open_here(OCTAVO_LINEAR_F32);
    layer = octavo_model_weights(model)->layers;
    expect_same(&layer[1].experts[2].down.weight.codes, "model.layers.1.mlp.experts.2.down_proj.weight");
    expect_floats(layer[1].k_norm.weight, "model.layers.1.self_attn.k_norm.weight");
    octavo_model_close(model);
}

/* ---- eight bits ---- */

/* W as floats, whatever holds it. */
static float weight_at(const octavo_weight *w, int64_t row, int64_t col)
{
    const int64_t in = w->codes.shape[1], width = w->block_cols ? w->block_cols : in, across = (in - 1) / width + 1;
    const int64_t line = w->block_rows ? row / w->block_rows : 0;
    const float code = w->codes.dtype == OCTAVO_INT8 ? (float)((const int8_t *)w->codes.data)[row * in + col] : checkpoint_load(&w->codes, row * in + col);
    return code * (w->scales ? w->scales[line * across + col / width] : 1);
}

static void quantises_at_load(void **state)
{
    (void)state;
    static const struct { int32_t linear; octavo_dtype dtype; } CASES[] = { { OCTAVO_LINEAR_FP8, OCTAVO_E4M3 }, { OCTAVO_LINEAR_INT8, OCTAVO_INT8 } };
    checkpoint_write_config(FIXTURE_LLAMA, "{}");
    checkpoint_llama(&at, OCTAVO_BF16);
    checkpoint_write(&at);
    for (size_t i = 0; i < LENGTH(CASES); i++) {
        octavo_model *model = open_here(CASES[i].linear);
        const octavo_lm_linear *down = &octavo_model_weights(model)->layers[1].ffn.down;
        octavo_exec exec = OCTAVO_EXEC_INIT;
        octavo_quantize_params p = OCTAVO_QUANTIZE_PARAMS_INIT;
        uint8_t codes[96];
        float scales[8];
        exec.device = device;
        p.x = *checkpoint_find(&at, "model.layers.1.mlp.down_proj.weight");
        p.codes = octavo_tensor_view(codes, CASES[i].dtype, 2, (int64_t[]){ 8, 12 });
        p.scales = scales;
        p.granularity = OCTAVO_PER_TOKEN;
        assert_int_equal(octavo_quantize(&exec, &p), OCTAVO_OK);
        assert_int_equal(down->weight.codes.dtype, CASES[i].dtype);
        assert_true(down->weight.block_rows == 1 && down->weight.block_cols == 0 && !down->x_scale);
        assert_memory_equal(down->weight.codes.data, codes, sizeof codes);
        assert_memory_equal(down->weight.scales, scales, sizeof scales);
        assert_int_equal(octavo_model_weights(model)->head.weight.codes.dtype, OCTAVO_BF16);
        octavo_model_close(model);
    }
}

#define COMPRESSED(strategy)                                                                                                       \
    "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"ignore\":[\"lm_head\"],"     \
    "\"config_groups\":{\"g\":{\"weights\":{\"num_bits\":8,\"type\":\"float\"," strategy "}}}}}"

static void keeps_eight_bits(void **state)
{
    (void)state;
    static const struct { const char *patch, *suffix; octavo_dtype scale; int64_t rows, cols, block_rows, block_cols; } CASES[] = {
        { COMPRESSED("\"strategy\":\"channel\""), "weight_scale", OCTAVO_BF16, -1, 1, 1, 0 },
        { COMPRESSED("\"strategy\":\"channel\""), "weight_scale", OCTAVO_F32, -1, 0, 1, 0 },
        { COMPRESSED("\"strategy\":\"tensor\""), "weight_scale", OCTAVO_F16, 1, 0, 0, 0 },
        { COMPRESSED("\"strategy\":\"block\",\"block_structure\":[3,5]"), "weight_scale", OCTAVO_F32, -3, -5, 3, 5 },
        { "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[4,8]}}", "weight_scale_inv", OCTAVO_F32, -4, -8, 4, 8 },
        { "{\"quantization_config\":{\"quant_method\":\"fp8\"}}", "weight_scale", OCTAVO_F32, 0, 0, 0, 0 },
        { "{\"quantization_config\":{\"quant_method\":\"modelopt\",\"quant_algo\":\"FP8\"}}", "weight_scale", OCTAVO_F32, 1, 0, 0, 0 },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) {
        checkpoint_write_config(FIXTURE_LLAMA, CASES[i].patch);
        checkpoint_llama(&at, OCTAVO_BF16);
        checkpoint_quantise(&at, CASES[i].suffix, CASES[i].scale, CASES[i].rows, CASES[i].cols);
        checkpoint_write(&at);
        float exact[96];
        octavo_model *model = open_here(OCTAVO_LINEAR_AS_STORED);
        const octavo_weight *down = &octavo_model_weights(model)->layers[1].ffn.down.weight;
        assert_int_equal(octavo_model_linear(model), OCTAVO_LINEAR_BF16);
        expect_same(&down->codes, "model.layers.1.mlp.down_proj.weight");
        assert_true(is_mapped(down->codes.data));
        assert_true(down->block_rows == CASES[i].block_rows && down->block_cols == CASES[i].block_cols);
        char name[CHECKPOINT_NAME];
        snprintf(name, sizeof name, "model.layers.1.mlp.down_proj.%s", CASES[i].suffix);
        expect_floats(down->scales, name);
        for (int64_t e = 0; e < 96; e++) exact[e] = weight_at(down, e / 12, e % 12);
        octavo_model_close(model);
        model = open_here(OCTAVO_LINEAR_INT8); /* read back, then quantised to the other eight bits */
        down = &octavo_model_weights(model)->layers[1].ffn.down.weight;
        assert_int_equal(down->codes.dtype, OCTAVO_INT8);
        for (int64_t e = 0; e < 96; e++)
            assert_true(fabsf(weight_at(down, e / 12, e % 12) - exact[e]) <= 0.5001f * down->scales[e / 12]);
        octavo_model_close(model);
    }
}

static void reads_static_scales(void **state)
{
    (void)state;
    checkpoint_write_config(FIXTURE_LLAMA, "{}");
    checkpoint_write_text("hf_quant_config.json", "{\"quantization\":{\"quant_algo\":\"FP8\",\"exclude_modules\":[\"lm_head\"]}}");
    checkpoint_llama(&at, OCTAVO_BF16);
    checkpoint_quantise(&at, "weight_scale", OCTAVO_F32, 1, 0);
    static const struct { const char *name; float value; } SCALES[] = {
        { "model.layers.0.self_attn.q_proj.input_scale", 0.25f }, { "model.layers.0.self_attn.k_proj.input_scale", 0.25f },
        { "model.layers.0.self_attn.v_proj.input_scale", 0.5f },  { "model.layers.0.self_attn.k_proj.k_scale", 0.02f },
        { "model.layers.0.self_attn.v_proj.v_scale", 0.03f },     { "model.layers.1.self_attn.k_scale", 0.04f },
    };
    for (size_t i = 0; i < LENGTH(SCALES); i++) checkpoint_store(checkpoint_add(&at, SCALES[i].name, OCTAVO_F32, i % 2, 0), 0, SCALES[i].value);
    checkpoint_write(&at);
    octavo_model *model = open_here(OCTAVO_LINEAR_FP8);
    const octavo_lm_layer *layer = octavo_model_weights(model)->layers;
    assert_true(*layer[0].q.x_scale == 0.25f && *layer[0].v.x_scale == 0.5f && !layer[0].o.x_scale);
    assert_ptr_equal(layer[0].q.x_scale, layer[0].k.x_scale); /* so that one call can multiply both */
    assert_true(layer[0].k_scale == 0.02f && layer[0].v_scale == 0.03f && layer[1].k_scale == 0.04f && layer[1].v_scale == 0);
    octavo_model_close(model);
    model = open_here(OCTAVO_LINEAR_INT8);
    assert_null(octavo_model_weights(model)->layers[0].q.x_scale); /* was made for e4m3 */
    octavo_model_close(model);
    checkpoint_clear();
}

/* ---- shards, and the project's own checkpoints ---- */

static void joins_shards(void **state)
{
    (void)state;
    char index[CHECKPOINT_TENSORS * (CHECKPOINT_NAME + 20)] = "{\"metadata\":{},\"weight_map\":{";
    checkpoint_clear();
    checkpoint_write_config(FIXTURE_LLAMA, "{}");
    checkpoint_llama(&at, OCTAVO_F32);
    for (size_t i = 0; i < at.count; i++) {
        char entry[CHECKPOINT_NAME + 40];
        snprintf(entry, sizeof entry, "%s\"%.*s\":\"part-%c.safetensors\"", i ? "," : "", CHECKPOINT_NAME, at.names[i], i < 7 ? 'b' : 'a');
        strcat(index, entry);
    }
    strcat(index, "}}");
    checkpoint_write_text("model.safetensors.index.json", index);
    checkpoint_write_some(&at, "part-b.safetensors", 0, 7);
    checkpoint_write_some(&at, "part-a.safetensors", 7, at.count);
    octavo_model *model = open_here(OCTAVO_LINEAR_AS_STORED);
    expect_same(&octavo_model_weights(model)->layers[0].q.weight.codes, "model.layers.0.self_attn.q_proj.weight");
    expect_same(&octavo_model_weights(model)->layers[1].q.weight.codes, "model.layers.1.self_attn.q_proj.weight");
    octavo_model_close(model);
    checkpoint_clear();
}

static void opens_shared_checkpoints(void **state)
{
    (void)state;
    static const struct { const char *name, *architecture; int32_t q_heads, kv_heads, head_dim, intermediate, experts; int64_t window; } ALL[] = {
        { "checkpoints/gpt2", "GPT2LMHeadModel", 4, 4, 16, 256, 0, 0 },
        { "checkpoints/llama", "LlamaForCausalLM", 4, 2, 16, 176, 0, 0 },
        { "checkpoints/llama_fp8_compressed", "LlamaForCausalLM", 4, 2, 16, 176, 0, 0 },
        { "checkpoints/llama_fp8_modelopt", "LlamaForCausalLM", 4, 2, 16, 176, 0, 0 },
        { "checkpoints/llama_mha", "LlamaForCausalLM", 4, 4, 16, 176, 0, 0 },
        { "checkpoints/llama_mqa", "LlamaForCausalLM", 4, 1, 32, 176, 0, 0 },
        { "checkpoints/mistral_window", "MistralForCausalLM", 4, 2, 16, 176, 0, 32 },
        { "checkpoints/mixtral", "MixtralForCausalLM", 4, 2, 16, 176, 4, 0 },
        { "checkpoints/olmoe", "OlmoeForCausalLM", 4, 2, 16, 176, 8, 0 },
        { "checkpoints/qwen2", "Qwen2ForCausalLM", 4, 2, 16, 176, 0, 0 },
        { "checkpoints/qwen3", "Qwen3ForCausalLM", 4, 2, 32, 176, 0, 0 },
        { "checkpoints/qwen3_fp8_block", "Qwen3ForCausalLM", 4, 2, 32, 176, 0, 0 },
        { "checkpoints/qwen3_moe", "Qwen3MoeForCausalLM", 4, 2, 32, 176, 8, 0 },
        { "models/pycode-32m", "LlamaForCausalLM", 8, 2, 128, 1408, 0, 0 },
        { "models/pycode-32m-fp8", "LlamaForCausalLM", 8, 2, 128, 1408, 0, 0 },
    };
    const char *shared = getenv("OCTAVO_SHARED");
    int opened = 0;
    for (size_t i = 0; i < LENGTH(ALL); i++) {
        char folder[512];
        snprintf(folder, sizeof folder, "%s/%s", shared ? shared : "../shared", ALL[i].name);
        if (access(folder, R_OK)) continue;
        for (int32_t linear = OCTAVO_LINEAR_AS_STORED; linear <= OCTAVO_LINEAR_INT8; linear++) {
            octavo_model *model = open_folder(folder, linear);
            const octavo_model_config *c = octavo_model_config_of(model);
            const octavo_lm_layer *last = &octavo_model_weights(model)->layers[c->layers - 1];
            assert_string_equal(c->architecture, ALL[i].architecture);
            assert_true(c->q_heads == ALL[i].q_heads && c->kv_heads == ALL[i].kv_heads && c->head_dim == ALL[i].head_dim);
            assert_true(c->intermediate == ALL[i].intermediate && c->experts == ALL[i].experts && c->windows[0] == ALL[i].window);
            assert_int_equal(last->v.weight.codes.shape[0], c->kv_heads * c->head_dim);
            assert_int_equal(last->o.weight.codes.shape[1], c->q_heads * c->head_dim);
            assert_true(octavo_model_bytes_per_token(model) > 0 && octavo_model_weights(model)->head.weight.codes.shape[0] == c->vocab);
            octavo_model_close(model);
            opened++;
        }
    }
    if (opened == 0) {
        print_message("skipped: there are no checkpoints in '%s'\n", shared ? shared : "../shared");
        skip();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(maps_what_fits),     cmocka_unit_test(chooses_a_precision), cmocka_unit_test(reads_unaligned_data),
        cmocka_unit_test(ties_the_head),      cmocka_unit_test(turns_gpt2),          cmocka_unit_test(loads_experts),
        cmocka_unit_test(quantises_at_load),  cmocka_unit_test(keeps_eight_bits),    cmocka_unit_test(reads_static_scales),
        cmocka_unit_test(joins_shards),       cmocka_unit_test(opens_shared_checkpoints),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
