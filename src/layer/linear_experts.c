/* linear_experts.c - hands the linear layers of many experts to the device. */
#include "layer/linear_experts.h"
#include "base/error.h"
#include "device/device.h"

octavo_status octavo_linear_experts_workspace(const octavo_exec *exec, const octavo_linear_experts_params *params, size_t *bytes)
{
    return octavo_linear_workspace(exec, &params->of, bytes);
}

octavo_status octavo_linear_experts(const octavo_exec *exec, const octavo_linear_experts_params *params)
{
    const octavo_kernels *kernels;
    size_t bytes;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    OCTAVO_TRY(octavo_linear_workspace(exec, &params->of, &bytes));
    if (exec->workspace_bytes < bytes)
        return octavo_fail(OCTAVO_E_RANGE, "exec.workspace has %zu bytes, expected %zu", exec->workspace_bytes, bytes);
    if (!kernels->linear_experts)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no linear_experts", octavo_device_name(exec->device));
    return kernels->linear_experts(exec, params);
}
