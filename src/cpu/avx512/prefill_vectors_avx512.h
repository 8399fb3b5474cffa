/* prefill_vectors_avx512.h - attention of many queries on vectors of sixteen queries: INT8 scores by vpdpbusd, else what a level multiplies.
 *
 * Included after prefill_pairs_avx512.h or prefill_wide_avx512.h, and after prefill_multiply: sixteen sums plus the products of words.
 * vpdpbusd takes one operand unsigned. That is K, whose codes lie 128 higher; a score begins at -128 times the sum of its query's codes. */
#ifndef OCTAVO_CPU_AVX512_PREFILL_VECTORS_AVX512_H
#define OCTAVO_CPU_AVX512_PREFILL_VECTORS_AVX512_H

#include "cpu/avx512/prefill_pack_avx512.h"
#include "cpu/avx512/prefill_task_avx512.h"

octavo_prefill_step octavo_prefill_sum_avx512, octavo_prefill_means_avx512, octavo_prefill_most_avx512, octavo_prefill_scales_avx512,
                    octavo_prefill_rests_avx512;

enum { PREFILL_BAND_ROWS = 8 }; /* of a tile, whose sums the registers hold for PREFILL_ROW_PAD queries */

/* Sums of a band's rows with two vectors of sixteen queries. */
typedef struct prefill_band_sums {
    __m512 x[PREFILL_BAND_ROWS][2];
} prefill_band_sums;

/* Where words of sixteen queries lie: one after the other `next` bytes apart, the second sixteen `second` behind the first. */
typedef struct prefill_words {
    const uint8_t *at;
    int64_t next, second;
} prefill_words;

/* Adds the products of a band of a tile with sixteen words of queries. */
PREFILL_INLINE void prefill_add_products(prefill_band_sums *sums, const uint8_t *band, prefill_words words, int is_int8)
{
#pragma GCC unroll 4
    for (int j = 0; j < 16; j++) {
        const __m512i first = _mm512_loadu_si512(words.at + j * words.next), second = _mm512_loadu_si512(words.at + j * words.next + words.second);
#pragma GCC unroll 8
        for (int r = 0; r < PREFILL_BAND_ROWS; r++) {
            int32_t word;
            memcpy(&word, band + 64 * r + 4 * j, sizeof word);
            const __m512i all = _mm512_set1_epi32(word);
            if (is_int8) {
                sums->x[r][0] = _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(sums->x[r][0]), all, first));
                sums->x[r][1] = _mm512_castsi512_ps(_mm512_dpbusd_epi32(_mm512_castps_si512(sums->x[r][1]), all, second));
            } else {
                sums->x[r][0] = prefill_multiply(sums->x[r][0], all, first);
                sums->x[r][1] = prefill_multiply(sums->x[r][1], all, second);
            }
        }
    }
}

/* Memory of the next tile that is asked for while this one is multiplied, some lines a band: a processor left alone comes late to each. */
typedef struct prefill_ahead {
    const uint8_t *at;
    int64_t lines; /* a band */
} prefill_ahead;

PREFILL_INLINE void prefill_ask(prefill_ahead *ahead)
{
    for (int64_t i = 0; i < ahead->lines; i++, ahead->at += 64) __builtin_prefetch(ahead->at, 0, 2);
}

/* A unit's share of the next tile. */
static inline prefill_ahead prefill_ahead_of(const prefill_tile *at, const prefill_unit *unit, const uint8_t *tile, size_t bytes, int64_t bands)
{
    const int64_t units = at->task->padded_rows / PREFILL_ROW_PAD, lines = (int64_t)bytes / 64 / (units * bands) + 1;
    return (prefill_ahead){ tile + unit->side / 2 * lines * bands * 64, lines };
}

/* Scores of a block of 32 keys: [32, PREFILL_ROW_PAD]. */
PREFILL_INLINE void prefill_multiply_keys(const prefill_tile *at, const prefill_unit *unit, int64_t block, float *score, int is_int8, prefill_ahead *ahead)
{
    const prefill_plan *plan = &at->plan;
    const int64_t k_next = plan->k_steps * PREFILL_TILE;
    const uint8_t *k_terms = at->packed + (size_t)unit->tile * plan->k_tile + 2 * block * k_next, *q_terms = prefill_q_tiles(at, unit->side);
    const int32_t *start = at->start + unit->side * PREFILL_SIDE;
    const int products = plan->q_terms > 1 ? 3 : unit->marks & PREFILL_K_REST ? 2 : 1;
    for (int64_t key = 0; key < 32; key += PREFILL_BAND_ROWS) {
        prefill_band_sums sums;
        prefill_ask(ahead);
#pragma GCC unroll 8
        for (int r = 0; r < PREFILL_BAND_ROWS; r++)
            for (int col = 0; col < 2; col++) sums.x[r][col] = is_int8 ? _mm512_loadu_ps((const float *)start + 16 * col) : _mm512_setzero_ps();
        for (int product = 0; product < products; product++) { /* first by first, second by first, first by second terms */
            if (product == 1 && !(unit->marks & PREFILL_K_REST)) continue;
            const uint8_t *k = k_terms + (product == 1 ? PREFILL_SIDES * k_next : 0) + key / PREFILL_SIDE * k_next + key % PREFILL_SIDE * 64;
            const uint8_t *q = q_terms + (product == 2 ? k_next : 0);
            for (int64_t s = 0; s < plan->steps; s++)
                prefill_add_products(&sums, k + s * PREFILL_TILE, (prefill_words){ q + s * PREFILL_TILE, 64, plan->q_terms * k_next }, is_int8);
        }
#pragma GCC unroll 8
        for (int r = 0; r < PREFILL_BAND_ROWS; r++)
            for (int col = 0; col < 2; col++) _mm512_storeu_ps(score + (key + r) * PREFILL_ROW_PAD + 16 * col, sums.x[r][col]);
    }
}

/* Where the weights of a unit's words of keys lie. */
PREFILL_INLINE prefill_words prefill_weights_of(const prefill_tile *at, int64_t keys)
{
    if (at->plan.wide) return (prefill_words){ (const uint8_t *)(at->score + keys * 16 * PREFILL_ROW_PAD), PREFILL_ROW_PAD * sizeof(float), 64 };
    return (prefill_words){ at->weights + 2 * keys * PREFILL_TILE, 64, PREFILL_TILE };
}

/* Adds a unit's weighted values to its sums. */
static void prefill_multiply_values(const prefill_tile *at, const prefill_unit *unit)
{
    const prefill_plan *plan = &at->plan;
    const int64_t tiles = PREFILL_KEYS / plan->v_keys, begin = unit->from * 32 / plan->v_keys, end = unit->to * 32 / plan->v_keys;
    const int64_t v_term = plan->v_all * tiles * PREFILL_TILE, second = plan->v_all * 16;
    const uint8_t *values = at->packed + plan->v_at + (size_t)unit->tile * plan->v_tile;
    prefill_ahead ahead = prefill_ahead_of(at, unit, values + plan->v_tile, plan->v_tile, plan->v_sides * (PREFILL_SIDE / PREFILL_BAND_ROWS));
    for (int64_t channel = 0; channel < plan->v_sides * PREFILL_SIDE; channel += PREFILL_BAND_ROWS) {
        float *to = (float *)(void *)(at->sum + unit->side * plan->v_all * PREFILL_TILE) + channel * 16;
        const uint8_t *band = values + channel / PREFILL_SIDE * tiles * PREFILL_TILE + channel % PREFILL_SIDE * 64;
        prefill_band_sums sums;
        prefill_ask(&ahead);
#pragma GCC unroll 8
        for (int r = 0; r < PREFILL_BAND_ROWS; r++)
            for (int col = 0; col < 2; col++) sums.x[r][col] = _mm512_loadu_ps(to + (r + second * col) * 16);
        for (int term = 0; term <= (unit->marks & PREFILL_V_REST ? 1 : 0); term++)
            for (int64_t keys = begin; keys < end; keys++)
                prefill_add_products(&sums, band + term * v_term + keys * PREFILL_TILE, prefill_weights_of(at, keys), 0);
#pragma GCC unroll 8
        for (int r = 0; r < PREFILL_BAND_ROWS; r++)
            for (int col = 0; col < 2; col++) _mm512_storeu_ps(to + (r + second * col) * 16, sums.x[r][col]);
    }
}

PREFILL_INLINE void prefill_attend_unit(prefill_tile *at, const prefill_constants *by, const prefill_scores *how, prefill_unit *unit, int plain)
{
    const prefill_rows rows = prefill_rows_of(at, unit);
    const size_t k_tile = at->plan.k_tile;
    prefill_ahead ahead = prefill_ahead_of(at, unit, at->packed + (size_t)(unit->tile + 1) * k_tile, k_tile, PREFILL_KEYS / PREFILL_BAND_ROWS);
    prefill_pair largest = { { _mm512_set1_ps(PREFILL_NOTHING), _mm512_set1_ps(PREFILL_NOTHING) } }, shrink;
    for (int64_t block = unit->from; block < unit->to; block++) {
        float *score = at->score + block * 32 * PREFILL_ROW_PAD;
        prefill_multiply_keys(at, unit, block, score, how->is_int8, &ahead);
        const prefill_pair now = prefill_largest(how, unit, &rows, block, score, !plain && unit->masked);
        for (int col = 0; col < 2; col++) largest.x[col] = _mm512_max_ps(largest.x[col], now.x[col]);
    }
    if (prefill_raise_most(unit, &rows, &largest, &shrink)) prefill_shrink_sums(at, unit);
    for (int64_t block = unit->from; block < unit->to; block++) {
        prefill_weighing of = { .by = *by };
        prefill_weighing_begin(&of, how, unit, &rows, block, at->score + block * 32 * PREFILL_ROW_PAD);
        while (of.left) prefill_weigh_side(&of, 0, plain), prefill_weigh_side(&of, 1, plain);
        for (int col = 0; col < 2; col++)
            _mm512_storeu_ps(rows.mass + 16 * col, _mm512_add_ps(_mm512_loadu_ps(rows.mass + 16 * col), of.mass[col]));
    }
    prefill_multiply_values(at, unit);
}

/* Tile by tile of keys, in each all rows. */
PREFILL_INLINE void prefill_attend_units(prefill_tile *at, const prefill_scores *how)
{
    const int64_t last_row = at->task->padded_rows - 1;
    const octavo_span first = { at->sink_end[0], at->near_begin[0], at->end[0] };
    const octavo_span last = { at->sink_end[last_row], at->near_begin[last_row], at->end[last_row] };
    const prefill_constants by = prefill_constants_of();
    prefill_unit unit;
    for (int64_t tile = 0; tile * PREFILL_KEYS < last.end; tile++) {
        if (octavo_prefill_sight_of(&first, &last, tile * PREFILL_KEYS, (tile + 1) * PREFILL_KEYS) == PREFILL_UNSEEN) continue;
        for (int64_t row = 0; row < at->task->padded_rows; row += PREFILL_ROW_PAD) {
            if (!prefill_unit_of(at, tile, row, &unit)) continue;
            unit.weights = at->weights;
            if (unit.masked || unit.weight) prefill_attend_unit(at, &by, how, &unit, 0);
            else prefill_attend_unit(at, &by, how, &unit, 1);
        }
    }
}

/* The kinds of scores, each compiled by itself. */
static void prefill_attend_plain(prefill_tile *at) { prefill_attend_units(at, &(prefill_scores){ PREFILL_PLAIN, 0, 0.0f }); }
static void prefill_attend_blocked(prefill_tile *at) { prefill_attend_units(at, &(prefill_scores){ PREFILL_BLOCKED, 1, 0.0f }); }
static void prefill_attend_keyed(prefill_tile *at)
{
    const float cap = at->head.p->soft_cap;
    if (at->plan.is_int8) prefill_attend_units(at, &(prefill_scores){ PREFILL_KEYED, 1, cap });
    else                  prefill_attend_units(at, &(prefill_scores){ PREFILL_KEYED, 0, cap });
}

static void prefill_attend(const octavo_prefill_call *call, const octavo_prefill_task *task)
{
    prefill_tile at;
    prefill_task_init(&at, call, task);
    prefill_task_queries(&at);
    prefill_task_start(&at);
    if (at.plan.kind == PREFILL_PLAIN) prefill_attend_plain(&at);
    else if (at.plan.kind == PREFILL_BLOCKED) prefill_attend_blocked(&at);
    else prefill_attend_keyed(&at);
    prefill_task_finish(&at);
}

/* 1: a call is taken; else it is for the vectors of avx512. */
static inline int prefill_takes(const octavo_prefill_params *p)
{
    const int exact_f32 = p->precision == OCTAVO_ATTENTION_EXACT && (p->kv->k_format == OCTAVO_K_F32 || p->kv->v_format == OCTAVO_V_F32);
    return !exact_f32 && p->kv->head_dim <= PREFILL_DIM_MOST && p->kv->v_dim <= PREFILL_DIM_MOST;
}

#endif
