/* prefill_tiles_avx512.h - how attention_prefill lies in tiles, for AMX and for vectors that do as it does.
 *
 * Scores are computed turned around, S' = K Q', so that sixteen queries lie side by side in a vector and the softmax over keys needs
 * nothing across lanes; so are the sums, O' = V' P'. Every tile is 16 rows of 16 words: a word is a float32, a pair of bf16, or four int8.
 *
 *   K   16 keys, of each 16 words of its elements                [tile][term][key / 16][step]
 *   Q'  16 words of elements, of each 16 queries                 [row / 16][term][step]
 *   V'  16 channels, of each 16 words of keys                    [tile][term][channel / 16][keys]
 *   P'  16 words of keys, of each 16 queries                     [keys][row / 16]
 *   O'  16 channels, of each 16 queries, float32                 [row / 16][channel / 16]
 *
 * A word of bf16 keys is key j of 32 beside key j + 16. P' of float32 are the scores' rows: [key][32 queries].
 *
 * Scores are kept in powers of two, and weights are relative to an integer near the largest: what was summed before shrinks exactly. */
#ifndef OCTAVO_CPU_AVX512_PREFILL_TILES_AVX512_H
#define OCTAVO_CPU_AVX512_PREFILL_TILES_AVX512_H

#include "cpu/avx512/turn_avx512.h"
#include "cpu/simd/simd_avx512.h"
#include "cpu/body/decode_math_body.h"
#include "cpu/body/prefill_rows_body.h"

#define PREFILL_INLINE static inline __attribute__((always_inline))

enum {
    PREFILL_TILE = 1024, /* bytes */
    PREFILL_SIDE = 16,
    PREFILL_BLOCKS32 = PREFILL_KEYS / 32,
    PREFILL_SIDES = PREFILL_KEYS / PREFILL_SIDE,
};

/* How scores become powers of two. */
typedef enum prefill_kind {
    PREFILL_PLAIN   = 0, /* float32 times a factor of the row                                                  */
    PREFILL_BLOCKED = 1, /* int32 times a factor of the row and of the keys' block                             */
    PREFILL_KEYED   = 2, /* either, times a factor of the row and of the key; soft-capped where that is asked for */
} prefill_kind;

/* What one call does everywhere. */
typedef struct prefill_plan {
    prefill_kind kind;
    int is_int8, k_codes;         /* INT8 products; K's codes instead of its values                                   */
    int wide;                     /* what is not int8 is float32                                                      */
    int8_t k_offset;              /* of K's int8 codes, bit by bit: -128 makes unsigned ones that are 128 higher       */
    int k_terms, q_terms, v_terms;
    int64_t steps, k_steps;       /* tiles along head_dim that hold elements, and that there are                     */
    int64_t v_keys;               /* of a tile V'                                                                    */
    int64_t v_sides, v_all;       /* 16 channels: those that hold some, an even number, and all                     */
    size_t k_tile, v_tile;        /* bytes of PREFILL_KEYS                                                          */
    size_t v_at, factor_at, weight_at, marks_at; /* in a head's packed operands; K is first                         */
    int weighted;                 /* weights are multiplied by a factor of the value's codes                        */
} prefill_plan;

/* Bits of a tile's mark: its second terms are not all zeros. */
enum { PREFILL_K_REST = 1, PREFILL_V_REST = 2 };

static inline prefill_plan prefill_plan_of(const octavo_prefill_params *p, const octavo_prefill_layout *at)
{
    const int wide = at->operands == PREFILL_WIDE_OPERANDS;
    prefill_plan of = { .is_int8 = octavo_prefill_is_sage(p), .wide = wide, .k_offset = at->operands == PREFILL_TILE_OPERANDS ? 0 : -128,
                        .k_terms = wide ? 1 : octavo_prefill_k_terms(p), .v_terms = wide ? 1 : octavo_prefill_v_terms(p) };
    const octavo_k_format format = p->kv->k_format;
    const int exact = p->precision == OCTAVO_ATTENTION_EXACT, stored = octavo_prefill_takes_k_codes(p);
    of.k_codes = stored || (exact && !wide && (format == OCTAVO_K_INT8 || format == OCTAVO_K_INT4X2));
    of.q_terms = exact && !wide && p->q.dtype != OCTAVO_BF16 ? 2 : 1;
    const int key_scales = of.is_int8 ? stored || p->scales == OCTAVO_PREFILL_PER_TOKEN || p->scales == OCTAVO_PREFILL_PER_THREAD
                                      : exact && of.k_codes;
    of.kind = key_scales || p->soft_cap > 0.0f ? PREFILL_KEYED : of.is_int8 ? PREFILL_BLOCKED : PREFILL_PLAIN;
    const int64_t elements = of.is_int8 ? 64 : wide ? 16 : 32;
    of.steps = (p->kv->head_dim + elements - 1) / elements, of.k_steps = at->k_dim / elements;
    of.v_keys = wide ? 16 : 32;
    of.v_sides = octavo_round_up(p->kv->v_dim, 32) / PREFILL_SIDE, of.v_all = at->v_dim / PREFILL_SIDE;
    of.k_tile = (size_t)(PREFILL_KEYS * at->k_dim * (of.is_int8 ? 1 : wide ? 4 : 2 * of.k_terms));
    of.v_tile = (size_t)(PREFILL_KEYS * at->v_dim * (wide ? 4 : 2 * of.v_terms));
    const size_t tiles = (size_t)(at->keys / PREFILL_KEYS);
    of.v_at = tiles * of.k_tile, of.factor_at = of.v_at + tiles * of.v_tile;
    of.weight_at = of.factor_at + (size_t)at->keys * sizeof(float), of.marks_at = of.weight_at + (size_t)at->keys * sizeof(float);
    of.weighted = !wide && p->kv->v_format == OCTAVO_V_INT8 && !octavo_prefill_rounds_v(p);
    return of;
}

/* 64 floats that are integers of 8 bits. */
static inline __m512i prefill_int8(const float *x)
{
    const __m128i a = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_loadu_ps(x))), b = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_loadu_ps(x + 16)));
    const __m128i c = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_loadu_ps(x + 32))), d = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_loadu_ps(x + 48)));
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_set_m128i(b, a)), _mm256_set_m128i(d, c), 1);
}

#endif
