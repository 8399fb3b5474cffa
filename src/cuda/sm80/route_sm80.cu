/* route_sm80.cu - top-k routing: a warp a token chooses, then a block an expert finds its rows.
 *
 * Every expert's block looks at all choices: those of lower experts are counted, its own numbered in order, so nothing is shared
 * between blocks and the order is that of the tokens. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_rows.cuh"
#include "cuda/tile/reduce.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP };

/* An expert and its logit; index -1: none. */
struct candidate {
    float logit;
    int32_t index;
};

/* NaN comes after everything, ties go to the lower index. */
static __device__ __forceinline__ bool comes_before(const candidate &a, const candidate &b)
{
    if (a.index < 0 || b.index < 0) return b.index < 0 && a.index >= 0;
    const bool a_is_nan = isnan(a.logit), b_is_nan = isnan(b.logit);
    if (a_is_nan != b_is_nan) return b_is_nan;
    if (a_is_nan || a.logit == b.logit) return a.index < b.index;
    return a.logit > b.logit;
}

/* The first of all that come after `last`, the same for every lane. */
static __device__ __forceinline__ candidate next_of(const float *logits, int64_t count, bool any, const candidate &last)
{
    candidate best = { 0.0f, -1 };
    for (int64_t e = threadIdx.x % WARP; e < count; e += WARP) {
        const candidate it = { logits[e], (int32_t)e };
        if ((any || comes_before(last, it)) && comes_before(it, best)) best = it;
    }
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2) {
        const candidate other = { __shfl_xor_sync(WHOLE_WARP, best.logit, step), __shfl_xor_sync(WHOLE_WARP, best.index, step) };
        if (comes_before(other, best)) best = other;
    }
    return best;
}

/* Grid: a warp a token. */
static __global__ void __launch_bounds__(THREADS) choose(const __grid_constant__ octavo_route_params p)
{
    wait_for_kernel_before();
    const int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, count = p.logits.shape[1], lane = threadIdx.x % WARP;
    if (t >= p.logits.shape[0]) return;
    const float *logits = (const float *)p.logits.data + t * p.logits.strides[0];
    candidate last = { 0.0f, -1 };
    float most = 0.0f, chosen = 0.0f, all = 0.0f;
    bool odd = false;
    for (int64_t j = 0; j < p.choices; j++) {
        last = next_of(logits, count, j == 0, last);
        if (j == 0) most = last.logit;
        chosen += expf(last.logit - most);
        if (lane == 0) p.experts[t * p.choices + j] = last.index, p.weights[t * p.choices + j] = last.logit;
    }
    __syncwarp();
    for (int64_t e = lane; e < count; e += WARP) all += expf(logits[e] - most), odd |= isnan(logits[e]);
    all = warp_reduce(all, add_up());
    odd = __any_sync(WHOLE_WARP, odd);
    const float sum = odd ? NAN : p.weighting == OCTAVO_ROUTE_SOFTMAX ? all : chosen;
    for (int64_t j = lane; j < p.choices; j += WARP) p.weights[t * p.choices + j] = expf(p.weights[t * p.choices + j] - most) / sum;
}

/* Grid: experts. */
static __global__ void __launch_bounds__(THREADS) place(const __grid_constant__ octavo_route_params p)
{
    __shared__ int32_t shared[WARPS_MAX];
    wait_for_kernel_before();
    const int32_t expert = (int32_t)blockIdx.x;
    const int64_t entries = p.logits.shape[0] * p.choices;
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    int32_t lower = 0;
    for (int64_t i = threadIdx.x; i < entries; i += THREADS) lower += p.experts[i] < expert;
    int32_t row = block_reduce(lower, shared, add_up());
    if (threadIdx.x == 0) p.offsets[expert] = row;
    if (threadIdx.x == 0 && blockIdx.x + 1 == gridDim.x) p.offsets[gridDim.x] = (int32_t)entries;
    for (int64_t first = 0; first < entries; first += THREADS) {
        const int64_t i = first + threadIdx.x;
        const bool mine = i < entries && p.experts[i] == expert;
        const unsigned votes = __ballot_sync(WHOLE_WARP, mine);
        __syncthreads();
        if (lane == 0) shared[warp] = __popc(votes);
        __syncthreads();
        int32_t before = row;
        for (int w = 0; w < WARPS; w++) {
            if (w < warp) before += shared[w];
            row += shared[w];
        }
        if (!mine) continue;
        const int32_t at = before + __popc(votes & ((1u << lane) - 1));
        p.order[at] = (int32_t)(i / p.choices);
        p.slots[i] = at;
    }
}

octavo_status octavo_route_cuda(const octavo_exec *exec, const octavo_route_params *p)
{
    const int64_t tokens = p->logits.shape[0], experts = p->logits.shape[1];
    OCTAVO_CUDA_TRY(layer_check_rows("logits", tokens > experts ? tokens : experts));
    OCTAVO_CUDA_TRY(octavo_cuda_launch(choose, "route", dim3((unsigned)octavo_cuda_ceil(tokens, WARPS)), THREADS, 0, exec, *p));
    return octavo_cuda_launch(place, "route", dim3((unsigned)experts), THREADS, 0, exec, *p);
}
