/* prefill_softmax_avx512.h - from scores to weights: tiles of PREFILL_KEYS keys by PREFILL_ROW_PAD queries, which lie side by side.
 *
 * Included after prefill_pairs_avx512.h or prefill_wide_avx512.h, which say what weights become. */
#ifndef OCTAVO_CPU_AVX512_PREFILL_SOFTMAX_AVX512_H
#define OCTAVO_CPU_AVX512_PREFILL_SOFTMAX_AVX512_H

#include "cpu/avx512/prefill_tiles_avx512.h"

/* Two vectors of sixteen queries. */
typedef struct prefill_pair {
    __m512 x[2];
} prefill_pair;

/* PREFILL_ROW_PAD queries and a tile of keys, of which blocks [from, to) of 32 are seen, on their way from scores to sums. */
typedef struct prefill_unit {
    int64_t tile, side, from, to; /* side: the queries' first sixteen */
    int masked;                   /* not every query sees every key   */
    int marks;
    int64_t begin;                /* token of the tile's first key     */
    const float *factor;          /* [PREFILL_KEYS] of each key        */
    const float *weight;          /* [PREFILL_KEYS] of each weight, or NULL */
    uint8_t *weights;             /* tiles P'                          */
    int shrinks;                  /* 1: before its values are added, sums shrink by */
    prefill_pair shrink;
} prefill_unit;

/* State of the queries of a unit. */
typedef struct prefill_rows {
    float *factor; /* of a score, in powers of two; positive                       */
    float *most;   /* an integer that no score so far exceeds by PREFILL_HEADROOM  */
    float *mass;   /* sum of the weights 2^(score - most)                          */
    const int32_t *sink_end, *near_begin, *end; /* of each query, in tokens         */
} prefill_rows;

/* How scores become powers of two, for the whole call. */
typedef struct prefill_scores {
    prefill_kind kind;
    int is_int8;
    float soft_cap;
} prefill_scores;

#define PREFILL_HEADROOM 8.0f
#define PREFILL_NOTHING (-0x1p100f) /* below every score */

PREFILL_INLINE __mmask16 prefill_visible(const prefill_rows *rows, int64_t token, int col)
{
    const __m512i t = _mm512_set1_epi32((int32_t)token);
    const __m512i sink_end = _mm512_loadu_si512(rows->sink_end + 16 * col), near_begin = _mm512_loadu_si512(rows->near_begin + 16 * col);
    const __mmask16 near_ = _mm512_cmple_epi32_mask(near_begin, t), sink = _mm512_cmplt_epi32_mask(t, sink_end);
    return _mm512_mask_cmplt_epi32_mask((__mmask16)(near_ | sink), t, _mm512_loadu_si512(rows->end + 16 * col));
}

/* What prefill_exp2_below is made of, in registers: a compiler left alone fetches each again wherever a product stands between. */
typedef struct prefill_constants {
    __m512 lowest, magic, power[5];
    __m512i interleave; /* words i and 16 + i beside each other */
} prefill_constants;

PREFILL_INLINE __m512 prefill_keep(__m512 x)
{
    __asm__("" : "+v"(x));
    return x;
}

PREFILL_INLINE prefill_constants prefill_constants_of(void)
{
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
                                                17, 1, 16, 0);
    return (prefill_constants){ .lowest = prefill_keep(_mm512_set1_ps(-120.0f)), .magic = prefill_keep(_mm512_set1_ps(0x1.8p23f)),
                                .power = { prefill_keep(_mm512_set1_ps(0x1.ffffe8p-1f)), prefill_keep(_mm512_set1_ps(0x1.62e0dcp-1f)),
                                           prefill_keep(_mm512_set1_ps(0x1.ec06dap-3f)), prefill_keep(_mm512_set1_ps(0x1.ca1440p-5f)),
                                           prefill_keep(_mm512_set1_ps(0x1.3997d6p-7f)) },
                                .interleave = _mm512_castps_si512(prefill_keep(_mm512_castsi512_ps(interleave))) };
}

/* 2^(x * factor - most), at most 2^PREFILL_HEADROOM, within 2^-18.4: what becomes bf16 needs no more. Never 0: 2^-120 stands for what is less. */
PREFILL_INLINE __m512 prefill_exp2_below(const prefill_constants *by, __m512 x, __m512 factor, __m512 most)
{
    const __m512 below = _mm512_max_ps(_mm512_fmsub_ps(x, factor, most), by->lowest);
    const __m512 rounded = _mm512_add_ps(below, by->magic), r = _mm512_sub_ps(below, _mm512_sub_ps(rounded, by->magic));
    __m512 y = _mm512_fmadd_ps(by->power[4], r, by->power[3]);
    y = _mm512_fmadd_ps(y, r, by->power[2]);
    y = _mm512_fmadd_ps(y, r, by->power[1]);
    y = _mm512_fmadd_ps(y, r, by->power[0]);
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), _mm512_slli_epi32(_mm512_castps_si512(rounded), 23)));
}

/* The largest scores of a block of 32 keys, in powers of two. Scores that need more than a factor of their row are put back as they
 * are to be; what a query does not see becomes PREFILL_NOTHING. */
PREFILL_INLINE prefill_pair prefill_largest(const prefill_scores *how, const prefill_unit *unit, const prefill_rows *rows, int64_t block,
                                            float *score, int masked)
{
    const __m512 nothing = _mm512_set1_ps(PREFILL_NOTHING), cap = _mm512_set1_ps(how->soft_cap * 0x1.715476p+0f);
    const __m512 to_cap = _mm512_set1_ps(how->soft_cap > 0.0f ? 1.0f / how->soft_cap : 0.0f);
    const __m512 factor[2] = { _mm512_loadu_ps(rows->factor), _mm512_loadu_ps(rows->factor + 16) };
    prefill_pair most = { { nothing, nothing } };
    for (int64_t t = 0; t < 32; t++) {
        const __m512 key = _mm512_set1_ps(how->kind == PREFILL_PLAIN ? 1.0f : unit->factor[32 * block + t]);
#pragma GCC unroll 2
        for (int col = 0; col < 2; col++) {
            float *at = score + t * PREFILL_ROW_PAD + 16 * col;
            __m512 x = how->is_int8 ? _mm512_cvtepi32_ps(_mm512_loadu_si512(at)) : _mm512_loadu_ps(at);
            if (how->kind != PREFILL_PLAIN) x = _mm512_mul_ps(x, _mm512_mul_ps(factor[col], key));
            if (how->soft_cap > 0.0f) x = _mm512_mul_ps(cap, v_tanh(_mm512_mul_ps(x, to_cap)));
            if (masked) x = _mm512_mask_blend_ps(prefill_visible(rows, unit->begin + 32 * block + t, col), nothing, x);
            if (how->kind != PREFILL_PLAIN || masked) _mm512_storeu_ps(at, x);
            most.x[col] = _mm512_max_ps(x, most.x[col]);
        }
    }
    if (how->kind == PREFILL_PLAIN)
        for (int col = 0; col < 2; col++) most.x[col] = _mm512_mul_ps(most.x[col], factor[col]);
    return most;
}

/* Much larger scores than were seen before are coming: the mass shrinks now, the unit's sums are to (prefill_shrink_sums). Weights up to
 * 2^PREFILL_HEADROOM are let be, so that this is rare. Returns whether it is the case, and by what. */
PREFILL_INLINE int prefill_raise_most(prefill_unit *unit, const prefill_rows *rows, const prefill_pair *largest, prefill_pair *shrink)
{
    const __m512 headroom = _mm512_set1_ps(PREFILL_HEADROOM);
    __mmask16 above[2];
    for (int col = 0; col < 2; col++)
        above[col] = _mm512_cmp_ps_mask(largest->x[col], _mm512_add_ps(_mm512_loadu_ps(rows->most + 16 * col), headroom), _CMP_GT_OQ);
    if (!(above[0] | above[1])) return 0;
    for (int col = 0; col < 2; col++) {
        const __m512 before = _mm512_loadu_ps(rows->most + 16 * col), mass = _mm512_loadu_ps(rows->mass + 16 * col);
        const __m512 up = _mm512_roundscale_ps(largest->x[col], _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC), now = _mm512_mask_mov_ps(before, above[col], up);
        shrink->x[col] = _mm512_scalef_ps(_mm512_set1_ps(1.0f), _mm512_sub_ps(before, now));
        _mm512_storeu_ps(rows->most + 16 * col, now);
        _mm512_storeu_ps(rows->mass + 16 * col, _mm512_mul_ps(mass, shrink->x[col]));
        unit->shrink.x[col] = unit->shrinks ? _mm512_mul_ps(unit->shrink.x[col], shrink->x[col]) : shrink->x[col];
    }
    unit->shrinks = 1;
    return 1;
}

/* A block of scores on its way to weights, a pair of keys (j, j + 16) at a time. */
typedef struct prefill_weighing {
    prefill_constants by;
    __m512 factor[2], most[2], mass[2];
    float *score;        /* of the next pair: [32, PREFILL_ROW_PAD]  */
    const float *weight; /* the same, or NULL                        */
    uint8_t *weights;    /* the same in two tiles P' of pairs        */
    int masked;
    int left;            /* pairs                                     */
} prefill_weighing;

PREFILL_INLINE void prefill_weighing_begin(prefill_weighing *of, const prefill_scores *how, const prefill_unit *unit, const prefill_rows *rows,
                                           int64_t block, float *score)
{
    of->score = score, of->weight = unit->weight ? unit->weight + 32 * block : NULL, of->weights = unit->weights + 2 * block * PREFILL_TILE;
    of->masked = unit->masked, of->left = PREFILL_SIDE;
#pragma GCC unroll 2
    for (int col = 0; col < 2; col++) {
        of->factor[col] = how->kind == PREFILL_PLAIN ? _mm512_loadu_ps(rows->factor + 16 * col) : _mm512_set1_ps(1.0f);
        of->most[col] = _mm512_loadu_ps(rows->most + 16 * col);
        of->mass[col] = _mm512_setzero_ps();
    }
}

/* One side of the next pair. plain: every query sees both keys, and weights have no factors. */
PREFILL_INLINE void prefill_weigh_side(prefill_weighing *of, int col, int plain)
{
    const __m512 x = _mm512_loadu_ps(of->score + 16 * col), y = _mm512_loadu_ps(of->score + 16 * PREFILL_ROW_PAD + 16 * col);
    __m512 a = prefill_exp2_below(&of->by, x, of->factor[col], of->most[col]), b = prefill_exp2_below(&of->by, y, of->factor[col], of->most[col]);
    if (!plain && of->masked) {
        a = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(PREFILL_NOTHING), _CMP_GT_OQ), a);
        b = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(y, _mm512_set1_ps(PREFILL_NOTHING), _CMP_GT_OQ), b);
    }
    of->mass[col] = _mm512_add_ps(of->mass[col], _mm512_add_ps(a, b));
    if (!plain && of->weight) {
        a = _mm512_mul_ps(a, _mm512_set1_ps(of->weight[0]));
        b = _mm512_mul_ps(b, _mm512_set1_ps(of->weight[16]));
    }
    prefill_store_weights(of->score + 16 * col, of->weights + col * PREFILL_TILE, of->by.interleave, a, b);
    if (col == 0) return;
    of->score += PREFILL_ROW_PAD, of->weights += 64, of->left--;
    if (!plain && of->weight) of->weight++;
}

#endif
