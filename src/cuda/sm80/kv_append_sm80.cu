/* kv_append_sm80.cu - tokens into the planes of a view: a warp encodes one row of one head, half a warp copies one that stays as it is; the means
 * of units that are full follow in a kernel of their own, or, where a sequence gets a single token, by the warp that stored it.
 *
 * A row with a NaN or Inf is stored as zeros and sets the status word. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_eights.cuh"
#include "cuda/tile/plane_codec.cuh"

enum { THREADS = 128, WARPS = THREADS / WARP, ROW_LANES = 16 /* of a row that is copied */, COPY_STEP = 8 * ROW_LANES };

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

/* Rows of 16-bit floats into a view of the same. Grid (ROW_LANES lanes a token and head of the batch, 2): K, then V. */
static __global__ void __launch_bounds__(THREADS) append_copies(const __grid_constant__ append_call c)
{
    wait_for_kernel_before();
    const octavo_kv_view *kv = &c.kv;
    const unsigned n = (blockIdx.x * THREADS + threadIdx.x) / ROW_LANES, heads = (unsigned)kv->kv_heads, tokens = (unsigned)c.tokens;
    const int64_t head = n % heads, i = n / heads % tokens, b = n / heads / tokens;
    const bool is_v = blockIdx.y == 1, halves = is_v ? kv->v_format == OCTAVO_V_F16 : kv->k_format == OCTAVO_K_F16;
    const octavo_tensor *x = is_v ? &c.p.v : &c.p.k;
    const int dim = is_v ? kv->v_dim : kv->head_dim, first = (int)threadIdx.x % ROW_LANES * 8;
    if (!x->data) return; /* all of the block */
    const int64_t token = b < kv->batch ? c.p.positions[b] + i : -1;
    const bool there = token >= 0 && token < kv->max_tokens;
    const uint32_t odd_bits = halves ? 0x7c007c00u : 0x7f807f80u;
    const uint4 *from = (const uint4 *)((const uint16_t *)x->data + (there ? row_offset(x, b, i, head) : 0));
    bool finite = true;
    for (int at = first; at < dim && there; at += COPY_STEP) {
        const uint4 eight = from[at / 8];
        const uint32_t pairs[4] = { eight.x, eight.y, eight.z, eight.w };
#pragma unroll
        for (int j = 0; j < 4; j++) finite = finite && __vcmpeq2(pairs[j] & odd_bits, odd_bits) == 0;
    }
    finite = (__ballot_sync(WHOLE_WARP, finite) >> (threadIdx.x % WARP / ROW_LANES * ROW_LANES) & 0xffffu) == 0xffffu;
    if (!there || !finite) {
        if (first == 0 && b < kv->batch) report(c.device_status, there ? OCTAVO_E_NONFINITE : OCTAVO_E_RANGE);
        if (!there) return;
    }
    uint4 *to = (uint4 *)stored_at(is_v ? &kv->v : &kv->k[0], find_token(kv, b, head, token));
    for (int at = first; at < dim; at += COPY_STEP) to[at / 8] = finite ? from[at / 8] : make_uint4(0, 0, 0, 0);
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

/* A section whose rows are aligned. */
static bool section_has_eights(const octavo_section *section)
{
    const int64_t steps = section->page_bytes | section->sequence_bytes | section->head_bytes | section->token_bytes;
    return ((uintptr_t)section->data | (uintptr_t)steps) % EIGHTS_ALIGN == 0;
}

/* Nothing becomes of the tokens but copies, and they are many. */
static bool stays_as_it_is(const append_call &c)
{
    const octavo_kv_view *kv = &c.kv;
    const octavo_dtype k = kv->k_format == OCTAVO_K_F16 ? OCTAVO_F16 : OCTAVO_BF16, v = kv->v_format == OCTAVO_V_F16 ? OCTAVO_F16 : OCTAVO_BF16;
    const bool k_formats = kv->k_format == OCTAVO_K_F16 || kv->k_format == OCTAVO_K_BF16, v_formats = kv->v_format == OCTAVO_V_F16 || kv->v_format == OCTAVO_V_BF16;
    const int64_t lanes = kv->batch * kv->kv_heads * c.tokens * ROW_LANES;
    if (c.tokens == 1 || lanes > INT32_MAX || !k_formats || !v_formats || kv->k_mean || kv->v_channel_scale || kv->k_norm.data) return false;
    if (c.p.k.data && (c.p.k.dtype != k || !layer_has_eights(&c.p.k) || !section_has_eights(&kv->k[0]))) return false;
    return !c.p.v.data || (c.p.v.dtype == v && layer_has_eights(&c.p.v) && section_has_eights(&kv->v));
}

octavo_status octavo_kv_append_cuda(const octavo_exec *exec, const octavo_kv_append_params *p)
{
    const octavo_kv_view *kv = p->kv;
    const int64_t tokens = p->k.data ? p->k.shape[1] : p->v.shape[1], heads = kv->batch * kv->kv_heads, units = tokens / kv->sub_block_tokens + 1;
    const append_call call = { *p, *kv, tokens, units, p->v.data && kv->v_mean.data, exec->device_status };
    const bool copies = stays_as_it_is(call);
    const dim3 rows((unsigned)octavo_cuda_ceil(heads * tokens, copies ? THREADS / ROW_LANES : WARPS), 2), means((unsigned)(heads * units));
    OCTAVO_CUDA_TRY(octavo_cuda_launch(copies ? append_copies : append_rows, "kv_append", rows, THREADS, 0, exec, call));
    return call.means && tokens > 1 ? octavo_cuda_launch(append_means, "kv_append", means, THREADS, 0, exec, call) : OCTAVO_OK;
}
