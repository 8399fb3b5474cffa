/* dequantize.c - the public entry: checks a request and hands it to the device. */
#include "base/error.h"
#include "base/extent.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "quant/quant_check.h"

octavo_status octavo_dequantize(const octavo_exec *exec, const octavo_dequantize_params *params)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_dequantize_params", params->struct_size, sizeof *params));
    octavo_dequantize_params p = *params;

    OCTAVO_TRY(octavo_tensor_match("codes", &p.codes, OCTAVO_DTYPES_CODES | OCTAVO_ANYWHERE, 2, (const int64_t[]){ 0, 0 }));
    OCTAVO_TRY(octavo_tensor_match_output("x", &p.x, OCTAVO_DTYPE_BIT(OCTAVO_F32) | OCTAVO_ANYWHERE, 2, p.codes.shape));
    OCTAVO_TRY(octavo_exec_check_place(exec, "codes", p.codes.device_kind));
    OCTAVO_TRY(octavo_exec_check_place(exec, "x", p.x.device_kind));
    int64_t count;
    OCTAVO_TRY(octavo_scales_check(p.granularity, p.x.shape[0], p.x.shape[1], &p.block_rows, &p.block_cols, p.scales, &count));
    const octavo_extent x = octavo_tensor_extent(&p.x);
    if (octavo_extents_overlap(x, octavo_tensor_extent(&p.codes)))
        return octavo_fail(OCTAVO_E_ARGUMENT, "x and codes overlap, expected distinct memory");
    if (octavo_extents_overlap(x, octavo_array_extent(p.scales, (size_t)count * sizeof(float))))
        return octavo_fail(OCTAVO_E_ARGUMENT, "x and scales overlap, expected distinct memory");

    if (!kernels->dequantize)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no dequantize", octavo_device_name(exec->device));
    return kernels->dequantize(exec, &p);
}
