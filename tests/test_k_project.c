/* test_k_project.c - the fused K projection: its definition, the unfused sequence, and what it refuses. */
#include "encode_fixture.h"
#include "format/fp8_e4m3.h"

enum { KV_HEADS = 2, HEAD_DIM = 20, ROWS = KV_HEADS * HEAD_DIM, BATCH = 2, BLOCK = 64, PAGES_EACH = 6, MAX_TOKENS = BLOCK * PAGES_EACH };

/* One call with memory of its own. */
typedef struct projection {
    int64_t tokens, hidden;
    octavo_page_config page;
    uint8_t *pool;
    size_t pool_bytes;
    int32_t page_table[BATCH * PAGES_EACH], lengths[BATCH], positions[BATCH];
    float inv_freq[HEAD_DIM / 2], k_mean[ROWS * BATCH], bias[ROWS];
    void *h, *codes;
    float *scales; /* enough for any blocks of at least 8 x 8 */
    octavo_kv_view view;
    octavo_k_project_params params;
    fixture_device open;
} projection;

enum { POISON = 0xA5 };

static void set_up(projection *c, const char *isa, octavo_k_format format, octavo_dtype h, octavo_dtype w, int64_t tokens, int64_t hidden)
{
    memset(c, 0, sizeof *c);
    c->open = fixture_open(isa);
    c->tokens = tokens;
    c->hidden = hidden;
    c->page = (octavo_page_config)OCTAVO_PAGE_CONFIG_INIT;
    c->page.k_format = format;
    c->page.v_format = OCTAVO_V_INT8;
    c->page.kv_heads = KV_HEADS;
    c->page.head_dim = HEAD_DIM;
    c->page.block_tokens = BLOCK;
    size_t page_bytes;
    assert_int_equal(octavo_page_bytes(&c->page, &page_bytes), OCTAVO_OK);
    c->pool_bytes = page_bytes * BATCH * PAGES_EACH;
    c->pool = fixture_memory(c->pool_bytes, POISON);
    c->view = (octavo_kv_view)OCTAVO_KV_VIEW_INIT;
    assert_int_equal(octavo_kv_view_over_pool(&c->page, c->pool, BATCH * PAGES_EACH, 0, &c->view), OCTAVO_OK);
    for (int i = 0; i < BATCH * PAGES_EACH; i++) c->page_table[i] = BATCH * PAGES_EACH - 1 - i;
    c->view.batch = BATCH;
    c->view.max_tokens = MAX_TOKENS;
    c->view.lengths = c->lengths;
    c->view.page_table = c->page_table;
    c->view.page_table_stride = PAGES_EACH;
    c->positions[0] = 5;
    c->positions[1] = 0;
    for (int i = 0; i < HEAD_DIM / 2; i++) c->inv_freq[i] = powf(10000.0f, -2.0f * (float)i / HEAD_DIM);
    c->h = fixture_memory((size_t)(BATCH * tokens * hidden) * octavo_dtype_bytes(h), 0);
    c->codes = fixture_memory((size_t)(ROWS * hidden) * octavo_dtype_bytes(w), 0);
    c->scales = fixture_memory((size_t)(ROWS * (hidden / 8 + 1)) * sizeof *c->scales, 0);
    const int64_t h_shape[] = { BATCH, tokens, hidden }, w_shape[] = { ROWS, hidden };
    c->params = (octavo_k_project_params)OCTAVO_K_PROJECT_PARAMS_INIT;
    c->params.h = octavo_tensor_view(c->h, h, 3, h_shape);
    c->params.weight.codes = octavo_tensor_view(c->codes, w, 2, w_shape);
    c->params.positions = c->positions;
    c->params.kv = &c->view;
}

static void tear_down(projection *c)
{
    if (c->open.exec.workspace) octavo_device_release(c->open.device, c->open.exec.workspace, c->open.exec.workspace_bytes);
    fixture_close(&c->open);
    free(c->pool);
    free(c->h);
    free(c->codes);
    free(c->scales);
}

static octavo_status run(projection *c)
{
    size_t bytes;
    const octavo_status status = octavo_k_project_workspace(&c->open.exec, &c->params, &bytes);
    if (status != OCTAVO_OK) return status;
    if (c->open.exec.workspace) octavo_device_release(c->open.device, c->open.exec.workspace, c->open.exec.workspace_bytes);
    assert_int_equal(octavo_device_allocate(c->open.device, bytes, &c->open.exec.workspace), OCTAVO_OK);
    c->open.exec.workspace_bytes = bytes;
    return octavo_k_project(&c->open.exec, &c->params);
}

/* Small whole numbers, whose sums no order of additions rounds; every eighth weight is a quarter. */
static void fill_exact(projection *c, uint64_t seed)
{
    const octavo_dtype w = c->params.weight.codes.dtype;
    for (int64_t i = 0; i < BATCH * c->tokens * c->hidden; i++)
        fixture_put(c->h, c->params.h.dtype, i, (float)(int)(fixture_random(&seed) % 15) - 7.0f);
    for (int64_t i = 0; i < ROWS * c->hidden; i++) {
        const int code = (int)(fixture_random(&seed) % 15) - 7;
        if (w == OCTAVO_INT8) ((int8_t *)c->codes)[i] = (int8_t)code;
        else if (w == OCTAVO_E4M3) ((uint8_t *)c->codes)[i] = octavo_e4m3_from_float(i % 8 ? (float)code : 0.25f);
        else fixture_put(c->codes, w, i, i % 8 ? (float)code : 0.25f);
    }
    for (int i = 0; i < ROWS; i++) c->bias[i] = (float)(int)(fixture_random(&seed) % 9) * 0.5f;
    for (int i = 0; i < ROWS * BATCH; i++) c->k_mean[i] = (float)(int)(fixture_random(&seed) % 9) * 0.3f;
}

static void fill_random(projection *c, uint64_t seed)
{
    const octavo_dtype w = c->params.weight.codes.dtype;
    for (int64_t i = 0; i < BATCH * c->tokens * c->hidden; i++) fixture_put(c->h, c->params.h.dtype, i, fixture_value(&seed));
    for (int64_t i = 0; i < ROWS * c->hidden; i++) {
        const uint8_t byte = (uint8_t)fixture_random(&seed);
        if (w == OCTAVO_INT8) ((uint8_t *)c->codes)[i] = byte;
        else if (w == OCTAVO_E4M3) ((uint8_t *)c->codes)[i] = (byte & 127) == 127 ? 0 : byte;
        else fixture_put(c->codes, w, i, fixture_value(&seed));
    }
    for (int64_t i = 0; i < ROWS * (c->hidden / 8 + 1); i++) c->scales[i] = 0.01f + 0.001f * (float)(fixture_random(&seed) % 100);
    for (int i = 0; i < ROWS; i++) c->bias[i] = fixture_value(&seed);
}

static double weight_at(const projection *c, int64_t row, int64_t column)
{
    const octavo_weight *weight = &c->params.weight;
    const int64_t i = row * c->hidden + column, rows = weight->block_rows ? weight->block_rows : ROWS;
    const int64_t columns = weight->block_cols ? weight->block_cols : c->hidden, across = (c->hidden + columns - 1) / columns;
    const double scale = weight->scales ? (double)weight->scales[row / rows * across + column / columns] : 1.0;
    if (weight->codes.dtype == OCTAVO_INT8) return scale * (double)((const int8_t *)c->codes)[i];
    if (weight->codes.dtype == OCTAVO_E4M3) return scale * (double)octavo_e4m3_to_float(((const uint8_t *)c->codes)[i]);
    return scale * (double)fixture_get(c->codes, weight->codes.dtype, i);
}

/* y[n][row] in float64, n over batch * tokens, and the sum of what was added up without signs. */
static double product(const projection *c, int64_t n, int64_t row, double *magnitude)
{
    double sum = c->params.bias ? (double)c->bias[row] : 0.0;
    *magnitude = fabs(sum);
    for (int64_t i = 0; i < c->hidden; i++) {
        const double term = (double)fixture_get(c->h, c->params.h.dtype, n * c->hidden + i) * weight_at(c, row, i);
        sum += term;
        *magnitude += fabs(term);
    }
    return sum;
}

/* RoPE in float32 over one head, as models do it. */
static void rotate(const projection *c, int32_t position, float *x)
{
    const octavo_rope *rope = &c->params.rope;
    if (rope->style == OCTAVO_ROPE_NONE) return;
    const int pairs = (rope->rotary_dim ? rope->rotary_dim : HEAD_DIM) / 2;
    for (int i = 0; i < pairs; i++) {
        const float angle = (float)position * c->inv_freq[i], scale = rope->scale == 0.0f ? 1.0f : rope->scale;
        const float cosine = (float)cos((double)angle) * scale, sine = (float)sin((double)angle) * scale;
        float *a = rope->style == OCTAVO_ROPE_ROTATE_HALF ? x + i : x + 2 * i;
        float *b = rope->style == OCTAVO_ROPE_ROTATE_HALF ? x + i + pairs : x + 2 * i + 1;
        const float low = *a * cosine - *b * sine;
        *b = *b * cosine + *a * sine;
        *a = low;
    }
}

/* The unfused sequence into pages of its own: product, rotation, octavo_kv_append. */
static uint8_t *unfused(projection *c)
{
    uint8_t *pool = fixture_memory(c->pool_bytes, POISON);
    float *y = fixture_memory((size_t)(BATCH * c->tokens * ROWS) * sizeof *y, 0);
    for (int64_t n = 0; n < BATCH * c->tokens; n++) {
        const int64_t b = n / c->tokens, i = n % c->tokens;
        const int32_t position = c->params.rope_positions ? c->params.rope_positions[n] : c->positions[b] + (int32_t)i;
        double magnitude;
        for (int64_t row = 0; row < ROWS; row++) y[n * ROWS + row] = (float)product(c, n, row, &magnitude);
        for (int head = 0; head < KV_HEADS; head++) rotate(c, position, y + n * ROWS + head * HEAD_DIM);
    }
    octavo_kv_view view = c->view;
    assert_int_equal(octavo_kv_view_over_pool(&c->page, pool, BATCH * PAGES_EACH, 0, &view), OCTAVO_OK);
    view.batch = BATCH;
    view.max_tokens = MAX_TOKENS;
    view.lengths = c->lengths;
    view.page_table = c->page_table;
    view.page_table_stride = PAGES_EACH;
    view.k_mean = c->view.k_mean;
    const int64_t shape[] = { BATCH, c->tokens, KV_HEADS, HEAD_DIM };
    const octavo_tensor k = octavo_tensor_view(y, OCTAVO_F32, 4, shape);
    assert_int_equal(octavo_kv_append(&c->open.exec, &view, &k, NULL, c->positions), OCTAVO_OK);
    free(y);
    return pool;
}

static const octavo_dtype H_TYPES[] = { OCTAVO_BF16, OCTAVO_F32, OCTAVO_F16 };
static const octavo_dtype W_TYPES[] = { OCTAVO_BF16, OCTAVO_E4M3, OCTAVO_INT8, OCTAVO_F32, OCTAVO_F16 };
static const int64_t TOKENS[] = { 1, 3, 17, 40 };

/* Every level, type and style: where no sum rounds, the planes are those of the unfused sequence, bit for bit. The reference
 * rotates in float64, so it is held to that without a rotation only. */
static void fused_equals_unfused(void **state)
{
    (void)state;
    uint64_t seed = 1;
    for (int level = 0; fixture_level(&level);)
        for (int i = 0; i < 60; i++) {
            projection c;
            const octavo_k_format format = (octavo_k_format)(OCTAVO_K_BF16 + i % (OCTAVO_K_INT4X2 - OCTAVO_K_BF16 + 1));
            set_up(&c, octavo_isa_name(level - 1), format, H_TYPES[i % 3], W_TYPES[i % 5], TOKENS[i / 3 % 4], 33 + (i * 37) % 200);
            fill_exact(&c, seed++);
            const octavo_rope_style style = strcmp(octavo_isa_name(level - 1), "ref") ? (octavo_rope_style)(i % 3) : OCTAVO_ROPE_NONE;
            c.params.rope = (octavo_rope){ style, i % 4 ? 0 : HEAD_DIM - 6, c.inv_freq, i % 5 ? 0.0f : 1.25f };
            c.params.bias = i % 2 ? c.bias : NULL;
            c.view.k_mean = i % 4 ? NULL : c.k_mean;
            int32_t angles[BATCH * 40];
            for (int n = 0; n < BATCH * 40; n++) angles[n] = n % 7 == 0 ? 1000003 * n : n;
            if (i % 6 == 5) c.params.rope_positions = angles;
            assert_int_equal(run(&c), OCTAVO_OK);
            uint8_t *want = unfused(&c);
            for (size_t byte = 0; byte < c.pool_bytes; byte++)
                if (c.pool[byte] != want[byte]) fail_msg("%s case %d: byte %zu of the pages differs", octavo_isa_name(level - 1), i, byte);
            free(want);
            tear_down(&c);
        }
}

/* The stored keys, in a format wide enough to see float32's rounding, are within its bound of float64. */
static void rounding_is_bounded(void **state)
{
    (void)state;
    static const int64_t BLOCKS[][2] = { { 0, 0 }, { 1, 0 }, { 8, 64 }, { 128, 128 }, { 7, 9 }, { 0, 192 } };
    uint64_t seed = 77;
    for (int level = 0; fixture_level(&level);)
        for (int i = 0; i < 60; i++) {
            projection c;
            set_up(&c, octavo_isa_name(level - 1), OCTAVO_K_BF16, H_TYPES[i % 3], W_TYPES[i % 5], TOKENS[i / 3 % 4], 100 + (i * 97) % 700);
            fill_random(&c, seed++);
            c.params.bias = c.bias;
            if (i % 4) c.params.weight.scales = c.scales;
            c.params.weight.block_rows = BLOCKS[i % 6][0];
            c.params.weight.block_cols = BLOCKS[i % 6][1];
            assert_int_equal(run(&c), OCTAVO_OK);
            const float *y = c.open.exec.workspace; /* the keys before they are encoded */
            for (int64_t n = 0; n < BATCH * c.tokens; n++)
                for (int64_t row = 0; row < ROWS; row++) {
                    double magnitude;
                    const double want = product(&c, n, row, &magnitude), bound = (double)(c.hidden + 8) * 0x1p-24 * magnitude + 0x1p-100;
                    if (!(fabs((double)y[n * ROWS + row] - want) <= bound))
                        fail_msg("%s case %d: token %d row %d is %.9g, expected %.9g", octavo_isa_name(level - 1), i, (int)n, (int)row,
                                 (double)y[n * ROWS + row], want);
                }
            tear_down(&c);
        }
}

/* Whole pages, whatever the level, hold after a refusal what they held before. */
static void assert_untouched(const projection *c)
{
    for (size_t byte = 0; byte < c->pool_bytes; byte++)
        if (c->pool[byte] != POISON) fail_msg("byte %zu of the pages was written", byte);
}

static void nonfinite_writes_nothing(void **state)
{
    (void)state;
    for (int level = 0; fixture_level(&level);)
        for (int i = 0; i < 15; i++) {
            projection c;
            set_up(&c, octavo_isa_name(level - 1), OCTAVO_K_E4M3X2, H_TYPES[i % 3], W_TYPES[i % 5], TOKENS[i % 4], 65);
            fill_exact(&c, (uint64_t)i);
            const int64_t last = ROWS * c.hidden - 1;
            if (i % 2 && c.params.weight.codes.dtype == OCTAVO_E4M3) ((uint8_t *)c.codes)[last] = 0xFF;
            else fixture_put(c.h, c.params.h.dtype, BATCH * c.tokens * c.hidden - 1, i % 4 ? NAN : INFINITY);
            fixture_put(c.h, c.params.h.dtype, 0, 1.0f);
            assert_refused(run(&c), OCTAVO_E_NONFINITE, "NaN or Inf");
            assert_untouched(&c);
            tear_down(&c);
        }
}

/* A chunk's end inside a long prompt changes nothing: the keys are those of shorter calls. */
static void long_prompts_equal_short_calls(void **state)
{
    (void)state;
    enum { HIDDEN = 48, LONG = MAX_TOKENS - 8 };
    for (int level = 0; fixture_level(&level);) {
        projection all, part;
        set_up(&all, octavo_isa_name(level - 1), OCTAVO_K_INT8X2, OCTAVO_BF16, OCTAVO_BF16, LONG, HIDDEN);
        set_up(&part, octavo_isa_name(level - 1), OCTAVO_K_INT8X2, OCTAVO_BF16, OCTAVO_BF16, LONG, HIDDEN);
        fill_exact(&all, 9);
        fill_exact(&part, 9);
        assert_int_equal(run(&all), OCTAVO_OK);
        for (int64_t from = 0, step = 1; from < LONG; from += step, step = step * 2 + 1) {
            const int64_t count = LONG - from < step ? LONG - from : step;
            part.params.h = all.params.h; /* strides of the whole */
            part.params.h.data = (uint16_t *)part.h + from * HIDDEN;
            part.params.h.shape[1] = count;
            for (int b = 0; b < BATCH; b++) part.positions[b] = all.positions[b] + (int32_t)from;
            assert_int_equal(run(&part), OCTAVO_OK);
        }
        assert_memory_equal(all.pool, part.pool, all.pool_bytes);
        tear_down(&all);
        tear_down(&part);
    }
}

static void refusals(void **state)
{
    (void)state;
    projection c;
    set_up(&c, NULL, OCTAVO_K_E4M3X2, OCTAVO_BF16, OCTAVO_INT8, 3, 64);
    fill_exact(&c, 3);
    const octavo_k_project_params good = c.params;
    assert_int_equal(run(&c), OCTAVO_OK);
    memset(c.pool, POISON, c.pool_bytes);
#define REFUSED(change, status, words)             \
    do {                                           \
        c.params = good;                           \
        change;                                    \
        assert_refused(run(&c), status, words);    \
    } while (0)
    REFUSED(c.params.struct_size = 8, OCTAVO_E_VERSION, "struct_size");
    REFUSED(c.params.kv = NULL, OCTAVO_E_ARGUMENT, "NULL");
    REFUSED(c.params.h.dtype = OCTAVO_E4M3, OCTAVO_E_ARGUMENT, "h has dtype e4m3");
    REFUSED(c.params.h.ndim = 2, OCTAVO_E_SHAPE, "h");
    REFUSED(c.params.h.shape[0] = 1, OCTAVO_E_SHAPE, "h.shape[0]");
    REFUSED(c.params.h.shape[1] = 0, OCTAVO_E_SHAPE, "h");
    REFUSED(c.params.weight.codes.dtype = OCTAVO_E5M2, OCTAVO_E_ARGUMENT, "weight.codes");
    REFUSED(c.params.weight.codes.shape[0] = ROWS - 1, OCTAVO_E_SHAPE, "weight.codes.shape[0]");
    REFUSED(c.params.weight.codes.shape[1] = 63, OCTAVO_E_SHAPE, "weight.codes.shape[1]");
    REFUSED(c.params.weight.block_cols = -1, OCTAVO_E_ARGUMENT, "block_cols");
    REFUSED(c.params.rope.style = (octavo_rope_style)7, OCTAVO_E_ARGUMENT, "rope.style");
    REFUSED(c.params.rope.style = OCTAVO_ROPE_ROTATE_HALF, OCTAVO_E_ARGUMENT, "inv_freq");
    REFUSED((c.params.rope = (octavo_rope){ OCTAVO_ROPE_INTERLEAVED, 7, c.inv_freq, 0 }), OCTAVO_E_ARGUMENT, "rotary_dim");
    REFUSED((c.params.rope = (octavo_rope){ OCTAVO_ROPE_INTERLEAVED, HEAD_DIM + 2, c.inv_freq, 0 }), OCTAVO_E_ARGUMENT, "rotary_dim");
    REFUSED((c.params.rope = (octavo_rope){ OCTAVO_ROPE_INTERLEAVED, 0, c.inv_freq, NAN }), OCTAVO_E_ARGUMENT, "rope.scale");
    REFUSED(c.params.positions = NULL, OCTAVO_E_ARGUMENT, "positions");
    REFUSED(c.params.h.data = c.pool, OCTAVO_E_ARGUMENT, "overlap");
    c.params = good;
    c.positions[1] = MAX_TOKENS - 2;
    assert_refused(run(&c), OCTAVO_E_RANGE, "positions[1]");
    c.positions[1] = 0;
    c.page_table[PAGES_EACH] = BATCH * PAGES_EACH;
    assert_refused(run(&c), OCTAVO_E_RANGE, "page");
    c.page_table[PAGES_EACH] = 0;
    c.open.exec.workspace_bytes -= 64;
    assert_refused(octavo_k_project(&c.open.exec, &c.params), OCTAVO_E_RANGE, "workspace");
    c.open.exec.workspace_bytes += 64;
    assert_untouched(&c);
    tear_down(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fused_equals_unfused),           cmocka_unit_test(rounding_is_bounded),
        cmocka_unit_test(nonfinite_writes_nothing),       cmocka_unit_test(long_prompts_equal_short_calls),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
