/* prefill.c - the public prefill call: validates, sets the defaults, and hands the request to the device's kernel. */
#include "attention/prefill_validate.h"
#include "base/error.h"
#include "device/device.h"
#include <math.h>

/* Checks what does not depend on data, sets defaults, and finds the size of the workspace. */
static octavo_status prepare(const octavo_exec *exec, const octavo_prefill_params *params, const octavo_kernels **kernels,
                             octavo_attention_prefill_params *made, size_t *bytes)
{
    *bytes = 0;
    OCTAVO_TRY(octavo_exec_check(exec, kernels));
    OCTAVO_TRY(octavo_prefill_check_shapes(params));
    *made = *params;
    if (made->softmax_scale == 0.0f) made->softmax_scale = 1.0f / sqrtf((float)made->kv->head_dim);
    const size_t needed = octavo_attention_prefill_kernel_workspace(made);
    if (needed == SIZE_MAX)
        return octavo_fail(OCTAVO_E_RANGE, "kv.max_tokens is %lld, expected a call whose workspace fits in memory",
                           (long long)params->kv->max_tokens);
    *bytes = needed;
    return OCTAVO_OK;
}

octavo_status octavo_attention_prefill_workspace(const octavo_exec *exec, const octavo_prefill_params *params, size_t *bytes)
{
    const octavo_kernels *kernels;
    octavo_attention_prefill_params made;
    if (!bytes) return octavo_fail(OCTAVO_E_ARGUMENT, "bytes is NULL, expected where to put the size");
    return prepare(exec, params, &kernels, &made, bytes);
}

octavo_status octavo_attention_prefill(const octavo_exec *exec, const octavo_prefill_params *params)
{
    const octavo_kernels *kernels;
    octavo_attention_prefill_params made;
    size_t bytes;
    OCTAVO_TRY(prepare(exec, params, &kernels, &made, &bytes));
    OCTAVO_TRY(octavo_exec_check_place(exec, "kv", params->kv->device_kind));
    OCTAVO_TRY(octavo_exec_check_place(exec, "q", params->q.device_kind));
    OCTAVO_TRY(octavo_exec_check_place(exec, "out", params->out.device_kind));
    OCTAVO_TRY(octavo_prefill_check_memory(params));
    if (exec->workspace_bytes < bytes || !exec->workspace || (uintptr_t)exec->workspace % 64)
        return octavo_fail(OCTAVO_E_RANGE, "exec.workspace has %zu bytes at %p, expected %zu bytes, 64-byte aligned",
                           exec->workspace_bytes, exec->workspace, bytes);
    if (!kernels->attention_prefill)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no attention_prefill", octavo_device_name(exec->device));
    return kernels->attention_prefill(exec, &made);
}
