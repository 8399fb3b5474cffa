/* float_rows_body.h - runs of floats that every encoder shares: loading any input dtype, largest magnitude, rounding.
 *
 * ISA-free: plain loops that the instruction set of the including file vectorises, branch-free and without reassociation, so that
 * every level gives the same bits. */
#ifndef OCTAVO_CPU_FLOAT_ROWS_BODY_H
#define OCTAVO_CPU_FLOAT_ROWS_BODY_H

#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include "octavo/tensor.h"

enum {
    ROWS_CHUNK = 512,     /* floats that are converted at a time, on the stack; a multiple of eight     */
    ROWS_GRAIN = 1 << 16  /* elements that make a task worth its start: some ten microseconds of work */
};

/* Elements from `offset` on of a tensor of f32, f16 or bf16, as float32. */
static inline void rows_load(float *restrict out, const octavo_tensor *tensor, int64_t offset, int64_t n)
{
    switch (tensor->dtype) {
    case OCTAVO_F32: memcpy(out, (const float *)tensor->data + offset, (size_t)n * sizeof *out); break;
    case OCTAVO_F16: {
        const uint16_t *restrict half = (const uint16_t *)tensor->data + offset;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = octavo_fp16_to_float(half[i]);
        break;
    }
    default: {
        const uint16_t *restrict half = (const uint16_t *)tensor->data + offset;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = octavo_bf16_to_float(half[i]);
        break;
    }
    }
}

/* The bits of the largest magnitude: they order like the magnitudes, with Inf and NaN on top. */
static inline int32_t rows_amax_bits(int32_t amax, const float *restrict x, int64_t n)
{
#pragma omp simd reduction(max : amax)
    for (int64_t i = 0; i < n; i++) {
        const int32_t magnitude = (int32_t)(octavo_float_bits(x[i]) & 0x7FFFFFFFu);
        amax = magnitude > amax ? magnitude : amax;
    }
    return amax;
}

enum { ROWS_INF_BITS = 0x7F800000 }; /* from here on rows_amax_bits found no finite number */

static inline float rows_amax(int32_t amax_bits) { return octavo_float_from_bits((uint32_t)amax_bits); }

static inline float rows_clamp(float x, float limit)
{
    const float below = x < limit ? x : limit;
    return below > -limit ? below : -limit;
}

/* An integer, nearest or even, of a float that lies within +-127 after clamping. The sum's unit in the last place is 1, so that
 * the addition rounds; it needs no instruction beyond the baseline's. */
static inline float rows_round_int8(float x) { return (rows_clamp(x, 127.0f) + 0x1.8p23f) - 0x1.8p23f; }

#endif
