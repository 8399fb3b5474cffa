/* prefill_task_avx512.h - a task of a prefill call in tiles: its memory, its queries, which keys they see, its results.
 *
 * Included after prefill_pairs_avx512.h or prefill_wide_avx512.h. */
#ifndef OCTAVO_CPU_AVX512_PREFILL_TASK_AVX512_H
#define OCTAVO_CPU_AVX512_PREFILL_TASK_AVX512_H

#include "cpu/avx512/prefill_softmax_avx512.h"

enum { PREFILL_DIM_MOST = 512 }; /* wider heads take the vectors of avx512 */

/* A task's memory and state. */
typedef struct prefill_tile {
    prefill_head head;
    prefill_plan plan;
    const octavo_prefill_task *task;
    const uint8_t *packed;
    uint8_t *q, *sum;          /* tiles Q' and O'                                   */
    float *factor, *shift;     /* [rows] of a score, in powers of two; what the keys lack, in nats */
    float *most, *mass;        /* [rows] see prefill_rows                           */
    int32_t *sink_end, *near_begin, *end; /* [rows]                                 */
    int32_t *start;            /* [rows] of a score in int8: what the keys' offset adds, to be taken off */
    float *score, *spare;      /* [PREFILL_KEYS, PREFILL_ROW_PAD], at the end [PREFILL_SIDE, v_dim]; [1 + OCTAVO_PREFILL_BLOCK, k_dim] */
    uint8_t *weights;          /* tiles P' of two units                             */
} prefill_tile;

static void prefill_task_init(prefill_tile *at, const octavo_prefill_call *call, const octavo_prefill_task *task)
{
    const int64_t rows = call->layout.rows;
    float *next = (float *)(void *)task->scratch;
    at->task = task;
    at->plan = prefill_plan_of(call->p, &call->layout);
    at->packed = octavo_prefill_packed_at(call, task->slot);
    at->q = (uint8_t *)next, next += rows * call->layout.k_dim;
    at->sum = (uint8_t *)next, next += rows * call->layout.v_dim;
    at->score = next, next += PREFILL_SIDE * PREFILL_DIM_MOST;
    at->weights = (uint8_t *)next, next += PREFILL_KEYS * PREFILL_ROW_PAD;
#define TAKE(member) at->member = (void *)next, next += rows
    TAKE(factor), TAKE(shift), TAKE(most), TAKE(mass), TAKE(sink_end), TAKE(near_begin), TAKE(end), TAKE(start);
#undef TAKE
    at->spare = next;
    at->head = prefill_head_of(call, task->slot, next);
}

/* ---- queries ---- */

/* One row of queries into column `row` of its tiles, by way of `rows`: [PREFILL_SIDE] rows of bytes, 64 a step. */
static void prefill_pack_query(const prefill_plan *plan, uint8_t *rows, int64_t side, const float *row)
{
    if (!plan->is_int8) prefill_pack_row(rows + side * 64, (size_t)(plan->k_steps * PREFILL_TILE), row, plan->k_steps, plan->q_terms);
    for (int64_t s = 0; plan->is_int8 && s < plan->k_steps; s++)
        _mm512_storeu_si512(rows + (s * PREFILL_SIDE + side) * 64, prefill_int8(row + 64 * s));
}

/* -128 times the sum of a row's codes. */
static int32_t prefill_start_of(const prefill_plan *plan, const float *row, int64_t k_dim)
{
    __m512 sum = _mm512_setzero_ps();
    for (int64_t d = 0; d < k_dim && plan->is_int8; d += 16) sum = _mm512_add_ps(sum, _mm512_loadu_ps(row + d));
    return (int32_t)_mm512_reduce_add_ps(sum) * plan->k_offset;
}

static inline uint8_t *prefill_q_tiles(const prefill_tile *at, int64_t side) { return at->q + side * at->plan.q_terms * at->plan.k_steps * PREFILL_TILE; }

/* Rows are packed as they are loaded, and their tiles turned when all are there. */
static void prefill_task_queries(prefill_tile *at)
{
    const octavo_prefill_task *task = at->task;
    const octavo_prefill_params *p = at->head.p;
    const int64_t k_dim = at->head.k_dim, heads = task->heads, sides = task->padded_rows / PREFILL_SIDE;
    const float log2_scale = fabsf(p->softmax_scale) * (p->soft_cap > 0.0f ? 1.0f : 0x1.715476p+0f);
    float scale[OCTAVO_PREFILL_BLOCK], shift[OCTAVO_PREFILL_BLOCK], *rows = at->spare + k_dim;
    memset(at->q, 0, (size_t)(sides * at->plan.q_terms * at->plan.k_steps) * PREFILL_TILE);
    for (int64_t h = 0; h < heads; h++)
        for (int64_t first = 0; first < task->tokens; first += OCTAVO_PREFILL_BLOCK) {
            const int64_t left = task->tokens - first, count = left < OCTAVO_PREFILL_BLOCK ? left : OCTAVO_PREFILL_BLOCK;
            prefill_load_queries(&at->head, task->q_head + h, task->token + first, count, rows, k_dim, scale, shift);
            for (int64_t i = 0; i < count; i++) {
                const int64_t row = (first + i) * heads + h;
                if (p->softmax_scale < 0.0f) prefill_scale_row(rows + i * k_dim, -1.0f, k_dim);
                prefill_pack_query(&at->plan, prefill_q_tiles(at, row / PREFILL_SIDE), row % PREFILL_SIDE, rows + i * k_dim);
                at->factor[row] = scale[i] * log2_scale;
                at->shift[row] = shift[i];
                at->start[row] = prefill_start_of(&at->plan, rows + i * k_dim, k_dim);
            }
        }
    for (int64_t tile = 0; tile < sides * at->plan.q_terms * at->plan.k_steps; tile++) {
        __m512i x[PREFILL_SIDE];
        for (int i = 0; i < PREFILL_SIDE; i++) x[i] = _mm512_loadu_si512(at->q + tile * PREFILL_TILE + 64 * i);
        turn_words(x);
        for (int i = 0; i < PREFILL_SIDE; i++) _mm512_storeu_si512(at->q + tile * PREFILL_TILE + 64 * i, x[i]);
    }
}

static void prefill_task_start(prefill_tile *at)
{
    for (int64_t row = 0; row < at->task->padded_rows; row++) {
        const octavo_span span = octavo_prefill_span(at->head.p, at->head.b, octavo_prefill_row_token(at->task, row));
        at->sink_end[row] = (int32_t)span.sink_end, at->near_begin[row] = (int32_t)span.near_begin, at->end[row] = (int32_t)span.end;
        at->most[row] = PREFILL_NOTHING, at->mass[row] = 0.0f;
        if (row >= at->task->rows) at->factor[row] = 0.0f, at->start[row] = 0;
    }
    memset(at->sum, 0, (size_t)(at->task->padded_rows / PREFILL_SIDE * at->plan.v_all) * PREFILL_TILE);
}

static inline prefill_rows prefill_rows_of(const prefill_tile *at, const prefill_unit *unit)
{
    const int64_t row = unit->side * PREFILL_SIDE;
    return (prefill_rows){ .factor = at->factor + row, .most = at->most + row, .mass = at->mass + row, .sink_end = at->sink_end + row,
                           .near_begin = at->near_begin + row, .end = at->end + row };
}

/* What was summed shrinks. */
static inline void prefill_shrink_sums(const prefill_tile *at, const prefill_unit *unit)
{
    for (int col = 0; col < 2 && unit->shrinks; col++) {
        float *sum = (float *)(void *)(at->sum + (unit->side + col) * at->plan.v_all * PREFILL_TILE);
        for (int64_t channel = 0; channel < at->plan.v_sides * PREFILL_SIDE; channel++)
            _mm512_storeu_ps(sum + 16 * channel, _mm512_mul_ps(_mm512_loadu_ps(sum + 16 * channel), unit->shrink.x[col]));
    }
}

/* The unit of rows from `row` on and a tile of keys; 0: nothing of it is seen. */
static inline int prefill_unit_of(const prefill_tile *at, int64_t tile, int64_t row, prefill_unit *unit)
{
    const prefill_plan *plan = &at->plan;
    const int64_t begin = tile * PREFILL_KEYS, end_row = row + PREFILL_ROW_PAD - 1;
    const octavo_span first = { at->sink_end[row], at->near_begin[row], at->end[row] };
    const octavo_span last = { at->sink_end[end_row], at->near_begin[end_row], at->end[end_row] };
    const octavo_prefill_sight sight = octavo_prefill_sight_of(&first, &last, begin, begin + PREFILL_KEYS);
    if (sight == PREFILL_UNSEEN) return 0;
    unit->tile = tile, unit->side = row / PREFILL_SIDE, unit->begin = begin, unit->masked = sight != PREFILL_WHOLE, unit->shrinks = 0;
    unit->marks = at->packed[plan->marks_at + (size_t)tile];
    unit->factor = (const float *)(const void *)(at->packed + plan->factor_at) + begin;
    unit->weight = plan->weighted ? (const float *)(const void *)(at->packed + plan->weight_at) + begin : NULL;
    unit->to = (last.end - begin + 31) / 32 < PREFILL_BLOCKS32 ? (last.end - begin + 31) / 32 : PREFILL_BLOCKS32;
    unit->from = begin >= last.sink_end && first.near_begin > begin ? (first.near_begin - begin) / 32 : 0;
    return 1;
}

/* ---- results ---- */

/* Turns sixteen queries' sums back into rows, and stores them. */
static void prefill_task_finish(prefill_tile *at)
{
    const int64_t v_dim = at->head.v_dim;
    float *rows = at->score; /* [PREFILL_SIDE, v_dim] */
    for (int64_t side = 0; side < at->task->padded_rows / PREFILL_SIDE; side++) {
        for (int64_t channel = 0; channel < at->plan.v_all; channel++) {
            __m512i x[PREFILL_SIDE];
            for (int i = 0; i < PREFILL_SIDE; i++) x[i] = _mm512_loadu_si512(at->sum + (side * at->plan.v_all + channel) * PREFILL_TILE + 64 * i);
            turn_words(x);
            for (int i = 0; i < PREFILL_SIDE; i++) _mm512_storeu_si512(rows + i * v_dim + 16 * channel, x[i]);
        }
        for (int64_t i = 0; i < PREFILL_SIDE && side * PREFILL_SIDE + i < at->task->rows; i++) {
            const int64_t row = side * PREFILL_SIDE + i;
            prefill_finish_row(&at->head, octavo_prefill_row_head(at->task, row), octavo_prefill_row_token(at->task, row), rows + i * v_dim,
                               at->most[row] * 0x1.62e430p-1f, at->mass[row], at->shift[row]);
        }
    }
}

#endif
