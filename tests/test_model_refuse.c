/* test_model_refuse.c - checkpoints with one thing wrong are refused in a sentence that names the file and the field or tensor. */
#define _GNU_SOURCE 1
#include "checkpoint_fixture.h"
#include "model/model_load.h"
#include <math.h>
#include <sys/stat.h>

#define LENGTH(list) (sizeof(list) / sizeof *(list))
#define LAYER "model.layers.1."

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

static void expect_refusal(int32_t linear, octavo_status status, const char *file, const char *fragment)
{
    octavo_model_options options = OCTAVO_MODEL_OPTIONS_INIT;
    octavo_model *model = (octavo_model *)&options;
    options.linear = linear;
    const octavo_status found = octavo_model_open(device, checkpoint_folder, &options, &model);
    assert_null(model);
    if (found != status) fail_msg("%d '%s', expected %d and '%s'", (int)found, octavo_last_error(), (int)status, fragment);
    if (!strstr(octavo_last_error(), file) || !strstr(octavo_last_error(), fragment))
        fail_msg("'%s' does not say '%s' and '%s'", octavo_last_error(), file, fragment);
}

static void start(octavo_dtype dtype, const char *patch)
{
    checkpoint_clear();
    checkpoint_llama(&at, dtype);
    checkpoint_write_config(FIXTURE_LLAMA, patch);
}

static void expect_bad_tensors(int32_t linear, octavo_status status, const char *fragment)
{
    checkpoint_write(&at);
    expect_refusal(linear, status, "/model.safetensors", fragment);
}

static void refuses_arguments(void **state)
{
    (void)state;
    octavo_model_options options = OCTAVO_MODEL_OPTIONS_INIT;
    octavo_model *model = NULL;
    assert_int_equal(octavo_model_open(device, checkpoint_folder, &options, NULL), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_model_open(NULL, checkpoint_folder, &options, &model), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_model_open(device, "", &options, &model), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_model_open(device, NULL, &options, &model), OCTAVO_E_ARGUMENT);
    options.linear = 4;
    assert_int_equal(octavo_model_open(device, checkpoint_folder, &options, &model), OCTAVO_E_ARGUMENT);
    options.linear = -2;
    assert_int_equal(octavo_model_open(device, checkpoint_folder, &options, &model), OCTAVO_E_ARGUMENT);
    options.linear = 0;
    options.threads = -1;
    assert_int_equal(octavo_model_open(device, checkpoint_folder, &options, &model), OCTAVO_E_ARGUMENT);
    options.struct_size = 1;
    assert_int_equal(octavo_model_open(device, checkpoint_folder, &options, &model), OCTAVO_E_VERSION);
    assert_null(model);
    octavo_model_close(NULL);
}

static void refuses_missing_files(void **state)
{
    (void)state;
    char path[CHECKPOINT_PATH];
    checkpoint_clear();
    expect_refusal(0, OCTAVO_E_IO, "/config.json", "does not exist");
    checkpoint_write_config(FIXTURE_LLAMA, "{}");
    expect_refusal(0, OCTAVO_E_IO, checkpoint_folder, "neither model.safetensors nor model.safetensors.index.json");
    checkpoint_write_text("model.safetensors", "");
    expect_refusal(0, OCTAVO_E_FORMAT, "/model.safetensors", "is empty");
    checkpoint_path(path, "model.safetensors");
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    expect_refusal(0, OCTAVO_E_IO, "/model.safetensors", "is a directory");
    assert_int_equal(rmdir(path), 0);
    checkpoint_write_text("config.json", "");
    expect_refusal(0, OCTAVO_E_FORMAT, "/config.json", "is empty");
    octavo_model *model;
    assert_int_equal(octavo_model_open(device, "/nowhere/at/all", NULL, &model), OCTAVO_E_IO);
}

static void refuses_every_truncation(void **state)
{
    (void)state;
    char path[CHECKPOINT_PATH];
    struct stat info;
    start(OCTAVO_BF16, "{}");
    checkpoint_write(&at);
    checkpoint_path(path, "model.safetensors");
    assert_int_equal(stat(path, &info), 0);
    for (off_t size = info.st_size - 1; size > 0; size -= 61) {
        assert_int_equal(truncate(path, size), 0);
        expect_refusal(0, OCTAVO_E_FORMAT, "/model.safetensors", "");
    }
}

static void refuses_missing_tensors(void **state)
{
    (void)state;
    static const char *const NAMES[] = {
        "model.embed_tokens.weight", LAYER "input_layernorm.weight", LAYER "self_attn.q_proj.weight", LAYER "mlp.down_proj.weight",
        "model.norm.weight", "lm_head.weight",
    };
    for (size_t i = 0; i < LENGTH(NAMES); i++) {
        start(OCTAVO_F32, "{}");
        checkpoint_drop(&at, NAMES[i]);
        expect_bad_tensors(0, OCTAVO_E_FORMAT, NAMES[i]);
    }
    start(OCTAVO_F32, "{\"attention_bias\":true}");
    expect_bad_tensors(0, OCTAVO_E_FORMAT, "model.layers.0.self_attn.q_proj.bias");
    start(OCTAVO_F32, "{\"architectures\":[\"Qwen3ForCausalLM\"]}");
    expect_bad_tensors(0, OCTAVO_E_FORMAT, "model.layers.0.self_attn.q_norm.weight");
    start(OCTAVO_F32, "{\"num_hidden_layers\":4096}");
    expect_bad_tensors(0, OCTAVO_E_FORMAT, "model.layers.2.input_layernorm.weight");
    start(OCTAVO_F32, "{\"architectures\":[\"MixtralForCausalLM\"],\"num_local_experts\":4,\"num_experts_per_tok\":2}");
    expect_bad_tensors(0, OCTAVO_E_FORMAT, "model.layers.0.block_sparse_moe.gate.weight");
    checkpoint_add(&at, "model.layers.0.block_sparse_moe.gate.weight", OCTAVO_F32, 4, 8);
    expect_bad_tensors(0, OCTAVO_E_FORMAT, "model.layers.0.block_sparse_moe.experts.0.w1.weight");
}

static void refuses_shapes(void **state)
{
    (void)state;
    static const struct { const char *name; int64_t rows, cols; const char *fragment; } CASES[] = {
        { LAYER "self_attn.k_proj.weight", 8, 8, "'" LAYER "self_attn.k_proj.weight' has shape [8, 8], expected [4, 8]" },
        { LAYER "self_attn.o_proj.weight", 64, 0, "has shape [64], expected [8, 8]" },
        { LAYER "mlp.down_proj.weight", 12, 8, "has shape [12, 8], expected [8, 12]" },
        { LAYER "input_layernorm.weight", 7, 0, "has shape [7], expected [8]" },
        { "model.embed_tokens.weight", 11, 8, "has shape [11, 8], expected [10, 8]" },
        { "lm_head.weight", 10, 7, "has shape [10, 7], expected [10, 8]" },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) {
        start(OCTAVO_F32, "{}");
        checkpoint_replace(&at, CASES[i].name, OCTAVO_F32, CASES[i].rows, CASES[i].cols);
        expect_bad_tensors(0, OCTAVO_E_FORMAT, CASES[i].fragment);
    }
}

static void refuses_dtypes(void **state)
{
    (void)state;
    static const struct { octavo_dtype dtype; const char *name; } DTYPES[] = {
        { OCTAVO_F64, "F64" }, { OCTAVO_INT8, "I8" }, { OCTAVO_E5M2, "F8_E5M2" }, { OCTAVO_INT32, "I32" },
    };
    for (size_t i = 0; i < LENGTH(DTYPES); i++) {
        start(OCTAVO_F32, "{}");
        checkpoint_replace(&at, LAYER "mlp.up_proj.weight", DTYPES[i].dtype, 12, 8);
        expect_bad_tensors(0, OCTAVO_E_UNSUPPORTED, DTYPES[i].name);
    }
    start(OCTAVO_F32, "{}");
    checkpoint_replace(&at, "model.embed_tokens.weight", OCTAVO_E4M3, 10, 8);
    expect_bad_tensors(0, OCTAVO_E_FORMAT, "'model.embed_tokens.weight' has dtype F8_E4M3");
    start(OCTAVO_F32, "{}");
    checkpoint_replace(&at, "model.norm.weight", OCTAVO_E4M3, 8, 0);
    expect_bad_tensors(0, OCTAVO_E_UNSUPPORTED, "'model.norm.weight' has dtype F8_E4M3");
}

#define FP8 "{\"quantization_config\":{\"quant_method\":\"fp8\"}}"
#define FP8_BLOCKS "{\"quantization_config\":{\"quant_method\":\"fp8\",\"weight_block_size\":[4,4]}}"
#define CHANNELS                                                                                                                   \
    "{\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\",\"config_groups\":{\"g\":"     \
    "{\"weights\":{\"num_bits\":8,\"type\":\"float\",\"strategy\":\"channel\"}}}}}"
#define SCALE LAYER "mlp.up_proj.weight_scale"

static void refuses_scales(void **state)
{
    (void)state;
    static const float BAD[] = { NAN, INFINITY, -1 };
    start(OCTAVO_BF16, "{}");
    checkpoint_quantise(&at, "weight_scale", OCTAVO_F32, 1, 0);
    expect_bad_tensors(1, OCTAVO_E_FORMAT, "config.json announces no quantisation");
    start(OCTAVO_BF16, "{\"quantization_config\":{\"quant_method\":\"fp8\",\"ignored_layers\":[\"" LAYER "mlp.*\"]}}");
    checkpoint_quantise(&at, "weight_scale", OCTAVO_F32, 1, 0);
    expect_bad_tensors(1, OCTAVO_E_FORMAT, "leaves this module out");
    start(OCTAVO_BF16, FP8);
    checkpoint_quantise(&at, "weight_scale", OCTAVO_F32, 1, 0);
    checkpoint_drop(&at, SCALE);
    expect_bad_tensors(1, OCTAVO_E_FORMAT, "no tensor '" SCALE "'");
    for (size_t i = 0; i < LENGTH(BAD); i++) {
        start(OCTAVO_BF16, CHANNELS);
        checkpoint_quantise(&at, "weight_scale", OCTAVO_BF16, -1, 1);
        checkpoint_store(checkpoint_find(&at, SCALE), 5, BAD[i]);
        expect_bad_tensors(1, OCTAVO_E_FORMAT, "'" SCALE "' has element 5");
    }
    static const struct { const char *patch; int64_t rows, cols; const char *fragment; } SHAPES[] = {
        { FP8, 2, 0, "has shape [2], expected [1]" },
        { CHANNELS, 1, 0, "has shape [1], expected [8, 1]" },
        { CHANNELS, 7, 1, "has shape [7, 1], expected [8, 1]" },
        { FP8_BLOCKS, 2, 3, "has shape [2, 3], expected [2, 2]" },
    };
    for (size_t i = 0; i < LENGTH(SHAPES); i++) {
        start(OCTAVO_BF16, SHAPES[i].patch);
        checkpoint_quantise(&at, "weight_scale", OCTAVO_F32, SHAPES[i].rows, SHAPES[i].cols);
        expect_bad_tensors(1, OCTAVO_E_FORMAT, SHAPES[i].fragment);
    }
    start(OCTAVO_BF16, FP8);
    checkpoint_quantise(&at, "weight_scale", OCTAVO_E4M3, 1, 0);
    expect_bad_tensors(1, OCTAVO_E_UNSUPPORTED, "weight_scale' has dtype F8_E4M3");
}

static void refuses_static_scales(void **state)
{
    (void)state;
    static const struct { const char *name; int64_t rows; float value; const char *fragment; } CASES[] = {
        { LAYER "mlp.up_proj.input_scale", 1, 0, "mlp.up_proj.input_scale' is 0" },
        { LAYER "mlp.up_proj.input_scale", 1, NAN, "mlp.up_proj.input_scale' is" },
        { LAYER "mlp.up_proj.input_scale", 2, 1, "has shape [2], expected [1]" },
        { LAYER "self_attn.k_proj.k_scale", 1, -1, "k_scale' is -1" },
        { LAYER "self_attn.v_scale", 1, INFINITY, "v_scale' is inf" },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) {
        start(OCTAVO_BF16, FP8);
        checkpoint_quantise(&at, "weight_scale", OCTAVO_F32, 1, 0);
        checkpoint_store(checkpoint_add(&at, CASES[i].name, OCTAVO_F32, CASES[i].rows, 0), 0, CASES[i].value);
        expect_bad_tensors(OCTAVO_LINEAR_FP8, OCTAVO_E_FORMAT, CASES[i].fragment);
    }
}

/* A few bytes of configuration a tensor are compared, not megabytes. */
static void refuses_endless_patterns(void **state)
{
    (void)state;
    enum { STARS = 12 << 20 };
    start(OCTAVO_BF16, FP8);
    for (int i = 0; i < 70; i++) {
        char name[CHECKPOINT_NAME];
        snprintf(name, sizeof name, "unused.%d", i);
        checkpoint_add(&at, name, OCTAVO_F32, 1, 0);
    }
    char *pattern = malloc(STARS + 1);
    memset(pattern, '*', STARS);
    pattern[STARS] = 0;
    json_t *patch = json_pack("{s{sss[s]}}", "quantization_config", "quant_method", "fp8", "ignored_layers", pattern);
    char *text = json_dumps(patch, 0);
    checkpoint_write_config(FIXTURE_LLAMA, text);
    checkpoint_write(&at);
    expect_refusal(0, OCTAVO_E_UNSUPPORTED, "/config.json", "patterns of modules");
    free(text);
    free(pattern);
    json_decref(patch);
}

static void refuses_to_quantise_nan(void **state)
{
    (void)state;
    for (int32_t linear = OCTAVO_LINEAR_FP8; linear <= OCTAVO_LINEAR_INT8; linear++) {
        start(OCTAVO_F32, "{}");
        checkpoint_store(checkpoint_find(&at, LAYER "mlp.up_proj.weight"), 95, NAN);
        expect_bad_tensors(linear, OCTAVO_E_FORMAT, "'" LAYER "mlp.up_proj.weight' holds NaN or Inf");
    }
}

/* ---- the index ---- */

static octavo_status read_index(const char *text)
{
    octavo_model_index index;
    const octavo_status status = octavo_model_index_init(&index, "index.json", text, strlen(text));
    if (status == OCTAVO_OK) octavo_model_index_fini(&index);
    return status;
}

static void refuses_indices(void **state)
{
    (void)state;
    static const char *const BAD_NAMES[] = { "", "/etc/x.safetensors", "../x.safetensors", "a/b.safetensors", "a\\\\b.safetensors", "x..safetensors",
                                             ".hidden.safetensors", ".safetensors", "c:x.safetensors", "x.bin", "x.safetensors/" };
    static const char *const BAD_TEXTS[] = { "{}", "[]", "{\"weight_map\":[]}", "{\"weight_map\":{}}", "{\"weight_map\":{\"a\":1}}",
                                             "{\"weight_map\":{\"a\":null}}", "{\"weight_map\":{\"a\":\"x.safetensors\",\"a\":\"y.safetensors\"}}", "{" };
    char text[256];
    for (size_t i = 0; i < LENGTH(BAD_NAMES); i++) {
        snprintf(text, sizeof text, "{\"weight_map\":{\"t\":\"%s\"}}", BAD_NAMES[i]);
        if (read_index(text) != OCTAVO_E_FORMAT) fail_msg("'%s' is accepted", BAD_NAMES[i]);
        assert_non_null(strstr(octavo_last_error(), "index.json: field 'weight_map.t'"));
    }
    for (size_t i = 0; i < LENGTH(BAD_TEXTS); i++) assert_int_equal(read_index(BAD_TEXTS[i]), OCTAVO_E_FORMAT);
    octavo_model_index index;
    static const char GOOD[] = "{\"weight_map\":{\"a\":\"y.safetensors\",\"b\":\"x.safetensors\",\"c\":\"y.safetensors\"}}";
    assert_int_equal(octavo_model_index_init(&index, "index.json", GOOD, strlen(GOOD)), OCTAVO_OK);
    assert_true(index.shard_count == 2 && octavo_model_index_find(&index, "a") == 1 && octavo_model_index_find(&index, "b") == 0);
    assert_int_equal(octavo_model_index_find(&index, "d"), -1);
    octavo_model_index_fini(&index);
}

static void refuses_lying_indices(void **state)
{
    (void)state;
    start(OCTAVO_F32, "{}");
    checkpoint_write_some(&at, "a.safetensors", 0, at.count);
    checkpoint_write_text("model.safetensors.index.json", "{\"weight_map\":{\"model.embed_tokens.weight\":\"a.safetensors\"}}");
    expect_refusal(0, OCTAVO_E_FORMAT, "/a.safetensors", "'model.layers.0.input_layernorm.weight', nor has any other file of the index");
    checkpoint_write_text("model.safetensors.index.json", "{\"weight_map\":{\"model.embed_tokens.weight\":\"a.safetensors\","
                          "\"model.layers.0.input_layernorm.weight\":\"b.safetensors\"}}");
    expect_refusal(0, OCTAVO_E_IO, "/b.safetensors", "does not exist");
    checkpoint_write_some(&at, "b.safetensors", 0, 1);
    expect_refusal(0, OCTAVO_E_FORMAT, "/b.safetensors", "which the index says is there");
}

/* ---- memory ---- */

/* A file of holes: weights whose eight-bit form is larger than any machine's memory. */
static void asks_for_memory_first(void **state)
{
    (void)state;
    static const long long HIDDEN = 1LL << 15, WIDE = 1LL << 24;
    static const struct { const char *name; long long rows, cols; } PARTS[] = {
        { "model.embed_tokens.weight", 10, HIDDEN }, { "model.layers.0.input_layernorm.weight", HIDDEN, 0 },
        { "model.layers.0.post_attention_layernorm.weight", HIDDEN, 0 }, { "model.norm.weight", HIDDEN, 0 },
        { "model.layers.0.self_attn.q_proj.weight", 4, HIDDEN }, { "model.layers.0.self_attn.k_proj.weight", 4, HIDDEN },
        { "model.layers.0.self_attn.v_proj.weight", 4, HIDDEN }, { "model.layers.0.self_attn.o_proj.weight", HIDDEN, 4 },
        { "model.layers.0.mlp.gate_proj.weight", WIDE, HIDDEN }, { "model.layers.0.mlp.up_proj.weight", WIDE, HIDDEN },
        { "model.layers.0.mlp.down_proj.weight", HIDDEN, WIDE },
    };
    char header[4096] = "{", path[CHECKPOINT_PATH];
    long long end = 0;
    size_t length = 1;
    for (size_t i = 0; i < LENGTH(PARTS); i++) {
        const long long bytes = 2 * PARTS[i].rows * (PARTS[i].cols ? PARTS[i].cols : 1);
        length += (size_t)snprintf(header + length, sizeof header - length, "%s\"%s\":{\"dtype\":\"BF16\",\"shape\":[%lld", i ? "," : "",
                                   PARTS[i].name, PARTS[i].rows);
        if (PARTS[i].cols) length += (size_t)snprintf(header + length, sizeof header - length, ",%lld", PARTS[i].cols);
        length += (size_t)snprintf(header + length, sizeof header - length, "],\"data_offsets\":[%lld,%lld]}", end, end + bytes);
        end += bytes;
    }
    while ((length + 1) % 8) header[length++] = ' ';
    header[length++] = '}';
    checkpoint_clear();
    checkpoint_write_config(FIXTURE_LLAMA, "{\"hidden_size\":32768,\"intermediate_size\":16777216,\"num_hidden_layers\":1,"
                            "\"num_attention_heads\":1,\"num_key_value_heads\":1,\"head_dim\":4,\"tie_word_embeddings\":true}");
    checkpoint_path(path, "model.safetensors");
    FILE *file = fopen(path, "wbe");
    assert_non_null(file);
    const uint64_t prefix = length;
    assert_int_equal(fwrite(&prefix, 8, 1, file), 1); /* little-endian, as the machines are that this runs on */
    assert_int_equal(fwrite(header, 1, length, file), length);
    assert_int_equal(fclose(file), 0);
    if (truncate(path, (off_t)(8 + (long long)length + end))) {
        print_message("skipped: no file of %lld bytes can be made here, not even of holes\n", end);
        skip();
    }
    octavo_model *model;
    octavo_model_options options = OCTAVO_MODEL_OPTIONS_INIT;
    options.linear = OCTAVO_LINEAR_FP8;
    const octavo_status status = octavo_model_open(device, checkpoint_folder, &options, &model);
    if (status == OCTAVO_E_IO) {
        print_message("skipped: %s\n", octavo_last_error()); /* an address space that is kept small */
        skip();
    }
    assert_int_equal(status, OCTAVO_E_NOMEM);
    assert_non_null(strstr(octavo_last_error(), "MiB are available"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_arguments),       cmocka_unit_test(refuses_missing_files),   cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(refuses_missing_tensors), cmocka_unit_test(refuses_shapes),          cmocka_unit_test(refuses_dtypes),
        cmocka_unit_test(refuses_scales),          cmocka_unit_test(refuses_static_scales),   cmocka_unit_test(refuses_to_quantise_nan),
        cmocka_unit_test(refuses_endless_patterns),
        cmocka_unit_test(refuses_indices),         cmocka_unit_test(refuses_lying_indices),   cmocka_unit_test(asks_for_memory_first),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
