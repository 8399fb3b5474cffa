/* turn_avx512.h - sixteen rows become sixteen columns. */
#ifndef OCTAVO_CPU_AVX512_TURN_AVX512_H
#define OCTAVO_CPU_AVX512_TURN_AVX512_H

#include <immintrin.h>

/* Sixteen rows of sixteen 32-bit elements, turned. */
static inline void turn_words(__m512i x[16])
{
    __m512i a[16], b[16];
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        a[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 16; i += 4) {
        b[i] = _mm512_unpacklo_epi64(a[i], a[i + 2]);
        b[i + 1] = _mm512_unpackhi_epi64(a[i], a[i + 2]);
        b[i + 2] = _mm512_unpacklo_epi64(a[i + 1], a[i + 3]);
        b[i + 3] = _mm512_unpackhi_epi64(a[i + 1], a[i + 3]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) { /* 4 by 4 of 128 bits are left */
        const __m512i low = _mm512_shuffle_i32x4(b[i], b[i + 4], 0x88), odd_low = _mm512_shuffle_i32x4(b[i], b[i + 4], 0xDD);
        const __m512i high = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0x88), odd_high = _mm512_shuffle_i32x4(b[i + 8], b[i + 12], 0xDD);
        x[i] = _mm512_shuffle_i32x4(low, high, 0x88);
        x[i + 4] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
        x[i + 8] = _mm512_shuffle_i32x4(low, high, 0xDD);
        x[i + 12] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xDD);
    }
}

#endif
