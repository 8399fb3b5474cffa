/* block_attend_body.h - attention over the units that were kept, and the mean rows of the others. After a simd_<isa>.h. */
#include "cpu/body/attend_span_body.h"

octavo_status SIMD(block_attend_by)(const octavo_exec *exec, const octavo_block_attend_params *p,
                                    const octavo_decode_tiles *tiles);

typedef struct attend_call {
    const octavo_block_attend_params *p;
    decode_plan plan;
} attend_call;

/* The first span of the first kept unit in [unit, last). */
static int attend_first(const decode_head *of, const uint8_t *kept, int64_t unit, int64_t last, octavo_decode_span *first)
{
    for (; unit < last && unit * of->plan->kv->sub_block_tokens < of->sight.any.end; unit++)
        if ((!kept || kept[unit] == OCTAVO_UNIT_KEPT) && span_of_unit(of, unit, first)) return 1;
    return 0;
}

/* The span after `span`: of its unit, or of the next kept one. */
static int attend_next(const decode_head *of, const uint8_t *kept, const octavo_decode_span *span, int64_t last,
                       octavo_decode_span *next)
{
    const int64_t sub = of->plan->kv->sub_block_tokens, unit = span->token / sub;
    if (span_next(of, span->token + span->tokens, (unit + 1) * sub, next)) return 1;
    return attend_first(of, kept, unit + 1, last, next);
}

static void attend_kept_units(const attend_call *call, const decode_head *of, const uint8_t *kept, int64_t begin, int64_t end,
                              const attend_state *state)
{
    const decode_plan *plan = &call->plan;
    const float *given = call->p->scores ? call->p->scores + of->group * plan->rows * plan->kv->max_tokens : NULL;
    octavo_decode_span span, next;
    octavo_decode_ahead ahead = { .work = 0 };
    int more = attend_first(of, kept, begin, end, &span);
    if (more) fetch_first(of, &span, given ? 0 : plan->in->planes, 1);
    for (; more; span = next) {
        const int whole = head_sees(of, span.token / plan->kv->sub_block_tokens) == OCTAVO_UNIT_WHOLE;
        more = attend_next(of, kept, &span, end, &next);
        ahead_of(of, more ? &next : NULL, given ? 0 : plan->in->planes, 1, &ahead);
        span.ahead = &ahead;
        attend_span(of, plan->dot, &span, whole, given, state);
    }
}

static void attend_task(void *argument, int64_t index)
{
    const attend_call *call = argument;
    const octavo_block_attend_params *p = call->p;
    const decode_plan *plan = &call->plan;
    const decode_head of = head_open(plan, index / p->splits);
    const int64_t split = index % p->splits, begin = split * p->split_units, last = begin + p->split_units;
    const int64_t end = last < plan->units ? last : plan->units, first = of.group * plan->rows * p->splits + split;
    const uint8_t *kept = p->kept ? p->kept + of.group * plan->units : NULL;
    float *floats = plan->task_floats + index * plan->layout.task_floats;
    const attend_state state = { floats, floats + octavo_decode_round_up(plan->rows, DECODE_ROWS),
                                 p->part_out + first * plan->kv->v_dim, p->splits * plan->kv->v_dim };
    plan_enter(plan);
    attend_reset(plan, &state);
    attend_kept_units(call, &of, kept, begin, end, &state);
    for (int64_t row = 0; p->part_kept && row < plan->rows; row++)
        p->part_kept[first + row * p->splits] = attend_log(&state, row);
    const float *bounds = p->log_upper ? p->log_upper : p->log_mass;
    const attend_logs bound = { bounds ? bounds + of.group * plan->rows * plan->units : NULL, 0, plan->units };
    const attend_logs mass = { p->log_mass ? p->log_mass + of.group * plan->rows * plan->units : NULL, 0, plan->units };
    for (int64_t row = 0; p->part_dropped && row < plan->rows; row++)
        p->part_dropped[first + row * p->splits] =
            kept && bounds ? attend_dropped(plan, kept, &bound, row, begin, end) : -INFINITY;
    if (p->compensate == OCTAVO_COMPENSATE_MEAN && kept && p->log_mass)
        attend_dropped_means(&of, &state, kept, begin, end, &mass);
    attend_finish(&of, &state, p->part_lse + first, p->splits);
    plan_leave(plan);
}

octavo_status SIMD(block_attend_by)(const octavo_exec *exec, const octavo_block_attend_params *p,
                                    const octavo_decode_tiles *tiles)
{
    attend_call call = { .p = p, .plan = plan_open(exec, &p->in, tiles, octavo_decode_layout_attend(p)) };
    octavo_parallel(exec, call.plan.layout.heads * p->splits, attend_task, &call);
    return OCTAVO_OK;
}
