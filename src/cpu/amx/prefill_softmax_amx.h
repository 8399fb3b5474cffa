/* prefill_softmax_amx.h - from scores to weights: tiles of PREFILL_KEYS keys by PREFILL_ROW_PAD queries, which lie side by side. */
#ifndef OCTAVO_CPU_AMX_PREFILL_SOFTMAX_AMX_H
#define OCTAVO_CPU_AMX_PREFILL_SOFTMAX_AMX_H

#include "cpu/amx/prefill_amx.h"
#include "cpu/body/decode_math_body.h"

#define PREFILL_INLINE static inline __attribute__((always_inline))

/* Two vectors of sixteen queries. */
typedef struct prefill_pair {
    __m512 x[2];
} prefill_pair;

/* State of the queries of a tile. */
typedef struct prefill_rows {
    float *factor; /* of a score, in powers of two; positive                       */
    float *most;   /* an integer that no score so far exceeds                      */
    float *mass;   /* sum of the weights 2^(score - most)                          */
    const int32_t *sink_end, *near_begin, *end; /* of each query, in tokens         */
} prefill_rows;

/* What a tile of scores is, and where. */
typedef struct prefill_scores_of {
    prefill_kind kind;
    int is_int8, masked;
    float soft_cap;
    int64_t begin;        /* token of the tile's first key          */
    const float *factor;  /* [PREFILL_KEYS] of each key              */
    const float *weight;  /* [PREFILL_KEYS] of each weight, or NULL  */
    float *score;         /* [PREFILL_KEYS, PREFILL_ROW_PAD]         */
    uint8_t *weights;     /* tiles P'                                */
} prefill_scores_of;

#define PREFILL_NOTHING (-0x1p100f) /* below every score */

PREFILL_INLINE __mmask16 prefill_visible(const prefill_rows *rows, int64_t token, int col)
{
    const __m512i t = _mm512_set1_epi32((int32_t)token);
    const __m512i sink_end = _mm512_loadu_si512(rows->sink_end + 16 * col), near_begin = _mm512_loadu_si512(rows->near_begin + 16 * col);
    const __mmask16 near_ = _mm512_cmple_epi32_mask(near_begin, t), sink = _mm512_cmplt_epi32_mask(t, sink_end);
    return _mm512_mask_cmplt_epi32_mask((__mmask16)(near_ | sink), t, _mm512_loadu_si512(rows->end + 16 * col));
}

/* 2^(x - most) where x <= most, both up to where float32 is too coarse to tell; never 0: 2^-120 stands for what is less. */
PREFILL_INLINE __m512 prefill_exp2_below(__m512 x, __m512 factor, __m512 most)
{
    const __m512 magic = _mm512_set1_ps(0x1.8p23f);
    const __m512 below = _mm512_max_ps(_mm512_fmsub_ps(x, factor, most), _mm512_set1_ps(-120.0f));
    const __m512 rounded = _mm512_add_ps(below, magic), r = _mm512_sub_ps(below, _mm512_sub_ps(rounded, magic));
    __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(0x1.3997d6p-7f), r, _mm512_set1_ps(0x1.ca1440p-5f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0x1.ec06dap-3f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0x1.62e0dcp-1f));
    y = _mm512_fmadd_ps(y, r, _mm512_set1_ps(0x1.ffffe8p-1f)); /* within 2^-18.4: what becomes bf16 needs no more */
    return _mm512_castsi512_ps(_mm512_add_epi32(_mm512_castps_si512(y), _mm512_slli_epi32(_mm512_castps_si512(rounded), 23)));
}

PREFILL_INLINE __m512 prefill_load_score(const prefill_scores_of *of, int64_t t, int col)
{
    const float *at = of->score + t * PREFILL_ROW_PAD + 16 * col;
    return of->is_int8 ? _mm512_cvtepi32_ps(_mm512_loadu_si512(at)) : _mm512_loadu_ps(at);
}

/* The largest scores of keys [from, to), in powers of two. Scores that are seen by a query and need more than its factor are put back
 * as they are to be; what it does not see becomes PREFILL_NOTHING. */
PREFILL_INLINE prefill_pair prefill_largest(const prefill_scores_of *of, const prefill_rows *rows, int64_t from, int64_t to)
{
    const __m512 nothing = _mm512_set1_ps(PREFILL_NOTHING), cap = _mm512_set1_ps(of->soft_cap);
    const __m512 to_cap = _mm512_set1_ps(of->soft_cap > 0.0f ? 1.0f / of->soft_cap : 0.0f);
    prefill_pair largest = { { nothing, nothing } };
#pragma GCC unroll 2
    for (int col = 0; col < 2; col++) {
        const __m512 factor = _mm512_loadu_ps(rows->factor + 16 * col);
        __m512 most = nothing;
        for (int64_t t = from; t < to; t++) {
            __m512 x = prefill_load_score(of, t, col);
            if (of->kind != PREFILL_PLAIN) x = _mm512_mul_ps(x, _mm512_mul_ps(factor, _mm512_set1_ps(of->factor[t])));
            if (of->soft_cap > 0.0f) x = _mm512_mul_ps(_mm512_mul_ps(cap, _mm512_set1_ps(0x1.715476p+0f)), v_tanh(_mm512_mul_ps(x, to_cap)));
            if (of->masked) x = _mm512_mask_blend_ps(prefill_visible(rows, of->begin + t, col), nothing, x);
            if (of->kind != PREFILL_PLAIN || of->masked) _mm512_storeu_ps(of->score + t * PREFILL_ROW_PAD + 16 * col, x);
            most = _mm512_max_ps(x, most);
        }
        largest.x[col] = of->kind == PREFILL_PLAIN ? _mm512_mul_ps(most, factor) : most;
    }
    return largest;
}

/* Weights of keys [from, to), 32 at a time, into tiles; their sums. */
PREFILL_INLINE prefill_pair prefill_weigh(const prefill_scores_of *of, const prefill_rows *rows, int64_t from, int64_t to)
{
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2,
                                                17, 1, 16, 0);
    prefill_pair mass;
#pragma GCC unroll 2
    for (int col = 0; col < 2; col++) {
        const __m512 factor = of->kind == PREFILL_PLAIN ? _mm512_loadu_ps(rows->factor + 16 * col) : _mm512_set1_ps(1.0f);
        const __m512 most = _mm512_loadu_ps(rows->most + 16 * col);
        __m512 sum[2] = { _mm512_setzero_ps(), _mm512_setzero_ps() };
        for (int64_t block = from; block < to; block += 32) {
            uint8_t *tile = of->weights + (block / 32 * 2 + col) * PREFILL_TILE;
            for (int64_t j = 0; j < 16; j++) {
                __m512 w[2];
#pragma GCC unroll 2
                for (int half = 0; half < 2; half++) {
                    const int64_t t = block + j + 16 * half;
                    const __m512 x = _mm512_loadu_ps(of->score + t * PREFILL_ROW_PAD + 16 * col);
                    w[half] = prefill_exp2_below(x, factor, most);
                    if (of->masked) w[half] = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(x, _mm512_set1_ps(PREFILL_NOTHING), _CMP_GT_OQ), w[half]);
                    sum[half] = _mm512_add_ps(sum[half], w[half]);
                    if (of->weight) w[half] = _mm512_mul_ps(w[half], _mm512_set1_ps(of->weight[t]));
                }
                _mm512_storeu_si512(tile + 64 * j, _mm512_permutexvar_epi16(interleave, prefill_bf16(w[0], w[1])));
            }
        }
        mass.x[col] = _mm512_add_ps(sum[0], sum[1]);
    }
    return mass;
}

#endif
