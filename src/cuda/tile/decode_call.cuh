/* decode_call.cuh - what every decode kernel is given beside its params: the view by value and the sizes that follow from it. */
#ifndef OCTAVO_CUDA_TILE_DECODE_CALL_CUH
#define OCTAVO_CUDA_TILE_DECODE_CALL_CUH

#include "cuda/tile/reduce.cuh"
#include "cuda/tile/stored_rows.cuh"

struct decode_call {
    octavo_decode_input in;
    octavo_kv_view kv;   /* in.kv is not to be followed on the device */
    int64_t rows, units; /* of a kv head                              */
};

static inline decode_call decode_call_of(const octavo_decode_input *in)
{
    return { *in, *in->kv, in->q.shape[1] * in->q.shape[2] / in->kv->kv_heads, octavo_view_units(in->kv) };
}

/* The largest head that the kernels for any size keep in shared memory. */
enum { HEAD_DIM_MAX = 4096 };

static inline octavo_status decode_check(const octavo_decode_input *in)
{
    const octavo_kv_view *kv = in->kv;
    if (kv->head_dim > HEAD_DIM_MAX || kv->v_dim > HEAD_DIM_MAX)
        return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "kv.head_dim is %d and v_dim %d, expected at most %d on a GPU", kv->head_dim, kv->v_dim,
                                (int)HEAD_DIM_MAX);
    if (kv->batch * kv->kv_heads > 65535)
        return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "kv.batch * kv_heads is %lld, expected at most 65535 on a GPU",
                                (long long)(kv->batch * kv->kv_heads));
    return OCTAVO_OK;
}

/* One query row as float32 into shared memory; the block meets before it is read. */
static __device__ __forceinline__ void load_query(const decode_call &c, int64_t b, int64_t head, int64_t row, float *q)
{
    const int64_t at = query_row(&c.in.q, c.kv.kv_heads, b, head, row), step = c.in.q.strides[3], dim = c.kv.head_dim;
    const bool rounds = c.in.precision == OCTAVO_ATTENTION_FP8;
    float amax = 0.0f; /* every thread's own: the row is short */
    for (int64_t i = 0; rounds && i < dim; i++) amax = fmaxf(amax, fabsf(load_float(&c.in.q, at + i * step)));
    const int32_t p = octavo_row_exponent(amax);
    for (int64_t i = threadIdx.x; i < dim; i += blockDim.x) {
        const float x = load_float(&c.in.q, at + i * step);
        q[i] = rounds ? octavo_e4m3_of_row(x, p) : x;
    }
}

/* The largest of a set of exponents and the sum of exp(exponent - largest). */
struct log_sum {
    float max, sum;
};

static constexpr float NOTHING = -INFINITY, LOG2_E = 1.4426950408889634f, LN_2 = 0.6931471805599453f;

static __device__ __forceinline__ void log_sum_add(log_sum *of, float x)
{
    if (x == NOTHING) return;
    if (x > of->max) of->sum = of->sum * expf(of->max - x), of->max = x;
    of->sum += expf(x - of->max);
}

static __device__ __forceinline__ log_sum log_sum_join(const log_sum &a, const log_sum &b)
{
    if (b.max == NOTHING) return a;
    if (a.max == NOTHING) return b;
    const float max = fmaxf(a.max, b.max);
    return { max, a.sum * expf(a.max - max) + b.sum * expf(b.max - max) };
}

static __device__ __forceinline__ float log_sum_value(const log_sum &of) { return of.max == NOTHING ? NOTHING : of.max + logf(of.sum); }

/* All lanes get the same bits: the join is the same for either order of its two. */
static __device__ __forceinline__ log_sum log_sum_warp(log_sum of)
{
#pragma unroll
    for (int step = WARP / 2; step > 0; step /= 2)
        of = log_sum_join(of, { __shfl_xor_sync(WHOLE_WARP, of.max, step), __shfl_xor_sync(WHOLE_WARP, of.sum, step) });
    return of;
}

#endif
