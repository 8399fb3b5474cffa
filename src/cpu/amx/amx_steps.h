/* amx_steps.h - what the two pipelines over many whole units share: steps of sixteen tokens whose e4m3 codes become bf16 in scratch rows, and
 * their factors. */
#ifndef OCTAVO_CPU_AMX_STEPS_H
#define OCTAVO_CPU_AMX_STEPS_H

#include "cpu/amx/amx_decode.h"

enum { STEP_TOKENS = 16, WIDE_BYTES = 256 };

/* Asks for a line that is wanted in a while. */
INLINE void amx_ask(const uint8_t *line) { __builtin_prefetch(line, 0, 2); }

/* A row by look-ups. */
static __attribute__((noinline)) void amx_widen_row(const amx_lookup *lookup, const uint8_t *row, int64_t slabs, uint8_t *wide)
{
    for (int64_t i = 0; i < slabs; i++) {
        __m512i even, odd;
        amx_look_up(lookup, _mm512_loadu_si512(row + 64 * i), &even, &odd);
        _mm512_store_si512(wide + 128 * i, even);
        _mm512_store_si512(wide + 128 * i + 64, odd);
    }
}

/* Rows of 64 slabs bytes of e4m3; of the rows at `next` every ask_every-th is asked for. Codes that are no normal numbers, one in ten
 * thousand or so, are not told apart by shifts. */
INLINE void amx_widen_e4m3(const uint8_t *rows, const uint8_t *next, int64_t stride, int slabs, int ask_every, uint8_t wide[STEP_TOKENS][WIDE_BYTES])
{
    const __m512i exponent = _mm512_set1_epi8(0x78);
#pragma GCC unroll 4
    for (int64_t k = 0; k < STEP_TOKENS; k++, rows += stride, next += stride) {
        __mmask64 odd_one_out = 0;
#pragma GCC unroll 2
        for (int i = 0; i < slabs; i++) {
            const __m512i x = _mm512_loadu_si512(rows + 64 * i);
            if (k % ask_every == 0) amx_ask(next + 64 * i);
            odd_one_out = _kor_mask64(odd_one_out, _mm512_testn_epi8_mask(x, exponent));
            _mm512_store_si512(wide[k] + 128 * i, amx_shift_e4m3(amx_even_up(x)));
            _mm512_store_si512(wide[k] + 128 * i + 64, amx_shift_e4m3(x));
        }
        if (__builtin_expect(odd_one_out != 0, 0)) {
            const amx_lookup lookup = amx_lookup_of(&octavo_amx_e4m3);
            amx_widen_row(&lookup, rows, slabs, wide[k]);
        }
    }
}

/* 2^-p of sixteen tokens, times `by`, in the order that amx_transpose gives what follows from whole rows: token 4 j + i at 4 i + j. */
INLINE __m512 amx_power_factors(const uint8_t *scales, float by)
{
    const __m128i order = _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m128i p = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(const void *)scales), order);
    const __m512i power = _mm512_slli_epi32(_mm512_sub_epi32(_mm512_set1_epi32(127), _mm512_cvtepi8_epi32(p)), 23);
    return _mm512_mul_ps(_mm512_castsi512_ps(power), _mm512_set1_ps(by));
}

#endif
