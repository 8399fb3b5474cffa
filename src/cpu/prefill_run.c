/* prefill_run.c - the phases of a prefill call, and how its tasks are handed out. */
#include "base/parallel.h"
#include "cpu/prefill_tasks.h"

typedef struct phase {
    const octavo_prefill_call *call;
    const octavo_prefill_work *work;
    octavo_prefill_step *step;
    int64_t items; /* of a head */
} phase;

static int64_t take_ticket(const octavo_prefill_call *call)
{
    return __atomic_fetch_add((int64_t *)(void *)(call->workspace + call->layout.ticket), 1, __ATOMIC_RELAXED);
}

static uint8_t *lane_scratch(const octavo_prefill_call *call, int64_t lane)
{
    return call->workspace + call->layout.lanes_at + (size_t)lane * call->layout.lane_bytes;
}

static void step_lane(void *argument, int64_t lane)
{
    const phase *of = argument;
    float *scratch = (float *)(void *)lane_scratch(of->call, lane);
    for (int64_t next; (next = take_ticket(of->call)) < of->call->head_count * of->items;)
        of->step(of->call, next / of->items, next % of->items, scratch);
}

/* Tasks of a head from its last queries, which see most keys under a causal mask, to its first. */
static void attend_lane(void *argument, int64_t lane)
{
    const phase *of = argument;
    const octavo_prefill_call *call = of->call;
    const octavo_prefill_layout *at = &call->layout;
    const octavo_prefill_params *p = call->p;
    const int64_t each = at->parts * at->tiles;
    octavo_prefill_task task = { .scratch = lane_scratch(call, lane) };
    for (int64_t next; (next = take_ticket(call)) < call->head_count * each;) {
        const int64_t head = call->first_head + next / each, part = next % at->parts;
        task.slot = next / each, task.b = head / p->kv->kv_heads, task.head = head % p->kv->kv_heads;
        task.queries = octavo_prefill_queries(p, task.b);
        task.token = (at->tiles - 1 - next % each / at->parts) * at->task_tokens;
        task.tokens = task.queries - task.token < at->task_tokens ? task.queries - task.token : at->task_tokens;
        task.q_head = task.head * at->group + part * at->task_heads;
        task.heads = at->group - part * at->task_heads < at->task_heads ? at->group - part * at->task_heads : at->task_heads;
        task.rows = task.heads * task.tokens, task.padded_rows = octavo_prefill_round_up(task.rows, PREFILL_ROW_PAD);
        if (task.rows > 0) of->work->attend(call, &task);
    }
}

static void run_lanes(const phase *of, octavo_task lane)
{
    *(int64_t *)(void *)(of->call->workspace + of->call->layout.ticket) = 0;
    octavo_parallel(of->call->exec, of->call->layout.lanes, lane, (void *)of);
}

static void run_step(const octavo_prefill_call *call, octavo_prefill_step *step, int64_t items)
{
    const phase of = { .call = call, .step = step, .items = items };
    run_lanes(&of, step_lane);
}

octavo_status octavo_prefill_run(const octavo_exec *exec, const octavo_prefill_params *p, const octavo_prefill_work *work)
{
    octavo_prefill_call call = { .p = p, .exec = exec, .layout = octavo_prefill_layout_of(p, work->operands), .workspace = exec->workspace };
    const octavo_prefill_layout *at = &call.layout;
    const int sums = octavo_prefill_smooths_k(p) || octavo_prefill_smooths_v(p), rounds = octavo_prefill_rounds_v(p);
    const int most = (octavo_prefill_is_sage(p) && p->sage_scales == OCTAVO_SAGE_PER_TENSOR) ||
                     (p->precision == OCTAVO_ATTENTION_SAGE2 && rounds);
    for (call.first_head = 0; call.first_head < at->heads; call.first_head += at->together) {
        const int64_t left = at->heads - call.first_head;
        call.head_count = left < at->together ? left : at->together;
        if (sums) run_step(&call, work->sum, at->blocks);
        if (sums) run_step(&call, work->means, 1);
        else for (int64_t slot = 0; slot < call.head_count; slot++) work->means(&call, slot, 0, (float *)(void *)lane_scratch(&call, 0));
        if (most) run_step(&call, work->most, at->blocks);
        if (most) run_step(&call, work->scales, 1);
        if (rounds && work->rest) run_step(&call, work->rest, at->blocks);
        if (work->pack) run_step(&call, work->pack, at->keys / PREFILL_KEYS);
        if (rounds) run_step(&call, work->rests, 1);
        const phase of = { .call = &call, .work = work };
        run_lanes(&of, attend_lane);
    }
    return OCTAVO_OK;
}
