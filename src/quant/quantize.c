/* quantize.c - the public entry: checks a request and hands it to the device.
 *
 * The dynamic recipe finds its scales where the data is read, in the kernel, by kernel/scales.h. A recipe with a memory (delayed,
 * calibrated) makes its scales ahead and calls this with OCTAVO_SCALE_STATIC. */
#include "base/error.h"
#include "base/extent.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "quant/quant_check.h"

static octavo_status check_overlap(const octavo_quantize_params *p, int64_t scale_count)
{
    const octavo_extent x = octavo_tensor_extent(&p->x), codes = octavo_tensor_extent(&p->codes);
    const octavo_extent scales = octavo_array_extent(p->scales, (size_t)scale_count * sizeof(float));
    if (octavo_extents_overlap(x, codes)) return octavo_fail(OCTAVO_E_ARGUMENT, "x and codes overlap, expected distinct memory");
    if (octavo_extents_overlap(scales, codes))
        return octavo_fail(OCTAVO_E_ARGUMENT, "scales and codes overlap, expected distinct memory");
    if (octavo_extents_overlap(scales, x))
        return octavo_fail(OCTAVO_E_ARGUMENT, "scales and x overlap, expected distinct memory");
    return OCTAVO_OK;
}

octavo_status octavo_quantize(const octavo_exec *exec, const octavo_quantize_params *params)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_quantize_params", params->struct_size, sizeof *params));
    octavo_quantize_params p = *params;

    OCTAVO_TRY(octavo_tensor_match("x", &p.x, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 2, (const int64_t[]){ 0, 0 }));
    OCTAVO_TRY(octavo_tensor_match_output("codes", &p.codes, OCTAVO_DTYPES_CODES | OCTAVO_ANYWHERE, 2, p.x.shape));
    if (p.scale_kind != OCTAVO_SCALE_F32 && p.scale_kind != OCTAVO_SCALE_POW2)
        return octavo_fail(OCTAVO_E_ARGUMENT, "scale_kind is %d, expected one of octavo_scale_kind", (int)p.scale_kind);
    if (p.scale_source != OCTAVO_SCALE_DYNAMIC && p.scale_source != OCTAVO_SCALE_STATIC)
        return octavo_fail(OCTAVO_E_ARGUMENT, "scale_source is %d, expected one of octavo_scale_source", (int)p.scale_source);
    OCTAVO_TRY(octavo_exec_check_place(exec, "x", p.x.device_kind));
    OCTAVO_TRY(octavo_exec_check_place(exec, "codes", p.codes.device_kind));
    int64_t count;
    OCTAVO_TRY(octavo_scales_check(p.granularity, p.x.shape[0], p.x.shape[1], &p.block_rows, &p.block_cols, p.scales, &count));
    OCTAVO_TRY(check_overlap(&p, count));
    if (p.scale_source == OCTAVO_SCALE_STATIC && p.x.device_kind == OCTAVO_DEVICE_CPU)
        OCTAVO_TRY(octavo_scales_check_values(p.scales, count));

    if (!kernels->quantize)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no quantize", octavo_device_name(exec->device));
    const octavo_status status = kernels->quantize(exec, &p);
    return status == OCTAVO_E_NONFINITE ? octavo_fail(status, "x holds NaN or Inf, expected finite values") : status;
}
