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
        task.rows = task.heads * task.tokens, task.padded_rows = octavo_round_up(task.rows, PREFILL_ROW_PAD);
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

/* Means of the heads from call->first_head on, and what their scales are made of. */
static void find_facts(octavo_prefill_call *call, const octavo_prefill_work *work)
{
    const octavo_prefill_params *p = call->p;
    const octavo_prefill_layout *at = &call->layout;
    const int64_t left = at->heads - call->first_head;
    const int channels = p->precision == OCTAVO_ATTENTION_SAGE2 && octavo_prefill_rounds_v(p);
    call->head_count = left < at->together ? left : at->together;
    if (octavo_prefill_smooths_k(p) || octavo_prefill_smooths_v(p)) {
        run_step(call, work->sum, at->blocks);
        run_step(call, work->means, 1);
    } else {
        for (int64_t slot = 0; slot < call->head_count; slot++) work->means(call, slot, 0, (float *)(void *)lane_scratch(call, 0));
    }
    if (!channels && !octavo_prefill_seeks_q(p) && !octavo_prefill_seeks_k(p) && !octavo_prefill_seeks_v(p)) return;
    run_step(call, work->most, at->blocks);
    run_step(call, work->scales, 1);
}

/* Largest magnitudes of the whole call. */
typedef struct tensor_most {
    float q, k, v;
} tensor_most;

static float larger(float a, float b) { return a > b ? a : b; }

/* PER_TENSOR: of all heads, before one is encoded. */
static tensor_most find_tensor_most(octavo_prefill_call *call, const octavo_prefill_work *work)
{
    tensor_most all = { 0.0f, 0.0f, 0.0f };
    for (call->first_head = 0; call->first_head < call->layout.heads; call->first_head += call->layout.together) {
        find_facts(call, work);
        for (int64_t slot = 0; slot < call->head_count; slot++) {
            const octavo_prefill_facts facts = octavo_prefill_facts_of(call, slot);
            if (octavo_prefill_seeks_k(call->p)) all.k = larger(all.k, facts.k_most[0]);
            if (octavo_prefill_seeks_v(call->p)) all.v = larger(all.v, facts.v_most[0]);
            for (int64_t g = 0; octavo_prefill_seeks_q(call->p) && g < call->layout.group; g++) all.q = larger(all.q, facts.q_most[g]);
        }
    }
    return all;
}

/* What the caller has given and what was found of all heads, to where each head finds it. */
static void share_most(const octavo_prefill_call *call, const tensor_most *all)
{
    const octavo_prefill_params *p = call->p;
    const int tensor = p->scales == OCTAVO_PREFILL_PER_TENSOR;
    const int64_t group = call->layout.group;
    for (int64_t slot = 0; slot < call->head_count; slot++) {
        const octavo_prefill_facts facts = octavo_prefill_facts_of(call, slot);
        const int64_t head = tensor ? 0 : (call->first_head + slot) % p->kv->kv_heads;
        if (tensor) facts.k_most[0] = all->k, facts.v_most[0] = all->v;
        if (p->k_amax) facts.k_most[0] = p->k_amax[head];
        if (p->v_amax) facts.v_most[0] = p->v_amax[head];
        for (int64_t g = 0; g < group; g++) {
            if (tensor) facts.q_most[g] = all->q;
            if (p->q_amax) facts.q_most[g] = p->q_amax[tensor ? 0 : head * group + g];
        }
    }
}

octavo_status octavo_prefill_run(const octavo_exec *exec, const octavo_prefill_params *p, const octavo_prefill_work *work)
{
    octavo_prefill_call call = { .p = p, .exec = exec, .layout = octavo_prefill_layout_of(p, work->operands), .workspace = exec->workspace };
    const octavo_prefill_layout *at = &call.layout;
    const int rounds = octavo_prefill_rounds_v(p), whole = octavo_prefill_scales_whole(p), tensor = whole && p->scales == OCTAVO_PREFILL_PER_TENSOR;
    const tensor_most all = tensor ? find_tensor_most(&call, work) : (tensor_most){ 0.0f, 0.0f, 0.0f };
    for (call.first_head = 0; call.first_head < at->heads; call.first_head += at->together) {
        if (!tensor || at->together < at->heads) find_facts(&call, work); /* else what was found of all is still there */
        if (whole) share_most(&call, &all);
        if (rounds && work->rest) run_step(&call, work->rest, at->blocks);
        if (work->pack) run_step(&call, work->pack, at->keys / PREFILL_KEYS);
        if (rounds) run_step(&call, work->rests, 1);
        const phase of = { .call = &call, .work = work };
        run_lanes(&of, attend_lane);
    }
    return OCTAVO_OK;
}
