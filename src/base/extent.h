/* extent.h - the memory that a tensor touches, to refuse calls whose output lies over their input. */
#ifndef OCTAVO_BASE_EXTENT_H
#define OCTAVO_BASE_EXTENT_H

#include "octavo/tensor.h"

/* Bytes [begin, end) as addresses; empty for a tensor without elements. */
typedef struct octavo_extent {
    uintptr_t begin, end;
} octavo_extent;

octavo_extent octavo_tensor_extent(const octavo_tensor *tensor);
octavo_extent octavo_array_extent(const void *data, size_t bytes);
int octavo_extents_overlap(octavo_extent a, octavo_extent b);

/* Rank, sizes >= 1, a contiguous last axis, data. The sentence calls the tensor `name`. */
octavo_status octavo_tensor_check(const char *name, const octavo_tensor *tensor, int32_t ndim);

#endif
