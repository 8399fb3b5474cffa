/* combine_rows.c - the public sum of weighted rows: checks a request and hands it to the device. */
#include "base/checked.h"
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "layer/layer_check.h"

static octavo_status check(const octavo_combine_rows_params *p)
{
    static const int64_t ANY[OCTAVO_MAX_DIMS] = { 0 };
    OCTAVO_TRY(octavo_tensor_match("x", &p->x, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 2, ANY));
    const int64_t shape[] = { 0, p->x.shape[1] };
    OCTAVO_TRY(octavo_tensor_match_output("y", &p->y, OCTAVO_DTYPE_BIT(OCTAVO_F32) | OCTAVO_ANYWHERE, 2, shape));
    int64_t count, bytes;
    if (p->choices < 1) return octavo_fail(OCTAVO_E_ARGUMENT, "choices is %lld, expected at least 1", (long long)p->choices);
    if (!octavo_checked_mul_int64(p->y.shape[0], p->choices, &count) || !octavo_checked_mul_int64(count, sizeof(float), &bytes))
        return octavo_fail(OCTAVO_E_RANGE, "choices is %lld for %lld tokens, which overflows", (long long)p->choices,
                           (long long)p->y.shape[0]);
    if (!p->weights) return octavo_fail(OCTAVO_E_ARGUMENT, "weights is NULL, expected one of each choice");
    OCTAVO_TRY(octavo_indices_check("slots", p->slots, count, -1, p->x.shape[0], &p->x));
    const octavo_named_extent extents[] = { octavo_named_tensor("y", &p->y), octavo_named_tensor("x", &p->x),
                                            octavo_named_array("slots", p->slots, count, sizeof(int32_t)),
                                            octavo_named_array("weights", p->weights, count, sizeof(float)) };
    return octavo_extents_check(extents, 4, 1);
}

octavo_status octavo_combine_rows(const octavo_exec *exec, const octavo_combine_rows_params *params)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_combine_rows_params", params->struct_size, sizeof *params));
    OCTAVO_TRY(octavo_exec_check_place(exec, "x", params->x.device_kind));
    OCTAVO_TRY(octavo_exec_check_place(exec, "y", params->y.device_kind));
    OCTAVO_TRY(check(params));
    if (!kernels->combine_rows)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no combine_rows", octavo_device_name(exec->device));
    return kernels->combine_rows(exec, params);
}
