/* prefill_validate.c - what a prefill call may not ask. */
#include "attention/prefill_validate.h"
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "kernel/prefill_plan.h"
#include "kvcache/kv_view_check.h"
#include <float.h>
#include <math.h>

static octavo_status check_tensors(const octavo_prefill_params *params)
{
    const octavo_kv_view *kv = params->kv;
    OCTAVO_TRY(octavo_tensor_match("q", &params->q, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 4, (const int64_t[]){ kv->batch, 0, 0, kv->head_dim }));
    const int64_t q_tokens = params->q.shape[1], q_heads = params->q.shape[2];
    if (q_heads % kv->kv_heads)
        return octavo_fail(OCTAVO_E_SHAPE, "q.shape[2] is %lld query heads, expected a multiple of kv_heads = %d", (long long)q_heads,
                           kv->kv_heads);
    return octavo_tensor_match_output("out", &params->out, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 4,
                                      (const int64_t[]){ kv->batch, q_tokens, q_heads, kv->v_dim });
}

static octavo_status check_numbers(const octavo_prefill_params *params)
{
    if (!isfinite(params->softmax_scale))
        return octavo_fail(OCTAVO_E_ARGUMENT, "softmax_scale is %g, expected a finite number (0: 1 / sqrt(head_dim))", (double)params->softmax_scale);
    if (!isfinite(params->soft_cap) || params->soft_cap < 0.0f)
        return octavo_fail(OCTAVO_E_ARGUMENT, "soft_cap is %g, expected 0 (none) or a positive number", (double)params->soft_cap);
    if (params->window < 0 || params->sink_tokens < 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "window is %lld and sink_tokens %lld, expected 0 or more", (long long)params->window,
                           (long long)params->sink_tokens);
    if (params->mask != OCTAVO_MASK_CAUSAL && params->mask != OCTAVO_MASK_FULL)
        return octavo_fail(OCTAVO_E_ARGUMENT, "mask is %d, expected one of octavo_mask", (int)params->mask);
    return OCTAVO_OK;
}

static octavo_status check_scales(const octavo_prefill_params *params)
{
    const int fp8 = params->precision == OCTAVO_ATTENTION_FP8, whole = params->scales >= OCTAVO_PREFILL_PER_HEAD;
    if ((unsigned)params->scales > OCTAVO_PREFILL_PER_TENSOR)
        return octavo_fail(OCTAVO_E_ARGUMENT, "scales is %d, expected one of octavo_prefill_scales", (int)params->scales);
    if (fp8 && params->scales != OCTAVO_PREFILL_PER_BLOCK && !whole)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "scales of fp8 are per %s, expected block, head or tensor", octavo_prefill_scales_name(params->scales));
    if ((params->q_amax || params->k_amax || params->v_amax) && !(fp8 && whole))
        return octavo_fail(OCTAVO_E_ARGUMENT, "q_amax, k_amax or v_amax is given to %s with scales per %s, expected fp8 per head or tensor",
                           octavo_attention_precision_name(params->precision), octavo_prefill_scales_name(params->scales));
    return OCTAVO_OK;
}

static octavo_status check_precision(const octavo_prefill_params *params)
{
    const octavo_kv_view *kv = params->kv;
    const uint32_t known = OCTAVO_PREFILL_NO_SMOOTH | OCTAVO_PREFILL_SMOOTH_V | OCTAVO_PREFILL_ROTATE | OCTAVO_PREFILL_F16_SUMS;
    if ((unsigned)params->precision > OCTAVO_ATTENTION_SAGE2)
        return octavo_fail(OCTAVO_E_ARGUMENT, "precision is %d, expected one of octavo_attention_precision", (int)params->precision);
    OCTAVO_TRY(check_scales(params));
    if (params->flags & ~known)
        return octavo_fail(OCTAVO_E_ARGUMENT, "flags is 0x%x, expected a sum of OCTAVO_PREFILL_* (0x%x)", params->flags, known);
    if (octavo_prefill_rotates(params) && (kv->head_dim & (kv->head_dim - 1)))
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "flags ask for a rotation of head_dim = %d, expected a power of two", kv->head_dim);
    if (params->soft_cap > 0.0f && (octavo_prefill_smooths_k(params) || kv->k_mean))
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "soft_cap is %g with %s, expected %s: smoothing shifts every score", (double)params->soft_cap,
                           kv->k_mean ? "kv.k_mean" : octavo_attention_precision_name(params->precision),
                           kv->k_mean ? "keys stored as they are" : "OCTAVO_PREFILL_NO_SMOOTH");
    return OCTAVO_OK;
}

/* Lengths may lie where the host cannot read them, but none is larger than max_tokens. */
static octavo_status check_keys_for_queries(const octavo_prefill_params *params)
{
    const int64_t keys = params->kv->max_tokens, queries = params->q.shape[1];
    if (params->mask != OCTAVO_MASK_CAUSAL || params->q_lengths || keys >= queries) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_SHAPE, "kv.max_tokens is %lld keys for %lld queries under a causal mask, expected as many keys or more", (long long)keys,
                       (long long)queries);
}

octavo_status octavo_prefill_check_shapes(const octavo_prefill_params *params)
{
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_prefill_params", params->struct_size, sizeof *params));
    OCTAVO_TRY(octavo_kv_view_validate(params->kv));
    OCTAVO_TRY(check_tensors(params));
    OCTAVO_TRY(check_numbers(params));
    OCTAVO_TRY(check_keys_for_queries(params));
    return check_precision(params);
}

/* Lengths of one sequence, and the pages that its queries see: a stale one would be read before anybody noticed. */
static octavo_status check_sequence(const octavo_prefill_params *params, int64_t b)
{
    const octavo_kv_view *kv = params->kv;
    const int64_t row = octavo_view_row(kv, b), length = kv->lengths[row], q_tokens = params->q.shape[1];
    const int64_t queries = octavo_prefill_queries(params, b);
    if (length < 0 || length > kv->max_tokens)
        return octavo_fail(OCTAVO_E_RANGE, "kv.lengths[%lld] is %lld, expected 0 to max_tokens = %lld", (long long)row, (long long)length,
                           (long long)kv->max_tokens);
    if (queries < 0 || queries > q_tokens)
        return octavo_fail(OCTAVO_E_RANGE, "q_lengths[%lld] is %lld, expected 0 to q.shape[1] = %lld", (long long)b, (long long)queries,
                           (long long)q_tokens);
    if (params->mask == OCTAVO_MASK_CAUSAL && length < queries)
        return octavo_fail(OCTAVO_E_SHAPE, "kv.lengths[%lld] is %lld keys for %lld queries under a causal mask, expected as many keys or more",
                           (long long)row, (long long)length, (long long)queries);
    if (!kv->page_table) return OCTAVO_OK;
    const octavo_span seen = octavo_prefill_seen(params, b);
    if (seen.end <= 0) return OCTAVO_OK;
    const int64_t near_block = seen.near_begin / kv->block_tokens, sink_blocks = (seen.sink_end + kv->block_tokens - 1) / kv->block_tokens;
    OCTAVO_TRY(octavo_kv_view_check_pages(kv, b, 0, sink_blocks < near_block ? sink_blocks : near_block));
    return octavo_kv_view_check_pages(kv, b, near_block, (seen.end + kv->block_tokens - 1) / kv->block_tokens);
}

static octavo_status check_amax(const char *name, const float *amax, int64_t heads, octavo_prefill_scales scales)
{
    for (int64_t i = 0; amax && i < (scales == OCTAVO_PREFILL_PER_HEAD ? heads : 1); i++)
        if (!(amax[i] >= 0.0f && amax[i] <= FLT_MAX))
            return octavo_fail(OCTAVO_E_ARGUMENT, "%s[%lld] is %g, expected a finite number of 0 or more", name, (long long)i, (double)amax[i]);
    return OCTAVO_OK;
}

/* What only the CPU can look at. */
static octavo_status check_data(const octavo_prefill_params *params)
{
    const octavo_kv_view *kv = params->kv;
    OCTAVO_TRY(check_amax("q_amax", params->q_amax, params->q.shape[2], params->scales));
    OCTAVO_TRY(check_amax("k_amax", params->k_amax, kv->kv_heads, params->scales));
    OCTAVO_TRY(check_amax("v_amax", params->v_amax, kv->kv_heads, params->scales));
    for (int64_t b = 0; b < kv->batch; b++) OCTAVO_TRY(check_sequence(params, b));
    return OCTAVO_OK;
}

octavo_status octavo_prefill_check_memory(const octavo_prefill_params *params)
{
    const octavo_extent out = octavo_tensor_extent(&params->out);
    if (octavo_extents_overlap(out, octavo_tensor_extent(&params->q)))
        return octavo_fail(OCTAVO_E_ARGUMENT, "out overlaps q, expected memory of its own");
    OCTAVO_TRY(octavo_kv_view_check_rows(params->kv));
    if (params->kv->device_kind == OCTAVO_DEVICE_CPU) OCTAVO_TRY(check_data(params));
    return octavo_kv_view_check_overlap(params->kv, OCTAVO_VIEW_K | OCTAVO_VIEW_V, out, "out");
}
