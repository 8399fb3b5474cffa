/* rope_apply.c - the public rotation: checks a request and hands it to the device. */
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "layer/layer_check.h"

static octavo_status check(const octavo_rope_apply_params *p)
{
    static const int64_t ANY[OCTAVO_MAX_DIMS] = { 0 };
    OCTAVO_TRY(octavo_tensor_match_output("x", &p->x, OCTAVO_DTYPES_FLOAT | OCTAVO_ANYWHERE, 4, ANY));
    OCTAVO_TRY(octavo_rope_check(&p->rope, p->x.shape[3]));
    if (p->rope.style == OCTAVO_ROPE_NONE) return OCTAVO_OK;
    const int64_t tokens = p->x.shape[0] * p->x.shape[1], rotary = p->rope.rotary_dim ? p->rope.rotary_dim : p->x.shape[3];
    if (!p->positions) return octavo_fail(OCTAVO_E_ARGUMENT, "positions is NULL, expected one of each token");
    const octavo_named_extent extents[] = { octavo_named_tensor("x", &p->x),
                                            octavo_named_array("positions", p->positions, tokens, sizeof(int32_t)),
                                            octavo_named_array("rope.inv_freq", p->rope.inv_freq, rotary / 2, sizeof(float)) };
    return octavo_extents_check(extents, 3, 1);
}

octavo_status octavo_rope_apply(const octavo_exec *exec, const octavo_rope_apply_params *params)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_rope_apply_params", params->struct_size, sizeof *params));
    OCTAVO_TRY(octavo_exec_check_place(exec, "x", params->x.device_kind));
    OCTAVO_TRY(check(params));
    if (!kernels->rope_apply)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no rope_apply", octavo_device_name(exec->device));
    return kernels->rope_apply(exec, params);
}
