/* decode.c - the public decode call: validates, plans, and runs the operations of the device's table in order. */
#include "attention/decode_plan.h"
#include "base/error.h"
#include "device/device.h"
#include "kernel/visibility.h"

/* One running call. */
typedef struct decode_call {
    const octavo_decode_params *params;
    const octavo_kernels *kernels;
    octavo_decode_plan plan;
    uint8_t *workspace;
    octavo_exec exec; /* the caller's, its workspace narrowed to the operations' scratch */
} decode_call;

static float *floats(const decode_call *call, int64_t offset)
{
    return offset == OCTAVO_PLAN_ABSENT ? NULL : (float *)(void *)(call->workspace + offset);
}

static uint8_t *bytes(const decode_call *call, int64_t offset)
{
    return offset == OCTAVO_PLAN_ABSENT ? NULL : call->workspace + offset;
}

/* The mask that the rules write: the caller's where one is wanted. */
static uint8_t *kept_mask(const decode_call *call)
{
    return call->params->kept ? call->params->kept : bytes(call, call->plan.kept);
}

/* Where a kernel may merge by itself: nothing but the splits' parts is to be added up. */
static octavo_tensor merged_out(const decode_call *call)
{
    const octavo_decode_params *params = call->params;
    return params->sink_logits || params->kv->k_mean || params->dropped_mass ? (octavo_tensor){ 0 } : params->out;
}

/* *merged: whether the kernel merged, too. */
static octavo_status run_fused(const decode_call *call, int *merged)
{
    const octavo_decode_params *params = call->params;
    const octavo_decode_fused_params fused = {
        .in = call->plan.in, .rule = params->select, .delta = params->delta, .thresholds = params->thresholds,
        .compensate = params->compensate, .keep_first_blocks = params->keep_first_blocks,
        .keep_last_blocks = params->keep_last_blocks, .splits = call->plan.splits, .split_units = call->plan.split_units,
        .kept = kept_mask(call), .part_out = floats(call, call->plan.part_out), .part_lse = floats(call, call->plan.part_lse),
        .part_kept = floats(call, call->plan.part_kept), .part_dropped = floats(call, call->plan.part_dropped),
        .merged_out = merged_out(call), .merged_lse = params->lse, .merged = merged,
    };
    return call->kernels->decode_fused(&call->exec, &fused);
}

static octavo_block_select_params select_params(const decode_call *call)
{
    const octavo_decode_params *params = call->params;
    return (octavo_block_select_params){
        .kv = params->kv, .q_heads = params->q.shape[2], .q_tokens = params->q.shape[1], .window = call->plan.in.window,
        .sink_tokens = call->plan.in.sink_tokens, .sink_logits = params->sink_logits, .rule = params->select,
        .epsilon = params->epsilon, .keep_first_blocks = params->keep_first_blocks, .keep_last_blocks = params->keep_last_blocks,
        .log_mass = floats(call, call->plan.log_mass), .log_upper = floats(call, call->plan.log_upper),
        .log_lower = floats(call, call->plan.log_lower), .kept = kept_mask(call),
    };
}

/* CERTIFIED's second look: exact scores of what was kept, kept for block_attend, decide whose V is read. */
static octavo_status refine(const decode_call *call, const octavo_block_score_params *first, octavo_block_select_params *select)
{
    uint8_t *kept_first = bytes(call, call->plan.kept_first);
    const int64_t count = call->params->kv->batch * call->params->kv->kv_heads * call->plan.units;
    OCTAVO_TRY(octavo_device_copy(&call->exec, kept_first, select->kept, (size_t)count));
    octavo_block_score_params exact = *first;
    exact.in.planes = call->plan.in.planes;
    exact.only   = kept_first;
    exact.scores = floats(call, call->plan.scores);
    OCTAVO_TRY(call->kernels->block_score(&call->exec, &exact));
    select->stage = OCTAVO_STAGE_REFINE;
    return call->kernels->block_select(&call->exec, select);
}

static octavo_status run_two_pass(const decode_call *call, int *merged)
{
    const octavo_decode_params *params = call->params;
    const octavo_decode_plan *plan = &call->plan;
    octavo_block_score_params score = { .in = plan->in, .log_mass = floats(call, plan->log_mass),
                                        .log_upper = floats(call, plan->log_upper), .log_lower = floats(call, plan->log_lower) };
    score.in.planes = 1;
    OCTAVO_TRY(call->kernels->block_score(&call->exec, &score));
    octavo_block_select_params select = select_params(call);
    OCTAVO_TRY(call->kernels->block_select(&call->exec, &select));
    if (params->select == OCTAVO_SELECT_CERTIFIED) OCTAVO_TRY(refine(call, &score, &select));
    const octavo_block_attend_params attend = {
        .in = plan->in, .kept = select.kept, .scores = floats(call, plan->scores), .log_mass = score.log_mass,
        .log_upper = score.log_upper, .compensate = params->compensate, .splits = plan->splits, .split_units = plan->split_units,
        .part_out = floats(call, plan->part_out), .part_lse = floats(call, plan->part_lse),
        .part_kept = floats(call, plan->part_kept), .part_dropped = floats(call, plan->part_dropped),
        .merged_out = merged_out(call), .merged_lse = params->lse, .merged = merged,
    };
    return call->kernels->block_attend(&call->exec, &attend);
}

static octavo_status merge(const decode_call *call)
{
    const octavo_decode_params *params = call->params;
    const octavo_kv_view *kv = params->kv;
    const octavo_partial_merge_params merged = {
        .batch = kv->batch, .kv_heads = kv->kv_heads, .group = params->q.shape[2] / kv->kv_heads, .q_tokens = params->q.shape[1],
        .v_dim = kv->v_dim, .splits = call->plan.splits, .part_out = floats(call, call->plan.part_out),
        .part_lse = floats(call, call->plan.part_lse), .part_kept = floats(call, call->plan.part_kept),
        .part_dropped = floats(call, call->plan.part_dropped), .sink_logits = params->sink_logits, .lse_shift_q = params->q,
        .lse_shift_mean = kv->k_mean, .lse_shift_rows = kv->sequences, .softmax_scale = call->plan.in.softmax_scale,
        .out = params->out, .lse = params->lse, .dropped_mass = params->dropped_mass,
    };
    return call->kernels->partial_merge(&call->exec, &merged);
}

static octavo_status account(const decode_call *call)
{
    const octavo_decode_params *params = call->params;
    if (!params->skip_ratio && !params->skip_ratio_first && !params->bytes_read) return OCTAVO_OK;
    const octavo_decode_stats_params stats = {
        .kv = params->kv, .q_tokens = params->q.shape[1], .window = call->plan.in.window, .sink_tokens = call->plan.in.sink_tokens,
        .rule = params->select, .compensate = params->compensate, .thresholds = params->thresholds, .kept = kept_mask(call),
        .kept_first = bytes(call, call->plan.kept_first), .skip_ratio = params->skip_ratio,
        .skip_ratio_first = params->skip_ratio_first, .bytes_read = params->bytes_read,
    };
    return call->kernels->decode_stats(&call->exec, &stats);
}

/* Every entry that the call will use. */
static octavo_status check_entries(const octavo_exec *exec, const octavo_kernels *kernels, const octavo_decode_params *params)
{
    const int two_pass = params->select == OCTAVO_SELECT_MASS || params->select == OCTAVO_SELECT_CERTIFIED;
    const int stats = params->skip_ratio || params->skip_ratio_first || params->bytes_read;
    const char *missing = two_pass && !kernels->block_score      ? "block_score"
                          : two_pass && !kernels->block_select   ? "block_select"
                          : two_pass && !kernels->block_attend   ? "block_attend"
                          : !two_pass && !kernels->decode_fused  ? "decode_fused"
                          : !kernels->partial_merge              ? "partial_merge"
                          : stats && !kernels->decode_stats      ? "decode_stats"
                                                                 : NULL;
    if (!missing) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no %s", octavo_device_name(exec->device), missing);
}

octavo_status octavo_attention_decode_workspace(const octavo_exec *exec, const octavo_decode_params *params, size_t *bytes_needed)
{
    const octavo_kernels *kernels = NULL;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!bytes_needed) return octavo_fail(OCTAVO_E_ARGUMENT, "bytes is NULL, expected where to put the size");
    *bytes_needed = 0;
    octavo_decode_plan plan;
    OCTAVO_TRY(octavo_decode_validate(exec, params));
    OCTAVO_TRY(octavo_decode_plan_make(params, octavo_device_processors(exec->device), &plan));
    *bytes_needed = plan.bytes;
    return OCTAVO_OK;
}

octavo_status octavo_attention_decode(const octavo_exec *exec, const octavo_decode_params *params)
{
    decode_call call = { .params = params };
    OCTAVO_TRY(octavo_exec_check(exec, &call.kernels));
    OCTAVO_TRY(octavo_decode_validate(exec, params));
    OCTAVO_TRY(check_entries(exec, call.kernels, params));
    OCTAVO_TRY(octavo_decode_plan_make(params, octavo_device_processors(exec->device), &call.plan));
    if (exec->workspace_bytes < call.plan.bytes || !exec->workspace || (uintptr_t)exec->workspace % 64)
        return octavo_fail(OCTAVO_E_RANGE, "exec.workspace has %zu bytes at %p, expected %zu bytes, 64-byte aligned",
                           exec->workspace_bytes, exec->workspace, call.plan.bytes);
    call.workspace = exec->workspace;
    call.exec = *exec;
    call.exec.workspace = call.workspace + call.plan.scratch;
    call.exec.workspace_bytes = call.plan.scratch_bytes;
    const int two_pass = params->select == OCTAVO_SELECT_MASS || params->select == OCTAVO_SELECT_CERTIFIED;
    int merged = 0;
    OCTAVO_TRY(two_pass ? run_two_pass(&call, &merged) : run_fused(&call, &merged));
    if (!merged) OCTAVO_TRY(merge(&call));
    return account(&call);
}
