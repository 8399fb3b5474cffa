/* decode_round_body.h - rows as attention in FP8 takes them: in E4M3, with a power of two of their own. After decode_axpy_body.h. */
#ifndef OCTAVO_CPU_DECODE_ROUND_BODY_H
#define OCTAVO_CPU_DECODE_ROUND_BODY_H

#include "cpu/body/decode_axpy_body.h"

enum { ROUND_CHUNK = 256 };

static float round_amax(float amax, const float *x, int64_t count)
{
    for (int64_t i = 0; i < count; i++) amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
    return amax;
}

/* A row of q in its own place; zeros behind it do no harm. */
static void round_floats(float *x, int64_t count)
{
    const int32_t p = octavo_row_exponent(round_amax(0.0f, x, count));
    for (int64_t i = 0; i < count; i++) x[i] = octavo_e4m3_of_row(x[i], p);
}

/* Elements [from, from + count) of a stored row of 16 or 32 bits an element; count <= ROUND_CHUNK. */
static void round_load(octavo_v_format format, const uint8_t *row, int64_t from, int64_t count, float *x)
{
    const int64_t width = octavo_v_element_bytes(format);
    uint8_t copy[4 * SIMD_F32] __attribute__((aligned(4))) = { 0 };
    int64_t i = 0;
    for (; i + SIMD_F32 <= count; i += SIMD_F32) v_store(x + i, axpy_codes(format, row + (from + i) * width));
    if (i == count) return;
    memcpy(copy, row + (from + i) * width, (size_t)((count - i) * width));
    v_store_part(x + i, axpy_codes(format, copy), count - i);
}

/* Codes of a stored row; the power of two that gives their worth is returned. */
static float round_row(octavo_v_format format, const uint8_t *row, int64_t dim, uint8_t *codes)
{
    float x[ROUND_CHUNK], amax = 0.0f;
    for (int64_t from = 0; from < dim; from += ROUND_CHUNK) {
        const int64_t count = dim - from < ROUND_CHUNK ? dim - from : ROUND_CHUNK;
        round_load(format, row, from, count, x);
        amax = round_amax(amax, x, count);
    }
    const int32_t p = octavo_row_exponent(amax);
    const float up = octavo_power_of_two(p);
    for (int64_t from = 0; from < dim; from += ROUND_CHUNK) {
        const int64_t count = dim - from < ROUND_CHUNK ? dim - from : ROUND_CHUNK;
        if (dim > ROUND_CHUNK) round_load(format, row, from, count, x);
#pragma omp simd
        for (int64_t i = 0; i < count; i++) codes[from + i] = octavo_e4m3_from_float(x[i] * up);
    }
    return octavo_power_of_two(-p);
}

/* Rows of a span to codes [DECODE_TOKENS, dim], those behind its end zeros; factors[t] = by * what code of token t counts. */
static void round_rows(octavo_v_format format, const uint8_t *rows, int64_t stride, int64_t tokens, int64_t dim, float by, uint8_t *codes,
                       float *factors)
{
    for (int64_t t = 0; t < tokens; t++) factors[t] = by * round_row(format, rows + t * stride, dim, codes + t * dim);
    for (int64_t t = tokens; t < DECODE_TOKENS; t++) factors[t] = by;
    memset(codes + tokens * dim, 0, (size_t)((DECODE_TOKENS - tokens) * dim));
}

#endif
