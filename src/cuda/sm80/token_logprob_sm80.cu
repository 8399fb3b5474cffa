/* token_logprob_sm80.cu - a token's log-probability, and which token is largest. A block a row, read twice. A token out of range gives
 * NaN and sets the status word. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/logit_rows.cuh"

enum { THREADS_MOST = 1024, EACH = 8 };

struct logprob_call {
    octavo_token_logprob_params p;
    int32_t *device_status;
};

/* Grid: rows. */
static __global__ void __launch_bounds__(THREADS_MOST) token_logprob(const __grid_constant__ logprob_call c)
{
    __shared__ logit_shared shared;
    wait_for_kernel_before();
    const int64_t r = blockIdx.x, vocab = c.p.logits.shape[1], token = c.p.tokens[r];
    const float *logits = (const float *)c.p.logits.data + r * c.p.logits.strides[0];
    const largest_logit top = find_largest(logits, vocab, &shared);
    const float sum = sum_of_weights(logits, vocab, top.value, shared.floats);
    const bool valid = token >= 0 && token < vocab;
    if (threadIdx.x != 0) return;
    if (!valid) report(c.device_status, OCTAVO_E_RANGE);
    c.p.logprob[r] = valid ? logits[token] - top.value - logf(sum) : NAN;
    if (c.p.top) c.p.top[r] = top.index;
}

octavo_status octavo_token_logprob_cuda(const octavo_exec *exec, const octavo_token_logprob_params *p)
{
    const logprob_call call = { *p, exec->device_status };
    OCTAVO_CUDA_TRY(layer_check_rows("logits", p->logits.shape[0]));
    return octavo_cuda_launch(token_logprob, "token_logprob", dim3((unsigned)p->logits.shape[0]),
                              layer_threads(p->logits.shape[1], EACH, THREADS_MOST), 0, exec, call);
}
