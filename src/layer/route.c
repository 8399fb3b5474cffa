/* route.c - the public routing: checks a request and hands it to the device. */
#include "base/error.h"
#include "base/tensor_match.h"
#include "device/device.h"
#include "layer/layer_check.h"

static octavo_status check_sizes(const octavo_route_params *p)
{
    static const int64_t ANY[OCTAVO_MAX_DIMS] = { 0 };
    OCTAVO_TRY(octavo_tensor_match("logits", &p->logits, OCTAVO_DTYPE_BIT(OCTAVO_F32) | OCTAVO_ANYWHERE, 2, ANY));
    const int64_t tokens = p->logits.shape[0], experts = p->logits.shape[1];
    if (p->choices < 1 || p->choices > experts)
        return octavo_fail(OCTAVO_E_ARGUMENT, "choices is %lld, expected 1 to %lld experts", (long long)p->choices, (long long)experts);
    if (experts >= INT32_MAX || tokens > INT32_MAX / p->choices)
        return octavo_fail(OCTAVO_E_RANGE, "logits has %lld tokens of %lld choices among %lld experts, expected int32 to count them",
                           (long long)tokens, (long long)p->choices, (long long)experts);
    if (p->weighting != OCTAVO_ROUTE_SOFTMAX && p->weighting != OCTAVO_ROUTE_RENORMALISE)
        return octavo_fail(OCTAVO_E_ARGUMENT, "weighting is %d, expected one of octavo_route_weights", (int)p->weighting);
    return OCTAVO_OK;
}

static octavo_status check(const octavo_route_params *p)
{
    OCTAVO_TRY(check_sizes(p));
    const int64_t rows = p->logits.shape[0] * p->choices;
    const octavo_named_extent extents[] = {
        octavo_named_array("experts", p->experts, rows, sizeof(int32_t)), octavo_named_array("weights", p->weights, rows, sizeof(float)),
        octavo_named_array("offsets", p->offsets, p->logits.shape[1] + 1, sizeof(int32_t)),
        octavo_named_array("order", p->order, rows, sizeof(int32_t)), octavo_named_array("slots", p->slots, rows, sizeof(int32_t)),
        octavo_named_tensor("logits", &p->logits),
    };
    for (int i = 0; i < 5; i++)
        if (!extents[i].extent.begin) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL, expected memory for the result", extents[i].name);
    return octavo_extents_check(extents, 6, 5);
}

octavo_status octavo_route(const octavo_exec *exec, const octavo_route_params *params)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    if (!params) return octavo_fail(OCTAVO_E_ARGUMENT, "params is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_route_params", params->struct_size, sizeof *params));
    OCTAVO_TRY(octavo_exec_check_place(exec, "logits", params->logits.device_kind));
    OCTAVO_TRY(check(params));
    if (!kernels->route) return octavo_fail(OCTAVO_E_UNSUPPORTED, "the device %s has no route", octavo_device_name(exec->device));
    return kernels->route(exec, params);
}
