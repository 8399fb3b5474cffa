/* partial_merge_sm80.cu - merges splits by their log-sum-exp. A block a row: each warp adds up every eighth split, a lane every 32nd
 * element of some CHUNK; then the warps' sums are added. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/tile/decode_call.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP, EACH = 4, CHUNK = EACH * WARP };

struct merge_row {
    int64_t b, head, row, q_head, flat;
    float sink;
};

static __device__ __forceinline__ log_sum log_sum_block(log_sum of, log_sum *shared)
{
    of = log_sum_warp(of);
    __syncthreads();
    if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = of;
    __syncthreads();
    of = shared[0];
    for (int i = 1; i < THREADS / WARP; i++) of = log_sum_join(of, shared[i]);
    return of;
}

static __device__ __forceinline__ log_sum sum_of_logs(const float *logs, int64_t count, log_sum *shared)
{
    log_sum of = { NOTHING, 0.0f };
    for (int64_t i = threadIdx.x; i < count; i += THREADS) log_sum_add(&of, logs[i]);
    return log_sum_block(of, shared);
}

/* softmax_scale * q . mean: what smoothing took from every score of the row. */
static __device__ float lse_shift(const octavo_partial_merge_params &p, const merge_row &r, float *shared)
{
    const octavo_tensor *q = &p.lse_shift_q;
    const int64_t dim = q->shape[3], view_row = p.lse_shift_rows ? p.lse_shift_rows[r.b] : r.b;
    const float *mean = p.lse_shift_mean + (view_row * p.kv_heads + r.head) * dim;
    const int64_t at = r.b * q->strides[0] + r.row % p.q_tokens * q->strides[1] + r.q_head * q->strides[2];
    float sum = 0.0f;
    for (int64_t i = threadIdx.x; i < dim; i += THREADS) sum = fmaf(load_float(q, at + i * q->strides[3]), mean[i], sum);
    return block_reduce(sum, shared, add_up()) * p.softmax_scale;
}

/* Share of the row's mass in dropped units. */
static __device__ float dropped_share(const octavo_partial_merge_params &p, int64_t flat, float sink, log_sum *shared)
{
    const log_sum dropped = sum_of_logs(p.part_dropped + flat * p.splits, p.splits, shared);
    log_sum kept = sum_of_logs(p.part_kept + flat * p.splits, p.splits, shared);
    log_sum_add(&kept, sink);
    if (dropped.max == NOTHING) return 0.0f;
    const float difference = log_sum_value(kept) - log_sum_value(dropped); /* -inf where nothing is kept */
    return 1.0f / (1.0f + expf(difference));
}

/* sums += weight times part, of this warp's splits. A part that is empty is not read: it may hold anything. */
static __device__ __forceinline__ void add_parts(const octavo_partial_merge_params &p, int64_t flat, int64_t first, float max, float (&sums)[EACH])
{
    const int64_t i = first + threadIdx.x % WARP;
    const float *lse = p.part_lse + flat * p.splits, *part = p.part_out + flat * p.splits * p.v_dim + i;
    const int splits = (int)p.splits;
#pragma unroll 4
    for (int s = threadIdx.x / WARP; s < splits; s += WARPS) {
        const float weight = expf(lse[s] - max);
#pragma unroll
        for (int j = 0; j < EACH; j++)
            if (i + j * WARP < p.v_dim && weight != 0.0f) sums[j] = fmaf(weight, part[s * p.v_dim + j * WARP], sums[j]);
    }
}

/* The largest and the sum of exp(lse - largest) of a row's splits, by each warp for itself. */
static __device__ __forceinline__ log_sum whole_of(const float *lse, int splits)
{
    float max = NOTHING, sum = 0.0f;
#pragma unroll 4
    for (int s = threadIdx.x % WARP; s < splits; s += WARP) max = fmaxf(max, lse[s]);
    max = warp_reduce(max, take_larger());
    if (max == NOTHING) return { max, 0.0f };
#pragma unroll 4
    for (int s = threadIdx.x % WARP; s < splits; s += WARP) sum += expf(lse[s] - max);
    return { max, warp_reduce(sum, add_up()) };
}

/* Grid (q tokens, batch * q heads). */
static __global__ void __launch_bounds__(THREADS) partial_merge(const __grid_constant__ octavo_partial_merge_params p)
{
    __shared__ log_sum shared[WARPS_MAX];
    __shared__ float parts[WARPS][CHUNK];
    wait_for_kernel_before();
    next_kernel_may_start();
    const int64_t q_heads = p.kv_heads * p.group, q_head = blockIdx.y % q_heads, b = blockIdx.y / q_heads;
    merge_row r = { b, q_head / p.group, q_head % p.group * p.q_tokens + blockIdx.x, q_head, 0, p.sink_logits ? p.sink_logits[q_head] : NOTHING };
    r.flat = (b * p.kv_heads + r.head) * p.group * p.q_tokens + r.row;
    const float *lse = p.part_lse + r.flat * p.splits;
    log_sum whole = whole_of(lse, (int)p.splits);
    const bool nothing = whole.max == NOTHING;
    if (!nothing) log_sum_add(&whole, r.sink);

    const int64_t at = b * p.out.strides[0] + blockIdx.x * p.out.strides[1] + q_head * p.out.strides[2];
    for (int64_t first = 0; first < p.v_dim; first += CHUNK) {
        float sums[EACH] = { 0.0f };
        if (!nothing) add_parts(p, r.flat, first, whole.max, sums);
        if (first > 0) __syncthreads(); /* what is there has been read */
#pragma unroll
        for (int j = 0; j < EACH; j++) parts[threadIdx.x / WARP][threadIdx.x % WARP + j * WARP] = sums[j];
        __syncthreads();
        const int64_t i = first + threadIdx.x;
        if (threadIdx.x >= CHUNK || i >= p.v_dim) continue;
        float out = 0.0f;
        for (int w = 0; w < WARPS; w++) out += parts[w][threadIdx.x];
        store_float(&p.out, at + i * p.out.strides[3], nothing ? 0.0f : out / whole.sum);
    }
    if (p.lse) {
        const float shift = p.lse_shift_mean ? lse_shift(p, r, (float *)shared) : 0.0f;
        if (threadIdx.x == 0) p.lse[r.flat] = log_sum_value(whole) + shift;
    }
    if (!p.dropped_mass || blockIdx.x > 0) return;
    float worst = 0.0f;
    for (int64_t i = 0; i < p.q_tokens; i++) worst = fmaxf(worst, dropped_share(p, r.flat + i, r.sink, shared));
    if (threadIdx.x == 0) p.dropped_mass[b * q_heads + q_head] = worst;
}

octavo_status octavo_partial_merge_cuda(const octavo_exec *exec, const octavo_partial_merge_params *p)
{
    const int64_t heads = p->batch * p->kv_heads * p->group;
    if (heads > 65535 && p->q_tokens == 1 && p->group == 1 && p->kv_heads == 1) { /* rows of a plain merge */
        octavo_partial_merge_params some = *p;
        const int64_t half = p->batch / 2;
        some.batch = half;
        OCTAVO_CUDA_TRY(octavo_partial_merge_cuda(exec, &some));
        some.batch = p->batch - half, some.part_out += half * p->splits * p->v_dim, some.part_lse += half * p->splits;
        some.out.data = (uint8_t *)p->out.data + (size_t)(half * p->out.strides[0]) * (p->out.dtype == OCTAVO_F32 ? 4 : 2);
        if (p->lse) some.lse += half;
        return octavo_partial_merge_cuda(exec, &some);
    }
    if (heads > 65535) return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "batch * q_heads is %lld, expected at most 65535 on a GPU", (long long)heads);
    return octavo_cuda_launch(partial_merge, "partial_merge", dim3((unsigned)p->q_tokens, (unsigned)heads), THREADS, 0, exec, *p);
}
