/* cuda_blas.h - products of large matrices by cuBLASLt, which is looked for when a device is opened: everything works without it. */
#ifndef OCTAVO_CUDA_CUDA_BLAS_H
#define OCTAVO_CUDA_CUDA_BLAS_H

#include "kernel/kernels.h"

/* y [tokens, out] = or += x [tokens, in] w [out, in]^T + bias. Rows are contiguous, strides in elements. */
struct octavo_cuda_product {
    const void *x, *w;
    void *y;
    const float *bias;  /* [out] or NULL; y is float32 then */
    octavo_dtype dtype; /* of x and w: float32 or bf16      */
    octavo_dtype y_dtype;
    octavo_store store;
    int64_t tokens, out, in, x_stride, w_stride, y_stride;
    void *workspace;
    size_t workspace_bytes;
};

/* Loads the library and makes the thread's device a handle, which stays. Where that fails there are just no products. */
void octavo_cuda_blas_open(void);

/* *done: whether the product was started; otherwise the library is missing or refuses the shape. */
octavo_status octavo_cuda_blas_multiply(const octavo_exec *exec, const octavo_cuda_product *product, bool *done);

#endif
