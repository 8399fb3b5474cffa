/* partial_merge_sm80.cu - merges splits by their log-sum-exp. A block a row: each warp adds up every eighth split, a lane every 32nd
 * element of some CHUNK; then the warps' sums are added. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/tile/decode_call.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP, EACH = 4, CHUNK = EACH * WARP, BATCH = 5 /* splits of a warp that are read at once */ };

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

/* One row's splits. */
struct merge_parts {
    const float *lse, *out; /* [splits], [splits, v_dim] */
    int splits, v_dim;
};

/* Elements first + lane + 32 j of the warp's splits from `begin` on, all asked for at once. A part that is empty may hold anything. */
static __device__ __forceinline__ void read_parts(const merge_parts &of, int first, int begin, float (&held)[BATCH][EACH])
{
#pragma unroll
    for (int k = 0; k < BATCH; k++)
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            const int s = begin + k * WARPS, i = first + (int)threadIdx.x % WARP + j * WARP;
            held[k][j] = s < of.splits && i < of.v_dim ? of.out[(int64_t)s * of.v_dim + i] : 0.0f;
        }
}

/* sums += weight times part, of this warp's splits; the first of them are held. Parts that are empty do not count. */
static __device__ __forceinline__ void add_parts(const merge_parts &of, int first, float max, float (&held)[BATCH][EACH], float (&sums)[EACH])
{
#pragma unroll 1
    for (int begin = threadIdx.x / WARP; begin < of.splits; begin += BATCH * WARPS) {
        if (begin >= BATCH * WARPS) read_parts(of, first, begin, held);
#pragma unroll
        for (int k = 0; k < BATCH; k++) {
            const int s = begin + k * WARPS;
            const float weight = s < of.splits ? expf(of.lse[s] - max) : 0.0f;
#pragma unroll
            for (int j = 0; j < EACH; j++)
                if (weight != 0.0f) sums[j] = fmaf(weight, held[k][j], sums[j]);
        }
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
    const int q_heads = (int)(p.kv_heads * p.group), b = blockIdx.y / q_heads, q_head = blockIdx.y - b * q_heads, head = q_head / (int)p.group;
    const int row = (q_head - head * (int)p.group) * (int)p.q_tokens + (int)blockIdx.x;
    merge_row r = { b, head, row, q_head, (b * p.kv_heads + head) * p.group * p.q_tokens + row, NOTHING };
    const merge_parts of = { p.part_lse + r.flat * p.splits, p.part_out + r.flat * p.splits * p.v_dim, (int)p.splits, (int)p.v_dim };
    float held[BATCH][EACH];
    wait_for_kernel_before();
    next_kernel_may_start();
    read_parts(of, 0, threadIdx.x / WARP, held);
    if (p.sink_logits) r.sink = p.sink_logits[q_head];
    log_sum whole = whole_of(of.lse, of.splits);
    const bool nothing = whole.max == NOTHING;
    if (!nothing) log_sum_add(&whole, r.sink);

    const int64_t at = b * p.out.strides[0] + blockIdx.x * p.out.strides[1] + q_head * p.out.strides[2];
    for (int64_t first = 0; first < p.v_dim; first += CHUNK) {
        float sums[EACH] = { 0.0f };
        if (first > 0) read_parts(of, (int)first, threadIdx.x / WARP, held);
        if (!nothing) add_parts(of, (int)first, whole.max, held, sums);
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
