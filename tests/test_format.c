/* test_format.c - the number formats against a slow oracle that searches a table of every value. */
#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include "format/ue4m4.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

/* A format as the oracle sees it. `values[code]` are the magnitudes in ascending order; the entry past the last finite code is
 * the value that code would have, so that rounding past the largest is decided like any other. */
typedef struct format {
    const char *name;
    int exponent_bits, mantissa_bits, bias;
    unsigned codes;    /* finite magnitudes                       */
    unsigned past_max; /* what the largest and anything past gives */
    unsigned nan_code, sign_bit;
    unsigned (*from_float)(float x);
    float (*to_float)(unsigned code);
    double *values; /* [codes + 1] */
} format;

static unsigned e4m3_from(float x) { return octavo_e4m3_from_float(x); }
static unsigned e5m2_from(float x) { return octavo_e5m2_from_float(x); }
static unsigned bf16_from(float x) { return octavo_bf16_from_float(x); }
static unsigned fp16_from(float x) { return octavo_fp16_from_float(x); }
static float e4m3_to(unsigned code) { return octavo_e4m3_to_float((uint8_t)code); }
static float e5m2_to(unsigned code) { return octavo_e5m2_to_float((uint8_t)code); }
static float bf16_to(unsigned code) { return octavo_bf16_to_float((uint16_t)code); }
static float fp16_to(unsigned code) { return octavo_fp16_to_float((uint16_t)code); }

static format formats[] = {
    { "e4m3", 4, 3, 7, 0x7F, 0x7E, 0x7F, 0x80, e4m3_from, e4m3_to, NULL },
    { "e5m2", 5, 2, 15, 0x7C, 0x7B, 0x7F, 0x80, e5m2_from, e5m2_to, NULL },
    { "bf16", 8, 7, 127, 0x7F80, 0x7F80, 0x7FFF, 0x8000, bf16_from, bf16_to, NULL },
    { "fp16", 5, 10, 15, 0x7C00, 0x7C00, 0x7FFF, 0x8000, fp16_from, fp16_to, NULL },
};
enum { FORMATS = sizeof formats / sizeof *formats, BF16 = 2 };

static double value_of(const format *f, unsigned code)
{
    const int exponent = (int)(code >> f->mantissa_bits);
    const int mantissa = (int)(code & ((1u << f->mantissa_bits) - 1u));
    const int hidden = exponent > 0 ? 1 << f->mantissa_bits : 0;
    return ldexp(hidden + mantissa, (exponent > 0 ? exponent : 1) - f->bias - f->mantissa_bits);
}

static int build_tables(void **state)
{
    (void)state;
    for (int i = 0; i < FORMATS; i++) {
        format *f = &formats[i];
        f->values = malloc((f->codes + 1) * sizeof *f->values);
        if (!f->values) return -1;
        for (unsigned code = 0; code <= f->codes; code++) f->values[code] = value_of(f, code);
    }
    return 0;
}

static int free_tables(void **state)
{
    (void)state;
    for (int i = 0; i < FORMATS; i++) free(formats[i].values);
    return 0;
}

/* The last code whose value is at most x. */
static unsigned code_below(const format *f, double x)
{
    unsigned low = 0, high = f->codes;
    while (low < high) {
        const unsigned middle = (low + high + 1) / 2;
        if (f->values[middle] <= x) low = middle;
        else high = middle - 1;
    }
    return low;
}

static unsigned oracle_nearest(const format *f, float x)
{
    if (isnan(x)) return f->nan_code;
    const unsigned sign = signbit(x) ? f->sign_bit : 0u;
    const double magnitude = fabs((double)x);
    unsigned code = code_below(f, magnitude);
    if (code < f->codes) {
        const double below = magnitude - f->values[code], above = f->values[code + 1] - magnitude;
        code += above < below || (above == below && (code & 1u) != 0u);
    }
    return sign | (code >= f->codes ? f->past_max : code);
}

/* Toward +Inf, which for a negative number is toward zero. */
static unsigned oracle_up(const format *f, float x)
{
    if (isnan(x)) return f->nan_code;
    if (isinf(x)) return signbit(x) ? f->sign_bit | f->past_max : f->past_max;
    const double magnitude = fabs((double)x);
    const unsigned code = code_below(f, magnitude);
    if (signbit(x)) return f->sign_bit | code;
    return code + (f->values[code] < magnitude);
}

static unsigned oracle_ue4m4_up(float x)
{
    if (isnan(x)) return 255;
    if (x <= 0.0f) return 0;
    unsigned low = 0, high = 255;
    while (low < high) { /* the first code whose value is not below x */
        const unsigned middle = (low + high) / 2;
        const int e = (int)(middle >> 4), m = (int)(middle & 15u);
        const double value = e > 0 ? ldexp(16 + m, e - 9) : ldexp(m, -8);
        if (value >= (double)x) high = middle;
        else low = middle + 1;
    }
    return low;
}

static void check_float(float x)
{
    for (int i = 0; i < FORMATS; i++) {
        const unsigned expected = oracle_nearest(&formats[i], x), got = formats[i].from_float(x);
        if (got != expected) fail_msg("%s of %a is %x, expected %x", formats[i].name, (double)x, got, expected);
    }
    const unsigned up = oracle_up(&formats[BF16], x), got_up = octavo_bf16_from_float_up(x);
    if (got_up != up) fail_msg("bf16 upward of %a is %x, expected %x", (double)x, got_up, up);
    const unsigned norm = oracle_ue4m4_up(x), got_norm = octavo_ue4m4_from_float_up(x);
    if (got_norm != norm) fail_msg("ue4m4 upward of %a is %x, expected %x", (double)x, got_norm, norm);
}

/* Every float whose lower 12 bits are at, or one beside, an edge of rounding. */
static void test_dense_sample(void **state)
{
    (void)state;
    static const uint32_t patterns[] = { 0x000, 0x001, 0x800, 0xFFF };
    for (uint32_t upper = 0; upper < 1u << 20; upper++)
        for (int i = 0; i < 4; i++) check_float(octavo_float_from_bits(upper << 12 | patterns[i]));
}

static void test_every_code_returns(void **state)
{
    (void)state;
    for (int i = 0; i < FORMATS; i++) {
        const format *f = &formats[i];
        for (unsigned code = 0; code < f->codes; code++) {
            const float x = f->to_float(code), negative = f->to_float(code | f->sign_bit);
            assert_true((double)x == f->values[code] && (double)negative == -f->values[code]);
            assert_int_equal(signbit(negative) != 0, 1);
            assert_int_equal(f->from_float(x), code);
            assert_int_equal(f->from_float(negative), code | f->sign_bit);
        }
    }
}

static void test_special_codes(void **state)
{
    (void)state;
    assert_true(isnan(octavo_e4m3_to_float(0x7F)) && isnan(octavo_e4m3_to_float(0xFF)));
    assert_true(octavo_e5m2_to_float(0x7C) == INFINITY && octavo_e5m2_to_float(0xFC) == -INFINITY);
    assert_true(octavo_fp16_to_float(0x7C00) == INFINITY && octavo_fp16_to_float(0xFC00) == -INFINITY);
    assert_true(octavo_bf16_to_float(0x7F80) == INFINITY && octavo_bf16_to_float(0xFF80) == -INFINITY);
    for (unsigned code = 0x7D; code <= 0x7F; code++) {
        assert_true(isnan(octavo_e5m2_to_float((uint8_t)code)));
        assert_true(isnan(octavo_e5m2_to_float((uint8_t)(code | 0x80u))));
    }
    for (unsigned code = 0x7C01; code <= 0x7FFF; code++) {
        const uint32_t bits = octavo_float_bits(octavo_fp16_to_float((uint16_t)code));
        assert_true(bits > 0x7F800000u && (bits & 0x400000u) != 0u); /* a quiet NaN */
    }
}

static void test_ties_and_saturation(void **state)
{
    (void)state;
    /* Round first, then saturate: 464 is the tie between 448 and the 480 that E4M3 lacks. */
    const float e4m3_to_max[] = { 448.0f, 463.9f, 464.0f, 464.1f, 480.0f, 1e30f, INFINITY };
    for (size_t i = 0; i < sizeof e4m3_to_max / sizeof *e4m3_to_max; i++) {
        assert_int_equal(octavo_e4m3_from_float(e4m3_to_max[i]), 0x7E);
        assert_int_equal(octavo_e4m3_from_float(-e4m3_to_max[i]), 0xFE);
    }
    assert_int_equal(octavo_e4m3_from_float(432.0f), 0x7E); /* between 416 (odd) and 448 */
    assert_int_equal(octavo_e4m3_from_float(0x1p-10f), 0);  /* half the smallest step */
    assert_int_equal(octavo_e4m3_from_float(0x1.8p-9f), 2);
    assert_int_equal(octavo_e5m2_from_float(61439.0f), 0x7B);
    assert_int_equal(octavo_e5m2_from_float(61440.0f), 0x7B);
    assert_int_equal(octavo_e5m2_from_float(-INFINITY), 0xFB);
    assert_int_equal(octavo_fp16_from_float(65519.0f), 0x7BFF);
    assert_int_equal(octavo_fp16_from_float(65520.0f), 0x7C00);
    assert_int_equal(octavo_bf16_from_float(0x1.FFp127f), 0x7F80);
    assert_int_equal(octavo_bf16_from_float(0x1.FEFFFEp127f), 0x7F7F);
}

static void test_nan_becomes_the_nan_code(void **state)
{
    (void)state;
    static const uint32_t nans[] = { 0x7F800001u, 0x7FBFFFFFu, 0x7FC00000u, 0x7FFFFFFFu,
                                     0xFF800001u, 0xFFC00000u, 0xFFFFFFFFu };
    for (size_t i = 0; i < sizeof nans / sizeof *nans; i++) check_float(octavo_float_from_bits(nans[i]));
}

static void test_ue4m4_is_a_monotone_bound(void **state)
{
    (void)state;
    assert_true(octavo_ue4m4_to_float(0) == 0.0f && octavo_ue4m4_to_float(255) == OCTAVO_UE4M4_MAX);
    for (unsigned code = 0; code < 256; code++) {
        const float value = octavo_ue4m4_to_float((uint8_t)code);
        const int e = (int)(code >> 4), m = (int)(code & 15u);
        assert_true((double)value == (e > 0 ? ldexp(16 + m, e - 9) : ldexp(m, -8)));
        assert_int_equal(octavo_ue4m4_from_float_up(value), code);
        if (code == 0) continue;
        assert_true(value > octavo_ue4m4_to_float((uint8_t)(code - 1)));
        assert_int_equal(octavo_ue4m4_from_float_up(nextafterf(value, 0.0f)), code);
        assert_int_equal(octavo_ue4m4_from_float_up(nextafterf(value, INFINITY)), code < 255 ? code + 1 : 255);
    }
    assert_int_equal(octavo_ue4m4_from_float_up(0x1p-149f), 1);
    assert_int_equal(octavo_ue4m4_from_float_up(-1.0f), 0);
    assert_int_equal(octavo_ue4m4_from_float_up(INFINITY), 255);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dense_sample),
        cmocka_unit_test(test_every_code_returns),
        cmocka_unit_test(test_special_codes),
        cmocka_unit_test(test_ties_and_saturation),
        cmocka_unit_test(test_nan_becomes_the_nan_code),
        cmocka_unit_test(test_ue4m4_is_a_monotone_bound),
    };
    return cmocka_run_group_tests(tests, build_tables, free_tables);
}
