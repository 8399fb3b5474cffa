/* block_score_sm80.cu - units' largest scores, masses and bounds for any format, size and layout. A warp a row and unit: a lane takes
 * every 32nd token of the unit. Bounds are summed in float64. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/sm80/decode_tiles_sm80.h"
#include "cuda/tile/decode_call.cuh"

enum { THREADS = 128, WARPS = THREADS / WARP };

struct score_call {
    decode_call of;
    octavo_block_score_params p;
};

/* The largest of a unit's bounds and the sum of exp(bound - largest), in float64. */
struct bound_sum {
    double max, sum;
};

static __device__ __forceinline__ void bound_add(bound_sum *of, double bound)
{
    if (bound > of->max) of->sum = of->max == -INFINITY ? 0.0 : of->sum * exp(of->max - bound), of->max = bound;
    of->sum += exp(bound - of->max);
}

/* The logarithm of the sum over a warp; -inf: nothing was added. */
static __device__ __forceinline__ double bound_log(const bound_sum &of)
{
    const double max = warp_reduce(of.max, take_larger());
    const double sum = warp_reduce(of.max == -INFINITY ? 0.0 : of.sum * exp(of.max - max), add_up());
    return max == -INFINITY ? max : max + log(sum);
}

static __device__ __forceinline__ double cap_exactly(double score, float cap) { return cap > 0.0f ? (double)cap * tanh(score / (double)cap) : score; }

/* How far the score may lie from that of the key that was encoded. */
static __device__ __forceinline__ double score_error(const score_call &c, double norm_q, const stored_token &at)
{
    const octavo_kv_view *kv = &c.of.kv;
    const double left_out = (double)octavo_k_error_bound(kv, c.p.in.planes, kv->k_norm.data ? *stored_at(&kv->k_norm, at) : (uint8_t)0);
    const double rounding = (double)octavo_k_rounding_bound(kv->k_format, kv->head_dim);
    const double factor = (double)row_factor(&kv->k_scale, octavo_k_scale_bytes(kv->k_format), at);
    return fabs((double)c.p.in.softmax_scale) * norm_q * (left_out + rounding) * factor * (1.0 + 0x1p-20);
}

static __device__ __forceinline__ double norm_of(const float *q, int64_t dim)
{
    double sum = 0.0;
    for (int64_t i = threadIdx.x % WARP; i < dim; i += WARP) sum += (double)q[i] * (double)q[i];
    return sqrt(warp_reduce(sum, add_up()));
}

static __device__ void score_unit(const score_call &c, const float *q, double norm_q, int64_t b, int64_t head, int64_t row, int64_t unit)
{
    const octavo_kv_view *kv = &c.of.kv;
    const int64_t begin = unit * kv->sub_block_tokens, flat = (b * kv->kv_heads + head) * c.of.rows + row;
    const octavo_span span = row_span(&c.p.in, sequence_length(kv, b), row);
    log_sum mass = { NOTHING, 0.0f };
    bound_sum uppers = { -INFINITY, 0.0 }, lowers = uppers;
    for (int64_t t = begin + threadIdx.x % WARP; t < begin + kv->sub_block_tokens; t += WARP) {
        if (!octavo_span_sees(&span, t)) continue;
        const stored_token at = find_token(kv, b, head, t);
        const float raw = raw_score(&c.p.in, kv, q, at), score = soft_cap(raw, c.p.in.soft_cap);
        log_sum_add(&mass, score);
        if (c.p.scores) c.p.scores[flat * kv->max_tokens + t] = score;
        if (!c.p.log_upper) continue;
        const double error = score_error(c, norm_q, at);
        bound_add(&uppers, cap_exactly((double)raw + error, c.p.in.soft_cap));
        bound_add(&lowers, cap_exactly((double)raw - error, c.p.in.soft_cap));
    }
    mass = log_sum_warp(mass);
    const double upper = c.p.log_upper ? bound_log(uppers) : 0.0, lower = c.p.log_upper ? bound_log(lowers) : 0.0;
    if (threadIdx.x % WARP) return;
    const int64_t to = flat * c.of.units + unit;
    c.p.log_mass[to] = log_sum_value(mass);
    if (c.p.unit_max) c.p.unit_max[to] = mass.max;
    if (!c.p.log_upper) return;
    const bool seen = mass.max != NOTHING; /* what is not seen stays -inf, which has a larger neighbour */
    c.p.log_upper[to] = seen ? nextafterf((float)upper, INFINITY) : NOTHING;
    if (c.p.log_lower) c.p.log_lower[to] = seen ? nextafterf((float)lower, NOTHING) : NOTHING;
}

/* Grid (groups of WARPS units, rows, batch * kv heads); shared memory: q. */
static __global__ void __launch_bounds__(THREADS) block_score(const __grid_constant__ score_call c)
{
    extern __shared__ float q[];
    const int64_t head = blockIdx.z % c.of.kv.kv_heads, b = blockIdx.z / c.of.kv.kv_heads;
    load_query(c.of, b, head, blockIdx.y, q);
    __syncthreads();
    const int64_t unit = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (unit >= c.of.units) return;
    if (c.p.only && c.p.only[(int64_t)blockIdx.z * c.of.units + unit] != OCTAVO_UNIT_KEPT) return;
    const double norm_q = c.p.log_upper ? norm_of(q, c.of.kv.head_dim) : 0.0;
    score_unit(c, q, norm_q, b, head, blockIdx.y, unit);
}

octavo_status octavo_block_score_cuda(const octavo_exec *exec, const octavo_block_score_params *p)
{
    bool done = false;
    OCTAVO_CUDA_TRY(decode_check(&p->in));
    OCTAVO_CUDA_TRY(octavo_score_tiles(exec, p, &done));
    if (done) return OCTAVO_OK;
    const score_call call = { decode_call_of(&p->in), *p };
    const dim3 grid((unsigned)octavo_cuda_ceil(call.of.units, WARPS), (unsigned)call.of.rows, (unsigned)(p->in.kv->batch * p->in.kv->kv_heads));
    block_score<<<grid, THREADS, (size_t)p->in.kv->head_dim * sizeof(float), octavo_cuda_stream(exec)>>>(call);
    return octavo_cuda_launched("block_score");
}
