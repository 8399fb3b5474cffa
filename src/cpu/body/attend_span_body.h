/* attend_span_body.h - the running softmax that block_attend and decode_fused share. After a simd_<isa>.h. */
#ifndef OCTAVO_CPU_ATTEND_SPAN_BODY_H
#define OCTAVO_CPU_ATTEND_SPAN_BODY_H

#include "cpu/body/decode_plan_body.h"

/* The outputs of one split of one kv head while they grow: unnormalised, against the largest score so far. */
typedef struct attend_state {
    float *max, *sum; /* [rows] */
    float *out;       /* row r at out + r * out_stride */
    int64_t out_stride;
} attend_state;

static void attend_reset(const decode_plan *plan, const attend_state *state)
{
    for (int64_t r = 0; r < plan->rows; r++) {
        state->max[r] = -INFINITY;
        state->sum[r] = 0.0f;
        memset(state->out + r * state->out_stride, 0, (size_t)plan->kv->v_dim * sizeof(float));
    }
}

static void attend_scale_row(float *out, int64_t count, float by)
{
    int64_t i = 0;
    for (; i + SIMD_F32 <= count; i += SIMD_F32) v_store(out + i, v_mul(v_load(out + i), v_splat(by)));
    if (i < count) v_store_part(out + i, v_mul(v_load_part(out + i, count - i), v_splat(by)), count - i);
}

/* The largest score of a row may grow: what was summed against the old one shrinks. */
static void attend_raise(const decode_plan *plan, const attend_state *state, int64_t row, float largest)
{
    if (!(largest > state->max[row])) return;
    if (state->sum[row] > 0.0f) {
        const float shrink = v_exp_one(state->max[row] - largest);
        state->sum[row] *= shrink;
        attend_scale_row(state->out + row * state->out_stride, plan->kv->v_dim, shrink);
    }
    state->max[row] = largest;
}

/* Scores of up to four rows become weights against each row's largest score, times the values' factors. */
static void attend_weigh_rows(const decode_plan *plan, const attend_state *state, int64_t first, int64_t rows, float *scores,
                              int64_t padded, const float *factors, const float *v_factors, octavo_decode_ahead *ahead)
{
    float *row[ROW_GROUP], largest[ROW_GROUP], total[ROW_GROUP], unused[DECODE_TOKENS];
    vf32 from[ROW_GROUP], added[ROW_GROUP];
    rows_at(scores, rows, row);
    plan_between_rows(plan, ahead, ROWS_CYCLES);
    rows_max(row, rows, padded, factors, largest);
    for (int64_t r = 0; r < rows; r++) attend_raise(plan, state, first + r, largest[r]);
    plan_between_rows(plan, ahead, ROWS_CYCLES);
#pragma GCC unroll 4
    for (int r = 0; r < ROW_GROUP; r++) {
        const float most = state->max[first + (r < rows ? r : rows - 1)];
        from[r] = v_splat(most == -INFINITY ? 0.0f : most);
        added[r] = v_zero();
    }
    for (int64_t t = 0; t < padded; t += SIMD_F32) {
        const vf32 factor = v_load(v_factors + t);
#pragma GCC unroll 4
        for (int r = 0; r < ROW_GROUP; r++) {
            const vf32 weight = v_exp(v_sub(v_load(row[r] + t), from[r]));
            added[r] = v_add(added[r], weight);
            v_store(r < rows ? row[r] + t : unused, v_mul(weight, factor));
        }
        octavo_decode_fetch(ahead, EXP_CYCLES);
    }
    v_store_sums4(total, added[0], added[1], added[2], added[3]);
    for (int64_t r = 0; r < rows; r++) state->sum[first + r] += total[r];
    plan_between_rows(plan, ahead, ROWS_CYCLES);
}

/* Adds the tokens of a span. `given`: [rows of the call, max_tokens] scores of this head instead of reading K, or NULL. */
static void attend_span(const decode_head *of, octavo_decode_dot *dot, octavo_decode_span *span, int whole,
                        const float *given, const attend_state *state)
{
    const decode_plan *plan = of->plan;
    const int64_t padded = span_padded(span);
    float k_factors[DECODE_TOKENS], v_factors[DECODE_TOKENS], scores[DECODE_ROWS * DECODE_TOKENS];
    if (!given) span_k_factors(of, span, k_factors);
    span_v_factors(of, span, v_factors);
    for (int64_t row = 0; row < plan->rows; row += DECODE_ROWS) {
        const int64_t left = plan->rows - row, rows = left < DECODE_ROWS ? left : DECODE_ROWS;
        const float *left_factors = NULL;
        if (given) {
            for (int64_t r = 0; r < rows; r++)
                memcpy(scores + r * DECODE_TOKENS, given + (row + r) * plan->kv->max_tokens + span->token,
                       (size_t)span->tokens * sizeof *scores);
            span_mask(of, span, row, rows, whole, scores);
        } else {
            left_factors = span_scores(of, dot, span, k_factors, row, rows, whole, scores);
        }
        for (int64_t r = 0; r < rows; r += ROW_GROUP)
            attend_weigh_rows(plan, state, row + r, group_of(rows - r), scores + r * DECODE_TOKENS, padded, left_factors,
                              v_factors, span->ahead);
        plan->axpy(state->out + row * state->out_stride, state->out_stride, scores, rows, span, plan->kv->v_dim);
    }
    octavo_decode_fetch_rest(span->ahead);
}

/* Dropped units, at most DECODE_TOKENS. */
typedef struct attend_mean_units {
    int64_t count, unit[DECODE_TOKENS];
    const uint8_t *mean[DECODE_TOKENS], *exponent[DECODE_TOKENS];
} attend_mean_units;

/* The next dropped units of [*unit, end); their means are asked for. */
static void attend_gather_means(const decode_head *of, const uint8_t *kept, int64_t *unit, int64_t end, attend_mean_units *units)
{
    const octavo_kv_view *kv = of->plan->kv;
    int64_t block = *unit / of->plan->units_a_block, index = *unit % of->plan->units_a_block, count = 0;
    for (; *unit < end && count < DECODE_TOKENS; ++*unit, index++) {
        if (index == of->plan->units_a_block) index = 0, block++;
        if (kept[*unit] != OCTAVO_UNIT_DROPPED) continue;
        const int64_t page = octavo_view_page(kv, of->view_row, block);
        units->unit[count] = *unit;
        units->mean[count] = octavo_section_at(&kv->v_mean, of->view_row, page, of->head, index);
        units->exponent[count] = octavo_section_at(&kv->v_mean_scale, of->view_row, page, of->head, index);
        for (int64_t i = 0; i < kv->v_dim; i += 64) __builtin_prefetch(units->mean[count] + i, 0, 2);
        __builtin_prefetch(units->exponent[count], 0, 2);
        count++;
    }
    units->count = count;
}

/* Their mean rows, copied together so that they are weighed as tokens are. Ones that weigh nothing follow, because tiles take
 * tokens by MEAN_PAD. */
enum { MEAN_COLUMNS = 256, MEAN_PAD = 32, MEAN_ONE = 0x38 };

static void attend_mean_columns(const decode_head *of, const attend_state *state, const attend_mean_units *units,
                                const float *weights, int64_t row, int64_t rows, int64_t from, int64_t columns)
{
    uint8_t means[DECODE_TOKENS * MEAN_COLUMNS];
    for (int64_t i = 0; i < units->count; i++) {
        const uint8_t *mean = units->mean[i] + from;
        int64_t at = 0;
        for (; at + 64 <= columns; at += 64) memcpy(means + i * columns + at, mean + at, 64); /* a constant size is a few moves */
        memcpy(means + i * columns + at, mean + at, (size_t)(columns - at));
    }
    const int64_t padded = octavo_round_up(units->count, MEAN_PAD);
    memset(means + units->count * columns, MEAN_ONE, (size_t)((padded - units->count) * columns));
    octavo_decode_ahead nothing = { .current = 0 };
    const octavo_decode_span span = { .tokens = padded, .v = means, .v_stride = columns, .ahead = &nothing };
    of->plan->axpy_mean(state->out + row * state->out_stride + from, state->out_stride, weights, rows, &span, columns);
}

/* log masses of units from `first` on; row r at log_mass + r * stride. */
typedef struct attend_logs {
    const float *log_mass;
    int64_t first, stride;
} attend_logs;

/* Adds dropped units at their means. */
static void attend_means(const decode_head *of, const attend_state *state, const attend_mean_units *units, const attend_logs *logs)
{
    const decode_plan *plan = of->plan;
    const octavo_kv_view *kv = plan->kv;
    const int64_t padded = octavo_round_up(units->count, MEAN_PAD);
    float factors[DECODE_TOKENS], weights[DECODE_ROWS * DECODE_TOKENS];
    uint8_t exponents[DECODE_TOKENS] = { 0 };
    octavo_decode_ahead nothing = { .current = 0 };
    for (int64_t i = 0; i < units->count; i++) exponents[i] = *units->exponent[i];
    for (int64_t t = 0; t < DECODE_TOKENS; t += SIMD_F32) v_store(factors + t, v_load_exp2_minus(exponents + t));
    for (int64_t row = 0; row < plan->rows; row += DECODE_ROWS) {
        const int64_t left = plan->rows - row, rows = left < DECODE_ROWS ? left : DECODE_ROWS;
        for (int64_t r = 0; r < rows; r++) {
            float *at = weights + r * DECODE_TOKENS;
            const float *log_mass = logs->log_mass + (row + r) * logs->stride;
            for (int64_t i = 0; i < units->count; i++) at[i] = log_mass[units->unit[i] - logs->first];
            for (int64_t i = units->count; i < padded; i++) at[i] = -INFINITY;
        }
        for (int64_t r = 0; r < rows; r += ROW_GROUP)
            attend_weigh_rows(plan, state, row + r, group_of(rows - r), weights + r * DECODE_TOKENS, padded, NULL, factors,
                              &nothing);
        for (int64_t from = 0; from < kv->v_dim; from += MEAN_COLUMNS) {
            const int64_t columns = kv->v_dim - from < MEAN_COLUMNS ? kv->v_dim - from : MEAN_COLUMNS;
            attend_mean_columns(of, state, units, weights, row, rows, from, columns);
        }
    }
}

/* The means of the units that were gathered, and of the dropped ones of [unit, end). */
static void attend_dropped_means(const decode_head *of, const attend_state *state, const uint8_t *kept, int64_t unit, int64_t end,
                                 const attend_logs *logs, attend_mean_units *gathered)
{
    attend_mean_units more;
    for (attend_mean_units *now = gathered, *next = &more; now->count > 0;) {
        attend_mean_units *const before = now;
        attend_gather_means(of, kept, &unit, end, next);
        attend_means(of, state, now, logs);
        now = next, next = before;
    }
}

static inline float attend_log(const attend_state *state, int64_t row)
{
    if (!(state->sum[row] > 0.0f)) return -INFINITY;
    float lanes[SIMD_F32];
    v_store(lanes, v_log(v_splat(state->sum[row])));
    return state->max[row] + lanes[0];
}

/* log of the whole mass of a row's dropped units of [begin, end). */
static float attend_dropped(const decode_plan *plan, const uint8_t *kept, const attend_logs *logs, int64_t row, int64_t begin,
                            int64_t end)
{
    octavo_decode_ahead nothing = { .current = 0 };
    const float *log_mass = logs->log_mass + row * logs->stride;
    float max = -INFINITY, sum = 0.0f, scores[DECODE_TOKENS];
    for (int64_t from = begin; from < end; from += DECODE_TOKENS) {
        for (int64_t i = 0; i < DECODE_TOKENS; i++) {
            const int64_t unit = from + i;
            scores[i] = unit < end && kept[unit] == OCTAVO_UNIT_DROPPED ? log_mass[unit - logs->first] : -INFINITY;
        }
        rows_add_mass(plan, &nothing, scores, 1, DECODE_TOKENS, NULL, &max, &sum);
    }
    const attend_state state = { .max = &max, .sum = &sum };
    return attend_log(&state, 0);
}

/* Writes the normalised output; [rows, splits] part_lse. */
static void attend_finish(const decode_head *of, const attend_state *state, float *part_lse, int64_t splits)
{
    const octavo_kv_view *kv = of->plan->kv;
    const float *channel = kv->v_channel_scale ? kv->v_channel_scale + of->head * kv->v_dim : NULL;
    for (int64_t row = 0; row < of->plan->rows; row++) {
        float *out = state->out + row * state->out_stride;
        if (state->sum[row] > 0.0f) attend_scale_row(out, kv->v_dim, 1.0f / state->sum[row]);
        for (int64_t i = 0; channel && i < kv->v_dim; i++) out[i] *= channel[i];
        part_lse[row * splits] = attend_log(state, row);
    }
}

#endif
