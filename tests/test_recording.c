/* test_recording.c - recorded layers are found, checked against each other, and refused in one sentence. */
#define _GNU_SOURCE 1
#include "octavo/recording.h"
#include "safetensors_fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

#define LENGTH(list) (sizeof(list) / sizeof *(list))

/* A tensor of the file under test; its dtype has two or four bytes an element, or eight. */
typedef struct spec {
    const char *name, *dtype;
    int ndim;
    int64_t shape[7];
} spec;

enum { Q, K, V, H, Q_UNROPE, K_UNROPE, SPEC_COUNT };
static const spec GOOD[SPEC_COUNT] = {
    { "layer_3.q_rope", "BF16", 4, { 2, 4, 3, 8 } },   { "layer_3.k_rope", "BF16", 4, { 2, 2, 5, 8 } },
    { "layer_3.v", "BF16", 4, { 2, 2, 5, 4 } },        { "layer_3.h", "F32", 3, { 2, 4, 6 } },
    { "layer_3.q_unrope", "BF16", 4, { 2, 4, 3, 8 } }, { "layer_3.k_unrope", "BF16", 4, { 2, 2, 5, 8 } },
};

static size_t element_bytes(const char *dtype)
{
    return strcmp(dtype, "I64") == 0 ? 8 : strcmp(dtype, "F32") == 0 ? 4 : strcmp(dtype, "BOOL") == 0 ? 1 : 2;
}

/* Specs without a name are left out. */
static fixture make_file(const spec *specs, size_t count)
{
    char header[4096];
    size_t length = 1, end = 0;
    header[0] = '{';
    for (size_t i = 0; i < count; i++) {
        if (!specs[i].name) continue;
        size_t bytes = element_bytes(specs[i].dtype);
        length += (size_t)snprintf(header + length, sizeof header - length, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[",
                                   length > 1 ? "," : "", specs[i].name, specs[i].dtype);
        for (int d = 0; d < specs[i].ndim; d++) {
            length += (size_t)snprintf(header + length, sizeof header - length, "%s%lld", d ? "," : "", (long long)specs[i].shape[d]);
            bytes *= (size_t)specs[i].shape[d];
        }
        length += (size_t)snprintf(header + length, sizeof header - length, "],\"data_offsets\":[%zu,%zu]}", end, end + bytes);
        end += bytes;
    }
    snprintf(header + length, sizeof header - length, "}");
    return fixture_make(header, end);
}

static void assert_sentence(const char *fragment)
{
    if (!strstr(octavo_last_error(), fragment)) fail_msg("'%s' does not say '%s'", octavo_last_error(), fragment);
}

static void assert_holds_nothing(const octavo_recording *r)
{
    const octavo_recording nothing = OCTAVO_RECORDING_INIT;
    assert_memory_equal(r, &nothing, sizeof nothing);
}

static octavo_status view(const spec *specs, size_t count, int32_t layer, octavo_recording *r)
{
    const fixture f = make_file(specs, count);
    octavo_safetensors *file = NULL;
    assert_int_equal(octavo_safetensors_open_memory(f.bytes, f.size, &file), OCTAVO_OK);
    const octavo_status status = octavo_recording_view(file, layer, r);
    octavo_safetensors_close(file);
    free(f.bytes);
    return status;
}

static void fills_the_struct(void **state)
{
    (void)state;
    const fixture f = make_file(GOOD, SPEC_COUNT);
    octavo_safetensors *file = NULL;
    octavo_recording r = OCTAVO_RECORDING_INIT;
    assert_int_equal(octavo_safetensors_open_memory(f.bytes, f.size, &file), OCTAVO_OK);
    assert_int_equal(octavo_recording_view(file, 3, &r), OCTAVO_OK);
    assert_true(r.layer == 3 && r.batch == 2 && r.q_heads == 4 && r.kv_heads == 2 && r.queries == 3 && r.tokens == 5);
    assert_true(r.head_dim == 8 && r.value_dim == 4);
    assert_null(r.file);
    const octavo_tensor *const tensors[SPEC_COUNT] = { &r.q, &r.k, &r.v, &r.h, &r.q_unrope, &r.k_unrope };
    for (size_t i = 0; i < SPEC_COUNT; i++) {
        octavo_tensor t;
        assert_int_equal(octavo_safetensors_find(file, GOOD[i].name, &t), OCTAVO_OK);
        assert_ptr_equal(tensors[i]->data, t.data);
        assert_int_equal(tensors[i]->ndim, GOOD[i].ndim);
        assert_memory_equal(tensors[i]->shape, GOOD[i].shape, (size_t)GOOD[i].ndim * sizeof(int64_t));
    }
    octavo_recording_close(&r);
    assert_holds_nothing(&r);
    octavo_safetensors_close(file);
    free(f.bytes);
    octavo_recording_close(NULL);
}

static void accepts_variants(void **state)
{
    (void)state;
    octavo_recording r = OCTAVO_RECORDING_INIT;
    spec specs[SPEC_COUNT];
    memcpy(specs, GOOD, sizeof specs);
    specs[H].name = specs[Q_UNROPE].name = specs[K_UNROPE].name = NULL;
    assert_int_equal(view(specs, SPEC_COUNT, 3, &r), OCTAVO_OK);
    assert_true(!r.h.data && !r.q_unrope.data && !r.k_unrope.data);

    /* Every position has a query; one query head a kv head; another dtype. */
    for (size_t i = Q; i <= V; i++) specs[i].dtype = "F32", specs[i].shape[1] = 2, specs[i].shape[2] = 5;
    assert_int_equal(view(specs, SPEC_COUNT, 3, &r), OCTAVO_OK);
    assert_int_equal(r.k.dtype, OCTAVO_F32);
    for (size_t i = Q; i <= V; i++) specs[i].dtype = "F16", specs[i].shape[0] = specs[i].shape[1] = specs[i].shape[2] = 1;
    assert_int_equal(view(specs, SPEC_COUNT, 3, &r), OCTAVO_OK);
    assert_true(r.batch == 1 && r.tokens == 1);
}

static void refuses_layers_that_do_not_fit(void **state)
{
    (void)state;
    static const struct { int which; spec with; octavo_status status; const char *fragment; } CASES[] = {
        { Q, { NULL, "BF16", 0, { 0 } }, OCTAVO_E_RANGE, "has no tensor 'layer_3.q_rope'" },
        { K, { NULL, "BF16", 0, { 0 } }, OCTAVO_E_RANGE, "has no tensor 'layer_3.k_rope'" },
        { V, { NULL, "BF16", 0, { 0 } }, OCTAVO_E_RANGE, "has no tensor 'layer_3.v'" },
        { K, { "layer_3.k_rope", "I64", 4, { 2, 2, 5, 8 } }, OCTAVO_E_UNSUPPORTED, "safetensors in memory: 'layer_3.k_rope' has dtype I64, expected BF16, F16 or F32" },
        { V, { "layer_3.v", "BOOL", 4, { 2, 2, 5, 4 } }, OCTAVO_E_UNSUPPORTED, "'layer_3.v' has dtype BOOL, expected BF16, F16 or F32" },
        { V, { "layer_3.v", "F16", 4, { 2, 2, 5, 4 } }, OCTAVO_E_UNSUPPORTED, "'layer_3.v' has dtype F16, expected BF16 as 'layer_3.k_rope' has" },
        { Q, { "layer_3.q_rope", "F32", 4, { 2, 4, 3, 8 } }, OCTAVO_E_UNSUPPORTED, "'layer_3.q_rope' has dtype F32, expected BF16" },
        { K_UNROPE, { "layer_3.k_unrope", "F32", 4, { 2, 2, 5, 8 } }, OCTAVO_E_UNSUPPORTED, "'layer_3.k_unrope' has dtype F32, expected BF16" },
        { H, { "layer_3.h", "I64", 3, { 2, 4, 6 } }, OCTAVO_E_UNSUPPORTED, "'layer_3.h' has dtype I64" },
        { K, { "layer_3.k_rope", "BF16", 3, { 4, 5, 8 } }, OCTAVO_E_SHAPE, "'layer_3.k_rope' has 3 dimensions, expected 4" },
        { V, { "layer_3.v", "BF16", 5, { 2, 2, 5, 4, 1 } }, OCTAVO_E_SHAPE, "'layer_3.v' has 5 dimensions, expected 4" },
        { V, { "layer_3.v", "BF16", 7, { 2, 2, 5, 4, 1, 1, 1 } }, OCTAVO_E_UNSUPPORTED, "'layer_3.v' has 7 dimensions" },
        { H, { "layer_3.h", "F32", 2, { 4, 6 } }, OCTAVO_E_SHAPE, "'layer_3.h' has 2 dimensions, expected 3" },
        { K, { "layer_3.k_rope", "BF16", 4, { 2, 2, 0, 8 } }, OCTAVO_E_SHAPE, "'layer_3.k_rope' is empty in dimension 2" },
        { Q, { "layer_3.q_rope", "BF16", 4, { 2, 0, 3, 8 } }, OCTAVO_E_SHAPE, "'layer_3.q_rope' is empty in dimension 1" },
        { Q, { "layer_3.q_rope", "BF16", 4, { 1, 4, 3, 8 } }, OCTAVO_E_SHAPE, "'layer_3.q_rope' has shape [1, 4, 3, 8], expected [2, a multiple of 2, at most 5, 8]" },
        { Q, { "layer_3.q_rope", "BF16", 4, { 2, 3, 3, 8 } }, OCTAVO_E_SHAPE, "'layer_3.q_rope' has shape [2, 3, 3, 8]" },
        { Q, { "layer_3.q_rope", "BF16", 4, { 2, 4, 6, 8 } }, OCTAVO_E_SHAPE, "'layer_3.q_rope' has shape [2, 4, 6, 8]" },
        { Q, { "layer_3.q_rope", "BF16", 4, { 2, 4, 3, 9 } }, OCTAVO_E_SHAPE, "'layer_3.q_rope' has shape [2, 4, 3, 9]" },
        { V, { "layer_3.v", "BF16", 4, { 1, 2, 5, 4 } }, OCTAVO_E_SHAPE, "'layer_3.v' has shape [1, 2, 5, 4], expected [2, 2, 5, any]" },
        { V, { "layer_3.v", "BF16", 4, { 2, 1, 5, 4 } }, OCTAVO_E_SHAPE, "'layer_3.v' has shape [2, 1, 5, 4]" },
        { V, { "layer_3.v", "BF16", 4, { 2, 2, 6, 4 } }, OCTAVO_E_SHAPE, "'layer_3.v' has shape [2, 2, 6, 4]" },
        { H, { "layer_3.h", "F32", 3, { 1, 4, 6 } }, OCTAVO_E_SHAPE, "'layer_3.h' has shape [1, 4, 6], expected [2, at most 5, any]" },
        { H, { "layer_3.h", "F32", 3, { 2, 6, 6 } }, OCTAVO_E_SHAPE, "'layer_3.h' has shape [2, 6, 6]" },
        { Q_UNROPE, { "layer_3.q_unrope", "BF16", 4, { 2, 4, 2, 8 } }, OCTAVO_E_SHAPE, "'layer_3.q_unrope' has shape [2, 4, 2, 8], expected that of q_rope" },
        { K_UNROPE, { "layer_3.k_unrope", "BF16", 4, { 2, 2, 4, 8 } }, OCTAVO_E_SHAPE, "'layer_3.k_unrope' has shape [2, 2, 4, 8], expected that of k_rope" },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) {
        spec specs[SPEC_COUNT];
        octavo_recording r = OCTAVO_RECORDING_INIT;
        memcpy(specs, GOOD, sizeof specs);
        specs[CASES[i].which] = CASES[i].with;
        const octavo_status status = view(specs, SPEC_COUNT, 3, &r);
        if (status != CASES[i].status) fail_msg("case %zu: status %d, expected %d with '%s'", i, status, CASES[i].status, CASES[i].fragment);
        assert_sentence(CASES[i].fragment);
        assert_holds_nothing(&r);
    }
}

static void names_the_layers_there_are(void **state)
{
    (void)state;
    static const char *const NAMES[] = { "layer_10.v", "layer_2.h", "layer_2.v", "layer_2147483647.k_rope", "layer_0.q_unrope",
        /* none of these names a layer */
        "layer_01.v", "layer_2147483648.v", "layer_99999999999999999999.v", "layer_7", "layer_.v", "layer_-1.v", "layer_8.w",
        "layer_8.v2", "layers_8.v", "lm_head" };
    spec specs[LENGTH(NAMES)];
    for (size_t i = 0; i < LENGTH(NAMES); i++) specs[i] = (spec){ NAMES[i], "BF16", 1, { 1 } };
    const fixture f = make_file(specs, LENGTH(NAMES));
    octavo_safetensors *file = NULL;
    octavo_recording r = OCTAVO_RECORDING_INIT;
    int32_t layers[5] = { -1, -1, -1, -1, -1 };
    size_t count = 0;
    assert_int_equal(octavo_safetensors_open_memory(f.bytes, f.size, &file), OCTAVO_OK);
    assert_int_equal(octavo_recording_layers(file, layers, 3, &count), OCTAVO_OK);
    assert_int_equal(count, 4);
    assert_true(layers[0] == 0 && layers[1] == 2 && layers[2] == 10 && layers[3] == -1);
    assert_int_equal(octavo_recording_layers(file, layers, 5, &count), OCTAVO_OK);
    assert_true(layers[3] == INT32_MAX && layers[4] == -1);
    assert_int_equal(octavo_recording_layers(file, NULL, 0, &count), OCTAVO_OK);
    assert_int_equal(octavo_recording_layers(file, NULL, 1, &count), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_recording_layers(file, layers, 5, NULL), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_recording_view(file, 1, &r), OCTAVO_E_RANGE);
    assert_sentence("has no layer 1, expected one of 0, 2, 10, 2147483647");
    assert_int_equal(octavo_recording_view(file, -1, &r), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_recording_view(NULL, 1, &r), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_recording_view(file, 1, NULL), OCTAVO_E_ARGUMENT);
    r.struct_size--;
    assert_int_equal(octavo_recording_view(file, 1, &r), OCTAVO_E_VERSION);
    octavo_safetensors_close(file);
    free(f.bytes);
    r = (octavo_recording)OCTAVO_RECORDING_INIT;
    assert_int_equal(view(NULL, 0, 1, &r), OCTAVO_E_RANGE);
    assert_sentence("holds no recorded layer");
}

static void lists_a_dozen_layers_at_most(void **state)
{
    (void)state;
    char names[20][24];
    spec specs[20];
    octavo_recording r = OCTAVO_RECORDING_INIT;
    for (int i = 0; i < 20; i++) {
        snprintf(names[i], sizeof names[i], "layer_%d.v", 2000000000 + i);
        specs[i] = (spec){ names[i], "BF16", 1, { 1 } };
    }
    assert_int_equal(view(specs, 20, 1, &r), OCTAVO_E_RANGE);
    assert_sentence("2000000000, 2000000001");
    assert_sentence("2000000011, ...");
}

static const char *source_file(char *path, size_t bytes, const char *variable, const char *fallback, const char *name)
{
    const char *root = getenv(variable);
    snprintf(path, bytes, "%s/%s", root ? root : fallback, name);
    return path;
}

/* The sample in the repository: what every newcomer's demo runs on. */
static void opens_the_sample(void **state)
{
    (void)state;
    char path[512];
    octavo_recording r = OCTAVO_RECORDING_INIT;
    source_file(path, sizeof path, "OCTAVO_SOURCE_DIR", ".", "data/sample-layers.safetensors");
    assert_int_equal(octavo_recording_open(path, 1, &r), OCTAVO_OK);
    assert_true(r.batch == 1 && r.q_heads == 8 && r.kv_heads == 2 && r.tokens == 4096 && r.queries == 64 && r.head_dim == 128);
    assert_int_equal(r.k.dtype, OCTAVO_BF16);
    assert_string_equal(octavo_safetensors_metadata(r.file, "licence"), "Apache-2.0");
    octavo_recording_close(&r);
    assert_int_equal(octavo_recording_open(path, 2, &r), OCTAVO_E_RANGE);
    assert_sentence("data/sample-layers.safetensors: has no layer 2, expected one of 1");
    assert_holds_nothing(&r);
    assert_int_equal(octavo_recording_open("/nonexistent.safetensors", 1, &r), OCTAVO_E_IO);
    assert_holds_nothing(&r);
}

/* Row by row: the sample is the end of the full recording. */
static void sample_is_the_end_of_the_recording(void **state)
{
    (void)state;
    char sample_path[512], full_path[512];
    octavo_recording sample = OCTAVO_RECORDING_INIT, full = OCTAVO_RECORDING_INIT;
    source_file(sample_path, sizeof sample_path, "OCTAVO_SOURCE_DIR", ".", "data/sample-layers.safetensors");
    source_file(full_path, sizeof full_path, "OCTAVO_SHARED", "../shared", "data/pycode-32m-layers.safetensors");
    if (access(full_path, R_OK) != 0) {
        print_message("skipped: '%s' is not there\n", full_path);
        skip();
    }
    assert_int_equal(octavo_recording_open(sample_path, 1, &sample), OCTAVO_OK);
    assert_int_equal(octavo_recording_open(full_path, 1, &full), OCTAVO_OK);
    assert_true(full.tokens == 16384 && full.queries == 256 && full.h.shape[1] == 2048);
    const octavo_tensor *const pairs[][2] = { { &sample.q, &full.q }, { &sample.k, &full.k }, { &sample.v, &full.v } };
    for (size_t i = 0; i < LENGTH(pairs); i++) {
        const octavo_tensor *s = pairs[i][0], *f = pairs[i][1];
        for (int64_t head = 0; head < s->shape[1]; head++) {
            const int64_t skipped = f->shape[2] - s->shape[2];
            const uint16_t *part = (const uint16_t *)s->data + head * s->strides[1];
            const uint16_t *whole = (const uint16_t *)f->data + head * f->strides[1] + skipped * f->strides[2];
            assert_memory_equal(part, whole, (size_t)(s->shape[2] * s->shape[3]) * sizeof *part);
        }
    }
    octavo_recording_close(&full);
    octavo_recording_close(&sample);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fills_the_struct),
        cmocka_unit_test(accepts_variants),
        cmocka_unit_test(refuses_layers_that_do_not_fit),
        cmocka_unit_test(names_the_layers_there_are),
        cmocka_unit_test(lists_a_dozen_layers_at_most),
        cmocka_unit_test(opens_the_sample),
        cmocka_unit_test(sample_is_the_end_of_the_recording),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
