/* reduce.cuh - sums and maxima over a warp and over a block, the same bits every time. */
#ifndef OCTAVO_CUDA_TILE_REDUCE_CUH
#define OCTAVO_CUDA_TILE_REDUCE_CUH

#include <cstdint>

enum { WARP = 32, WARPS_MAX = 32 };
static constexpr unsigned WHOLE_WARP = 0xffffffffu;

struct add_up {
    template <typename T> __device__ T operator()(T a, T b) const { return a + b; }
};
struct take_larger {
    template <typename T> __device__ T operator()(T a, T b) const { return a > b ? a : b; }
};

template <typename T, typename Join> static __device__ __forceinline__ T warp_reduce(T x, Join join)
{
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) x = join(x, __shfl_xor_sync(WHOLE_WARP, x, step));
    return x;
}

/* Every thread of the block calls it and gets the result; `shared` holds a T a warp. */
template <typename T, typename Join> static __device__ __forceinline__ T block_reduce(T x, T *shared, Join join)
{
    const int warp = (int)threadIdx.x / WARP, warps = (int)(blockDim.x + WARP - 1) / WARP;
    x = warp_reduce(x, join);
    __syncthreads();
    if (threadIdx.x % WARP == 0) shared[warp] = x;
    __syncthreads();
    x = shared[0];
    for (int i = 1; i < warps; i++) x = join(x, shared[i]);
    return x;
}

/* Sets the call's sticky status word, where it has one. */
static __device__ __forceinline__ void report(int32_t *device_status, int32_t status)
{
    if (device_status) atomicCAS((int *)device_status, 0, status);
}

#endif
