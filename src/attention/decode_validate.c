/* decode_validate.c - what a decode call may not ask. */
#include "attention/decode_plan.h"
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "kernel/visibility.h"
#include "kvcache/kv_view_check.h"
#include <math.h>

static octavo_status check_shapes(const octavo_decode_params *params)
{
    const octavo_kv_view *kv = params->kv;
    const octavo_tensor *q = &params->q;
    OCTAVO_TRY(octavo_tensor_match("q", q, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 4, (const int64_t[]){ kv->batch, 0, 0, kv->head_dim }));
    const int64_t q_tokens = q->shape[1], q_heads = q->shape[2];
    if (q_tokens > OCTAVO_MAX_Q_TOKENS)
        return octavo_fail(OCTAVO_E_SHAPE, "q.shape[1] is %lld query tokens, expected 1 to %d", (long long)q_tokens, OCTAVO_MAX_Q_TOKENS);
    if (q_heads % kv->kv_heads)
        return octavo_fail(OCTAVO_E_SHAPE, "q.shape[2] is %lld query heads, expected a multiple of kv_heads = %d", (long long)q_heads,
                           kv->kv_heads);
    if (q_heads / kv->kv_heads > OCTAVO_MAX_ROWS / q_tokens)
        return octavo_fail(OCTAVO_E_SHAPE, "q has %lld query heads a kv head and %lld query tokens, expected a product of at most %d",
                           (long long)(q_heads / kv->kv_heads), (long long)q_tokens, OCTAVO_MAX_ROWS);
    return octavo_tensor_match_output("out", &params->out, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 4,
                                      (const int64_t[]){ kv->batch, q_tokens, q_heads, kv->v_dim });
}

static octavo_status check_numbers(const octavo_decode_params *params)
{
    if (!isfinite(params->softmax_scale))
        return octavo_fail(OCTAVO_E_ARGUMENT, "softmax_scale is %g, expected a finite number (0: 1 / sqrt(head_dim))", (double)params->softmax_scale);
    if (!isfinite(params->soft_cap) || params->soft_cap < 0.0f)
        return octavo_fail(OCTAVO_E_ARGUMENT, "soft_cap is %g, expected 0 (none) or a positive number", (double)params->soft_cap);
    if (params->window < 0 || params->sink_tokens < 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "window is %lld and sink_tokens %lld, expected 0 or more", (long long)params->window,
                           (long long)params->sink_tokens);
    if (params->keep_first_blocks < 0 || params->keep_last_blocks < 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "keep_first_blocks is %d and keep_last_blocks %d, expected 0 or more",
                           params->keep_first_blocks, params->keep_last_blocks);
    if (params->splits != OCTAVO_SPLITS_FILL && params->splits != OCTAVO_SPLITS_FIXED)
        return octavo_fail(OCTAVO_E_ARGUMENT, "splits is %d, expected one of octavo_decode_splits", (int)params->splits);
    if (params->window > 0 && params->window < params->kv->block_tokens && (params->keep_first_blocks || params->keep_last_blocks))
        return octavo_fail(OCTAVO_E_ARGUMENT, "window is %lld, expected at least block_tokens = %d where blocks are always kept",
                           (long long)params->window, params->kv->block_tokens);
    return OCTAVO_OK;
}

static octavo_status check_rule(const octavo_decode_params *params)
{
    const octavo_kv_view *kv = params->kv;
    switch (params->select) {
    case OCTAVO_SELECT_NONE:
    case OCTAVO_SELECT_BASE: break;
    case OCTAVO_SELECT_DELTA:
        if (!(params->delta >= 0.0f) || isinf(params->delta))
            return octavo_fail(OCTAVO_E_ARGUMENT, "delta is %g, expected a finite number of nats, 0 or more", (double)params->delta);
        break;
    case OCTAVO_SELECT_MASS:
    case OCTAVO_SELECT_CERTIFIED:
        if (!(params->epsilon > 0.0f && params->epsilon < 1.0f))
            return octavo_fail(OCTAVO_E_ARGUMENT, "epsilon is %g, expected a share of the mass in (0, 1)", (double)params->epsilon);
        break;
    default: return octavo_fail(OCTAVO_E_ARGUMENT, "select is %d, expected one of octavo_select_rule", (int)params->select);
    }
    if (params->select == OCTAVO_SELECT_CERTIFIED && (octavo_k_plane_count(kv->k_format) < 2 || !kv->k_norm.data))
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "select is certified over %s%s, expected a nested format with residual norms (k_norm)",
                           octavo_k_format_name(kv->k_format), kv->k_norm.data ? "" : " without k_norm");
    if (params->compensate != OCTAVO_COMPENSATE_NONE && params->compensate != OCTAVO_COMPENSATE_MEAN)
        return octavo_fail(OCTAVO_E_ARGUMENT, "compensate is %d, expected one of octavo_compensation", (int)params->compensate);
    if (params->compensate == OCTAVO_COMPENSATE_MEAN && params->select >= OCTAVO_SELECT_DELTA &&
        (!kv->v_mean.data || !kv->v_mean_scale.data))
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "compensate is mean over a view without v_mean, expected octavo_block_metadata first");
    if (kv->k_mean && (params->soft_cap > 0.0f || params->sink_logits))
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "kv.k_mean is given with %s, expected neither soft_cap nor sink_logits: smoothing shifts "
                           "every score", params->soft_cap > 0.0f ? "soft_cap" : "sink_logits");
    return OCTAVO_OK;
}

static octavo_status check_precision(const octavo_decode_params *params)
{
    if (params->precision == OCTAVO_ATTENTION_SAGE1 || params->precision == OCTAVO_ATTENTION_SAGE2)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "precision is %s, expected exact or fp8: sage is for attention of many queries",
                           octavo_attention_precision_name(params->precision));
    if (params->precision != OCTAVO_ATTENTION_EXACT && params->precision != OCTAVO_ATTENTION_FP8)
        return octavo_fail(OCTAVO_E_ARGUMENT, "precision is %d, expected one of octavo_attention_precision", (int)params->precision);
    if (params->precision == OCTAVO_ATTENTION_FP8 && params->select == OCTAVO_SELECT_CERTIFIED)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "precision is fp8 with select certified, expected exact: its bound is of the queries as they are");
    return OCTAVO_OK;
}

/* Pages that the call will read: a stale one would be read before anybody noticed. */
static octavo_status check_pages(const octavo_decode_params *params, int64_t b)
{
    const octavo_kv_view *kv = params->kv;
    const int64_t length = kv->lengths[octavo_view_row(kv, b)], q_tokens = params->q.shape[1];
    const octavo_span oldest = octavo_visible_span(length, q_tokens, 0, params->window, params->sink_tokens);
    const int64_t near_block = oldest.near_begin / kv->block_tokens, sink_blocks = (oldest.sink_end + kv->block_tokens - 1) / kv->block_tokens;
    if (!kv->page_table || length == 0) return OCTAVO_OK;
    if (oldest.end > 0) OCTAVO_TRY(octavo_kv_view_check_pages(kv, b, 0, sink_blocks < near_block ? sink_blocks : near_block));
    return octavo_kv_view_check_pages(kv, b, near_block, (length + kv->block_tokens - 1) / kv->block_tokens);
}

static octavo_status check_memory(const octavo_decode_params *params)
{
    const octavo_kv_view *kv = params->kv;
    const octavo_extent out = octavo_tensor_extent(&params->out);
    if (octavo_extents_overlap(out, octavo_tensor_extent(&params->q)))
        return octavo_fail(OCTAVO_E_ARGUMENT, "out overlaps q, expected memory of its own");
    OCTAVO_TRY(octavo_kv_view_check_rows(kv));
    for (int64_t b = 0; kv->device_kind == OCTAVO_DEVICE_CPU && b < kv->batch; b++) {
        const int64_t row = octavo_view_row(kv, b);
        if (kv->lengths[row] < 0 || kv->lengths[row] > kv->max_tokens)
            return octavo_fail(OCTAVO_E_RANGE, "kv.lengths[%lld] is %d, expected 0 to max_tokens = %lld", (long long)row, kv->lengths[row],
                               (long long)kv->max_tokens);
        OCTAVO_TRY(check_pages(params, b));
    }
    return octavo_kv_view_check_overlap(kv, OCTAVO_VIEW_K | OCTAVO_VIEW_V, out, "out");
}

octavo_status octavo_decode_validate(const octavo_exec *exec, const octavo_decode_params *params)
{
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_decode_params", params->struct_size, sizeof *params));
    OCTAVO_TRY(octavo_kv_view_validate(params->kv));
    OCTAVO_TRY(octavo_exec_check_place(exec, "kv", params->kv->device_kind));
    OCTAVO_TRY(check_shapes(params));
    OCTAVO_TRY(octavo_exec_check_place(exec, "q", params->q.device_kind));
    OCTAVO_TRY(octavo_exec_check_place(exec, "out", params->out.device_kind));
    OCTAVO_TRY(check_numbers(params));
    OCTAVO_TRY(check_rule(params));
    OCTAVO_TRY(check_precision(params));
    return check_memory(params);
}
