/* step_end.c - hands the end of a decode step to the device. */
#include "layer/step_end.h"
#include "base/error.h"
#include "device/device.h"

octavo_status octavo_step_end(const octavo_exec *exec, const octavo_step_end_params *params)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!kernels->step_end) return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no step_end", octavo_device_name(exec->device));
    const octavo_status status = kernels->step_end(exec, params);
    if (status != OCTAVO_E_RANGE) return status;
    return octavo_fail(status, "step %d is past the %lld that there is a record for", *params->count, (long long)params->capacity);
}
