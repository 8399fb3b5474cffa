/* tensor_match.h - whether a tensor is of the dtype and shape that a call asks for. */
#ifndef OCTAVO_BASE_TENSOR_MATCH_H
#define OCTAVO_BASE_TENSOR_MATCH_H

#include "octavo/tensor.h"

/* Sets of dtypes, one bit each. */
#define OCTAVO_DTYPE_BIT(dtype) (1u << (dtype))
enum {
    OCTAVO_DTYPES_FLOAT = 1 << OCTAVO_F32 | 1 << OCTAVO_F16 | 1 << OCTAVO_BF16,
    OCTAVO_DTYPES_CODES = 1 << OCTAVO_E4M3 | 1 << OCTAVO_E5M2 | 1 << OCTAVO_INT8,
    OCTAVO_ANYWHERE     = 1 << 30 /* beside dtypes: on a GPU, too; the caller compares it with the call's device */
};

/* octavo_tensor_check (base/extent.h), and: one of `dtypes`, data aligned to its elements, the sizes in `shape` where these are
 * positive. `name` is what the sentence calls it. */
octavo_status octavo_tensor_match(const char *name, const octavo_tensor *tensor, unsigned dtypes, int32_t ndim,
                                  const int64_t *shape);

/* The same for a tensor that is written: no two elements share memory. */
octavo_status octavo_tensor_match_output(const char *name, const octavo_tensor *tensor, unsigned dtypes, int32_t ndim,
                                         const int64_t *shape);

#endif
