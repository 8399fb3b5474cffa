/* layer_rows.cuh - rows of the operations between the products: where one begins, how many threads it is worth. */
#ifndef OCTAVO_CUDA_TILE_LAYER_ROWS_CUH
#define OCTAVO_CUDA_TILE_LAYER_ROWS_CUH

#include "cuda/cuda_call.h"
#include "cuda/tile/stored_rows.cuh"

/* Rows of a tensor of 2 or 3 axes whose last is the row, and the first element of row r. */
static __host__ __device__ __forceinline__ int64_t layer_row_count(const octavo_tensor *x) { return x->ndim == 3 ? x->shape[0] * x->shape[1] : x->shape[0]; }
static __device__ __forceinline__ int64_t layer_row(const octavo_tensor *x, int64_t r)
{
    if (x->ndim == 2) return r * x->strides[0];
    return r / x->shape[1] * x->strides[0] + r % x->shape[1] * x->strides[1];
}

/* Threads of a block for `width` elements, `each` a thread: whole warps. */
static inline int layer_threads(int64_t width, int64_t each, int most)
{
    const int64_t wanted = octavo_cuda_ceil(octavo_cuda_ceil(width, each), 32) * 32;
    return wanted < most ? (int)wanted : most;
}

/* A grid's first axis has room for so many. */
static inline octavo_status layer_check_rows(const char *name, int64_t rows)
{
    if (rows <= INT32_MAX) return OCTAVO_OK;
    return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "%s has %lld rows or spans, expected at most %d on a GPU", name, (long long)rows, INT32_MAX);
}

#endif
