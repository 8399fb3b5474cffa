/* prefill_pairs_avx512.h - words of prefill tiles that are pairs of bf16: rows, channels and weights. */
#ifndef OCTAVO_CPU_AVX512_PREFILL_PAIRS_AVX512_H
#define OCTAVO_CPU_AVX512_PREFILL_PAIRS_AVX512_H

#include "cpu/avx512/prefill_tiles_avx512.h"

/* 32 floats as bf16, and what that leaves out. */
static inline __m512i prefill_bf16(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }
static inline __m512 prefill_rest(__m512 x, __m256i bf16)
{
    return _mm512_sub_ps(x, _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16)));
}

/* A row of elements as bf16 terms: step s of term t goes to out + (t * term + s) tiles. Returns whether a second term is not zero. */
static inline int prefill_pack_row(uint8_t *out, size_t term, const float *row, int64_t steps, int terms)
{
    __m512i any = _mm512_setzero_si512();
    for (int64_t s = 0; s < steps; s++) {
        const __m512 low = _mm512_loadu_ps(row + 32 * s), high = _mm512_loadu_ps(row + 32 * s + 16);
        const __m512i first = prefill_bf16(low, high);
        _mm512_storeu_si512(out + s * PREFILL_TILE, first);
        if (terms < 2) continue;
        const __m512i rest = prefill_bf16(prefill_rest(low, _mm512_castsi512_si256(first)), prefill_rest(high, _mm512_extracti64x4_epi64(first, 1)));
        _mm512_storeu_si512(out + term + s * PREFILL_TILE, rest);
        any = _mm512_or_si512(any, rest);
    }
    return _mm512_test_epi16_mask(any, _mm512_set1_epi16(0x7FFF)) != 0;
}

/* 16 channels of 32 values, key j beside key j + 16. */
static inline int prefill_pack_channels(uint8_t *out, size_t term, const float *v, int64_t v_dim, int terms)
{
    __m512i x[PREFILL_SIDE], y[PREFILL_SIDE], any = _mm512_setzero_si512();
    for (int j = 0; j < PREFILL_SIDE; j++) {
        const __m512 low = _mm512_loadu_ps(v + j * v_dim), high = _mm512_loadu_ps(v + (j + 16) * v_dim);
        const __m256i first = (__m256i)_mm512_cvtneps_pbh(low), second = (__m256i)_mm512_cvtneps_pbh(high);
        x[j] = _mm512_or_si512(_mm512_cvtepu16_epi32(first), _mm512_slli_epi32(_mm512_cvtepu16_epi32(second), 16));
        if (terms < 2) continue;
        const __m256i rest = (__m256i)_mm512_cvtneps_pbh(prefill_rest(low, first)), more = (__m256i)_mm512_cvtneps_pbh(prefill_rest(high, second));
        y[j] = _mm512_or_si512(_mm512_cvtepu16_epi32(rest), _mm512_slli_epi32(_mm512_cvtepu16_epi32(more), 16));
        any = _mm512_or_si512(any, y[j]);
    }
    turn_words(x);
    for (int j = 0; j < PREFILL_SIDE; j++) _mm512_storeu_si512(out + 64 * j, x[j]);
    if (terms < 2) return 0;
    turn_words(y);
    for (int j = 0; j < PREFILL_SIDE; j++) _mm512_storeu_si512(out + term + 64 * j, y[j]);
    return _mm512_test_epi16_mask(any, _mm512_set1_epi16(0x7FFF)) != 0;
}

/* Weights of key j of 32, and of key j + 16, of sixteen queries. */
PREFILL_INLINE void prefill_store_weights(float *score, uint8_t *weights, __m512i interleave, __m512 a, __m512 b)
{
    (void)score;
    _mm512_storeu_si512(weights, _mm512_permutexvar_epi16(interleave, prefill_bf16(a, b)));
}

#endif
