/* rope_apply_sm80.cu - rotates heads in place. A thread a pair of elements, or of many aligned heads eight pairs of several, whose angles
 * are the same. Bound by memory. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_eights.cuh"

enum { THREADS = 256, HEADS = 4 /* of a thread */, MANY = 1 << 16 /* pairs */ };

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

/* Grid: eights of pairs, HEADS heads of a token at a time; halves are rotated. */
static __global__ void __launch_bounds__(THREADS) rope_apply_eights(const __grid_constant__ rope_call c)
{
    wait_for_kernel_before();
    const octavo_tensor *x = &c.p.x;
    const unsigned a_head = (unsigned)c.pairs / EIGHT, a_token = ((unsigned)x->shape[2] + HEADS - 1) / HEADS;
    const unsigned index = blockIdx.x * THREADS + threadIdx.x, rest = index / a_head, token = rest / a_token, first = rest % a_token * HEADS;
    const int64_t pair = (int64_t)(index % a_head) * EIGHT, b = token / (unsigned)x->shape[1], t = token % (unsigned)x->shape[1];
    if (b >= x->shape[0]) return;
    const float position = (float)c.p.positions[b * x->shape[1] + t], scale = c.p.rope.scale == 0.0f ? 1.0f : c.p.rope.scale;
    const int64_t at = b * x->strides[0] + t * x->strides[1] + pair, end = x->shape[2] - first < HEADS ? x->shape[2] - first : HEADS;
    float cosine[EIGHT], sine[EIGHT];
    load_eight(c.p.rope.inv_freq + pair, cosine);
#pragma unroll
    for (int j = 0; j < EIGHT; j++) {
        const float angle = position * cosine[j];
        cosine[j] = cosf(angle) * scale, sine[j] = sinf(angle) * scale;
    }
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        if (h >= end) return;
        const int64_t low = at + (first + h) * x->strides[2], high = low + c.pairs;
        float a[EIGHT], z[EIGHT];
        load_eight(x, low, a), load_eight(x, high, z);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) {
            const float before = a[j];
            a[j] = before * cosine[j] - z[j] * sine[j], z[j] = z[j] * cosine[j] + before * sine[j];
        }
        store_eight(x, low, a), store_eight(x, high, z);
    }
}

static bool rope_has_eights(const rope_call &c)
{
    return c.count > MANY && c.count <= INT32_MAX && c.p.rope.style == OCTAVO_ROPE_ROTATE_HALF && c.pairs % EIGHT == 0 && layer_has_eights(&c.p.x) &&
           layer_has_eights(c.p.rope.inv_freq);
}

octavo_status octavo_rope_apply_cuda(const octavo_exec *exec, const octavo_rope_apply_params *p)
{
    const int64_t pairs = (p->rope.rotary_dim ? p->rope.rotary_dim : p->x.shape[3]) / 2;
    const rope_call call = { *p, pairs, p->x.shape[0] * p->x.shape[1] * p->x.shape[2] * pairs };
    if (p->rope.style == OCTAVO_ROPE_NONE || call.count == 0) return OCTAVO_OK;
    if (rope_has_eights(call)) {
        const int64_t threads = p->x.shape[0] * p->x.shape[1] * octavo_cuda_ceil(p->x.shape[2], HEADS) * (pairs / EIGHT);
        return octavo_cuda_launch(rope_apply_eights, "rope_apply", dim3((unsigned)octavo_cuda_ceil(threads, THREADS)), THREADS, 0, exec, call);
    }
    const int64_t blocks = octavo_cuda_ceil(call.count, THREADS);
    OCTAVO_CUDA_TRY(layer_check_rows("x", blocks));
    return octavo_cuda_launch(rope_apply, "rope_apply", dim3((unsigned)blocks), THREADS, 0, exec, call);
}
