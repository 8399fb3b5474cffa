/* logit_rows.cuh - a row of logits by one block: the largest, and the sum of the weights. */
#ifndef OCTAVO_CUDA_TILE_LOGIT_ROWS_CUH
#define OCTAVO_CUDA_TILE_LOGIT_ROWS_CUH

#include "cuda/tile/layer_rows.cuh"
#include "cuda/tile/reduce.cuh"

/* Calls use(logit, id) for the block's share of a row; ids ascend in a thread. Many loads are on their way at a time: one block alone
 * has nothing else to hide them. */
template <typename Use> static __device__ __forceinline__ void each_logit(const float *logits, int64_t count, Use use)
{
    enum { BATCH = 16 };
    for (int64_t first = threadIdx.x; first < count; first += BATCH * (int64_t)blockDim.x) {
        float x[BATCH];
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            const int64_t i = first + j * (int64_t)blockDim.x;
            x[j] = i < count ? logits[i] : 0.0f;
        }
#pragma unroll
        for (int j = 0; j < BATCH; j++) {
            const int64_t i = first + j * (int64_t)blockDim.x;
            if (i < count) use(x[j], i);
        }
    }
}

/* The largest logit that is no NaN, at its lowest id; -inf at 0 where there is none. */
struct largest_logit {
    float value;
    int32_t index;
};

struct logit_shared {
    largest_logit largest[WARPS_MAX];
    float floats[WARPS_MAX];
};

struct take_larger_logit {
    __device__ largest_logit operator()(const largest_logit &a, const largest_logit &b) const
    {
        return b.value > a.value || (b.value == a.value && b.index < a.index) ? b : a;
    }
};

static __device__ __forceinline__ largest_logit find_largest(const float *logits, int64_t count, logit_shared *shared)
{
    largest_logit top = { -INFINITY, 0 };
    each_logit(logits, count, [&](float x, int64_t i) {
        if (x > top.value) top = { x, (int32_t)i };
    });
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2)
        top = take_larger_logit()(top, { __shfl_xor_sync(WHOLE_WARP, top.value, step), __shfl_xor_sync(WHOLE_WARP, top.index, step) });
    if (threadIdx.x % WARP == 0) shared->largest[threadIdx.x / WARP] = top;
    __syncthreads();
    top = shared->largest[0];
    for (int i = 1; i < (int)blockDim.x / WARP; i++) top = take_larger_logit()(top, shared->largest[i]);
    return top;
}

/* Sum of exp(x - most) over the row. */
static __device__ __forceinline__ float sum_of_weights(const float *logits, int64_t count, float most, float *shared)
{
    float sum = 0.0f;
    each_logit(logits, count, [&](float x, int64_t) { sum += expf(x - most); });
    return block_reduce(sum, shared, add_up());
}

#endif
