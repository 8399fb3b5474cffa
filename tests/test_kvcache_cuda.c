/* test_kvcache_cuda.c - the cache manager on a GPU: appends, forks that part, truncation and decode give what they give on the CPU. */
#define _POSIX_C_SOURCE 200809L
#include "attention_fixture.h"
#include <stdio.h>

enum { LAYERS = 2, HEADS = 2, GROUP = 3, MOST = 3, ROOM = 700, PROMPT = 333, STEPS = 40 };

/* The same cache on two devices. */
typedef struct side {
    octavo_device *device;
    octavo_exec exec;
    octavo_kvcache *cache;
    void *k, *v; /* room for a prompt of each sequence */
    size_t bytes;
} side;

static octavo_context *context;
static octavo_device *devices[2]; /* the CPU; the GPU or NULL */

typedef struct kind {
    octavo_k_format k;
    octavo_v_format v;
    int32_t dim;
} kind;

static const kind KINDS[] = { { OCTAVO_K_BF16, OCTAVO_V_BF16, 96 },  { OCTAVO_K_F16, OCTAVO_V_F16, 64 },     { OCTAVO_K_E4M3X2, OCTAVO_V_E4M3, 128 },
                              { OCTAVO_K_INT8X2, OCTAVO_V_INT8, 128 }, { OCTAVO_K_INT4X2, OCTAVO_V_INT8, 256 }, { OCTAVO_K_E5M2X2, OCTAVO_V_F16, 128 } };

static void ok(octavo_status status)
{
    if (status != OCTAVO_OK) fail_msg("%s", octavo_last_error());
}

static side open_side(octavo_device *device, const kind *of)
{
    side s = { .device = device, .exec = OCTAVO_EXEC_INIT, .bytes = (size_t)MOST * ROOM * HEADS * (size_t)of->dim * sizeof(float) };
    octavo_kvcache_config config = OCTAVO_KVCACHE_CONFIG_INIT;
    config.page.k_format = of->k, config.page.v_format = of->v, config.page.kv_heads = HEADS, config.page.head_dim = of->dim;
    config.layers = LAYERS, config.max_sequences = MOST, config.max_tokens = ROOM, config.pages = MOST * (ROOM / 64 + 1);
    ok(octavo_kvcache_create(device, &config, &s.cache));
    ok(octavo_device_allocate(device, s.bytes, &s.k)), ok(octavo_device_allocate(device, s.bytes, &s.v));
    s.exec.device = device;
    ok(octavo_device_stream_create(device, &s.exec.stream));
    return s;
}

static void close_side(side *s)
{
    ok(octavo_device_synchronize(&s->exec));
    octavo_kvcache_destroy(s->cache);
    octavo_device_release(s->device, s->k, s->bytes), octavo_device_release(s->device, s->v, s->bytes);
    octavo_device_stream_destroy(s->device, s->exec.stream);
}

static octavo_tensor tensor_on(const side *s, void *data, octavo_dtype dtype, const int64_t shape[4])
{
    octavo_tensor tensor = octavo_tensor_view(data, dtype, 4, shape);
    tensor.device_kind = octavo_device_kind_of(s->device);
    return tensor;
}

/* Normal rows of `tokens` new tokens in every layer of both sides. */
static void append(side sides[2], const kind *of, int64_t batch, const int32_t *sequences, int64_t tokens, uint64_t seed)
{
    const int64_t shape[] = { batch, tokens, HEADS, of->dim };
    const size_t count = (size_t)(batch * tokens * HEADS * of->dim);
    float *k = fixture_memory(count * sizeof *k), *v = fixture_memory(count * sizeof *v);
    for (int i = 0; i < 2; i++)
        for (int64_t b = 0; b < batch; b++) ok(octavo_kvcache_reserve(sides[i].cache, sequences[b], tokens));
    for (int32_t layer = 0; layer < LAYERS; layer++) {
        for (size_t e = 0; e < count; e++) k[e] = fixture_normal(&seed), v[e] = fixture_normal(&seed);
        for (int i = 0; i < 2; i++) {
            side *s = &sides[i];
            ok(octavo_device_upload(&s->exec, s->k, k, count * sizeof *k)), ok(octavo_device_upload(&s->exec, s->v, v, count * sizeof *v));
            const octavo_tensor its_k = tensor_on(s, s->k, OCTAVO_F32, shape), its_v = tensor_on(s, s->v, OCTAVO_F32, shape);
            ok(octavo_kvcache_append(&s->exec, s->cache, layer, batch, sequences, &its_k, &its_v));
        }
    }
    free(k), free(v);
}

/* Outputs of the newest token of each sequence, on the host: [batch, q_heads, dim]. */
static void decode(side *s, const kind *of, int32_t layer, int64_t batch, const int32_t *sequences, const uint16_t *q, float *out)
{
    const int64_t shape[] = { batch, 1, HEADS * GROUP, of->dim };
    const size_t count = (size_t)(batch * HEADS * GROUP * of->dim), row_bytes = (size_t)batch * sizeof(int32_t);
    octavo_kv_view view = OCTAVO_KV_VIEW_INIT;
    octavo_decode_params p = OCTAVO_DECODE_PARAMS_INIT;
    void *rows, *its_q, *its_out;
    ok(octavo_device_allocate(s->device, row_bytes, &rows)), ok(octavo_device_allocate(s->device, count * 2, &its_q));
    ok(octavo_device_allocate(s->device, count * sizeof *out, &its_out));
    ok(octavo_device_upload(&s->exec, rows, sequences, row_bytes)), ok(octavo_device_upload(&s->exec, its_q, q, count * 2));
    ok(octavo_kvcache_flush(&s->exec, s->cache));
    ok(octavo_kvcache_view(s->cache, layer, batch, sequences, &view));
    view.sequences = rows;
    p.kv = &view, p.q = tensor_on(s, its_q, OCTAVO_BF16, shape), p.out = tensor_on(s, its_out, OCTAVO_F32, shape);
    ok(octavo_attention_decode_workspace(&s->exec, &p, &s->exec.workspace_bytes));
    ok(octavo_device_allocate(s->device, s->exec.workspace_bytes, &s->exec.workspace));
    ok(octavo_attention_decode(&s->exec, &p));
    ok(octavo_device_download(&s->exec, out, its_out, count * sizeof *out));
    octavo_device_release(s->device, s->exec.workspace, s->exec.workspace_bytes), s->exec.workspace = NULL;
    octavo_device_release(s->device, rows, row_bytes), octavo_device_release(s->device, its_q, count * 2);
    octavo_device_release(s->device, its_out, count * sizeof *out);
}

static void assert_same(side sides[2], const kind *of, int64_t batch, const int32_t *sequences, const char *when)
{
    const int64_t rows = batch * HEADS * GROUP;
    float *out[] = { fixture_memory((size_t)(rows * of->dim) * sizeof(float)), fixture_memory((size_t)(rows * of->dim) * sizeof(float)) };
    uint16_t *q = fixture_memory((size_t)(rows * of->dim) * sizeof *q);
    uint64_t seed = 99;
    for (int64_t e = 0; e < rows * of->dim; e++) q[e] = fixture_bf16_code(2.0f * fixture_normal(&seed));
    for (int32_t layer = 0; layer < LAYERS; layer++) {
        for (int i = 0; i < 2; i++) decode(&sides[i], of, layer, batch, sequences, q, out[i]);
        for (int64_t r = 0; r < rows; r++) {
            double difference = 0.0, size = 0.0;
            for (int64_t d = 0; d < of->dim; d++) {
                const double wanted = (double)out[0][r * of->dim + d], off = (double)out[1][r * of->dim + d] - wanted;
                difference += off * off, size += wanted * wanted;
            }
            if (!(difference <= 1e-4 * size))
                fail_msg("%s, %s and %s, layer %d: row %d is off by %g of itself", when, octavo_k_format_name(of->k), octavo_v_format_name(of->v), layer,
                         (int)r, sqrt(difference / size));
        }
        for (int64_t b = 0; b < batch; b++)
            assert_int_equal(octavo_kvcache_length(sides[0].cache, sequences[b], layer), octavo_kvcache_length(sides[1].cache, sequences[b], layer));
    }
    free(out[0]), free(out[1]), free(q);
}

/* A prompt, a fork, tokens by which the two part, a roll-back, a third branch of what is left. */
static void test_fork_append_truncate(void **state)
{
    (void)state;
    if (!devices[1]) skip();
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        const kind *of = &KINDS[i];
        side sides[2] = { open_side(devices[0], of), open_side(devices[1], of) };
        int32_t sequences[MOST];
        for (int j = 0; j < 2; j++) ok(octavo_kvcache_sequence(sides[j].cache, &sequences[0]));
        append(sides, of, 1, sequences, PROMPT, 1);
        assert_same(sides, of, 1, sequences, "a prompt");
        for (int j = 0; j < 2; j++) ok(octavo_kvcache_fork(sides[j].cache, sequences[0], &sequences[1]));
        assert_same(sides, of, 2, sequences, "a fork");
        for (uint64_t step = 0; step < STEPS; step++) append(sides, of, 2, sequences, 1, 100 + step);
        assert_same(sides, of, 2, sequences, "two branches");
        for (int j = 0; j < 2; j++) ok(octavo_kvcache_truncate(sides[j].cache, sequences[0], PROMPT - 20));
        for (int j = 0; j < 2; j++) ok(octavo_kvcache_fork(sides[j].cache, sequences[0], &sequences[2]));
        append(sides, of, MOST, sequences, 70, 200);
        assert_same(sides, of, MOST, sequences, "three branches");
        for (int j = 0; j < 2; j++) ok(octavo_kvcache_free(sides[j].cache, sequences[1]));
        assert_int_equal(octavo_kvcache_free_pages(sides[0].cache, 0), octavo_kvcache_free_pages(sides[1].cache, 0));
        close_side(&sides[0]), close_side(&sides[1]);
    }
}

/* What does not fit leaves a cache on a GPU as it was. */
static void test_refusals(void **state)
{
    (void)state;
    if (!devices[1]) skip();
    side s = open_side(devices[1], &KINDS[0]);
    int32_t sequence;
    const int64_t shape[] = { 1, 1, HEADS, KINDS[0].dim };
    octavo_tensor k = tensor_on(&s, s.k, OCTAVO_F32, shape), here = octavo_tensor_view(s.k, OCTAVO_F32, 4, shape);
    ok(octavo_kvcache_sequence(s.cache, &sequence));
    assert_int_equal(octavo_kvcache_append(&s.exec, s.cache, 0, 1, &sequence, &k, &k), OCTAVO_E_RANGE); /* nothing was reserved */
    assert_int_equal(octavo_kvcache_reserve(s.cache, sequence, ROOM + 1), OCTAVO_E_RANGE);
    ok(octavo_kvcache_reserve(s.cache, sequence, 1));
    assert_int_equal(octavo_kvcache_append(&s.exec, s.cache, 0, 1, &sequence, &here, &here), OCTAVO_E_ARGUMENT);
    assert_non_null(strstr(octavo_last_error(), "CPU memory"));
    assert_int_equal(octavo_kvcache_length(s.cache, sequence, 0), 0);
    close_side(&s);
}

static int open_devices(void **state)
{
    (void)state;
    if (octavo_context_create(NULL, &context) != OCTAVO_OK || octavo_device_open(context, "cpu", &devices[0]) != OCTAVO_OK) return 1;
    if (octavo_device_open(context, "cuda:0", &devices[1]) != OCTAVO_OK) print_message("no GPU is tried: %s\n", octavo_last_error());
    return 0;
}

static int close_devices(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) octavo_device_close(devices[i]);
    octavo_context_destroy(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_fork_append_truncate), cmocka_unit_test(test_refusals) };
    return cmocka_run_group_tests(tests, open_devices, close_devices);
}
