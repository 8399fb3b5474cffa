/* block_attend_body.h - attention over the units that were kept, and the mean rows of the others. After a simd_<isa>.h. */
#include "cpu/body/attend_walk_body.h"

octavo_status SIMD(block_attend_by)(const octavo_exec *exec, const octavo_block_attend_params *p,
                                    const octavo_decode_tiles *tiles);

typedef struct attend_call {
    const octavo_block_attend_params *p;
    decode_plan plan;
    int64_t task_splits, head_tasks, split_units;
    octavo_decode_attend *together; /* of attend_walk */
} attend_call;

enum {
    ATTEND_TASKS_A_THREAD = 4, /* are enough for threads to share the work evenly */
    ATTEND_TASKS = 64,         /* where nobody knows how many threads there are   */
    ATTEND_SPLITS_MOST = 8
};

/* The sums of a split. */
static attend_state attend_state_of(const attend_call *call, const decode_head *of, int64_t split)
{
    const octavo_block_attend_params *p = call->p;
    const decode_plan *plan = &call->plan;
    float *floats = plan->task_floats + (of->group * p->splits + split) * plan->layout.task_floats;
    float *out = p->part_out + (of->group * plan->rows * p->splits + split) * plan->kv->v_dim;
    return (attend_state){ floats, floats + octavo_round_up(plan->rows, DECODE_ROWS), out, p->splits * plan->kv->v_dim };
}

/* Which of a split's units were dropped: [*unit, end) are still to be looked for. */
static void attend_begin_means(const attend_call *call, const decode_head *of, int64_t split, int64_t *unit,
                               attend_mean_units *dropped)
{
    const octavo_block_attend_params *p = call->p;
    const int64_t units = call->plan.units, begin = split * call->split_units, end = begin + call->split_units;
    *unit = begin < units ? begin : units;
    dropped->count = 0;
    if (p->compensate == OCTAVO_COMPENSATE_MEAN && p->kept && p->log_mass)
        attend_gather_means(of, p->kept + of->group * units, unit, end < units ? end : units, dropped);
}

/* What follows a split's kept units. */
static void attend_close(const attend_call *call, const decode_head *of, int64_t split, const attend_state *state, int64_t unit,
                         attend_mean_units *dropped)
{
    const octavo_block_attend_params *p = call->p;
    const decode_plan *plan = &call->plan;
    const int64_t first = of->group * plan->rows * p->splits + split, begin = split * call->split_units;
    const int64_t end = begin + call->split_units < plan->units ? begin + call->split_units : plan->units;
    const uint8_t *kept = p->kept ? p->kept + of->group * plan->units : NULL;
    const float *bounds = p->log_upper ? p->log_upper : p->log_mass;
    const attend_logs bound = { bounds ? bounds + of->group * plan->rows * plan->units : NULL, 0, plan->units };
    const attend_logs mass = { p->log_mass ? p->log_mass + of->group * plan->rows * plan->units : NULL, 0, plan->units };
    for (int64_t row = 0; p->part_kept && row < plan->rows; row++)
        p->part_kept[first + row * p->splits] = attend_log(state, row);
    for (int64_t row = 0; p->part_dropped && row < plan->rows; row++)
        p->part_dropped[first + row * p->splits] =
            kept && bounds ? attend_dropped(plan, kept, &bound, row, begin, end) : -INFINITY;
    attend_dropped_means(of, state, kept, unit, end, &mass, dropped);
    attend_finish(of, state, p->part_lse + first, p->splits);
}

/* A task takes some splits of one head, so that the first keys of each but the first are on their way when it begins; the mean
 * rows of the first split are, while kept units are attended, and those of the others during the split before. */
static void attend_task(void *argument, int64_t index)
{
    const attend_call *call = argument;
    const octavo_block_attend_params *p = call->p;
    const decode_plan *plan = &call->plan;
    const int64_t group = index / call->head_tasks, from = index % call->head_tasks * call->task_splits;
    const decode_head of = head_open(plan, group, group * p->splits + from);
    const int64_t to = from + call->task_splits < p->splits ? from + call->task_splits : p->splits, last = to * call->split_units;
    attend_state states[ATTEND_SPLITS_MOST];
    attend_mean_units dropped[2];
    int64_t unit[2];
    attend_walk walk = { .of = &of, .kept = p->kept ? p->kept + of.group * plan->units : NULL,
                         .given = p->scores ? p->scores + of.group * plan->rows * plan->kv->max_tokens : NULL, .states = states,
                         .begin = from * call->split_units, .end = last < plan->units ? last : plan->units,
                         .split_units = call->split_units, .planes = p->in.planes, .dot = plan->dot, .together = call->together };
    plan_enter(plan);
    for (int64_t split = from; split < to; split++) {
        states[split - from] = attend_state_of(call, &of, split);
        attend_reset(plan, &states[split - from]);
    }
    attend_begin_means(call, &of, from, &unit[0], &dropped[0]);
    attend_all(&walk);
    for (int64_t split = from, turn = 0; split < to; split++, turn = !turn) {
        if (split + 1 < to) attend_begin_means(call, &of, split + 1, &unit[!turn], &dropped[!turn]);
        attend_close(call, &of, split, &states[split - from], unit[turn], &dropped[turn]);
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
    call.split_units = octavo_split_units_of(p->in.kv, p->splits, p->split_units);
    call.together = p->scores ? NULL : attend_together_of(&call.plan, p->in.planes);
    octavo_parallel(exec, call.plan.layout.heads * call.head_tasks, attend_task, &call);
    return OCTAVO_OK;
}
