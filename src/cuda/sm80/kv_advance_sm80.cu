/* kv_advance_sm80.cu - where a step's new tokens go: positions from the lengths before, which then grow. A block a sequence. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_rows.cuh"
#include "cuda/tile/reduce.cuh"

enum { THREADS = 128 };

struct advance_call {
    octavo_kv_advance_params p;
    int32_t *device_status;
};

/* Grid: sequences. */
static __global__ void __launch_bounds__(THREADS) kv_advance(const __grid_constant__ advance_call c)
{
    wait_for_kernel_before();
    const octavo_kv_advance_params &p = c.p;
    const int64_t b = blockIdx.x, row = p.sequences[b];
    bool refused = row < 0 || row >= p.rows;
    for (int64_t layer = threadIdx.x; layer < p.layers && !refused; layer += THREADS) {
        const int64_t length = p.lengths[layer * p.rows + row];
        refused = length < 0 || length > p.max_tokens - p.tokens;
    }
    refused = __syncthreads_or(refused);
    if (refused) {
        if (threadIdx.x == 0) report(c.device_status, OCTAVO_E_RANGE);
        return;
    }
    const int32_t first = p.lengths[row];
    __syncthreads(); /* before thread 0 makes it grow */
    if (threadIdx.x == 0 && p.first) p.first[b] = first;
    for (int64_t t = threadIdx.x; t < p.tokens && p.positions; t += THREADS) p.positions[b * p.tokens + t] = first + (int32_t)t;
    for (int64_t layer = threadIdx.x; layer < p.layers; layer += THREADS) p.lengths[layer * p.rows + row] += (int32_t)p.tokens;
}

octavo_status octavo_kv_advance_cuda(const octavo_exec *exec, const octavo_kv_advance_params *p)
{
    const advance_call call = { *p, exec->device_status };
    OCTAVO_CUDA_TRY(layer_check_rows("batch", p->batch));
    return octavo_cuda_launch(kv_advance, "kv_advance", dim3((unsigned)p->batch), THREADS, 0, exec, call);
}
