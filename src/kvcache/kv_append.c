/* kv_append.c - the public entries that write a view: checks a request and hands it to the device. */
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "kernel/planes.h"
#include "kvcache/kv_view_check.h"
#include <math.h>

static octavo_status check_input(const octavo_kv_view *view, int parts, const octavo_tensor *tensor, const char *name,
                                 int64_t tokens, int64_t dim)
{
    const int64_t shape[] = { view->batch, tokens, view->kv_heads, dim };
    OCTAVO_TRY(octavo_tensor_match(name, tensor, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 4, shape));
    return octavo_kv_view_check_overlap(view, parts, octavo_tensor_extent(tensor), name);
}

octavo_status octavo_kv_view_check_positions(const octavo_kv_view *view, const int32_t *positions, int64_t tokens)
{
    if (!positions) return octavo_fail(OCTAVO_E_ARGUMENT, "positions is NULL, expected one a sequence");
    OCTAVO_TRY(octavo_kv_view_check_rows(view));
    for (int64_t b = 0; view->device_kind == OCTAVO_DEVICE_CPU && b < view->batch; b++) {
        const int64_t first = positions[b];
        if (first < 0 || tokens > view->max_tokens - first)
            return octavo_fail(OCTAVO_E_RANGE,
                               "positions[%lld] is %lld with %lld tokens, expected to stay within 0 to max_tokens = %lld",
                               (long long)b, (long long)first, (long long)tokens, (long long)view->max_tokens);
        OCTAVO_TRY(
            octavo_kv_view_check_pages(view, b, first / view->block_tokens, (first + tokens - 1) / view->block_tokens + 1));
    }
    return OCTAVO_OK;
}

static octavo_status check_channel_scale(const octavo_kv_view *view)
{
    const int on_host = view->device_kind == OCTAVO_DEVICE_CPU;
    const int64_t count = view->v_channel_scale && on_host ? (int64_t)view->kv_heads * view->v_dim : 0;
    for (int64_t i = 0; i < count; i++)
        if (!(view->v_channel_scale[i] > 0.0f) || !isfinite(view->v_channel_scale[i]))
            return octavo_fail(OCTAVO_E_ARGUMENT, "view.v_channel_scale[%lld] is %g, expected a positive finite number",
                               (long long)i, (double)view->v_channel_scale[i]);
    return OCTAVO_OK;
}

octavo_status octavo_kv_append(const octavo_exec *exec, const octavo_kv_view *view, const octavo_tensor *k,
                               const octavo_tensor *v, const int32_t *positions)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!k && !v) return octavo_fail(OCTAVO_E_ARGUMENT, "k and v are NULL, expected at least one of them");
    const int parts = (k ? OCTAVO_VIEW_K : 0) | (v ? OCTAVO_VIEW_V : 0);
    OCTAVO_TRY(octavo_kv_view_validate_parts(view, parts));
    OCTAVO_TRY(octavo_exec_check_place(exec, "view", view->device_kind));
    if (k) OCTAVO_TRY(octavo_exec_check_place(exec, "k", k->device_kind));
    if (v) OCTAVO_TRY(octavo_exec_check_place(exec, "v", v->device_kind));
    if (k) OCTAVO_TRY(check_input(view, parts, k, "k", 0, view->head_dim));
    if (v) OCTAVO_TRY(check_input(view, parts, v, "v", k ? k->shape[1] : 0, view->v_dim));
    OCTAVO_TRY(octavo_kv_view_check_positions(view, positions, k ? k->shape[1] : v->shape[1]));
    if (v) OCTAVO_TRY(check_channel_scale(view));

    if (!kernels->kv_append)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no kv_append", octavo_device_name(exec->device));
    octavo_kv_append_params p = { .kv = view, .positions = positions };
    if (k) p.k = *k;
    if (v) p.v = *v;
    const octavo_status status = kernels->kv_append(exec, &p);
    if (status != OCTAVO_E_NONFINITE) return status;
    return octavo_fail(status, "%s holds NaN or Inf%s, expected finite values", k && v ? "k or v" : k ? "k" : "v",
                       k && view->k_mean ? " (after k_mean is subtracted)" : "");
}

octavo_status octavo_block_metadata(const octavo_exec *exec, const octavo_kv_view *view)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    OCTAVO_TRY(octavo_kv_view_check(view));
    OCTAVO_TRY(octavo_exec_check_place(exec, "view", view->device_kind));
    if (!kernels->block_metadata)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no block_metadata", octavo_device_name(exec->device));
    const octavo_block_metadata_params p = { view };
    return kernels->block_metadata(exec, &p);
}
