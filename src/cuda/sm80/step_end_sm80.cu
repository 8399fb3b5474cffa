/* step_end_sm80.cu - the end of a decode step: its record, and what the next step begins with. One block. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/reduce.cuh"
#include "kernel/random.h"

enum { THREADS = 256 };

struct step_end_call {
    octavo_step_end_params p;
    int32_t *device_status;
};

/* Grid: 1. */
static __global__ void __launch_bounds__(THREADS) step_end(const __grid_constant__ step_end_call c)
{
    __shared__ long long bytes_shared[WARPS_MAX];
    __shared__ double skip_shared[WARPS_MAX];
    wait_for_kernel_before();
    const octavo_step_end_params &p = c.p;
    const int32_t step = *p.count;
    if (step < 0 || step >= p.capacity) {
        if (threadIdx.x == 0) report(c.device_status, OCTAVO_E_RANGE);
        return;
    }
    long long bytes = 0;
    double skip = 0.0;
    for (int64_t i = threadIdx.x; i < p.layers * p.values; i += THREADS) {
        const int64_t at = i / p.values * p.stride + i % p.values;
        bytes += p.bytes_read[at], skip += (double)p.skip_ratio[at];
    }
    bytes = block_reduce(bytes, bytes_shared, add_up());
    skip = block_reduce(skip, skip_shared, add_up());
    for (int64_t b = threadIdx.x; b < p.batch && p.tokens; b += THREADS) {
        octavo_drawn_token *draw = &p.draws[step * p.batch + b];
        draw->token = p.tokens[b];
        draw->sampled_logprob = p.sampled_logprob ? p.sampled_logprob[b] : 0.0f;
        draw->logprob = p.logprob ? p.logprob[b] : 0.0f;
        if (p.ids) p.ids[b] = p.tokens[b];
        if (p.rows) p.rows[b].uniform = octavo_random_number(p.random[b], (uint64_t)step + 1);
    }
    if (threadIdx.x) return; /* all have read *count: they met above */
    p.records[step].bytes_read = bytes, p.records[step].skip_sum = skip;
    *p.count = step + 1;
}

octavo_status octavo_step_end_cuda(const octavo_exec *exec, const octavo_step_end_params *p)
{
    const step_end_call call = { *p, exec->device_status };
    return octavo_cuda_launch(step_end, "step_end", dim3(1), THREADS, 0, exec, call);
}
