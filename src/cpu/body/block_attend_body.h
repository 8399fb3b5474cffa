/* block_attend_body.h - attention over the units that were kept, and the mean rows of the others. After a simd_<isa>.h. */
#include "cpu/body/attend_span_body.h"

octavo_status SIMD(block_attend_by)(const octavo_exec *exec, const octavo_block_attend_params *p,
                                    const octavo_decode_tiles *tiles);

typedef struct attend_call {
    const octavo_block_attend_params *p;
    decode_plan plan;
    int64_t task_splits, head_tasks;
} attend_call;

enum {
    ATTEND_TASKS_A_THREAD = 8, /* are enough for threads to share the work evenly */
    ATTEND_TASKS = 64,         /* where nobody knows how many threads there are   */
    ATTEND_SPLITS_MOST = 8
};

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

/* Where a task is on its way through the kept units of its splits. */
typedef struct attend_walk {
    const uint8_t *kept; /* [units] or NULL */
    int64_t last;        /* unit behind the task's last */
    octavo_decode_span span;
    octavo_decode_ahead ahead;
    int more; /* there is a span to come */
} attend_walk;

/* The spans that begin before unit `end`. */
static void attend_kept_units(const attend_call *call, const decode_head *of, int64_t end, const attend_state *state,
                              attend_walk *walk)
{
    const decode_plan *plan = &call->plan;
    const float *given = call->p->scores ? call->p->scores + of->group * plan->rows * plan->kv->max_tokens : NULL;
    while (walk->more && walk->span.token < end * plan->kv->sub_block_tokens) {
        octavo_decode_span next;
        const int whole = head_sees(of, walk->span.token / plan->kv->sub_block_tokens) == OCTAVO_UNIT_WHOLE;
        walk->more = attend_next(of, walk->kept, &walk->span, walk->last, &next);
        ahead_of(of, walk->more ? &next : NULL, given ? 0 : plan->in->planes, 1, &walk->ahead);
        walk->span.ahead = &walk->ahead;
        attend_span(of, plan->dot, &walk->span, whole, given, state);
        if (walk->more) walk->span = next;
    }
}

static void attend_split(const attend_call *call, const decode_head *of, int64_t split, int64_t begin, int64_t end, float *floats,
                         attend_walk *walk)
{
    const octavo_block_attend_params *p = call->p;
    const decode_plan *plan = &call->plan;
    const int64_t first = of->group * plan->rows * p->splits + split;
    const uint8_t *kept = walk->kept;
    const attend_state state = { floats, floats + octavo_decode_round_up(plan->rows, DECODE_ROWS),
                                 p->part_out + first * plan->kv->v_dim, p->splits * plan->kv->v_dim };
    attend_reset(plan, &state);
    attend_kept_units(call, of, end, &state, walk);
    for (int64_t row = 0; p->part_kept && row < plan->rows; row++)
        p->part_kept[first + row * p->splits] = attend_log(&state, row);
    const float *bounds = p->log_upper ? p->log_upper : p->log_mass;
    const attend_logs bound = { bounds ? bounds + of->group * plan->rows * plan->units : NULL, 0, plan->units };
    const attend_logs mass = { p->log_mass ? p->log_mass + of->group * plan->rows * plan->units : NULL, 0, plan->units };
    for (int64_t row = 0; p->part_dropped && row < plan->rows; row++)
        p->part_dropped[first + row * p->splits] =
            kept && bounds ? attend_dropped(plan, kept, &bound, row, begin, end) : -INFINITY;
    if (p->compensate == OCTAVO_COMPENSATE_MEAN && kept && p->log_mass)
        attend_dropped_means(of, &state, kept, begin, end, &mass);
    attend_finish(of, &state, p->part_lse + first, p->splits);
}

/* A task takes some splits of one head, so that the first keys of each but the first are on their way when it begins. */
static void attend_task(void *argument, int64_t index)
{
    const attend_call *call = argument;
    const octavo_block_attend_params *p = call->p;
    const decode_plan *plan = &call->plan;
    const decode_head of = head_open(plan, index / call->head_tasks);
    const int64_t each = octavo_split_units_of(plan->kv, p->splits, p->split_units), from = index % call->head_tasks * call->task_splits;
    const int64_t to = from + call->task_splits < p->splits ? from + call->task_splits : p->splits;
    float *floats = plan->task_floats + index * plan->layout.task_floats;
    attend_walk walk = { .kept = p->kept ? p->kept + of.group * plan->units : NULL,
                         .last = to * each < plan->units ? to * each : plan->units };
    walk.more = attend_first(&of, walk.kept, from * each, walk.last, &walk.span);
    plan_enter(plan);
    if (walk.more) fetch_first(&of, &walk.span, p->scores ? 0 : plan->in->planes, 1);
    for (int64_t split = from; split < to; split++) {
        const int64_t begin = split * each, end = begin + each < walk.last ? begin + each : walk.last;
        attend_split(call, &of, split, begin < end ? begin : end, end, floats, &walk);
    }
    plan_leave(plan);
}

octavo_status SIMD(block_attend_by)(const octavo_exec *exec, const octavo_block_attend_params *p,
                                    const octavo_decode_tiles *tiles)
{
    attend_call call = { .p = p, .plan = plan_open(exec, &p->in, tiles, octavo_decode_layout_attend(p)) };
    const int64_t threads = octavo_parallel_threads(exec), tasks = threads > 0 ? threads * ATTEND_TASKS_A_THREAD : ATTEND_TASKS;
    const int64_t splits = call.plan.layout.heads * p->splits / tasks;
    call.task_splits = splits < 1 ? 1 : splits > ATTEND_SPLITS_MOST ? ATTEND_SPLITS_MOST : splits;
    call.head_tasks = (p->splits + call.task_splits - 1) / call.task_splits;
    octavo_parallel(exec, call.plan.layout.heads * call.head_tasks, attend_task, &call);
    return OCTAVO_OK;
}
