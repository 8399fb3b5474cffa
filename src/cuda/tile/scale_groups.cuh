/* scale_groups.cuh - which elements share a scale, and single codes of the 8-bit formats. */
#ifndef OCTAVO_CUDA_TILE_SCALE_GROUPS_CUH
#define OCTAVO_CUDA_TILE_SCALE_GROUPS_CUH

#include "kernel/kernels.h"
#include "kernel/scales.h"

struct scale_groups {
    int64_t rows, cols; /* of a group                      */
    int64_t across;     /* groups beside each other        */
    int64_t count;
    __device__ int64_t of(int64_t r, int64_t c) const { return r / rows * across + c / cols; }
};

static inline scale_groups scale_groups_of(octavo_granularity granularity, int64_t rows, int64_t cols, int64_t block_rows, int64_t block_cols)
{
    const int64_t high = granularity == OCTAVO_PER_TOKEN ? 1 : granularity == OCTAVO_PER_BLOCK ? block_rows : rows;
    const int64_t wide = granularity == OCTAVO_PER_CHANNEL ? 1 : granularity == OCTAVO_PER_BLOCK ? block_cols : cols;
    const int64_t across = (cols - 1) / wide + 1;
    return { high, wide, across, ((rows - 1) / high + 1) * across };
}

static __device__ __forceinline__ float code_value(uint8_t code, octavo_dtype dtype)
{
    if (dtype == OCTAVO_E4M3) return octavo_e4m3_to_float(code);
    if (dtype == OCTAVO_E5M2) return octavo_e5m2_to_float(code);
    return (float)(int8_t)code;
}

static __device__ __forceinline__ uint8_t code_of(float quotient, octavo_dtype dtype)
{
    if (dtype == OCTAVO_E4M3) return octavo_e4m3_from_float(quotient);
    if (dtype == OCTAVO_E5M2) return octavo_e5m2_from_float(quotient);
    return (uint8_t)(int8_t)rintf(fmaxf(-127.0f, fminf(quotient, 127.0f)));
}

#endif
