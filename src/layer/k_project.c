/* k_project.c - the public K projection: checks a request and hands it to the device. */
#include "base/checked.h"
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "kvcache/kv_view_check.h"
#include "layer/layer_check.h"

static octavo_status check_weight(const octavo_weight *weight, int64_t rows, int64_t hidden)
{
    const unsigned dtypes = OCTAVO_DTYPES_FLOAT | OCTAVO_DTYPE_BIT(OCTAVO_E4M3) | OCTAVO_DTYPE_BIT(OCTAVO_INT8);
    const int64_t shape[] = { rows, hidden };
    OCTAVO_TRY(octavo_tensor_match("weight.codes", &weight->codes, dtypes | OCTAVO_ANYWHERE, 2, shape));
    if (weight->block_rows < 0 || weight->block_cols < 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "weight.block_rows is %lld and block_cols %lld, expected 0 (all) or more",
                           (long long)weight->block_rows, (long long)weight->block_cols);
    return OCTAVO_OK;
}

/* Everything that the size of the workspace depends on. */
static octavo_status check_shapes(const octavo_k_project_params *params)
{
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_k_project_params", params->struct_size, sizeof *params));
    const octavo_kv_view *kv = params->kv;
    OCTAVO_TRY(octavo_kv_view_validate_parts(kv, OCTAVO_VIEW_K));
    const int64_t h_shape[] = { kv->batch, 0, 0 };
    OCTAVO_TRY(octavo_tensor_match("h", &params->h, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 3, h_shape));
    OCTAVO_TRY(check_weight(&params->weight, (int64_t)kv->kv_heads * kv->head_dim, params->h.shape[2]));
    return octavo_rope_check(&params->rope, kv->head_dim);
}

static octavo_status workspace_of(const octavo_exec *exec, const octavo_k_project_params *params, const octavo_kernels **kernels,
                                  size_t *bytes)
{
    OCTAVO_TRY(octavo_exec_check(exec, kernels));
    OCTAVO_TRY(check_shapes(params));
    int64_t tokens;
    if (octavo_checked_mul_int64(params->h.shape[0], params->h.shape[1], &tokens)) {
        *bytes = octavo_k_project_kernel_workspace(params);
        if (*bytes != SIZE_MAX) return OCTAVO_OK;
    }
    *bytes = 0;
    return octavo_fail(OCTAVO_E_RANGE, "h has %lld x %lld tokens, for which no workspace is large enough", (long long)params->h.shape[0],
                       (long long)params->h.shape[1]);
}

octavo_status octavo_k_project_workspace(const octavo_exec *exec, const octavo_k_project_params *params, size_t *bytes)
{
    const octavo_kernels *kernels;
    if (!bytes) return octavo_fail(OCTAVO_E_ARGUMENT, "bytes is NULL, expected where to put the size");
    *bytes = 0;
    return workspace_of(exec, params, &kernels, bytes);
}

octavo_status octavo_k_project(const octavo_exec *exec, const octavo_k_project_params *params)
{
    const octavo_kernels *kernels;
    size_t bytes;
    OCTAVO_TRY(workspace_of(exec, params, &kernels, &bytes));
    OCTAVO_TRY(octavo_exec_check_place(exec, "kv", params->kv->device_kind));
    OCTAVO_TRY(octavo_exec_check_place(exec, "h", params->h.device_kind));
    OCTAVO_TRY(octavo_exec_check_place(exec, "weight.codes", params->weight.codes.device_kind));
    OCTAVO_TRY(octavo_kv_view_check_positions(params->kv, params->positions, params->h.shape[1]));
    OCTAVO_TRY(octavo_kv_view_check_overlap(params->kv, OCTAVO_VIEW_K, octavo_tensor_extent(&params->h), "h"));
    OCTAVO_TRY(octavo_kv_view_check_overlap(params->kv, OCTAVO_VIEW_K, octavo_tensor_extent(&params->weight.codes), "weight.codes"));
    if (exec->workspace_bytes < bytes || !exec->workspace || (uintptr_t)exec->workspace % 64)
        return octavo_fail(OCTAVO_E_RANGE, "exec.workspace has %zu bytes at %p, expected %zu bytes, 64-byte aligned",
                           exec->workspace_bytes, exec->workspace, bytes);
    if (!kernels->k_project) return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no k_project", octavo_device_name(exec->device));
    const octavo_status status = kernels->k_project(exec, params);
    if (status != OCTAVO_E_NONFINITE) return status;
    return octavo_fail(status, "the projection of h has a NaN or Inf, expected finite keys; nothing was written");
}
