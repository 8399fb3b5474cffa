/* layer_check.h - what the public entries of this layer check alike: rotations, index arrays, memory that must be distinct. */
#ifndef OCTAVO_LAYER_LAYER_CHECK_H
#define OCTAVO_LAYER_LAYER_CHECK_H

#include "base/extent.h"
#include "octavo/rope.h"

octavo_status octavo_rope_check(const octavo_rope *rope, int64_t head_dim);

/* Indices beside a tensor: given, and each in [least, end) where the tensor's memory can be read. */
octavo_status octavo_indices_check(const char *name, const int32_t *indices, int64_t count, int64_t least, int64_t end,
                                   const octavo_tensor *beside);

/* Memory with a name. */
typedef struct octavo_named_extent {
    const char *name;
    octavo_extent extent;
} octavo_named_extent;

static inline octavo_named_extent octavo_named_tensor(const char *name, const octavo_tensor *tensor)
{
    return (octavo_named_extent){ name, tensor->data ? octavo_tensor_extent(tensor) : (octavo_extent){ 0, 0 } };
}
static inline octavo_named_extent octavo_named_array(const char *name, const void *data, int64_t elements, size_t element_bytes)
{
    return (octavo_named_extent){ name, octavo_array_extent(data, (size_t)elements * element_bytes) };
}

/* No one of the `outputs`, which come first, overlaps another or an input. */
octavo_status octavo_extents_check(const octavo_named_extent *extents, int count, int outputs);

/* The output either is the input, element by element, or overlaps it nowhere. */
octavo_status octavo_in_place_check(const char *input_name, const octavo_tensor *input, const char *output_name,
                                    const octavo_tensor *output);

#endif
