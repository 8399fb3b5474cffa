/* merge.c - the public merge of partial results. */
#include "base/error.h"
#include "device/device.h"

octavo_status octavo_partial_merge(const octavo_exec *exec, const octavo_merge_params *params)
{
    const octavo_kernels *kernels = NULL;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_merge_params", params->struct_size, sizeof *params));
    if (params->parts < 1 || params->rows < 1 || params->v_dim < 1)
        return octavo_fail(OCTAVO_E_SHAPE, "parts, rows, v_dim are %lld, %lld, %lld, expected at least 1 each",
                           (long long)params->parts, (long long)params->rows, (long long)params->v_dim);
    if (!params->part_out || !params->part_lse || !params->out)
        return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL", !params->part_out ? "part_out" : !params->part_lse ? "part_lse" : "out");
    if (!kernels->partial_merge)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no partial_merge", octavo_device_name(exec->device));
    const int64_t shape[] = { params->rows, 1, 1, params->v_dim };
    const octavo_partial_merge_params merged = {
        .batch = params->rows, .kv_heads = 1, .group = 1, .q_tokens = 1, .v_dim = params->v_dim, .splits = params->parts,
        .part_out = params->part_out, .part_lse = params->part_lse, .out = octavo_tensor_view(params->out, OCTAVO_F32, 4, shape),
        .lse = params->lse,
    };
    return kernels->partial_merge(exec, &merged);
}
