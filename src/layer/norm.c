/* norm.c - the public norm: checks a request and hands it to the device. */
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "layer/layer_check.h"
#include <math.h>

static octavo_status check(const octavo_norm_params *p)
{
    static const int64_t ANY[OCTAVO_MAX_DIMS] = { 0 };
    if (p->kind != OCTAVO_NORM_RMS && p->kind != OCTAVO_NORM_LAYER)
        return octavo_fail(OCTAVO_E_ARGUMENT, "kind is %d, expected one of octavo_norm_kind", (int)p->kind);
    OCTAVO_TRY(octavo_tensor_match("x", &p->x, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, p->x.ndim == 3 ? 3 : 2, ANY));
    OCTAVO_TRY(octavo_tensor_match_output("y", &p->y, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, p->x.ndim, p->x.shape));
    OCTAVO_TRY(octavo_in_place_check("x", &p->x, "y", &p->y));
    if (p->bias && p->kind == OCTAVO_NORM_RMS)
        return octavo_fail(OCTAVO_E_ARGUMENT, "bias is given with kind RMS, expected NULL: only LAYER has one");
    if (!(p->eps >= 0.0f) || isinf(p->eps))
        return octavo_fail(OCTAVO_E_ARGUMENT, "eps is %g, expected a finite number of at least 0", (double)p->eps);
    const int64_t width = p->x.shape[p->x.ndim - 1];
    const octavo_named_extent extents[] = { octavo_named_tensor("y", &p->y), octavo_named_array("weight", p->weight, width, sizeof(float)),
                                            octavo_named_array("bias", p->bias, width, sizeof(float)) };
    return octavo_extents_check(extents, 3, 1);
}

octavo_status octavo_norm(const octavo_exec *exec, const octavo_norm_params *params)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_norm_params", params->struct_size, sizeof *params));
    OCTAVO_TRY(octavo_exec_check_place(exec, "x", params->x.device_kind));
    OCTAVO_TRY(octavo_exec_check_place(exec, "y", params->y.device_kind));
    OCTAVO_TRY(check(params));
    if (!kernels->norm) return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no norm", octavo_device_name(exec->device));
    return kernels->norm(exec, params);
}
