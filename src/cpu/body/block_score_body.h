/* block_score_body.h - what each unit weighs, by the scores of its tokens. After a simd_<isa>.h. */
#include "cpu/body/decode_plan_body.h"
#include "format/ue4m4.h"

octavo_status SIMD(block_score_by)(const octavo_exec *exec, const octavo_block_score_params *p, const octavo_decode_tiles *tiles);

typedef struct score_call {
    const octavo_block_score_params *p;
    decode_plan plan;
    int64_t task_units, head_tasks;
    octavo_decode_scan *scan; /* of runs of whole units; NULL: none */
} score_call;

/* Running values of a unit, each [rows] padded to DECODE_ROWS. */
typedef struct score_states {
    float *max, *sum, *upper_max, *upper_sum, *lower_max, *lower_sum;
} score_states;

static score_states score_states_of(float *floats, int64_t rows)
{
    const int64_t padded = octavo_round_up(rows, DECODE_ROWS);
    return (score_states){
        floats, floats + padded, floats + 2 * padded, floats + 3 * padded, floats + 4 * padded, floats + 5 * padded
    };
}

static void score_reset(const score_states *state, int64_t rows, int bounds)
{
    for (int64_t r = 0; r < rows; r += SIMD_F32) {
        v_store(state->max + r, v_splat(-INFINITY));
        v_store(state->sum + r, v_zero());
        if (!bounds) continue;
        v_store(state->upper_max + r, v_splat(-INFINITY));
        v_store(state->upper_sum + r, v_zero());
        v_store(state->lower_max + r, v_splat(-INFINITY));
        v_store(state->lower_sum + r, v_zero());
    }
}

static float score_q_norm(const octavo_decode_q *q, int64_t row)
{
    const float *x = q->rows + row * q->row_floats;
    double sum = 0.0; /* of squares that float32 might not hold */
    for (int64_t i = 0; i < q->row_floats; i++) sum += (double)x[i] * (double)x[i];
    return (float)sqrt(sum);
}

/* How far the score of each token may be off for a query of norm 1: what was left out of the key, and rounding. */
static void score_errors(const decode_head *of, const octavo_decode_span *span, const float *factors, float *errors)
{
    const octavo_kv_view *kv = of->plan->kv;
    const float rounding = octavo_k_rounding_bound(kv->k_format, kv->head_dim);
    uint8_t gathered[2 * DECODE_TOKENS];
    const uint8_t *norms = kv->k_norm.data ? span_scales(of, span, &kv->k_norm, 1, gathered) : NULL;
    for (int64_t t = 0; t < DECODE_TOKENS; t++) {
        const float left_out = octavo_k_error_bound(kv, of->plan->in->planes, norms ? norms[t] : 0);
        /* One part in 2^21 pays for the roundings of this product and of ||q||. */
        errors[t] = (left_out + rounding) * fabsf(factors[t]) * (1.0f + 0x1p-21f);
    }
}

/* The masses of score + by * error, for by = norm and -norm. */
static void score_add_bounds(const decode_head *of, const octavo_decode_span *span, const float *raw, const float *errors,
                             int64_t row, int64_t rows, int whole, const score_states *state)
{
    float bound[DECODE_ROWS * DECODE_TOKENS];
    const int64_t padded = span_padded(span);
    for (int side = 0; side < 2; side++) {
        for (int64_t r = 0; r < rows; r++) {
            const vf32 norm = v_splat(side ? -score_q_norm(&of->q, row + r) : score_q_norm(&of->q, row + r));
            for (int64_t t = 0; t < padded; t += SIMD_F32) {
                const vf32 moved = v_fma(norm, v_load(errors + t), v_load(raw + r * DECODE_TOKENS + t));
                v_store(bound + r * DECODE_TOKENS + t, score_capped(of->plan->in, moved));
            }
        }
        span_mask(of, span, row, rows, whole, bound);
        for (int64_t r = 0; r < rows; r += ROW_GROUP) {
            float *max = side ? state->lower_max : state->upper_max, *sum = side ? state->lower_sum : state->upper_sum;
            rows_add_mass(of->plan, span->ahead, bound + r * DECODE_TOKENS, group_of(rows - r), padded, NULL, max + row + r,
                          sum + row + r);
        }
    }
}

static void score_span(const score_call *call, const decode_head *of, octavo_decode_span *span, int whole,
                       const score_states *state)
{
    const octavo_block_score_params *p = call->p;
    const int64_t padded = span_padded(span);
    const float *left_factors = NULL;
    float factors[DECODE_TOKENS], errors[DECODE_TOKENS], scores[DECODE_ROWS * DECODE_TOKENS];
    span_k_factors(of, span, factors);
    if (p->log_upper) score_errors(of, span, factors, errors);
    for (int64_t row = 0; row < call->plan.rows; row += DECODE_ROWS) {
        const int64_t left = call->plan.rows - row, rows = left < DECODE_ROWS ? left : DECODE_ROWS;
        if (p->log_upper) {
            span_raw_scores(of, call->plan.dot, span, factors, row, rows, scores);
            score_add_bounds(of, span, scores, errors, row, rows, whole, state);
            span_finish_scores(of, span, row, rows, whole, scores);
        } else {
            left_factors = span_scores(of, call->plan.dot, span, factors, row, rows, whole, scores);
        }
        for (int64_t r = 0; r < rows; r += ROW_GROUP)
            rows_add_mass(&call->plan, span->ahead, scores + r * DECODE_TOKENS, group_of(rows - r), padded, left_factors,
                          state->max + row + r, state->sum + row + r);
        for (int64_t r = 0; p->scores && r < rows; r++) {
            float *out = p->scores + (of->group * call->plan.rows + row + r) * call->plan.kv->max_tokens + span->token;
            memcpy(out, scores + r * DECODE_TOKENS, (size_t)span->tokens * sizeof *out);
        }
    }
    octavo_decode_fetch_rest(span->ahead);
}

/* log(sum) + max, moved by `margin` times what its own float32 arithmetic may have rounded. */
static vf32 score_log(const decode_plan *plan, const float *max, const float *sum, float margin)
{
    const vf32 log = v_log(v_load(sum)), whole = v_add(v_load(max), log);
    if (margin == 0.0f) return whole;
    /* One exponential, a sum over the lanes, and four roundings of values as large as the largest score. */
    const float adds = (float)(plan->kv->sub_block_tokens / SIMD_F32 + 16);
    const vf32 slack = v_fma(v_add(v_abs(v_load(max)), v_abs(log)), v_splat(0x1p-22f), v_splat(0x1p-21f + adds * 0x1p-24f));
    return v_if_less(v_zero(), v_load(sum), v_fma(v_splat(margin), slack, whole), v_splat(-INFINITY));
}

static void score_scatter(const score_call *call, int64_t group, int64_t unit, int64_t row, vf32 values, float *out)
{
    float lanes[SIMD_F32];
    if (!out) return;
    v_store(lanes, values);
    for (int64_t i = 0; i < SIMD_F32 && row + i < call->plan.rows; i++)
        out[(group * call->plan.rows + row + i) * call->plan.units + unit] = lanes[i];
}

static void score_store(const score_call *call, int64_t group, int64_t unit, const score_states *state)
{
    const octavo_block_score_params *p = call->p;
    for (int64_t row = 0; row < call->plan.rows; row += SIMD_F32) {
        score_scatter(call, group, unit, row, v_load(state->max + row), p->unit_max);
        score_scatter(call, group, unit, row, score_log(&call->plan, state->max + row, state->sum + row, 0.0f), p->log_mass);
        if (!p->log_upper) continue;
        score_scatter(call, group, unit, row, score_log(&call->plan, state->upper_max + row, state->upper_sum + row, 1.0f),
                      p->log_upper);
        score_scatter(call, group, unit, row, score_log(&call->plan, state->lower_max + row, state->lower_sum + row, -1.0f),
                      p->log_lower);
    }
}

static int score_wanted(const score_call *call, const decode_head *of, int64_t unit)
{
    return !call->p->only || call->p->only[of->group * call->plan.units + unit] == OCTAVO_UNIT_KEPT;
}

/* The first span of the first wanted unit in [unit, last). */
static int score_first(const score_call *call, const decode_head *of, int64_t unit, int64_t last, octavo_decode_span *first)
{
    for (; unit < last && unit * call->plan.kv->sub_block_tokens < of->sight.any.end; unit++)
        if (score_wanted(call, of, unit) && span_of_unit(of, unit, first)) return 1;
    return 0;
}

/* A wanted unit; *span is its first span if *more, and becomes the first one behind it. */
static void score_unit(const score_call *call, const decode_head *of, int64_t unit, int64_t last, const score_states *state,
                       octavo_decode_ahead *ahead, octavo_decode_span *span, int *more)
{
    const int64_t end = (unit + 1) * call->plan.kv->sub_block_tokens;
    const int whole = head_sees(of, unit) == OCTAVO_UNIT_WHOLE;
    score_reset(state, call->plan.rows, call->p->log_upper != NULL);
    while (*more && span->token < end) {
        octavo_decode_span next;
        *more = span_next(of, span->token + span->tokens, end, &next) || score_first(call, of, unit + 1, last, &next);
        ahead_of(of, *more ? &next : NULL, call->plan.in->planes, 0, ahead);
        span->ahead = ahead;
        score_span(call, of, span, whole, state);
        if (*more) *span = next;
    }
    score_store(call, of->group, unit, state);
}

/* Units [unit, end) that are left to one another: neither is scanned. */
static void score_apart(const score_call *call, const decode_head *of, int64_t unit, int64_t end, const score_states *state)
{
    octavo_decode_span span;
    octavo_decode_ahead ahead = { .work = 0 };
    int more = score_first(call, of, unit, end, &span);
    if (more) fetch_first(of, &span, call->plan.in->planes, 0);
    for (; unit < end; unit++)
        if (score_wanted(call, of, unit)) score_unit(call, of, unit, end, state, &ahead, &span, &more);
}

/* ---- runs of whole units, where the level scans them together ---- */

static int score_scans(const octavo_block_score_params *p)
{
    return !p->only && !p->log_upper && !p->scores && p->in.planes == 1 && !(p->in.soft_cap > 0.0f);
}

/* How many units from `unit` on are scanned together, or if there are none, how many come before such a run. */
static int64_t score_run(const score_call *call, const decode_head *of, int64_t unit, int64_t end, int *scanned)
{
    int64_t run = 0;
    *scanned = call->scan && head_sees(of, unit) == OCTAVO_UNIT_WHOLE;
    if (!call->scan) return end - unit;
    while (unit + run < end && (head_sees(of, unit + run) == OCTAVO_UNIT_WHOLE) == *scanned) run++;
    return *scanned && run > DECODE_UNITS ? DECODE_UNITS : run;
}

static void score_scan(const score_call *call, const decode_head *of, int64_t unit, int64_t count)
{
    const octavo_block_score_params *p = call->p;
    const octavo_kv_view *kv = call->plan.kv;
    const uint8_t *k[DECODE_UNITS + 1], *scale[DECODE_UNITS + 1];
    float max[DECODE_ROWS * DECODE_UNITS], sum[DECODE_ROWS * DECODE_UNITS];
    for (int64_t i = 0; i <= count; i++) {
        octavo_decode_span span;
        const int64_t at = i == count && head_sees(of, unit + i) == OCTAVO_UNIT_INVISIBLE ? i - 1 : i;
        span_locate(of, (unit + at) * kv->sub_block_tokens, &span);
        k[i] = span.k[0];
        scale[i] = span_section(of, &span, &kv->k_scale);
    }
    const octavo_decode_units units = { k, scale, count, kv->sub_block_tokens, kv->k[0].token_bytes, p->in.softmax_scale, max, sum };
    for (int64_t row = 0; row < call->plan.rows; row += DECODE_ROWS) {
        const int64_t left = call->plan.rows - row, rows = left < DECODE_ROWS ? left : DECODE_ROWS;
        call->scan(&of->q, row, rows, &units);
        for (int64_t r = 0; r < rows; r++) {
            const int64_t out = (of->group * call->plan.rows + row + r) * call->plan.units + unit;
            if (p->unit_max) memcpy(p->unit_max + out, max + r * DECODE_UNITS, (size_t)count * sizeof *max);
            for (int64_t i = 0; i < count; i += SIMD_F32) {
                const vf32 log = v_log(v_load(sum + r * DECODE_UNITS + i));
                const int64_t lanes = count - i < SIMD_F32 ? count - i : SIMD_F32;
                v_store_part(p->log_mass + out + i, v_add(v_load(max + r * DECODE_UNITS + i), log), lanes);
            }
        }
    }
}

static void score_task(void *argument, int64_t index)
{
    const score_call *call = argument;
    const decode_plan *plan = &call->plan;
    const decode_head of = head_open(plan, index / call->head_tasks, index);
    const int64_t begin = index % call->head_tasks * call->task_units;
    const int64_t end = begin + call->task_units < plan->units ? begin + call->task_units : plan->units;
    const score_states state = score_states_of(plan->task_floats + index * plan->layout.task_floats, plan->rows);
    plan_enter(plan);
    for (int64_t unit = begin, run; unit < end; unit += run) {
        int scanned;
        run = score_run(call, &of, unit, end, &scanned);
        if (scanned) score_scan(call, &of, unit, run);
        else         score_apart(call, &of, unit, unit + run, &state);
    }
    plan_leave(plan);
}

octavo_status SIMD(block_score_by)(const octavo_exec *exec, const octavo_block_score_params *p, const octavo_decode_tiles *tiles)
{
    score_call call = { .p = p, .plan = plan_open(exec, &p->in, tiles, octavo_decode_layout_score(p)) };
    call.task_units = octavo_decode_score_units(p->in.kv);
    call.head_tasks = (call.plan.units + call.task_units - 1) / call.task_units;
    call.scan = tiles->scan && score_scans(p) && !call.plan.rounds_k ? tiles->scan(p->in.kv) : NULL;
    octavo_parallel(exec, call.plan.layout.heads * call.head_tasks, score_task, &call);
    return OCTAVO_OK;
}
