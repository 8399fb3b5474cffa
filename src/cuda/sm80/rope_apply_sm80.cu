/* rope_apply_sm80.cu - rotates heads in place. A thread a pair of elements. Bound by memory. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_rows.cuh"

enum { THREADS = 256 };

struct rope_call {
    octavo_rope_apply_params p;
    int64_t pairs, count; /* of a head; of all */
};

static __global__ void __launch_bounds__(THREADS) rope_apply(const __grid_constant__ rope_call c)
{
    wait_for_kernel_before();
    const int64_t index = (int64_t)blockIdx.x * THREADS + threadIdx.x, pair = index % c.pairs, head = index / c.pairs;
    if (index >= c.count) return;
    const octavo_tensor *x = &c.p.x;
    const int64_t h = head % x->shape[2], t = head / x->shape[2] % x->shape[1], b = head / x->shape[2] / x->shape[1];
    const int64_t at = b * x->strides[0] + t * x->strides[1] + h * x->strides[2];
    const bool halves = c.p.rope.style == OCTAVO_ROPE_ROTATE_HALF;
    const int64_t low = at + (halves ? pair : 2 * pair), high = halves ? low + c.pairs : low + 1;
    const float angle = (float)c.p.positions[b * x->shape[1] + t] * c.p.rope.inv_freq[pair], scale = c.p.rope.scale == 0.0f ? 1.0f : c.p.rope.scale;
    const float cosine = cosf(angle) * scale, sine = sinf(angle) * scale, first = load_float(x, low), second = load_float(x, high);
    store_float(x, low, first * cosine - second * sine);
    store_float(x, high, second * cosine + first * sine);
}

octavo_status octavo_rope_apply_cuda(const octavo_exec *exec, const octavo_rope_apply_params *p)
{
    const int64_t pairs = (p->rope.rotary_dim ? p->rope.rotary_dim : p->x.shape[3]) / 2;
    const rope_call call = { *p, pairs, p->x.shape[0] * p->x.shape[1] * p->x.shape[2] * pairs };
    if (p->rope.style == OCTAVO_ROPE_NONE || call.count == 0) return OCTAVO_OK;
    const int64_t blocks = octavo_cuda_ceil(call.count, THREADS);
    OCTAVO_CUDA_TRY(layer_check_rows("x", blocks));
    return octavo_cuda_launch(rope_apply, "rope_apply", dim3((unsigned)blocks), THREADS, 0, exec, call);
}
