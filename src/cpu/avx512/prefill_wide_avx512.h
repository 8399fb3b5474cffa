/* prefill_wide_avx512.h - words of prefill tiles that are float32: rows, channels and weights, by the names of prefill_pairs_avx512.h. */
#ifndef OCTAVO_CPU_AVX512_PREFILL_WIDE_AVX512_H
#define OCTAVO_CPU_AVX512_PREFILL_WIDE_AVX512_H

#include "cpu/avx512/prefill_tiles_avx512.h"

/* A row of elements: step s goes to out + s tiles. There is one term, so never a second one that is not zero. */
static inline int prefill_pack_row(uint8_t *out, size_t term, const float *row, int64_t steps, int terms)
{
    (void)term, (void)terms;
    for (int64_t s = 0; s < steps; s++) _mm512_storeu_ps(out + s * PREFILL_TILE, _mm512_loadu_ps(row + 16 * s));
    return 0;
}

/* 16 channels of 16 values. */
static inline int prefill_pack_channels(uint8_t *out, size_t term, const float *v, int64_t v_dim, int terms)
{
    __m512i x[PREFILL_SIDE];
    (void)term, (void)terms;
    for (int j = 0; j < PREFILL_SIDE; j++) x[j] = _mm512_loadu_si512(v + j * v_dim);
    turn_words(x);
    for (int j = 0; j < PREFILL_SIDE; j++) _mm512_storeu_si512(out + 64 * j, x[j]);
    return 0;
}

/* Weights take the place of their scores. */
PREFILL_INLINE void prefill_store_weights(float *score, uint8_t *weights, __m512i interleave, __m512 a, __m512 b)
{
    (void)weights, (void)interleave;
    _mm512_storeu_ps(score, a);
    _mm512_storeu_ps(score + 16 * PREFILL_ROW_PAD, b);
}

#endif
