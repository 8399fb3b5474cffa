/* tensor.h - how memory is described to the library: never owned, never copied.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_TENSOR_H
#define OCTAVO_TENSOR_H

#include "octavo/status.h"

OCTAVO_BEGIN_DECLS

typedef enum octavo_dtype {
    OCTAVO_F64   = 1,
    OCTAVO_F32   = 2,
    OCTAVO_F16   = 3,
    OCTAVO_BF16  = 4,
    OCTAVO_E4M3  = 5, /* OCP E4M3: max 448, NaN S.1111.111, no Inf */
    OCTAVO_E5M2  = 6, /* IEEE-like, max 57344                      */
    OCTAVO_INT8  = 7,
    OCTAVO_UINT8 = 8,
    OCTAVO_INT32 = 9,
    OCTAVO_INT64 = 10
} octavo_dtype;

enum { OCTAVO_MAX_DIMS = 6 };

typedef enum octavo_device_kind { OCTAVO_DEVICE_CPU = 0, OCTAVO_DEVICE_CUDA = 1 } octavo_device_kind;

/* A borrowed array. A value type: its layout is frozen and it carries no struct_size. */
typedef struct octavo_tensor {
    void *data;
    octavo_dtype dtype;
    octavo_device_kind device_kind;
    int32_t device_index;
    int32_t ndim;
    int64_t shape[OCTAVO_MAX_DIMS];
    int64_t strides[OCTAVO_MAX_DIMS]; /* in elements */
} octavo_tensor;

/* Bytes of one element; 0 for a value that is not a dtype. */
OCTAVO_API size_t octavo_dtype_bytes(octavo_dtype dtype);
/* "bf16", "e4m3", ...; never NULL. */
OCTAVO_API const char *octavo_dtype_name(octavo_dtype dtype);

/* A contiguous row-major tensor on the CPU over the caller's memory. An ndim outside 0..OCTAVO_MAX_DIMS, a negative size or
 * 2^63 elements give a tensor with ndim -1, a rank that every call refuses. */
OCTAVO_API octavo_tensor octavo_tensor_view(void *data, octavo_dtype dtype, int32_t ndim, const int64_t *shape);

/* Between DLPack and ours, without a copy. `dl_tensor` points to a DLTensor (DLPack 0.8 or 1.x); the shape and strides arrays
 * that octavo_tensor_to_dlpack writes point into *tensor, which must outlive the DLTensor.
 * OCTAVO_E_UNSUPPORTED: a dtype, device or rank that has no counterpart. */
OCTAVO_API octavo_status octavo_tensor_from_dlpack(const void *dl_tensor, octavo_tensor *tensor);
OCTAVO_API octavo_status octavo_tensor_to_dlpack(octavo_tensor *tensor, void *dl_tensor);

OCTAVO_END_DECLS

#endif
