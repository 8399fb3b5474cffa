/* dlpack_abi.h - the part of DLPack's binary interface that we exchange: DLTensor, the same in 0.8 and 1.x. */
#ifndef OCTAVO_BASE_DLPACK_ABI_H
#define OCTAVO_BASE_DLPACK_ABI_H

#include <stdint.h>

enum octavo_dlpack_type_code {
    OCTAVO_DLPACK_INT         = 0,
    OCTAVO_DLPACK_UINT        = 1,
    OCTAVO_DLPACK_FLOAT       = 2,
    OCTAVO_DLPACK_BFLOAT      = 4,
    OCTAVO_DLPACK_FLOAT8_E4M3 = 10, /* "e4m3fn", since 1.1 */
    OCTAVO_DLPACK_FLOAT8_E5M2 = 12  /* since 1.1           */
};

enum octavo_dlpack_device_type {
    OCTAVO_DLPACK_CPU          = 1,
    OCTAVO_DLPACK_CUDA         = 2,
    OCTAVO_DLPACK_CUDA_HOST    = 3, /* pinned memory of the host */
    OCTAVO_DLPACK_CUDA_MANAGED = 13
};

typedef struct octavo_dlpack_tensor {
    void *data;
    struct {
        int32_t type;
        int32_t index;
    } device;
    int32_t ndim;
    struct {
        uint8_t code;
        uint8_t bits;
        uint16_t lanes;
    } dtype;
    int64_t *shape;       /* [ndim] */
    int64_t *strides;     /* [ndim] in elements; NULL: contiguous, row-major */
    uint64_t byte_offset; /* from data to the first element */
} octavo_dlpack_tensor;

#endif
