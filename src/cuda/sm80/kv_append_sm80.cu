/* kv_append_sm80.cu - tokens into the planes of a view: a warp encodes one row of one head; the means of units that are full follow in a
 * kernel of their own, or, where a sequence gets a single token, by the warp that stored it.
 *
 * A row with a NaN or Inf is stored as zeros and sets the status word. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/plane_codec.cuh"

enum { THREADS = 128, WARPS = THREADS / WARP };

/* What the kernels are given: the view by value. */
struct append_call {
    octavo_kv_append_params p;
    octavo_kv_view kv;
    int64_t tokens, units; /* units: that the new tokens of a sequence can touch */
    bool means;
    int32_t *device_status;
};

static __device__ __forceinline__ int64_t row_offset(const octavo_tensor *x, int64_t b, int64_t i, int64_t head)
{
    return b * x->strides[0] + i * x->strides[1] + head * x->strides[2];
}

/* Grid (a warp a token and head of the batch, 2): K, then V. */
static __global__ void __launch_bounds__(THREADS) append_rows(const __grid_constant__ append_call c)
{
    wait_for_kernel_before();
    const octavo_kv_view *kv = &c.kv;
    const int64_t n = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, head = n % kv->kv_heads, i = n / kv->kv_heads % c.tokens;
    const int64_t b = n / kv->kv_heads / c.tokens;
    const bool is_v = blockIdx.y == 1;
    const octavo_tensor *x = is_v ? &c.p.v : &c.p.k;
    if (b >= kv->batch || !x->data) return;
    const int64_t token = c.p.positions[b] + i;
    if (token < 0 || token >= kv->max_tokens) {
        if (threadIdx.x % WARP == 0) report(c.device_status, OCTAVO_E_RANGE);
        return;
    }
    const stored_token at = find_token(kv, b, head, token);
    const float *mean = !is_v && kv->k_mean ? kv->k_mean + (at.row * kv->kv_heads + head) * kv->head_dim : nullptr;
    source_row row = { x, row_offset(x, b, i, head), is_v ? kv->v_dim : kv->head_dim, mean, nullptr, true };
    row.finite = source_finite(row);
    if (!row.finite && threadIdx.x % WARP == 0) report(c.device_status, OCTAVO_E_NONFINITE);
    if (!is_v) {
        put_key(kv, at, row);
        return;
    }
    row.over = kv->v_channel_scale ? kv->v_channel_scale + head * kv->v_dim : nullptr;
    put_value(kv, at, row);
    if (!c.means || c.tokens > 1 || (token + 1) % kv->sub_block_tokens) return;
    __syncwarp(); /* what it stored is there for all of it */
    put_unit_mean_warp(kv, find_token(kv, b, head, token + 1 - kv->sub_block_tokens));
}

/* Grid: a block a unit, of those that the new tokens touch, and head of the batch; few units have to be done soon. */
static __global__ void __launch_bounds__(THREADS) append_means(const __grid_constant__ append_call c)
{
    wait_for_kernel_before();
    const octavo_kv_view *kv = &c.kv;
    const int64_t n = blockIdx.x, head = n % kv->kv_heads, u = n / kv->kv_heads % c.units, b = n / kv->kv_heads / c.units, sub = kv->sub_block_tokens;
    const int64_t first = c.p.positions[b], unit = first / sub + u, last = unit * sub + sub - 1;
    if (first < 0 || last < first || last >= first + c.tokens || last >= kv->max_tokens) return;
    put_unit_mean_block(kv, find_token(kv, b, head, unit * sub));
}

octavo_status octavo_kv_append_cuda(const octavo_exec *exec, const octavo_kv_append_params *p)
{
    const octavo_kv_view *kv = p->kv;
    const int64_t tokens = p->k.data ? p->k.shape[1] : p->v.shape[1], heads = kv->batch * kv->kv_heads, units = tokens / kv->sub_block_tokens + 1;
    const append_call call = { *p, *kv, tokens, units, p->v.data && kv->v_mean.data, exec->device_status };
    const dim3 rows((unsigned)octavo_cuda_ceil(heads * tokens, WARPS), 2), means((unsigned)(heads * units));
    OCTAVO_CUDA_TRY(octavo_cuda_launch(append_rows, "kv_append", rows, THREADS, 0, exec, call));
    return call.means && tokens > 1 ? octavo_cuda_launch(append_means, "kv_append", means, THREADS, 0, exec, call) : OCTAVO_OK;
}
