/* decode_plan.c - splits, variant and workspace of a decode call. */
#include "attention/decode_plan.h"
#include "base/checked.h"
#include "base/error.h"
#include "kernel/visibility.h"

enum {
    SPLIT_TOKENS_LEAST = 2048, /* a split's partial result is then under 1 % of the bytes that it reads */
    SPLIT_TOKENS_MOST  = 4096, /* longer ones leave cores idle at the end */
    SPLITS_WANTED      = 32,
    SPLITS_A_PROCESSOR = 2, /* blocks that a multiprocessor runs at a time */
    PLAN_ALIGN         = 64,
};
static const int64_t PLAN_BYTES_MAX = INT64_MAX / 4;

static int64_t split_tokens(int64_t max_tokens)
{
    const int64_t tokens = max_tokens / SPLITS_WANTED;
    return tokens < SPLIT_TOKENS_LEAST ? SPLIT_TOKENS_LEAST : tokens < SPLIT_TOKENS_MOST ? tokens : SPLIT_TOKENS_MOST;
}

/* Splits that fill a GPU once: its kernels give all of them the same share of what a sequence holds. */
static int64_t gpu_splits(int64_t heads, int64_t units, int32_t processors)
{
    const int64_t slots = (int64_t)SPLITS_A_PROCESSOR * processors, splits = heads < slots ? slots / heads : 1;
    return splits < units ? splits : units;
}

/* Reserves count * bytes; sticks at PLAN_BYTES_MAX where that overflows. */
static int64_t take(int64_t *end, int64_t count, int64_t bytes)
{
    int64_t size = 0;
    const int64_t begin = *end;
    if (begin >= PLAN_BYTES_MAX || !octavo_checked_mul_int64(count, bytes, &size) || size > PLAN_BYTES_MAX - begin - PLAN_ALIGN)
        return *end = PLAN_BYTES_MAX;
    *end = begin + (size + PLAN_ALIGN - 1) / PLAN_ALIGN * PLAN_ALIGN;
    return begin;
}

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

/* The largest workspace that one of the call's operations asks for. */
static size_t operations_bytes(const octavo_decode_params *params, const octavo_decode_plan *plan)
{
    if (params->select == OCTAVO_SELECT_MASS || params->select == OCTAVO_SELECT_CERTIFIED) {
        const octavo_block_score_params score = { .in = plan->in };
        const octavo_block_attend_params attend = { .in = plan->in, .splits = plan->splits, .split_units = plan->split_units };
        return larger(octavo_block_score_workspace(&score), octavo_block_attend_workspace(&attend));
    }
    const octavo_decode_fused_params fused = { .in = plan->in, .rule = params->select, .splits = plan->splits,
                                               .split_units = plan->split_units };
    return octavo_decode_fused_workspace(&fused);
}

octavo_status octavo_decode_plan_make(const octavo_decode_params *params, int32_t processors, octavo_decode_plan *plan)
{
    const octavo_kv_view *kv = params->kv;
    const int64_t per_block = kv->block_tokens / kv->sub_block_tokens, heads = kv->batch * kv->kv_heads;
    const int64_t tokens = split_tokens(kv->max_tokens), split_blocks = kv->block_tokens < tokens ? tokens / kv->block_tokens : 1;
    *plan = (octavo_decode_plan){
        .in = { .kv = kv, .q = params->q, .soft_cap = params->soft_cap, .window = params->window,
                .sink_tokens  = params->window > 0 ? params->sink_tokens : 0,
                .softmax_scale = params->softmax_scale != 0.0f ? params->softmax_scale : 1.0f / sqrtf((float)kv->head_dim),
                .planes = octavo_k_plane_count(kv->k_format), .precision = params->precision },
        .rows = params->q.shape[2] / kv->kv_heads * params->q.shape[1], .units = octavo_view_units(kv),
        .split_units = split_blocks * per_block,
        .log_mass = OCTAVO_PLAN_ABSENT, .log_upper = OCTAVO_PLAN_ABSENT, .log_lower = OCTAVO_PLAN_ABSENT,
        .scores = OCTAVO_PLAN_ABSENT, .kept = OCTAVO_PLAN_ABSENT, .kept_first = OCTAVO_PLAN_ABSENT,
        .part_kept = OCTAVO_PLAN_ABSENT, .part_dropped = OCTAVO_PLAN_ABSENT,
    };
    plan->splits = (plan->units + plan->split_units - 1) / plan->split_units;
    if (processors > 0 && params->splits == OCTAVO_SPLITS_FILL) plan->split_units = 0, plan->splits = gpu_splits(heads, plan->units, processors);
    const int two_pass = params->select == OCTAVO_SELECT_MASS || params->select == OCTAVO_SELECT_CERTIFIED;
    const int certified = params->select == OCTAVO_SELECT_CERTIFIED;
    int64_t end = 0, unit_values = 0, token_values = 0, parts = 0;
    if (!octavo_checked_mul_int64(heads * plan->rows, plan->units, &unit_values) ||
        !octavo_checked_mul_int64(heads * plan->rows, kv->max_tokens, &token_values) ||
        !octavo_checked_mul_int64(heads * plan->rows, plan->splits, &parts) || parts > PLAN_BYTES_MAX / kv->v_dim)
        return octavo_fail(OCTAVO_E_RANGE, "kv.max_tokens is %lld, expected a call whose workspace fits in memory",
                           (long long)kv->max_tokens);
    if (two_pass) plan->log_mass = take(&end, unit_values, sizeof(float));
    if (certified) {
        plan->log_upper  = take(&end, unit_values, sizeof(float));
        plan->log_lower  = take(&end, unit_values, sizeof(float));
        plan->scores     = take(&end, token_values, sizeof(float));
        plan->kept_first = take(&end, heads * plan->units, 1);
    }
    if (two_pass || params->select == OCTAVO_SELECT_DELTA) plan->kept = take(&end, heads * plan->units, 1);
    plan->part_out = take(&end, parts * kv->v_dim, sizeof(float));
    plan->part_lse = take(&end, parts, sizeof(float));
    if (params->dropped_mass) {
        plan->part_kept    = take(&end, parts, sizeof(float));
        plan->part_dropped = take(&end, parts, sizeof(float));
    }
    plan->scratch_bytes = operations_bytes(params, plan);
    plan->scratch = plan->scratch_bytes > (size_t)PLAN_BYTES_MAX ? take(&end, PLAN_BYTES_MAX, 2)
                                                                 : take(&end, (int64_t)plan->scratch_bytes, 1);
    if (end >= PLAN_BYTES_MAX)
        return octavo_fail(OCTAVO_E_RANGE, "kv.max_tokens is %lld, expected a call whose workspace fits in memory",
                           (long long)kv->max_tokens);
    plan->bytes = (size_t)end;
    return OCTAVO_OK;
}
