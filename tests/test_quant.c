/* test_quant.c - quantize, dequantize and their scales: against an oracle of its own, on every level. */
#include "encode_fixture.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include <float.h>

enum { ROWS_MAX = 160, COLS_MAX = 1100, PAD = 5, POISON = 0xA5 };

static float code_max(octavo_dtype dtype) { return dtype == OCTAVO_E4M3 ? 448.0f : dtype == OCTAVO_E5M2 ? 57344.0f : 127.0f; }

static uint8_t encode(float q, octavo_dtype dtype)
{
    if (dtype == OCTAVO_E4M3) return octavo_e4m3_from_float(q);
    if (dtype == OCTAVO_E5M2) return octavo_e5m2_from_float(q);
    const float r = rintf(q);
    return (uint8_t)(int8_t)(r > 127.0f ? 127.0f : r < -127.0f ? -127.0f : r);
}

static float decode(uint8_t code, octavo_dtype dtype)
{
    if (dtype == OCTAVO_E4M3) return octavo_e4m3_to_float(code);
    return dtype == OCTAVO_E5M2 ? octavo_e5m2_to_float(code) : (float)(int8_t)code;
}

/* One random problem: rows are padded to strides of their own. */
typedef struct problem {
    octavo_quantize_params p;
    int64_t rows, cols, scale_count;
    size_t code_bytes;
} problem;

static problem make_problem(uint64_t *seed, octavo_dtype x_dtype, octavo_dtype code_dtype, octavo_granularity granularity)
{
    problem made = { .p = OCTAVO_QUANTIZE_PARAMS_INIT };
    made.rows = 1 + fixture_random(seed) % ROWS_MAX;
    made.cols = 1 + fixture_random(seed) % (fixture_random(seed) % 2 ? COLS_MAX : 40);
    octavo_quantize_params *p = &made.p;
    const int64_t shape[] = { made.rows, made.cols };
    p->x = octavo_tensor_view(fixture_memory((size_t)(made.rows * (made.cols + PAD)) * 4, 0), x_dtype, 2, shape);
    p->x.strides[0] = made.cols + PAD;
    made.code_bytes = (size_t)(made.rows * (made.cols + 2 * PAD));
    p->codes = octavo_tensor_view(fixture_memory(made.code_bytes, POISON), code_dtype, 2, shape);
    p->codes.strides[0] = made.cols + 2 * PAD;
    p->granularity = granularity;
    p->scale_kind = fixture_random(seed) % 2 ? OCTAVO_SCALE_POW2 : OCTAVO_SCALE_F32;
    p->block_rows = 1 + fixture_random(seed) % 20;
    p->block_cols = 1 + fixture_random(seed) % 600;
    made.scale_count = octavo_scale_count(granularity, made.rows, made.cols, p->block_rows, p->block_cols);
    p->scales = fixture_memory((size_t)made.scale_count * sizeof(float), POISON);
    p->saturated = fixture_memory(sizeof(int64_t), POISON);
    p->underflowed = fixture_memory(sizeof(int64_t), POISON);
    const int zero_row = (int)(fixture_random(seed) % 4);
    for (int64_t r = 0; r < made.rows; r++)
        for (int64_t c = 0; c < made.cols; c++)
            fixture_put(p->x.data, x_dtype, r * (made.cols + PAD) + c, r == zero_row ? 0.0f : fixture_value(seed));
    return made;
}

static void free_problem(problem *made)
{
    free(made->p.x.data);
    free(made->p.codes.data);
    free(made->p.scales);
    free(made->p.saturated);
    free(made->p.underflowed);
}

static int64_t group_index(const problem *of, int64_t r, int64_t c)
{
    switch (of->p.granularity) {
    case OCTAVO_PER_TENSOR:  return 0;
    case OCTAVO_PER_TOKEN:   return r;
    case OCTAVO_PER_CHANNEL: return c;
    default: return r / of->p.block_rows * ((of->cols + of->p.block_cols - 1) / of->p.block_cols) + c / of->p.block_cols;
    }
}

static float x_at(const problem *of, int64_t r, int64_t c)
{
    return fixture_get(of->p.x.data, of->p.x.dtype, r * of->p.x.strides[0] + c);
}

static float expected_scale(const problem *of, int64_t group)
{
    float amax = 0.0f;
    for (int64_t r = 0; r < of->rows; r++)
        for (int64_t c = 0; c < of->cols; c++)
            if (group_index(of, r, c) == group && fabsf(x_at(of, r, c)) > amax) amax = fabsf(x_at(of, r, c));
    if (amax == 0.0f) return 1.0f;
    const float scale = amax / code_max(of->p.codes.dtype);
    float power = FLT_MIN;
    while (of->p.scale_kind == OCTAVO_SCALE_POW2 && power < scale) power *= 2.0f;
    return of->p.scale_kind == OCTAVO_SCALE_POW2 ? power : scale < FLT_MIN ? FLT_MIN : scale;
}

static void check_problem(const problem *of)
{
    const octavo_dtype dtype = of->p.codes.dtype;
    int64_t saturated = 0, underflowed = 0;
    if (of->p.scale_source == OCTAVO_SCALE_DYNAMIC)
        for (int64_t g = 0; g < of->scale_count && g < 6; g++) assert_true(of->p.scales[g] == expected_scale(of, g));
    for (int64_t r = 0; r < of->rows; r++)
        for (int64_t c = 0; c < of->p.codes.strides[0]; c++) {
            const uint8_t code = ((const uint8_t *)of->p.codes.data)[r * of->p.codes.strides[0] + c];
            if (c >= of->cols) {
                assert_int_equal(code, POISON); /* between the rows nothing was written */
                continue;
            }
            const float x = x_at(of, r, c), q = x / of->p.scales[group_index(of, r, c)];
            assert_int_equal(code, encode(q, dtype));
            const double past = dtype == OCTAVO_E4M3 ? 464.0 : dtype == OCTAVO_E5M2 ? 61440.0 : 127.5;
            saturated += dtype == OCTAVO_E4M3 ? fabs((double)q) > past : fabs((double)q) >= past;
            underflowed += x != 0.0f && decode(code, dtype) == 0.0f;
        }
    assert_int_equal(*of->p.saturated, saturated);
    assert_int_equal(*of->p.underflowed, underflowed);
}

static void check_dequantize(const fixture_device *open, const problem *of)
{
    octavo_dequantize_params p = OCTAVO_DEQUANTIZE_PARAMS_INIT;
    const int64_t shape[] = { of->rows, of->cols };
    float *x = fixture_memory((size_t)(of->rows * of->cols) * sizeof *x, POISON);
    p.codes = of->p.codes;
    p.x = octavo_tensor_view(x, OCTAVO_F32, 2, shape);
    p.scales = of->p.scales;
    p.granularity = of->p.granularity;
    p.block_rows = of->p.block_rows;
    p.block_cols = of->p.block_cols;
    assert_int_equal(octavo_dequantize(&open->exec, &p), OCTAVO_OK);
    for (int64_t r = 0; r < of->rows; r++)
        for (int64_t c = 0; c < of->cols; c++) {
            const uint8_t code = ((const uint8_t *)of->p.codes.data)[r * of->p.codes.strides[0] + c];
            assert_true(x[r * of->cols + c] == decode(code, of->p.codes.dtype) * of->p.scales[group_index(of, r, c)]);
        }
    free(x);
}

static void test_every_level_matches_the_definition(void **state)
{
    (void)state;
    static const octavo_dtype inputs[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 },
                              outputs[] = { OCTAVO_E4M3, OCTAVO_E5M2, OCTAVO_INT8 };
    int index = 0;
    for (const char *level = fixture_level(&index); level; level = fixture_level(&index)) {
        fixture_device open = fixture_open(level);
        uint64_t seed = 1;
        for (int i = 0; i < 3 * 3 * 4; i++) {
            problem made = make_problem(&seed, inputs[i % 3], outputs[i / 3 % 3], (octavo_granularity)(i / 9));
            assert_int_equal(octavo_quantize(&open.exec, &made.p), OCTAVO_OK);
            check_problem(&made);
            check_dequantize(&open, &made);
            made.p.scale_source = OCTAVO_SCALE_STATIC;
            for (int64_t g = 0; g < made.scale_count; g++) made.p.scales[g] *= 0.7f + 0.1f * (float)(g % 7);
            assert_int_equal(octavo_quantize(&open.exec, &made.p), OCTAVO_OK);
            check_problem(&made);
            free_problem(&made);
        }
        fixture_close(&open);
    }
}

static octavo_quantize_params row_of(float *x, uint8_t *codes, float *scale, octavo_dtype dtype, int64_t n)
{
    octavo_quantize_params p = OCTAVO_QUANTIZE_PARAMS_INIT;
    p.x = octavo_tensor_view(x, OCTAVO_F32, 2, (const int64_t[]){ 1, n });
    p.codes = octavo_tensor_view(codes, dtype, 2, (const int64_t[]){ 1, n });
    p.scales = scale;
    return p;
}

static void test_counts_at_the_ties(void **state)
{
    (void)state;
    static const struct {
        octavo_dtype dtype;
        float inside, past;
    } ties[] = { { OCTAVO_E4M3, 464.0f, 464.00003f },
                 { OCTAVO_E5M2, 61439.996f, 61440.0f },
                 { OCTAVO_INT8, 127.49999f, 127.5f } };
    int index = 0;
    for (const char *level = fixture_level(&index); level; level = fixture_level(&index)) {
        fixture_device open = fixture_open(level);
        for (int i = 0; i < 3; i++) {
            float x[6] = { ties[i].inside, ties[i].past, -ties[i].past, -ties[i].inside, 0.0f, 1e-30f }, scale = 1.0f;
            uint8_t codes[6];
            int64_t saturated = -1, underflowed = -1;
            octavo_quantize_params p = row_of(x, codes, &scale, ties[i].dtype, 6);
            p.scale_source = OCTAVO_SCALE_STATIC;
            p.saturated = &saturated;
            p.underflowed = &underflowed;
            assert_int_equal(octavo_quantize(&open.exec, &p), OCTAVO_OK);
            assert_int_equal(saturated, 2);
            assert_int_equal(underflowed, 1);
            for (int j = 0; j < 2; j++) assert_true(decode(codes[j], ties[i].dtype) == code_max(ties[i].dtype));
            for (int j = 2; j < 4; j++) assert_true(decode(codes[j], ties[i].dtype) == -code_max(ties[i].dtype));
        }
        fixture_close(&open);
    }
}

static void test_extreme_magnitudes(void **state)
{
    (void)state;
    static const octavo_dtype outputs[] = { OCTAVO_E4M3, OCTAVO_E5M2, OCTAVO_INT8 };
    fixture_device open = fixture_open(NULL);
    for (int i = 0; i < 6; i++) {
        const octavo_dtype dtype = outputs[i % 3];
        float tiny[3] = { 0x1p-149f, -0x1p-149f, 0.0f }, huge[3] = { FLT_MAX, -FLT_MAX, 1.0f }, scale = 0.0f;
        uint8_t codes[3];
        octavo_quantize_params p = row_of(tiny, codes, &scale, dtype, 3);
        p.scale_kind = i < 3 ? OCTAVO_SCALE_F32 : OCTAVO_SCALE_POW2;
        assert_int_equal(octavo_quantize(&open.exec, &p), OCTAVO_OK);
        assert_true(scale == FLT_MIN);
        for (int j = 0; j < 3; j++) assert_true(decode(codes[j], dtype) == 0.0f);
        p.x.data = huge;
        assert_int_equal(octavo_quantize(&open.exec, &p), OCTAVO_OK);
        assert_true(isfinite(scale) && decode(codes[0], dtype) == -decode(codes[1], dtype));
        assert_true(decode(codes[0], dtype) > 0.49f * code_max(dtype));
    }
    fixture_close(&open);
}

static void test_nonfinite_writes_nothing(void **state)
{
    (void)state;
    static const float bad[] = { NAN, INFINITY, -INFINITY };
    int index = 0;
    for (const char *level = fixture_level(&index); level; level = fixture_level(&index)) {
        fixture_device open = fixture_open(level);
        uint64_t seed = 9;
        for (int i = 0; i < 36; i++) {
            const octavo_dtype x_dtype = i % 2 ? OCTAVO_BF16 : OCTAVO_F32;
            problem made = make_problem(&seed, x_dtype, OCTAVO_INT8, (octavo_granularity)(i % 4));
            const int64_t at = fixture_random(&seed) % made.rows * made.p.x.strides[0] + fixture_random(&seed) % made.cols;
            fixture_put(made.p.x.data, x_dtype, at, bad[i % 3]);
            assert_refused(octavo_quantize(&open.exec, &made.p), OCTAVO_E_NONFINITE, "x holds NaN");
            for (size_t j = 0; j < made.code_bytes; j++) assert_int_equal(((uint8_t *)made.p.codes.data)[j], POISON);
            for (size_t j = 0; j < (size_t)made.scale_count * 4; j++) assert_int_equal(((uint8_t *)made.p.scales)[j], POISON);
            assert_int_equal(((uint8_t *)made.p.saturated)[0], POISON);
            free_problem(&made);
        }
        fixture_close(&open);
    }
}

static void test_scale_count(void **state)
{
    (void)state;
    assert_int_equal(octavo_scale_count(OCTAVO_PER_TENSOR, 7, 9, 0, 0), 1);
    assert_int_equal(octavo_scale_count(OCTAVO_PER_TOKEN, 7, 9, 0, 0), 7);
    assert_int_equal(octavo_scale_count(OCTAVO_PER_CHANNEL, 7, 9, 0, 0), 9);
    assert_int_equal(octavo_scale_count(OCTAVO_PER_BLOCK, 7, 9, 3, 4), 9);
    assert_int_equal(octavo_scale_count(OCTAVO_PER_BLOCK, 7, 9, 100, INT64_MAX), 1);
    assert_int_equal(octavo_scale_count(OCTAVO_PER_BLOCK, INT64_MAX, INT64_MAX, 1, 1), 0);
    assert_int_equal(octavo_scale_count(OCTAVO_PER_BLOCK, 7, 9, 0, 4), 0);
    assert_int_equal(octavo_scale_count(OCTAVO_PER_TOKEN, 0, 9, 0, 0), 0);
    assert_int_equal(octavo_scale_count((octavo_granularity)9, 7, 9, 0, 0), 0);
}

static void test_refusals(void **state)
{
    (void)state;
    fixture_device open = fixture_open(NULL);
    float x[8] = { 1.0f, 2.0f }, scale = 1.0f;
    uint8_t codes[8];
    const octavo_quantize_params good = row_of(x, codes, &scale, OCTAVO_E4M3, 8);
    assert_int_equal(octavo_quantize(&open.exec, &good), OCTAVO_OK);
    assert_refused(octavo_quantize(&open.exec, NULL), OCTAVO_E_ARGUMENT, "params is NULL");
    assert_refused(octavo_quantize(NULL, &good), OCTAVO_E_ARGUMENT, "exec is NULL");
#define REFUSED(change, status, words)                                  \
    do {                                                                \
        octavo_quantize_params p = good;                                \
        change;                                                         \
        assert_refused(octavo_quantize(&open.exec, &p), status, words); \
    } while (0)
    REFUSED(p.struct_size = 8, OCTAVO_E_VERSION, "octavo_quantize_params");
    REFUSED(p.x.dtype = OCTAVO_F64, OCTAVO_E_ARGUMENT, "x has dtype f64");
    REFUSED(p.codes.dtype = OCTAVO_UINT8, OCTAVO_E_ARGUMENT, "codes has dtype uint8");
    REFUSED(p.codes.shape[1] = 7, OCTAVO_E_SHAPE, "codes.shape[1] is 7, expected 8");
    REFUSED(p.x.shape[0] = 0, OCTAVO_E_SHAPE, "x.shape[0] is 0");
    REFUSED(p.x.ndim = 3, OCTAVO_E_SHAPE, "expected 2");
    REFUSED(p.x.strides[1] = 2, OCTAVO_E_SHAPE, "contiguous");
    REFUSED(p.x.data = NULL, OCTAVO_E_ARGUMENT, "x has no data");
    REFUSED(p.x.data = (char *)x + 1, OCTAVO_E_ARGUMENT, "x.data is not aligned");
    REFUSED(p.codes.data = x, OCTAVO_E_ARGUMENT, "overlap");
    REFUSED(p.scales = x, OCTAVO_E_ARGUMENT, "scales and x overlap");
    REFUSED(p.scales = NULL, OCTAVO_E_ARGUMENT, "scales is NULL");
    REFUSED(p.granularity = (octavo_granularity)4, OCTAVO_E_ARGUMENT, "granularity is 4");
    REFUSED(p.scale_kind = (octavo_scale_kind)2, OCTAVO_E_ARGUMENT, "scale_kind is 2");
    REFUSED(p.scale_source = (octavo_scale_source)2, OCTAVO_E_ARGUMENT, "scale_source is 2");
    REFUSED(p.granularity = OCTAVO_PER_BLOCK, OCTAVO_E_ARGUMENT, "block_rows");
    REFUSED(p.scale_source = OCTAVO_SCALE_STATIC; scale = 0.0f, OCTAVO_E_ARGUMENT, "scales[0] is 0");
    REFUSED(p.scale_source = OCTAVO_SCALE_STATIC; scale = NAN, OCTAVO_E_ARGUMENT, "scales[0] is nan");
    REFUSED((p.x.shape[0] = p.codes.shape[0] = 2, p.x.strides[0] = 0, p.codes.strides[0] = 3), OCTAVO_E_SHAPE,
            "codes has strides");
#undef REFUSED
    fixture_close(&open);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scale_count),
        cmocka_unit_test(test_every_level_matches_the_definition),
        cmocka_unit_test(test_counts_at_the_ties),
        cmocka_unit_test(test_extreme_magnitudes),
        cmocka_unit_test(test_nonfinite_writes_nothing),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
