/* logit_rows_body.h - what routing, sampling and log-probabilities ask of a row of logits; included after a level's vocabulary. */
#ifndef OCTAVO_CPU_LOGIT_ROWS_BODY_H
#define OCTAVO_CPU_LOGIT_ROWS_BODY_H

#include "cpu/body/decode_math_body.h"
#include "cpu/body/float_rows_body.h"

enum { LOGITS_BLOCK = 4 * SIMD_F32 }; /* floats that are looked at before one of them is */

/* The largest of a row; *odd: a NaN or +Inf is among them, and the largest means nothing. */
static inline float logits_most(const float *x, int64_t n, int *odd)
{
    const int64_t whole = n - n % (2 * SIMD_F32);
    const vf32 infinity = v_splat(INFINITY), one = v_splat(1.0f);
    vf32 even = v_splat(-INFINITY), second = even, even_odd = v_zero(), second_odd = v_zero();
    for (int64_t i = 0; i < whole; i += 2 * SIMD_F32) {
        const vf32 a = v_load(x + i), b = v_load(x + i + SIMD_F32);
        even = v_max(even, a), second = v_max(second, b);
        even_odd = v_if_less(a, infinity, even_odd, one), second_odd = v_if_less(b, infinity, second_odd, one); /* of NaN: false */
    }
    float most = v_hmax(v_max(even, second));
    *odd = v_hmax(v_max(even_odd, second_odd)) > 0.0f;
    for (int64_t i = whole; i < n; i++) {
        most = x[i] > most ? x[i] : most;
        *odd |= !(x[i] < INFINITY);
    }
    return most;
}

/* The largest of LOGITS_BLOCK floats. */
static inline float logits_block_most(const float *x)
{
    const vf32 low = v_max(v_load(x), v_load(x + SIMD_F32)), high = v_max(v_load(x + 2 * SIMD_F32), v_load(x + 3 * SIMD_F32));
    return v_hmax(v_max(low, high));
}

/* The first index of a value that is the row's largest. */
static inline int32_t logits_find(const float *x, int64_t n, float most)
{
    int64_t i = 0;
    while (i + LOGITS_BLOCK <= n && logits_block_most(x + i) < most) i += LOGITS_BLOCK;
    while (i + 1 < n && x[i] < most) i++;
    return (int32_t)i;
}

/* Sum of exp((x - most) * factor): float32 within a chunk, float64 from chunk to chunk. */
static inline double logits_mass(const float *x, int64_t n, float most, float factor)
{
    const vf32 from = v_splat(most), by = v_splat(factor);
    double sum = 0.0;
    for (int64_t c = 0; c < n; c += ROWS_CHUNK) {
        const int64_t end = n - c < ROWS_CHUNK ? n : c + ROWS_CHUNK;
        vf32 even = v_zero(), odd = v_zero();
        int64_t i = c;
        for (; i + 2 * SIMD_F32 <= end; i += 2 * SIMD_F32) {
            even = v_add(even, v_exp(v_mul(v_sub(v_load(x + i), from), by)));
            odd = v_add(odd, v_exp(v_mul(v_sub(v_load(x + i + SIMD_F32), from), by)));
        }
        float part = v_hsum(v_add(even, odd));
        for (; i < end; i++) part += v_exp_one((x[i] - most) * factor);
        sum += (double)part;
    }
    return sum;
}

#endif
