/* float_rows_body.h - runs of floats that every encoder shares: loading any input dtype, largest magnitude, rounding.
 *
 * Included after a level's vocabulary. Where a loop says `omp simd`, the compiler vectorises plain branch-free C for the level;
 * either way nothing is reassociated, so that every level gives the same bits. */
#ifndef OCTAVO_CPU_FLOAT_ROWS_BODY_H
#define OCTAVO_CPU_FLOAT_ROWS_BODY_H

#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include "octavo/tensor.h"
#include <math.h>
#include <string.h>

enum {
    ROWS_CHUNK = 512,     /* floats that are converted at a time, on the stack; a multiple of eight     */
    ROWS_GRAIN = 1 << 16  /* elements that make a task worth its start: some ten microseconds of work */
};

/* Elements from `offset` on of a tensor of f32, f16 or bf16, as float32. */
static inline void rows_load(float *restrict out, const octavo_tensor *tensor, int64_t offset, int64_t n)
{
    if (tensor->dtype == OCTAVO_F32) {
        memcpy(out, (const float *)tensor->data + offset, (size_t)n * sizeof *out);
        return;
    }
    const uint16_t *half = (const uint16_t *)tensor->data + offset;
    const int64_t whole = n - n % SIMD_F32;
    if (tensor->dtype == OCTAVO_F16) {
        for (int64_t i = 0; i < whole; i += SIMD_F32) v_store(out + i, v_load_f16(half + i));
        for (int64_t i = whole; i < n; i++) out[i] = octavo_fp16_to_float(half[i]);
    } else {
        for (int64_t i = 0; i < whole; i += SIMD_F32) v_store(out + i, v_load_bf16(half + i));
        for (int64_t i = whole; i < n; i++) out[i] = octavo_bf16_to_float(half[i]);
    }
}

/* The same without a copy where the elements are float32 already; buffer [n]. */
static inline const float *rows_at(float *buffer, const octavo_tensor *tensor, int64_t offset, int64_t n)
{
    if (tensor->dtype == OCTAVO_F32) return (const float *)tensor->data + offset;
    rows_load(buffer, tensor, offset, n);
    return buffer;
}

/* Rounds to the dtype of a tensor of f32, f16 or bf16 and stores from element `offset` on. */
static inline void rows_store(const octavo_tensor *tensor, int64_t offset, const float *restrict x, int64_t n)
{
    if (tensor->dtype == OCTAVO_F32) {
        memcpy((float *)tensor->data + offset, x, (size_t)n * sizeof *x);
        return;
    }
    uint16_t *restrict half = (uint16_t *)tensor->data + offset;
    if (tensor->dtype == OCTAVO_F16) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) half[i] = octavo_fp16_from_float(x[i]);
    } else {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) half[i] = octavo_bf16_from_float(x[i]);
    }
}

/* First element of row r of a tensor of 2 or 3 axes whose last is the row. */
static inline int64_t rows_begin(const octavo_tensor *x, int64_t r)
{
    if (x->ndim == 2) return r * x->strides[0];
    return r / x->shape[1] * x->strides[0] + r % x->shape[1] * x->strides[1];
}

/* The largest magnitude of finite elements, `amax` included. */
static inline float rows_amax(float amax, const float *x, int64_t n)
{
    const int64_t whole = n - n % (2 * SIMD_F32);
    vf32 even = v_zero(), odd = v_zero();
    for (int64_t i = 0; i < whole; i += 2 * SIMD_F32) {
        even = v_max(even, v_abs(v_load(x + i)));
        odd = v_max(odd, v_abs(v_load(x + i + SIMD_F32)));
    }
    const float most = v_hmax(v_max(even, odd));
    amax = most > amax ? most : amax;
    for (int64_t i = whole; i < n; i++) {
        const float magnitude = octavo_float_from_bits(octavo_float_bits(x[i]) & 0x7FFFFFFFu);
        amax = magnitude > amax ? magnitude : amax;
    }
    return amax;
}

/* 0 where every element is finite: Inf and NaN times 0 are NaN, which no sum loses. */
static inline int rows_nonfinite(const float *x, int64_t n)
{
    const int64_t whole = n - n % (2 * SIMD_F32);
    vf32 even = v_zero(), odd = v_zero();
    for (int64_t i = 0; i < whole; i += 2 * SIMD_F32) {
        even = v_fma(v_load(x + i), v_zero(), even);
        odd = v_fma(v_load(x + i + SIMD_F32), v_zero(), odd);
    }
    float sum = v_hsum(v_add(even, odd));
    for (int64_t i = whole; i < n; i++) sum += x[i] * 0.0f;
    return !(sum == 0.0f);
}

static inline float rows_clamp(float x, float limit)
{
    const float below = x < limit ? x : limit;
    return below > -limit ? below : -limit;
}

/* An integer, nearest or even, of a float that lies within +-127 after clamping. The sum's unit in the last place is 1, so that
 * the addition rounds; it needs no instruction beyond the baseline's. */
static inline float rows_round_int8(float x) { return (rows_clamp(x, 127.0f) + 0x1.8p23f) - 0x1.8p23f; }

#endif
