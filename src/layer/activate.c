/* activate.c - the public activation: checks a request and hands it to the device. */
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "layer/layer_check.h"

static octavo_status check(const octavo_activate_params *p)
{
    static const int64_t ANY[OCTAVO_MAX_DIMS] = { 0 };
    if ((int)p->activation < OCTAVO_ACTIVATION_RELU || p->activation > OCTAVO_ACTIVATION_GELU_TANH)
        return octavo_fail(OCTAVO_E_ARGUMENT, "activation is %d, expected one of octavo_activation", (int)p->activation);
    OCTAVO_TRY(octavo_tensor_match("gate", &p->gate, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 2, ANY));
    if (p->up.data) OCTAVO_TRY(octavo_tensor_match("up", &p->up, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 2, p->gate.shape));
    OCTAVO_TRY(octavo_tensor_match_output("y", &p->y, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 2, p->gate.shape));
    OCTAVO_TRY(octavo_in_place_check("gate", &p->gate, "y", &p->y));
    return p->up.data ? octavo_in_place_check("up", &p->up, "y", &p->y) : OCTAVO_OK;
}

octavo_status octavo_activate(const octavo_exec *exec, const octavo_activate_params *params)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_activate_params", params->struct_size, sizeof *params));
    OCTAVO_TRY(octavo_exec_check_place(exec, "gate", params->gate.device_kind));
    if (params->up.data) OCTAVO_TRY(octavo_exec_check_place(exec, "up", params->up.device_kind));
    OCTAVO_TRY(octavo_exec_check_place(exec, "y", params->y.device_kind));
    OCTAVO_TRY(check(params));
    if (!kernels->activate)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no activate", octavo_device_name(exec->device));
    return kernels->activate(exec, params);
}
