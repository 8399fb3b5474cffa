/* test_decode_cuda.c - decode on a GPU through the public API: the CPU's answers in every shape, graphs over lengths that change, batches, refusals. */
#define _POSIX_C_SOURCE 200809L
#include "gpu_fixture.h"
#include <stdio.h>

enum { POOL, Q, LENGTHS, TABLE, SEQUENCES, SINKS, OUT, LSE, KEPT, DROPPED, SKIP, BYTES, WORKSPACE, ARRAYS };

/* A fixture's cache and call on the GPU; its queries become bf16, which holds them. */
typedef struct there {
    fixture *f;
    octavo_exec exec;
    void *at[ARRAYS];
    size_t bytes[ARRAYS];
    octavo_kv_view view;
    octavo_decode_params params;
} there;

static size_t q_elements(const fixture_shape *s) { return (size_t)(s->batch * s->q_tokens * s->kv_heads * s->group * s->head_dim); }
static size_t row_count(const fixture_shape *s) { return (size_t)(s->batch * s->q_tokens * s->kv_heads * s->group); }
static int64_t view_pages(const fixture *f) { return f->view.pages; }

static void upload(const there *t, int array, const void *from)
{
    assert_int_equal(octavo_device_upload(&t->exec, t->at[array], from, t->bytes[array]), OCTAVO_OK);
}

static uint16_t *queries_of(const fixture *f)
{
    const size_t count = q_elements(&f->shape);
    uint16_t *codes = fixture_memory(count * sizeof *codes);
    for (size_t i = 0; i < count; i++) codes[i] = fixture_bf16_code(f->q[i]);
    return codes;
}

/* The call's arrays on the GPU, sized for the fixture as it is; run_there() copies its params. */
static there send(fixture *f)
{
    const fixture_shape *s = &f->shape;
    const size_t heads = (size_t)(s->batch * s->kv_heads), rows = row_count(s), pages = (size_t)view_pages(f);
    octavo_page_config page = OCTAVO_PAGE_CONFIG_INIT;
    there t = { .f = f };
    size_t page_bytes;
    page.k_format = s->k_format, page.v_format = s->v_format, page.kv_heads = (int32_t)s->kv_heads, page.head_dim = (int32_t)s->head_dim;
    page.v_dim = (int32_t)s->v_dim, page.block_tokens = s->block_tokens, page.sub_block_tokens = s->sub_block_tokens;
    assert_int_equal(octavo_page_bytes(&page, &page_bytes), OCTAVO_OK);
    t.exec = (octavo_exec)OCTAVO_INIT_STRUCT(octavo_exec), t.exec.device = gpu;
    assert_int_equal(octavo_device_stream_create(gpu, &t.exec.stream), OCTAVO_OK);
    t.bytes[POOL] = page_bytes * pages, t.bytes[Q] = q_elements(s) * sizeof(uint16_t), t.bytes[LENGTHS] = (size_t)s->batch * sizeof(int32_t);
    t.bytes[TABLE] = pages * sizeof(int32_t), t.bytes[SEQUENCES] = t.bytes[LENGTHS], t.bytes[SINKS] = (size_t)(s->kv_heads * s->group) * sizeof(float);
    t.bytes[OUT] = rows * (size_t)s->v_dim * sizeof(float), t.bytes[LSE] = rows * sizeof(float);
    t.bytes[KEPT] = heads * (size_t)octavo_kv_view_units(&f->view), t.bytes[DROPPED] = heads * (size_t)s->group * sizeof(float);
    t.bytes[SKIP] = heads * sizeof(float), t.bytes[BYTES] = heads * sizeof(int64_t);
    for (int i = 0; i < WORKSPACE; i++) assert_int_equal(octavo_device_allocate(gpu, t.bytes[i], &t.at[i]), OCTAVO_OK);
    uint16_t *queries = queries_of(f);
    upload(&t, POOL, f->pool), upload(&t, Q, queries), upload(&t, LENGTHS, f->lengths), upload(&t, TABLE, f->table);
    free(queries);
    assert_int_equal(octavo_kv_view_over_pool(&page, t.at[POOL], view_pages(f), 0, &t.view), OCTAVO_OK);
    t.view.device_kind = OCTAVO_DEVICE_CUDA, t.view.batch = s->batch, t.view.max_tokens = f->view.max_tokens, t.view.lengths = t.at[LENGTHS];
    t.view.page_table = t.at[TABLE], t.view.page_table_stride = f->view.page_table_stride;
    if (!f->view.k_scale.data) t.view.k_scale = (octavo_section){ 0 };
    if (!f->view.v_scale.data) t.view.v_scale = (octavo_section){ 0 };
    return t;
}

static void drop(there *t)
{
    for (int i = 0; i < ARRAYS; i++) octavo_device_release(gpu, t->at[i], t->bytes[i]);
    octavo_device_stream_destroy(gpu, t->exec.stream);
}

/* The fixture's call in terms of the GPU's arrays, with a workspace. */
static void prepare(there *t)
{
    const fixture *f = t->f;
    t->params = f->params, t->params.kv = &t->view;
    t->params.q = tensor_there(t->at[Q], OCTAVO_BF16, f->params.q.shape), t->params.out = tensor_there(t->at[OUT], OCTAVO_F32, f->params.out.shape);
    if (f->params.lse) t->params.lse = t->at[LSE];
    if (f->params.kept) t->params.kept = t->at[KEPT];
    if (f->params.dropped_mass) t->params.dropped_mass = t->at[DROPPED];
    if (f->params.skip_ratio) t->params.skip_ratio = t->at[SKIP];
    if (f->params.bytes_read) t->params.bytes_read = t->at[BYTES];
    if (f->params.sink_logits) upload(t, SINKS, f->params.sink_logits), t->params.sink_logits = t->at[SINKS];
    octavo_device_release(gpu, t->at[WORKSPACE], t->bytes[WORKSPACE]);
    t->at[WORKSPACE] = NULL;
    if (octavo_attention_decode_workspace(&t->exec, &t->params, &t->bytes[WORKSPACE]) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
    assert_int_equal(octavo_device_allocate(gpu, t->bytes[WORKSPACE], &t->at[WORKSPACE]), OCTAVO_OK);
    t->exec.workspace = t->at[WORKSPACE], t->exec.workspace_bytes = t->bytes[WORKSPACE];
}

static void call(there *t)
{
    if (octavo_attention_decode(&t->exec, &t->params) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
}

static void *fetch(const there *t, int array)
{
    void *here = fixture_memory(t->bytes[array]);
    assert_int_equal(octavo_device_download(&t->exec, here, t->at[array], t->bytes[array]), OCTAVO_OK);
    return here;
}

/* ---- as the CPU ---- */

static int tells(const fixture *f, const char *what)
{
    const fixture_shape *s = &f->shape;
    print_error("%s differs: K %s, V %s, %s, %s, %d/%d heads of %d, %d query tokens, window %d\n", what, octavo_k_format_name(s->k_format),
                octavo_v_format_name(s->v_format), octavo_select_rule_name(f->params.select), octavo_attention_precision_name(f->params.precision),
                (int)(s->kv_heads * s->group), (int)s->kv_heads, (int)s->head_dim, (int)s->q_tokens, (int)f->params.window);
    return 0;
}

/* Rows of out to a share of their length, everything else to what its own rounding allows; masks to the last unit. */
static int is_close(const there *t, double out_share, double lse_most)
{
    const fixture *f = t->f;
    const fixture_shape *s = &f->shape;
    float *out = fetch(t, OUT), *lse = fetch(t, LSE), *dropped = fetch(t, DROPPED), *skip = fetch(t, SKIP);
    uint8_t *kept = fetch(t, KEPT);
    int64_t *bytes = fetch(t, BYTES);
    const int64_t rows = (int64_t)row_count(s), heads = s->batch * s->kv_heads;
    int good = !memcmp(kept, f->kept, t->bytes[KEPT]) || tells(f, "the kept mask");
    for (int64_t r = 0; r < rows && good; r++) {
        double difference = 0.0, size = 0.0;
        for (int64_t d = 0; d < s->v_dim; d++) {
            const double got = (double)out[r * s->v_dim + d], wanted = (double)f->out[r * s->v_dim + d];
            difference += (got - wanted) * (got - wanted), size += wanted * wanted;
        }
        good = difference <= out_share * out_share * size || tells(f, "out");
        if (good) good = lse[r] == f->lse[r] || fabs((double)lse[r] - (double)f->lse[r]) <= lse_most || tells(f, "lse");
    }
    for (int64_t h = 0; h < heads && good; h++)
        good = (fabsf(skip[h] - f->skip_ratio[h]) <= 1e-6f && bytes[h] == f->bytes_read[h]) || tells(f, "skip_ratio or bytes_read");
    for (int64_t h = 0; h < heads * s->group && good; h++)
        good = fabsf(dropped[h] - f->dropped_mass[h]) <= 2e-3f || tells(f, "dropped_mass");
    free(out), free(lse), free(dropped), free(skip), free(kept), free(bytes);
    return good;
}

static const struct { octavo_k_format k; octavo_v_format v; } FORMATS[] = {
    { OCTAVO_K_BF16, OCTAVO_V_BF16 },   { OCTAVO_K_F16, OCTAVO_V_F16 },    { OCTAVO_K_E4M3, OCTAVO_V_BF16 },  { OCTAVO_K_E4M3, OCTAVO_V_E4M3 },
    { OCTAVO_K_E5M2, OCTAVO_V_INT8 },   { OCTAVO_K_INT8, OCTAVO_V_INT8 },  { OCTAVO_K_E4M3X2, OCTAVO_V_E4M3 }, { OCTAVO_K_E5M2X2, OCTAVO_V_F16 },
    { OCTAVO_K_INT8X2, OCTAVO_V_INT8 }, { OCTAVO_K_INT4X2, OCTAVO_V_INT8 },
};
enum { FORMAT_COUNT = sizeof FORMATS / sizeof *FORMATS };
static const struct { int64_t kv_heads, group, q_tokens; } ROWS[] = { { 2, 1, 1 }, { 2, 4, 1 }, { 1, 16, 1 }, { 1, 3, 5 }, { 1, 1, 16 }, { 1, 16, 16 } };
enum { ROWS_COUNT = sizeof ROWS / sizeof *ROWS };
static const int64_t DIMS[] = { 64, 96, 128, 256 };

/* Keys of some blocks lie along the queries of their head, so that units differ by nats and none is near a threshold. */
static void plant(fixture *f)
{
    const fixture_shape *s = &f->shape;
    const int64_t q_heads = s->kv_heads * s->group;
    for (size_t i = 0; i < q_elements(s); i++) { /* rows of a group are alike */
        const int64_t d = (int64_t)i % s->head_dim, head = (int64_t)i / s->head_dim % q_heads, b = (int64_t)i / s->head_dim / q_heads / s->q_tokens;
        const float common = f->q[(b * s->q_tokens * q_heads + head / s->group * s->group) * s->head_dim + d];
        if (i % 3 || d > 8) f->q[i] = common;
    }
    for (int64_t n = 0; n < s->batch * s->tokens * s->kv_heads; n++) {
        const int64_t head = n % s->kv_heads, t = n / s->kv_heads % s->tokens, b = n / s->kv_heads / s->tokens;
        const float *q = f->q + (b * s->q_tokens * q_heads + head * s->group) * s->head_dim;
        const float strength = t / s->block_tokens % 5 == 2 ? 0.9f : -0.1f * (float)(t / s->block_tokens % 5);
        for (int64_t d = 0; d < s->head_dim; d++) f->k[n * s->head_dim + d] = fixture_as_bf16(0.3f * f->k[n * s->head_dim + d] + strength * q[d]);
    }
    fixture_encode(f);
}

static fixture *make(octavo_k_format k, octavo_v_format v, int row, int64_t dim, int64_t tokens)
{
    const fixture_shape shape = { .batch = 2, .tokens = tokens, .kv_heads = ROWS[row].kv_heads, .group = ROWS[row].group, .q_tokens = ROWS[row].q_tokens,
                                  .head_dim = dim, .v_dim = dim, .block_tokens = 64, .sub_block_tokens = 64, .k_format = k, .v_format = v };
    if (!gpu) skip();
    fixture *f = fixture_create(&shape, 7 + (uint64_t)row);
    plant(f);
    f->lengths[1] = (int32_t)(tokens - 77);
    return f;
}

static int agrees(fixture *f, double out_share, double lse_most)
{
    there t = send(f);
    prepare(&t);
    call(&t);
    fixture_decode(f);
    const int good = is_close(&t, out_share, lse_most);
    drop(&t);
    return good;
}

/* Every format, head size and number of rows; every rule where there is something to drop. */
static void test_shapes_formats_and_rules(void **state)
{
    (void)state;
    for (int i = 0; i < FORMAT_COUNT; i++)
        for (int row = 0; row < ROWS_COUNT; row++) {
            fixture *f = make(FORMATS[i].k, FORMATS[i].v, row, DIMS[(i + row) % 4], 700);
            const int nested = FORMATS[i].k >= OCTAVO_K_E4M3X2 && FORMATS[i].k <= OCTAVO_K_INT4X2;
            for (int rule = OCTAVO_SELECT_NONE; rule <= OCTAVO_SELECT_CERTIFIED; rule++) {
                if (!nested && rule == OCTAVO_SELECT_CERTIFIED) continue;
                f->params.select = (octavo_select_rule)rule, f->params.epsilon = 0.1f, f->params.delta = 3.0f;
                f->params.compensate = rule >= OCTAVO_SELECT_DELTA && row % 2 ? OCTAVO_COMPENSATE_MEAN : OCTAVO_COMPENSATE_NONE;
                assert_true(agrees(f, 0.01, 2e-3));
            }
            fixture_destroy(f);
        }
}

/* Exponents of K alone or of V alone, as planes of a caller may have them, and so many units that a warp's memory holds first the one, then the other. */
static void test_exponents_of_one_alone(void **state)
{
    (void)state;
    const fixture_shape shape = { .batch = 16, .tokens = 1536, .kv_heads = 8, .group = 2, .q_tokens = 1, .head_dim = 128, .v_dim = 128, .block_tokens = 64,
                                  .sub_block_tokens = 64, .k_format = OCTAVO_K_E4M3X2, .v_format = OCTAVO_V_E4M3 };
    if (!gpu) skip();
    for (int of_v = 0; of_v < 2; of_v++) {
        fixture *f = fixture_create(&shape, 3);
        *(of_v ? &f->view.k_scale : &f->view.v_scale) = (octavo_section){ 0 };
        plant(f);
        for (int rule = OCTAVO_SELECT_NONE; rule <= OCTAVO_SELECT_CERTIFIED; rule++) {
            f->params.select = (octavo_select_rule)rule, f->params.epsilon = 0.1f, f->params.delta = 3.0f;
            f->params.compensate = rule >= OCTAVO_SELECT_DELTA ? OCTAVO_COMPENSATE_MEAN : OCTAVO_COMPENSATE_NONE;
            assert_true(agrees(f, 0.01, 2e-3));
        }
        fixture_destroy(f);
    }
}

static void test_visibility(void **state)
{
    (void)state;
    float sinks[256];
    for (int i = 0; i < 256; i++) sinks[i] = (float)(i % 7) - 2.0f;
    for (int i = 0; i < FORMAT_COUNT; i++) {
        fixture *f = make(FORMATS[i].k, FORMATS[i].v, i % ROWS_COUNT, DIMS[i % 4], 500);
        f->params.window = 150, f->params.sink_tokens = 5;
        assert_true(agrees(f, 0.01, 2e-3));
        f->params.sink_logits = sinks, f->params.soft_cap = 8.0f;
        assert_true(agrees(f, 0.01, 2e-3));
        f->params.select = OCTAVO_SELECT_MASS, f->params.epsilon = 0.01f, f->params.keep_last_blocks = 1;
        assert_true(agrees(f, 0.01, 2e-3));
        f->lengths[0] = 3, f->lengths[1] = 0; /* fewer keys than query tokens, and none */
        assert_true(agrees(f, 0.01, 2e-3));
        fixture_destroy(f);
    }
}

/* Queries, and 16-bit caches, in E4M3: with its weights in E4M3, too, an output of a GPU may be further from the CPU's. */
static void test_fp8(void **state)
{
    (void)state;
    for (int i = 0; i < FORMAT_COUNT; i++)
        for (int row = 0; row < ROWS_COUNT; row++) {
            fixture *f = make(FORMATS[i].k, FORMATS[i].v, row, DIMS[(i + row) % 4], 700);
            f->params.precision = OCTAVO_ATTENTION_FP8;
            assert_true(agrees(f, 0.06, 0.05));
            fixture_destroy(f);
        }
}

/* ---- known answers ---- */

/* As test_attention.c has it for the CPU, at every head size. */
static void test_sink_above_a_tail(void **state)
{
    (void)state;
    enum { KEYS = 1 << 17 };
    static const int PAIRS[] = { 0, 3, 5, 6, 9 };
    const double tail = (KEYS - 1) * exp(-12.0), share = tail / (1.0 + tail), lse = 12.0 + log1p(tail);
    for (size_t pair = 0; pair < sizeof PAIRS / sizeof *PAIRS; pair++)
        for (int fp8 = 0; fp8 < 2; fp8++) {
            const int64_t dim = DIMS[(pair + 1) % 4];
            const fixture_shape shape = { .batch = 1, .tokens = KEYS, .kv_heads = 1, .group = fp8 ? 16 : 2, .q_tokens = 1, .head_dim = dim, .v_dim = dim,
                                          .block_tokens = 64, .sub_block_tokens = 64, .k_format = FORMATS[PAIRS[pair]].k,
                                          .v_format = FORMATS[PAIRS[pair]].v };
            if (!gpu) skip();
            fixture *f = fixture_create(&shape, 3);
            for (int64_t e = 0; e < KEYS * dim; e++) f->k[e] = e == 0 ? 4.0f : 0.0f, f->v[e] = e < dim ? 0.0f : 1.0f;
            for (size_t e = 0; e < q_elements(&shape); e++) f->q[e] = e % (size_t)dim == 0 ? 3.0f : 0.0f;
            fixture_encode(f);
            f->params.softmax_scale = 1.0f, f->params.precision = fp8 ? OCTAVO_ATTENTION_FP8 : OCTAVO_ATTENTION_EXACT;
            there t = send(f);
            prepare(&t);
            call(&t);
            float *out = fetch(&t, OUT), *got = fetch(&t, LSE);
            for (int64_t e = 0; e < (int64_t)row_count(&shape) * dim; e++)
                if (!(fabs((double)out[e] - share) < 0.01 * share)) fail_msg("%s %s: the tail counts %g, expected %g", octavo_k_format_name(shape.k_format),
                                                                             octavo_v_format_name(shape.v_format), (double)out[e], share);
            for (size_t r = 0; r < row_count(&shape); r++) assert_true(fabs((double)got[r] - lse) < 0.02);
            free(out), free(got);
            drop(&t);
            fixture_destroy(f);
        }
}

/* ---- graphs and batches ---- */

/* Recorded once for 4096 tokens, replayed over lengths that only the device knows. */
static void test_a_graph_reads_lengths_on_the_device(void **state)
{
    (void)state;
    static const int32_t LENGTHS_TRIED[][2] = { { 4096, 4019 }, { 1, 4096 }, { 700, 64 }, { 0, 65 }, { 2049, 3000 } };
    static const int PAIRS[] = { 0, 3, 5, 6, 8, 9 };
    for (size_t i = 0; i < sizeof PAIRS / sizeof *PAIRS; i++)
        for (int rule = OCTAVO_SELECT_NONE; rule <= OCTAVO_SELECT_CERTIFIED; rule++) {
            fixture *f = make(FORMATS[PAIRS[i]].k, FORMATS[PAIRS[i]].v, 1, 128, 4096);
            const int nested = FORMATS[PAIRS[i]].k >= OCTAVO_K_E4M3X2;
            void *graph = NULL;
            f->params.select = nested ? (octavo_select_rule)rule : OCTAVO_SELECT_NONE, f->params.epsilon = 0.03f, f->params.delta = 3.0f;
            if (rule >= OCTAVO_SELECT_DELTA && nested) f->params.compensate = OCTAVO_COMPENSATE_MEAN;
            there t = send(f);
            prepare(&t);
            assert_int_equal(octavo_device_graph_begin(&t.exec), OCTAVO_OK);
            call(&t);
            if (octavo_device_graph_end(&t.exec, &graph) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
            for (size_t n = 0; n < sizeof LENGTHS_TRIED / sizeof *LENGTHS_TRIED; n++) {
                memcpy(f->lengths, LENGTHS_TRIED[n], sizeof LENGTHS_TRIED[n]);
                upload(&t, LENGTHS, f->lengths);
                assert_int_equal(octavo_device_graph_replay(&t.exec, graph), OCTAVO_OK);
                assert_int_equal(octavo_device_synchronize(&t.exec), OCTAVO_OK);
                fixture_decode(f);
                assert_true(is_close(&t, 0.01, 2e-3));
            }
            octavo_device_graph_destroy(gpu, graph);
            drop(&t);
            fixture_destroy(f);
            if (!nested) break;
        }
}

/* With fixed splits a sequence has the same bits in a batch, alone, and again. */
static void test_a_batch_does_not_matter(void **state)
{
    (void)state;
    for (int i = 0; i < FORMAT_COUNT; i++)
        for (int rule = OCTAVO_SELECT_NONE; rule <= OCTAVO_SELECT_MASS; rule++) {
            fixture *f = make(FORMATS[i].k, FORMATS[i].v, i % ROWS_COUNT, DIMS[(i + rule) % 4], 9000);
            const int64_t row = f->shape.q_tokens * f->shape.kv_heads * f->shape.group;
            f->params.select = (octavo_select_rule)rule, f->params.epsilon = 0.1f, f->params.delta = 3.0f, f->params.splits = OCTAVO_SPLITS_FIXED;
            if (rule >= OCTAVO_SELECT_DELTA) f->params.compensate = OCTAVO_COMPENSATE_MEAN;
            f->params.kept = NULL, f->params.dropped_mass = NULL, f->params.skip_ratio = NULL, f->params.bytes_read = NULL; /* what kernels that merge take */
            there t = send(f);
            prepare(&t);
            call(&t);
            float *out = fetch(&t, OUT), *lse = fetch(&t, LSE);
            for (int32_t b = 0; b < 2; b++) {
                const int32_t rows[] = { b, 0 };
                upload(&t, SEQUENCES, rows);
                t.view.sequences = t.at[SEQUENCES], t.view.batch = t.params.q.shape[0] = t.params.out.shape[0] = 1;
                t.params.q.data = (uint16_t *)t.at[Q] + b * row * f->shape.head_dim;
                call(&t);
                float *alone = fetch(&t, OUT), *alone_lse = fetch(&t, LSE);
                if (memcmp(alone, out + b * row * f->shape.v_dim, (size_t)(row * f->shape.v_dim) * sizeof *out)) tells(f, "out"), fail();
                assert_memory_equal(alone_lse, lse + b * row, (size_t)row * sizeof *lse);
                free(alone), free(alone_lse);
            }
            free(out), free(lse);
            drop(&t);
            fixture_destroy(f);
        }
}

/* ---- refusals ---- */

static void refuses(const there *t, const octavo_decode_params *params, octavo_status status, const char *words)
{
    assert_int_equal(octavo_attention_decode(&t->exec, params), status);
    if (!strstr(octavo_last_error(), words)) fail_msg("'%s' does not say '%s'", octavo_last_error(), words);
}

static void test_refusals(void **state)
{
    (void)state;
    fixture *f = make(OCTAVO_K_E4M3, OCTAVO_V_E4M3, 1, 64, 100);
    there t = send(f);
    prepare(&t);
    octavo_decode_params p = t.params;
    p.q.device_kind = OCTAVO_DEVICE_CPU, refuses(&t, &p, OCTAVO_E_ARGUMENT, "q lies in CPU memory"), p = t.params;
    p.out.device_kind = OCTAVO_DEVICE_CPU, refuses(&t, &p, OCTAVO_E_ARGUMENT, "out lies in CPU memory"), p = t.params;
    p.kv = &f->view, refuses(&t, &p, OCTAVO_E_ARGUMENT, "kv lies in CPU memory"), p = t.params;
    p.q.dtype = OCTAVO_INT8, refuses(&t, &p, OCTAVO_E_ARGUMENT, "f32, f16, bf16"), p = t.params;
    t.exec.workspace_bytes = 64, refuses(&t, &p, OCTAVO_E_RANGE, "workspace"), t.exec.workspace_bytes = t.bytes[WORKSPACE];
    static const int64_t q_shape[] = { 1, 1, 1, 5000 };
    const octavo_tensor wide = { /* refused before it is read: there is nothing at these places */
        .data = (void *)(uintptr_t)0x100000, .dtype = OCTAVO_F32, .device_kind = OCTAVO_DEVICE_CUDA, .ndim = 4, .shape = { 1, 64, 1, 5000 },
        .strides = { 64 * 5000, 5000, 5000, 1 }
    };
    octavo_page_config page = OCTAVO_PAGE_CONFIG_INIT;
    octavo_kv_view view = OCTAVO_KV_VIEW_INIT;
    page.k_format = OCTAVO_K_F32, page.v_format = OCTAVO_V_F32, page.kv_heads = 1, page.head_dim = 5000;
    assert_int_equal(octavo_kv_view_over_tensors(&page, &wide, NULL, &wide, NULL, t.at[LENGTHS], &view), OCTAVO_OK);
    p.kv = &view, p.q = tensor_there((void *)(uintptr_t)0x800000, OCTAVO_F32, wide.shape), p.out = tensor_there((void *)(uintptr_t)0x900000, OCTAVO_F32, wide.shape);
    memcpy(p.q.shape, q_shape, sizeof q_shape), memcpy(p.out.shape, q_shape, sizeof q_shape);
    t.exec.workspace_bytes = (size_t)1 << 40; /* nothing is written there either */
    refuses(&t, &p, OCTAVO_E_UNSUPPORTED, "head_dim is 5000"), p = t.params, t.exec.workspace_bytes = t.bytes[WORKSPACE];
    call(&t);
    drop(&t);
    fixture_destroy(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shapes_formats_and_rules), cmocka_unit_test(test_exponents_of_one_alone), cmocka_unit_test(test_visibility),
        cmocka_unit_test(test_fp8), cmocka_unit_test(test_sink_above_a_tail),
        cmocka_unit_test(test_a_graph_reads_lengths_on_the_device), cmocka_unit_test(test_a_batch_does_not_matter), cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, open_gpu, close_gpu);
}
