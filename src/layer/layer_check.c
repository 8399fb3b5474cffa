/* layer_check.c - what the public entries of this layer check alike: rotations, index arrays, memory that must be distinct. */
#include "layer/layer_check.h"
#include "base/error.h"
#include <math.h>
#include <string.h>

octavo_status octavo_rope_check(const octavo_rope *rope, int64_t head_dim)
{
    if (rope->style == OCTAVO_ROPE_NONE) return OCTAVO_OK;
    if (rope->style != OCTAVO_ROPE_ROTATE_HALF && rope->style != OCTAVO_ROPE_INTERLEAVED)
        return octavo_fail(OCTAVO_E_ARGUMENT, "rope.style is %d, expected one of octavo_rope_style", (int)rope->style);
    const int64_t rotary = rope->rotary_dim ? rope->rotary_dim : head_dim;
    if (rotary < 0 || rotary > head_dim || rotary % 2)
        return octavo_fail(OCTAVO_E_ARGUMENT, "rope.rotary_dim is %lld, expected an even number up to head_dim = %lld (0: head_dim)",
                           (long long)rotary, (long long)head_dim);
    if (!rope->inv_freq) return octavo_fail(OCTAVO_E_ARGUMENT, "rope.inv_freq is NULL, expected rotary_dim / 2 frequencies");
    if (!isfinite(rope->scale))
        return octavo_fail(OCTAVO_E_ARGUMENT, "rope.scale is %g, expected a finite number (0: 1)", (double)rope->scale);
    return OCTAVO_OK;
}

octavo_status octavo_indices_check(const char *name, const int32_t *indices, int64_t count, int64_t least, int64_t end,
                                   const octavo_tensor *beside)
{
    if (!indices) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL, expected %lld indices", name, (long long)count);
    if (beside->device_kind != OCTAVO_DEVICE_CPU) return OCTAVO_OK; /* the device's kernel looks at them */
    for (int64_t i = 0; i < count; i++)
        if (indices[i] < least || indices[i] >= end)
            return octavo_fail(OCTAVO_E_RANGE, "%s[%lld] is %d, expected %lld to %lld", name, (long long)i, indices[i],
                               (long long)least, (long long)end - 1);
    return OCTAVO_OK;
}

octavo_status octavo_extents_check(const octavo_named_extent *extents, int count, int outputs)
{
    for (int i = 0; i < outputs; i++)
        for (int j = i + 1; j < count; j++)
            if (octavo_extents_overlap(extents[i].extent, extents[j].extent))
                return octavo_fail(OCTAVO_E_ARGUMENT, "%s and %s overlap, expected distinct memory", extents[i].name, extents[j].name);
    return OCTAVO_OK;
}

octavo_status octavo_in_place_check(const char *input_name, const octavo_tensor *input, const char *output_name,
                                    const octavo_tensor *output)
{
    const size_t axes = (size_t)output->ndim * sizeof *output->strides;
    if (input->data == output->data && input->dtype == output->dtype && !memcmp(input->strides, output->strides, axes)) return OCTAVO_OK;
    if (octavo_extents_overlap(octavo_tensor_extent(input), octavo_tensor_extent(output)))
        return octavo_fail(OCTAVO_E_ARGUMENT, "%s and %s overlap, expected the same tensor or distinct memory", output_name, input_name);
    return OCTAVO_OK;
}
