/* kv_append_sm80.cu - tokens into the planes of a view: a warp encodes one row of one head, or half a warp does where it becomes 16-bit
 * floats; the means of units that are full follow in a kernel of their own, or, where a sequence gets a single token, by the warp that stored it.
 *
 * A row with a NaN or Inf is stored as zeros and sets the status word. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_eights.cuh"
#include "cuda/tile/plane_codec.cuh"
#include "cuda/tile/tile_ring.cuh"

enum { THREADS = 128, WARPS = THREADS / WARP, ROW_LANES = 16 /* of a row of 16-bit floats */, COPY_STEP = EIGHT * ROW_LANES };

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

/* Rows of a view of 16-bit floats. Grid (ROW_LANES lanes a token and head of the batch, 2): K, then V. */
static __global__ void __launch_bounds__(THREADS) append_halves(const __grid_constant__ append_call c)
{
    wait_for_kernel_before();
    const octavo_kv_view *kv = &c.kv;
    const unsigned n = (blockIdx.x * THREADS + threadIdx.x) / ROW_LANES, heads = (unsigned)kv->kv_heads, tokens = (unsigned)c.tokens;
    const int64_t head = n % heads, i = n / heads % tokens, b = n / heads / tokens;
    const bool is_v = blockIdx.y == 1, halves = is_v ? kv->v_format == OCTAVO_V_F16 : kv->k_format == OCTAVO_K_F16;
    const octavo_tensor *x = is_v ? &c.p.v : &c.p.k;
    const int dim = is_v ? kv->v_dim : kv->head_dim, first = (int)threadIdx.x % ROW_LANES * EIGHT;
    const float most = halves ? OCTAVO_FP16_MAX : 0x1.fep+127f;
    if (!x->data) return; /* all of the block */
    const int64_t token = b < kv->batch ? c.p.positions[b] + i : -1;
    const bool there = token >= 0 && token < kv->max_tokens;
    const int64_t from = there ? row_offset(x, b, i, head) : 0;
    float eight[EIGHT];
    bool finite = true;
    for (int at = first; at < dim && there; at += COPY_STEP) {
        load_eight(x, from + at, eight);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) finite = finite && fabsf(eight[j]) <= FLT_MAX;
    }
    finite = (__ballot_sync(WHOLE_WARP, finite) >> (threadIdx.x % WARP / ROW_LANES * ROW_LANES) & 0xffffu) == 0xffffu;
    if (first == 0 && b < kv->batch && (!there || !finite)) report(c.device_status, there ? OCTAVO_E_NONFINITE : OCTAVO_E_RANGE);
    if (!there) return;
    uint16_t *to = (uint16_t *)stored_at(is_v ? &kv->v : &kv->k[0], find_token(kv, b, head, token));
    for (int at = first; at < dim; at += COPY_STEP) {
        load_eight(x, from + at, eight);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) eight[j] = finite ? held(eight[j], most) : 0.0f;
        *(uint4 *)(to + at) = pack_eight(halves, eight);
    }
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

/* Many tokens become 16-bit floats, and nothing else is made of them. */
static bool become_halves(const append_call &c)
{
    const octavo_kv_view *kv = &c.kv;
    const bool k = kv->k_format == OCTAVO_K_F16 || kv->k_format == OCTAVO_K_BF16, v = kv->v_format == OCTAVO_V_F16 || kv->v_format == OCTAVO_V_BF16;
    if (c.tokens == 1 || kv->batch * kv->kv_heads * c.tokens > INT32_MAX / ROW_LANES || kv->k_mean || kv->v_channel_scale || kv->k_norm.data) return false;
    if (c.p.k.data && !(k && layer_has_eights(&c.p.k) && rows_fit(&kv->k[0], 1))) return false;
    return !c.p.v.data || (v && layer_has_eights(&c.p.v) && rows_fit(&kv->v, 1));
}

octavo_status octavo_kv_append_cuda(const octavo_exec *exec, const octavo_kv_append_params *p)
{
    const octavo_kv_view *kv = p->kv;
    const int64_t tokens = p->k.data ? p->k.shape[1] : p->v.shape[1], heads = kv->batch * kv->kv_heads, units = tokens / kv->sub_block_tokens + 1;
    const append_call call = { *p, *kv, tokens, units, p->v.data && kv->v_mean.data, exec->device_status };
    const bool halves = become_halves(call);
    const dim3 rows((unsigned)octavo_cuda_ceil(heads * tokens, halves ? THREADS / ROW_LANES : WARPS), 2), means((unsigned)(heads * units));
    OCTAVO_CUDA_TRY(octavo_cuda_launch(halves ? append_halves : append_rows, "kv_append", rows, THREADS, 0, exec, call));
    return call.means && tokens > 1 ? octavo_cuda_launch(append_means, "kv_append", means, THREADS, 0, exec, call) : OCTAVO_OK;
}
