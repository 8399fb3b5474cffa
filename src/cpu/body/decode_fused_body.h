/* decode_fused_body.h - the one-pass rules: score, decide and attend a unit while it is in the caches. After a simd_<isa>.h. */
#include "cpu/body/attend_walk_body.h"

octavo_status SIMD(decode_fused_by)(const octavo_exec *exec, const octavo_decode_fused_params *p,
                                    const octavo_decode_tiles *tiles);

typedef struct fused_call {
    const octavo_decode_fused_params *p;
    decode_plan plan;
    octavo_decode_dot *dot;
    int32_t planes; /* that attended units read */
    octavo_decode_attend *together; /* of attend_walk */
} fused_call;

/* What the scan of a task works with: floats [rows] padded to DECODE_ROWS. */
typedef struct fused_scan {
    float *max, *sum;   /* of the unit that is scanned          */
    float *log;         /* its log mass                         */
    float *logs;        /* [rows, split_units] of dropped units */
    const float *least; /* what a unit has to reach in some row */
    octavo_decode_ahead *ahead;
} fused_scan;

/* Largest base score and sum of exp(score - it) of a unit, for each row. */
static void fused_scan_unit(const decode_head *of, int64_t unit, const octavo_decode_span *next, octavo_decode_ahead *ahead,
                            float *max, float *sum)
{
    const decode_plan *plan = of->plan;
    const int64_t sub = plan->kv->sub_block_tokens;
    const int whole = head_sees(of, unit) == OCTAVO_UNIT_WHOLE;
    octavo_decode_span span;
    float factors[DECODE_TOKENS], scores[DECODE_ROWS * DECODE_TOKENS];
    for (int64_t r = 0; r < octavo_round_up(plan->rows, DECODE_ROWS); r++) max[r] = -INFINITY, sum[r] = 0.0f;
    for (int more = span_of_unit(of, unit, &span); more;
         more = span_next(of, span.token + span.tokens, (unit + 1) * sub, &span)) {
        ahead_of(of, next, 1, 0, ahead);
        span.ahead = ahead;
        next = NULL;
        span_k_factors(of, &span, factors);
        for (int64_t row = 0; row < plan->rows; row += DECODE_ROWS) {
            const int64_t left = plan->rows - row, rows = left < DECODE_ROWS ? left : DECODE_ROWS;
            const float *left_factors = span_scores(of, plan->dot_base, &span, factors, row, rows, whole, scores);
            for (int64_t r = 0; r < rows; r += ROW_GROUP)
                rows_add_mass(plan, ahead, scores + r * DECODE_TOKENS, group_of(rows - r), span_padded(&span), left_factors,
                              max + row + r, sum + row + r);
        }
        octavo_decode_fetch_rest(ahead);
    }
}

/* What a unit has to reach: the given threshold, or the largest base score in the first visible block and in the newest, less
 * delta. */
static void fused_threshold(void *argument, int64_t group)
{
    const fused_call *call = argument;
    const decode_plan *plan = &call->plan;
    const octavo_decode_fused_params *p = call->p;
    const decode_head of = head_open(plan, group, group * p->splits);
    const int64_t padded = octavo_round_up(plan->rows, DECODE_ROWS);
    float *least = plan->head_floats + group * plan->layout.head_floats;
    float *max = plan->task_floats + group * p->splits * plan->layout.task_floats, *sum = max + padded;
    for (int64_t row = 0; row < plan->rows; row++)
        least[row] =
            p->thresholds ? p->thresholds[of.b * p->in.q.shape[2] + of.head * plan->group + row / plan->q_tokens] : -INFINITY;
    const int64_t blocks[2] = {
        octavo_first_visible_block(plan->kv, of.length, plan->q_tokens, p->in.window, p->in.sink_tokens),
        octavo_newest_block(plan->kv, of.length),
    };
    octavo_decode_ahead nothing = { .work = 0 };
    plan_enter(plan);
    for (int side = 0; side < 2 && !p->thresholds && blocks[side] >= 0; side++)
        for (int64_t i = 0; i < plan->units_a_block && blocks[side] * plan->units_a_block + i < plan->units; i++) {
            fused_scan_unit(&of, blocks[side] * plan->units_a_block + i, NULL, &nothing, max, sum);
            for (int64_t row = 0; row < plan->rows; row++)
                if (max[row] > least[row]) least[row] = max[row];
        }
    plan_leave(plan);
    for (int64_t row = 0; row < plan->rows; row++) least[row] -= p->delta;
}

/* Whether DELTA keeps a unit that may be dropped; where it does not, its log masses are noted. */
static int fused_keeps(const fused_call *call, const decode_head *of, int64_t unit, int64_t end, int64_t in_split,
                       const fused_scan *scan)
{
    const decode_plan *plan = &call->plan;
    octavo_decode_span next;
    const int follows = unit + 1 < end && span_of_unit(of, unit + 1, &next);
    fused_scan_unit(of, unit, follows ? &next : NULL, scan->ahead, scan->max, scan->sum);
    for (int64_t row = 0; row < plan->rows; row++)
        if (scan->max[row] >= scan->least[row]) return 1;
    for (int64_t row = 0; row < plan->rows; row += SIMD_F32)
        v_store(scan->log + row, v_add(v_load(scan->max + row), v_log(v_load(scan->sum + row))));
    const int64_t each = octavo_split_units_of(plan->kv, call->p->splits, call->p->split_units);
    for (int64_t row = 0; row < plan->rows; row++) scan->logs[row * each + in_split] = scan->log[row];
    return 0;
}

/* Attends a unit; `next`: the one that will be attended after it, or NULL. */
static void fused_attend(const fused_call *call, const decode_head *of, int64_t unit, const octavo_decode_span *next,
                         octavo_decode_ahead *ahead, const attend_state *state)
{
    const int64_t sub = call->plan.kv->sub_block_tokens;
    const int whole = head_sees(of, unit) == OCTAVO_UNIT_WHOLE;
    octavo_decode_span span, after;
    for (int more = span_of_unit(of, unit, &span); more; span = after) {
        more = span_next(of, span.token + span.tokens, (unit + 1) * sub, &after);
        ahead_of(of, more ? &after : next, call->planes, 1, ahead);
        span.ahead = ahead;
        attend_span(of, call->dot, &span, whole, NULL, state);
    }
}

/* DELTA decides unit after unit; a kept one is attended when the next kept one is known, whose planes are fetched meanwhile. */
static void fused_delta(const fused_call *call, const decode_head *of, int64_t begin, int64_t end, const fused_scan *scan,
                        const attend_state *state, uint8_t *kept)
{
    const octavo_decode_fused_params *p = call->p;
    octavo_decode_span next;
    octavo_decode_ahead ahead = { .work = 0 };
    int64_t pending = -1;
    if (span_of_unit(of, begin, &next)) fetch_first(of, &next, 1, 0);
    for (int64_t unit = begin; unit < end; unit++) {
        const octavo_unit_view seen = head_sees(of, unit);
        int keeps = seen != OCTAVO_UNIT_INVISIBLE;
        if (seen == OCTAVO_UNIT_WHOLE &&
            !octavo_unit_fixed(call->plan.kv, of->length, unit, p->keep_first_blocks, p->keep_last_blocks))
            keeps = fused_keeps(call, of, unit, end, unit - begin, scan);
        if (kept) kept[unit] = (uint8_t)(!keeps && seen ? OCTAVO_UNIT_DROPPED : keeps ? OCTAVO_UNIT_KEPT : OCTAVO_UNIT_UNSEEN);
        if (!keeps) continue;
        if (pending >= 0 && span_of_unit(of, unit, &next)) fused_attend(call, of, pending, &next, &ahead, state);
        pending = unit;
    }
    if (pending >= 0) fused_attend(call, of, pending, NULL, &ahead, state);
}

/* NONE and BASE attend every visible unit. */
static void fused_every(const fused_call *call, const decode_head *of, int64_t begin, int64_t end, const attend_state *state,
                        uint8_t *kept)
{
    attend_walk walk = { .of = of, .states = state, .begin = begin, .end = end, .split_units = end - begin,
                         .planes = call->planes, .dot = call->dot, .together = call->together };
    for (int64_t unit = begin; kept && unit < end; unit++)
        kept[unit] = (uint8_t)(head_sees(of, unit) == OCTAVO_UNIT_INVISIBLE ? OCTAVO_UNIT_UNSEEN : OCTAVO_UNIT_KEPT);
    attend_all(&walk);
}

static void fused_task(void *argument, int64_t index)
{
    const fused_call *call = argument;
    const octavo_decode_fused_params *p = call->p;
    const decode_plan *plan = &call->plan;
    const decode_head of = head_open(plan, index / p->splits, index);
    const int64_t each = octavo_split_units_of(plan->kv, p->splits, p->split_units);
    const int64_t split = index % p->splits, begin = split * each, last = begin + each;
    const int64_t end = last < plan->units ? last : plan->units, first = of.group * plan->rows * p->splits + split;
    const int64_t padded = octavo_round_up(plan->rows, DECODE_ROWS);
    uint8_t *kept = p->kept ? p->kept + of.group * plan->units : NULL;
    float *floats = plan->task_floats + index * plan->layout.task_floats;
    const attend_state state = { floats, floats + padded, p->part_out + first * plan->kv->v_dim, p->splits * plan->kv->v_dim };
    octavo_decode_ahead scanned = { .work = 0 };
    const fused_scan scan = { floats + 2 * padded,
                              floats + 3 * padded,
                              floats + 4 * padded,
                              floats + 8 * padded,
                              plan->head_floats + of.group * plan->layout.head_floats,
                              &scanned };
    plan_enter(plan);
    attend_reset(plan, &state);
    if (p->rule == OCTAVO_SELECT_DELTA) fused_delta(call, &of, begin, end, &scan, &state, kept);
    else fused_every(call, &of, begin, end, &state, kept);
    for (int64_t row = 0; p->part_kept && row < plan->rows; row++)
        p->part_kept[first + row * p->splits] = attend_log(&state, row);
    const attend_logs logs = { scan.logs, begin, each };
    const int drops = kept && p->rule == OCTAVO_SELECT_DELTA;
    for (int64_t row = 0; p->part_dropped && row < plan->rows; row++)
        p->part_dropped[first + row * p->splits] = drops ? attend_dropped(plan, kept, &logs, row, begin, end) : -INFINITY;
    if (p->compensate == OCTAVO_COMPENSATE_MEAN && drops) {
        attend_mean_units dropped;
        int64_t unit = begin;
        attend_gather_means(&of, kept, &unit, end, &dropped);
        attend_dropped_means(&of, &state, kept, unit, end, &logs, &dropped);
    }
    attend_finish(&of, &state, p->part_lse + first, p->splits);
    plan_leave(plan);
}

octavo_status SIMD(decode_fused_by)(const octavo_exec *exec, const octavo_decode_fused_params *p,
                                    const octavo_decode_tiles *tiles)
{
    fused_call call = { .p = p, .plan = plan_open(exec, &p->in, tiles, octavo_decode_layout_fused(p)) };
    call.planes = p->rule == OCTAVO_SELECT_BASE ? 1 : p->in.planes;
    call.dot = call.planes == 1 ? call.plan.dot_base : call.plan.dot;
    call.together = attend_together_of(&call.plan, call.planes);
    if (p->rule == OCTAVO_SELECT_DELTA) octavo_parallel(exec, call.plan.layout.heads, fused_threshold, &call);
    octavo_parallel(exec, call.plan.layout.heads * p->splits, fused_task, &call);
    return OCTAVO_OK;
}
