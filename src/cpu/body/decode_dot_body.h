/* decode_dot_body.h - dot products of queries with stored keys in float32, for every K format and any head_dim. */
#ifndef OCTAVO_CPU_DECODE_DOT_BODY_H
#define OCTAVO_CPU_DECODE_DOT_BODY_H

#include "cpu/decode_tiles.h"
#include <string.h>

#define DECODE_INLINE static inline __attribute__((always_inline))

enum { DOT_TILE_CYCLES = 100 };

/* SIMD_F32 codes of a row from element i on, in units of 2^-p or s; of int4x2 those of one half. `format`, `planes` and `high`
 * are constants where this is called. */
DECODE_INLINE vf32 dot_codes(octavo_k_format format, int32_t planes, int high, const uint8_t *base, const uint8_t *more,
                             float step, int64_t i)
{
    switch (format) {
    case OCTAVO_K_F32:
        return v_load((const float *)(const void *)(base + 4 * i));
    case OCTAVO_K_BF16:
        return v_load_bf16(base + 2 * i);
    case OCTAVO_K_F16:
        return v_load_f16(base + 2 * i);
    case OCTAVO_K_E4M3:
    case OCTAVO_K_E4M3X2: {
        const vf32 code = v_load_e4m3(base + i);
        return planes > 1 ? v_fma(v_load_e4m3(more + i), v_splat(step), code) : code;
    }
    case OCTAVO_K_E5M2:
    case OCTAVO_K_E5M2X2: {
        const vf32 code = v_load_e5m2(base + i);
        return planes > 1 ? v_add(v_load_e5m2(more + i), code) : code;
    }
    case OCTAVO_K_INT8:
    case OCTAVO_K_INT8X2: {
        const vf32 code = v_load_int8(base + i);
        return planes > 1 ? v_fma(v_load_int8(more + i), v_splat(step), code) : code;
    }
    case OCTAVO_K_INT4X2: {
        const vf32 top = high ? v_load_high_nibbles_signed(base + i) : v_load_low_nibbles_signed(base + i);
        const vf32 low = planes > 1 ? (high ? v_load_high_nibbles(more + i) : v_load_low_nibbles(more + i)) : v_splat(7.5f);
        return v_fma(top, v_splat(16.0f), low);
    }
    }
    return v_zero();
}

/* What the second plane's codes are multiplied by. */
static inline float dot_residual_step(const octavo_decode_q *q)
{
    if (q->format == OCTAVO_K_E4M3X2) return q->residual_exponent == 0 ? 1.0f : 1.0f / (float)(1 << q->residual_exponent);
    return 1.0f / 254.0f;
}

/* One vector of `count` tokens by `rows` rows. */
DECODE_INLINE void dot_step(octavo_k_format format, int32_t planes, int high, int rows, int count, const float *q,
                            int64_t q_stride, const uint8_t *const *base, const uint8_t *const *more, float step, int64_t i,
                            vf32 (*sum)[SIMD_DOT_TOKENS])
{
    vf32 code[SIMD_DOT_TOKENS];
#pragma GCC unroll 4
    for (int t = 0; t < count; t++) code[t] = dot_codes(format, planes, high, base[t], more[t], step, i);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        const vf32 x = v_load(q + r * q_stride);
#pragma GCC unroll 4
        for (int t = 0; t < count; t++) sum[r][t] = v_fma(x, code[t], sum[r][t]);
    }
}

/* The last elements of the rows, fewer than a vector: copied first, so that nothing behind a row is touched. */
DECODE_INLINE void dot_tail(octavo_k_format format, int32_t planes, int rows, int count, const float *q, int64_t q_stride,
                            const uint8_t *const *base, const uint8_t *const *more, float step, int64_t from, int64_t bytes,
                            int64_t half_floats, vf32 (*sum)[SIMD_DOT_TOKENS])
{
    uint8_t copy[2][SIMD_DOT_TOKENS][4 * SIMD_F32] __attribute__((aligned(4)));
    const uint8_t *at[2][SIMD_DOT_TOKENS];
    memset(copy, 0, sizeof copy);
#pragma GCC unroll 4
    for (int t = 0; t < count; t++) {
        memcpy(copy[0][t], base[t] + from, (size_t)bytes);
        if (planes > 1) memcpy(copy[1][t], more[t] + from, (size_t)bytes);
        at[0][t] = copy[0][t];
        at[1][t] = copy[1][t];
    }
    dot_step(format, planes, 0, rows, count, q, q_stride, at[0], at[1], step, 0, sum);
    if (format == OCTAVO_K_INT4X2)
        dot_step(format, planes, 1, rows, count, q + half_floats, q_stride, at[0], at[1], step, 0, sum);
}

/* `count` tokens from t on by `rows` rows from `row` on. */
DECODE_INLINE void dot_tile(octavo_k_format format, int32_t planes, int rows, int count, const octavo_decode_q *q, int64_t row,
                            const octavo_decode_span *span, int64_t t, float *dots)
{
    const int64_t width = octavo_k_element_bytes(format);
    const int64_t codes = format == OCTAVO_K_INT4X2 ? (q->head_dim + 1) / 2 : q->head_dim, whole = codes - codes % SIMD_F32;
    const int64_t half_floats = q->row_floats / 2;
    const float *x = q->rows + row * q->row_floats, step = dot_residual_step(q);
    const uint8_t *base[SIMD_DOT_TOKENS], *more[SIMD_DOT_TOKENS];
    vf32 sum[4][SIMD_DOT_TOKENS];
#pragma GCC unroll 4
    for (int k = 0; k < count; k++) {
        base[k] = span->k[0] + (t + k) * span->k_stride[0];
        more[k] = planes > 1 ? span->k[1] + (t + k) * span->k_stride[1] : base[k];
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int k = 0; k < count; k++) sum[r][k] = v_zero();
    for (int64_t i = 0; i < whole; i += SIMD_F32) {
        dot_step(format, planes, 0, rows, count, x + i, q->row_floats, base, more, step, i, sum);
        if (format == OCTAVO_K_INT4X2)
            dot_step(format, planes, 1, rows, count, x + half_floats + i, q->row_floats, base, more, step, i, sum);
    }
    if (whole < codes)
        dot_tail(format, planes, rows, count, x + whole, q->row_floats, base, more, step, whole * width, (codes - whole) * width,
                 half_floats, sum);
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++) {
        float *out = dots + r * DECODE_TOKENS + t;
        if (count < SIMD_DOT_TOKENS) {
#pragma GCC unroll 4
            for (int k = 0; k < count; k++) out[k] = v_hsum(sum[r][k]);
            continue;
        }
#if SIMD_DOT_TOKENS == 4
        v_store_sums4(out, sum[r][0], sum[r][1], sum[r][2], sum[r][3]);
#else
        v_store_sums2(out, sum[r][0], sum[r][1]);
#endif
    }
}

DECODE_INLINE void dot_rows(octavo_k_format format, int32_t planes, int rows, const octavo_decode_q *q, int64_t row,
                            const octavo_decode_span *span, float *dots)
{
    int64_t t = 0;
    for (; t + SIMD_DOT_TOKENS <= span->tokens; t += SIMD_DOT_TOKENS) {
        octavo_decode_fetch(span->ahead, DOT_TILE_CYCLES);
        dot_tile(format, planes, rows, SIMD_DOT_TOKENS, q, row, span, t, dots);
    }
    for (; t < span->tokens; t++) dot_tile(format, planes, rows, 1, q, row, span, t, dots);
}

DECODE_INLINE void dot_span(octavo_k_format format, int32_t planes, const octavo_decode_q *q, int64_t row, int64_t rows,
                            const octavo_decode_span *span, float *dots)
{
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4) dot_rows(format, planes, 4, q, row + r, span, dots + r * DECODE_TOKENS);
    for (; r + 2 <= rows; r += 2) dot_rows(format, planes, 2, q, row + r, span, dots + r * DECODE_TOKENS);
    for (; r < rows; r++) dot_rows(format, planes, 1, q, row + r, span, dots + r * DECODE_TOKENS);
}

/* One function a format and number of planes, in which both are constants. */
#define DOT_FUNCTION(name, format, planes)                                                                                       \
    static void name(const octavo_decode_q *q, int64_t row, int64_t rows, const octavo_decode_span *span, float *dots)           \
    {                                                                                                                            \
        dot_span(format, planes, q, row, rows, span, dots);                                                                      \
    }
DOT_FUNCTION(dot_f32, OCTAVO_K_F32, 1)
DOT_FUNCTION(dot_bf16, OCTAVO_K_BF16, 1)
DOT_FUNCTION(dot_f16, OCTAVO_K_F16, 1)
DOT_FUNCTION(dot_e4m3, OCTAVO_K_E4M3, 1)
DOT_FUNCTION(dot_e5m2, OCTAVO_K_E5M2, 1)
DOT_FUNCTION(dot_int8, OCTAVO_K_INT8, 1)
DOT_FUNCTION(dot_int4, OCTAVO_K_INT4X2, 1)
DOT_FUNCTION(dot_e4m3x2, OCTAVO_K_E4M3X2, 2)
DOT_FUNCTION(dot_e5m2x2, OCTAVO_K_E5M2X2, 2)
DOT_FUNCTION(dot_int8x2, OCTAVO_K_INT8X2, 2)
DOT_FUNCTION(dot_int4x2, OCTAVO_K_INT4X2, 2)
#undef DOT_FUNCTION

octavo_decode_dot *SIMD(decode_dot)(const octavo_kv_view *kv, int32_t planes);

octavo_decode_dot *SIMD(decode_dot)(const octavo_kv_view *kv, int32_t planes)
{
    switch (kv->k_format) {
    case OCTAVO_K_F32:
        return dot_f32;
    case OCTAVO_K_BF16:
        return dot_bf16;
    case OCTAVO_K_F16:
        return dot_f16;
    case OCTAVO_K_E4M3:
        return dot_e4m3;
    case OCTAVO_K_E5M2:
        return dot_e5m2;
    case OCTAVO_K_INT8:
        return dot_int8;
    case OCTAVO_K_E4M3X2:
        return planes > 1 ? dot_e4m3x2 : dot_e4m3;
    case OCTAVO_K_E5M2X2:
        return planes > 1 ? dot_e5m2x2 : dot_e5m2;
    case OCTAVO_K_INT8X2:
        return planes > 1 ? dot_int8x2 : dot_int8;
    case OCTAVO_K_INT4X2:
        return planes > 1 ? dot_int4x2 : dot_int4;
    }
    return dot_bf16;
}

#endif
