/* kv_append_sm80.cu - tokens into the planes of a view: a warp encodes one row of one head; then the means of units that are full.
 *
 * A row with a NaN or Inf is stored as zeros and sets the status word. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/tile/plane_codec.cuh"

enum { THREADS = 128, WARPS = THREADS / WARP };

/* What the kernels are given: the view by value. */
struct append_call {
    octavo_kv_append_params p;
    octavo_kv_view kv;
    int64_t tokens;
    int32_t *device_status;
};

static __device__ __forceinline__ int64_t row_offset(const octavo_tensor *x, int64_t b, int64_t i, int64_t head)
{
    return b * x->strides[0] + i * x->strides[1] + head * x->strides[2];
}

/* Grid: a warp a token and head of the batch. */
static __global__ void __launch_bounds__(THREADS) append_rows(const __grid_constant__ append_call c)
{
    const octavo_kv_view *kv = &c.kv;
    const int64_t n = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, head = n % kv->kv_heads, i = n / kv->kv_heads % c.tokens;
    const int64_t b = n / kv->kv_heads / c.tokens;
    if (b >= kv->batch) return;
    const int64_t token = c.p.positions[b] + i;
    if (token < 0 || token >= kv->max_tokens) {
        if (threadIdx.x % WARP == 0) report(c.device_status, OCTAVO_E_RANGE);
        return;
    }
    const stored_token at = find_token(kv, b, head, token);
    source_row k = { &c.p.k, row_offset(&c.p.k, b, i, head), kv->head_dim,
                     kv->k_mean ? kv->k_mean + (at.row * kv->kv_heads + head) * kv->head_dim : nullptr, nullptr, true };
    source_row v = { &c.p.v, row_offset(&c.p.v, b, i, head), kv->v_dim, nullptr, nullptr, true };
    if (c.p.k.data) k.finite = source_finite(k), put_key(kv, at, k);
    if (c.p.v.data) {
        v.finite = source_finite(v);
        v.over = kv->v_channel_scale ? kv->v_channel_scale + head * kv->v_dim : nullptr;
        put_value(kv, at, v);
    }
    if (!(k.finite && v.finite) && threadIdx.x % WARP == 0) report(c.device_status, OCTAVO_E_NONFINITE);
}

/* Grid: a warp a unit, of those that the new tokens touch, and head of the batch. */
static __global__ void __launch_bounds__(THREADS) append_means(const __grid_constant__ append_call c, int64_t units)
{
    const octavo_kv_view *kv = &c.kv;
    const int64_t n = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, head = n % kv->kv_heads, u = n / kv->kv_heads % units;
    const int64_t b = n / kv->kv_heads / units, sub = kv->sub_block_tokens;
    if (b >= kv->batch) return;
    const int64_t first = c.p.positions[b], unit = first / sub + u, last = unit * sub + sub - 1;
    if (first < 0 || last < first || last >= first + c.tokens || last >= kv->max_tokens) return;
    put_unit_mean(kv, find_token(kv, b, head, unit * sub));
}

octavo_status octavo_kv_append_cuda(const octavo_exec *exec, const octavo_kv_append_params *p)
{
    const octavo_kv_view *kv = p->kv;
    const append_call call = { *p, *kv, p->k.data ? p->k.shape[1] : p->v.shape[1], exec->device_status };
    const int64_t heads = kv->batch * kv->kv_heads, units = call.tokens / kv->sub_block_tokens + 1;
    const cudaStream_t stream = octavo_cuda_stream(exec);
    append_rows<<<(unsigned)octavo_cuda_ceil(heads * call.tokens, WARPS), THREADS, 0, stream>>>(call);
    if (p->v.data && kv->v_mean.data)
        append_means<<<(unsigned)octavo_cuda_ceil(heads * units, WARPS), THREADS, 0, stream>>>(call, units);
    return octavo_cuda_launched("kv_append");
}
