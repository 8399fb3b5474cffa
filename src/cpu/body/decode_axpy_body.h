/* decode_axpy_body.h - sums of stored values by weights in float32, for every V format and any v_dim. */
#ifndef OCTAVO_CPU_DECODE_AXPY_BODY_H
#define OCTAVO_CPU_DECODE_AXPY_BODY_H

#include "cpu/body/decode_dot_body.h"

enum { AXPY_TOKEN_CYCLES = 10 };

DECODE_INLINE vf32 axpy_codes(octavo_v_format format, const uint8_t *v)
{
    switch (format) {
    case OCTAVO_V_F32:
        return v_load((const float *)(const void *)v);
    case OCTAVO_V_BF16:
        return v_load_bf16(v);
    case OCTAVO_V_F16:
        return v_load_f16(v);
    case OCTAVO_V_E4M3:
        return v_load_e4m3(v);
    case OCTAVO_V_INT8:
        return v_load_int8(v);
    }
    return v_zero();
}

/* `count` vectors of the output by `rows` rows. The sum over the tokens starts at zero and joins the output once: many small sums
 * round less than a long one. */
DECODE_INLINE void axpy_tile(octavo_v_format format, int rows, int count, float *out, int64_t out_stride, const float *weights,
                             const uint8_t *v, const octavo_decode_span *span)
{
    const int64_t width = octavo_v_element_bytes(format), v_stride = span->v_stride,
                  tokens = span->tokens;
    vf32 sum[4][SIMD_AXPY_VECTORS];
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < count; c++) sum[r][c] = v_zero();
    for (int64_t t = 0; t < tokens; t++) {
        vf32 code[SIMD_AXPY_VECTORS];
        octavo_decode_fetch(span->ahead, AXPY_TOKEN_CYCLES);
#pragma GCC unroll 4
        for (int c = 0; c < count; c++) code[c] = axpy_codes(format, v + t * v_stride + c * SIMD_F32 * width);
#pragma GCC unroll 4
        for (int r = 0; r < rows; r++) {
            const vf32 weight = v_splat(weights[r * DECODE_TOKENS + t]);
#pragma GCC unroll 4
            for (int c = 0; c < count; c++) sum[r][c] = v_fma(weight, code[c], sum[r][c]);
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int c = 0; c < count; c++) {
            float *at = out + r * out_stride + c * SIMD_F32;
            v_store(at, v_add(v_load(at), sum[r][c]));
        }
}

/* The last columns, fewer than a vector: copied first, so that nothing behind a row is touched. */
DECODE_INLINE void axpy_tail(octavo_v_format format, float *out, int64_t out_stride, const float *weights, int64_t rows,
                             const uint8_t *v, int64_t v_stride, int64_t tokens, int64_t columns)
{
    const int64_t width = octavo_v_element_bytes(format);
    uint8_t copy[4 * SIMD_F32] __attribute__((aligned(4))) = { 0 };
    vf32 sum[DECODE_ROWS];
    for (int64_t r = 0; r < rows; r++) sum[r] = v_zero();
    for (int64_t t = 0; t < tokens; t++) {
        memcpy(copy, v + t * v_stride, (size_t)(columns * width));
        const vf32 code = axpy_codes(format, copy);
        for (int64_t r = 0; r < rows; r++) sum[r] = v_fma(v_splat(weights[r * DECODE_TOKENS + t]), code, sum[r]);
    }
    for (int64_t r = 0; r < rows; r++) {
        float *at = out + r * out_stride;
        v_store_part(at, v_add(v_load_part(at, columns), sum[r]), columns);
    }
}

DECODE_INLINE void axpy_columns(octavo_v_format format, int count, float *out, int64_t out_stride, const float *weights,
                                int64_t rows, const uint8_t *v, const octavo_decode_span *span)
{
    int64_t r = 0;
    for (; r + 4 <= rows; r += 4)
        axpy_tile(format, 4, count, out + r * out_stride, out_stride, weights + r * DECODE_TOKENS, v, span);
    for (; r + 2 <= rows; r += 2)
        axpy_tile(format, 2, count, out + r * out_stride, out_stride, weights + r * DECODE_TOKENS, v, span);
    for (; r < rows; r++) axpy_tile(format, 1, count, out + r * out_stride, out_stride, weights + r * DECODE_TOKENS, v, span);
}

DECODE_INLINE void axpy_span(octavo_v_format format, float *out, int64_t out_stride, const float *weights, int64_t rows,
                             const octavo_decode_span *span, int64_t v_dim)
{
    const int64_t width = octavo_v_element_bytes(format);
    int64_t i = 0;
    for (; i + SIMD_AXPY_VECTORS * SIMD_F32 <= v_dim; i += SIMD_AXPY_VECTORS * SIMD_F32) {
        axpy_columns(format, SIMD_AXPY_VECTORS, out + i, out_stride, weights, rows, span->v + i * width, span);
    }
    for (; i + SIMD_F32 <= v_dim; i += SIMD_F32)
        axpy_columns(format, 1, out + i, out_stride, weights, rows, span->v + i * width, span);
    if (i < v_dim)
        axpy_tail(format, out + i, out_stride, weights, rows, span->v + i * width, span->v_stride, span->tokens, v_dim - i);
}

/* One function a format, in which it is a constant. */
#define AXPY_FUNCTION(name, format)                                                                                              \
    static void name(float *out, int64_t out_stride, const float *weights, int64_t rows, const octavo_decode_span *span,         \
                     int64_t v_dim)                                                                                              \
    {                                                                                                                            \
        axpy_span(format, out, out_stride, weights, rows, span, v_dim);                                                          \
    }
AXPY_FUNCTION(axpy_f32, OCTAVO_V_F32)
AXPY_FUNCTION(axpy_bf16, OCTAVO_V_BF16)
AXPY_FUNCTION(axpy_f16, OCTAVO_V_F16)
AXPY_FUNCTION(axpy_e4m3, OCTAVO_V_E4M3)
AXPY_FUNCTION(axpy_int8, OCTAVO_V_INT8)
#undef AXPY_FUNCTION

octavo_decode_axpy *SIMD(decode_axpy)(octavo_v_format format);

octavo_decode_axpy *SIMD(decode_axpy)(octavo_v_format format)
{
    switch (format) {
    case OCTAVO_V_F32:
        return axpy_f32;
    case OCTAVO_V_BF16:
        return axpy_bf16;
    case OCTAVO_V_F16:
        return axpy_f16;
    case OCTAVO_V_E4M3:
        return axpy_e4m3;
    case OCTAVO_V_INT8:
        return axpy_int8;
    }
    return axpy_bf16;
}

#endif
