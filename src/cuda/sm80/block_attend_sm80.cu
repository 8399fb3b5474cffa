/* block_attend_sm80.cu - attention over kept units for any format, size and layout: a block a row and split. A thread scores a token
 * of a tile, then owns elements of the output. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/sm80/decode_tiles_sm80.h"
#include "cuda/tile/decode_call.cuh"

enum { THREADS = 128, OUT_EACH = HEAD_DIM_MAX / THREADS };

struct attend_call {
    decode_call of;
    octavo_block_attend_params p;
    int64_t split_units;
};

/* The state that the threads of a block share. */
struct attend_tile {
    float weight[THREADS], reduce[WARPS_MAX];
    int32_t exponent[THREADS]; /* of rows of V that are rounded */
};

/* One row of one split. */
struct attend_row {
    int64_t b, head, group, row, flat; /* flat: [batch, kv_heads, rows] */
    octavo_span span;
};

static __device__ __forceinline__ int unit_state(const attend_call &c, const attend_row &r, int64_t unit)
{
    return c.p.kept ? c.p.kept[r.group * c.of.units + unit] : OCTAVO_UNIT_KEPT;
}

/* The thread's token of a tile: its score, or nothing where it is not attended. */
static __device__ __forceinline__ float token_score(const attend_call &c, const attend_row &r, const float *q, int64_t t, int64_t end,
                                                    float *v_factor)
{
    const octavo_kv_view *kv = &c.of.kv;
    *v_factor = 0.0f;
    if (t >= end || !octavo_span_sees(&r.span, t) || unit_state(c, r, t / kv->sub_block_tokens) != OCTAVO_UNIT_KEPT) return NOTHING;
    const stored_token at = find_token(kv, r.b, r.head, t);
    *v_factor = row_factor(&kv->v_scale, octavo_v_scale_bytes(kv->v_format), at);
    if (c.p.scores) return c.p.scores[r.flat * kv->max_tokens + t];
    return soft_cap(raw_score(&c.p.in, kv, q, at), c.p.in.soft_cap);
}

/* out = sum of weights times rows, relative to *max; out is spread over the threads. */
struct running {
    float max, sum;
    float *out; /* [OUT_EACH] */
};

static __device__ __forceinline__ void rescale(const attend_call &c, running *of, float max)
{
    if (!(max > of->max)) return;
    const float down = of->max == NOTHING ? 0.0f : expf(of->max - max);
    of->sum *= down, of->max = max;
    for (int64_t j = 0; j * THREADS < c.of.kv.v_dim; j++) of->out[j] *= down;
}

static __device__ void attend_tokens(const attend_call &c, const attend_row &r, const float *q, int64_t begin, int64_t end, attend_tile *tile,
                                     running *of)
{
    const octavo_kv_view *kv = &c.of.kv;
    const bool rounds = octavo_decode_rounds_v(c.p.in.precision, kv->v_format);
    for (int64_t first = begin; first < end; first += THREADS) {
        float factor;
        const float score = token_score(c, r, q, first + threadIdx.x, end, &factor), max = block_reduce(score, tile->reduce, take_larger());
        if (max == NOTHING) continue;
        rescale(c, of, max);
        const float weight = score == NOTHING ? 0.0f : expf(score - of->max);
        __syncthreads();
        tile->weight[threadIdx.x] = weight * factor;
        if (rounds && weight > 0.0f) tile->exponent[threadIdx.x] = value_exponent(kv, stored_at(&kv->v, find_token(kv, r.b, r.head, first + threadIdx.x)));
        of->sum += block_reduce(weight, tile->reduce, add_up()); /* meets: the weights are there */
        for (int64_t j = 0; j < THREADS && first + j < end; j++) {
            if (tile->weight[j] == 0.0f) continue;
            const uint8_t *v = stored_at(&kv->v, find_token(kv, r.b, r.head, first + j));
            for (int64_t i = threadIdx.x; i < kv->v_dim; i += THREADS) {
                const float x = value_code(kv, v, i);
                of->out[i / THREADS] = fmaf(tile->weight[j], rounds ? octavo_e4m3_of_row(x, tile->exponent[j]) : x, of->out[i / THREADS]);
            }
        }
    }
}

/* Dropped units enter with their mass at their mean row. */
static __device__ void attend_means(const attend_call &c, const attend_row &r, int64_t begin, int64_t end, running *of)
{
    const octavo_kv_view *kv = &c.of.kv;
    for (int64_t unit = begin; unit < end; unit++) {
        if (unit_state(c, r, unit) != OCTAVO_UNIT_DROPPED) continue;
        const float mass = c.p.log_mass[r.flat * c.of.units + unit];
        if (mass == NOTHING) continue;
        rescale(c, of, mass);
        const stored_token at = find_mean(kv, r.b, r.head, unit);
        const uint8_t *mean = stored_at(&kv->v_mean, at);
        const float weight = expf(mass - of->max), factor = power_of_minus((int8_t)*stored_at(&kv->v_mean_scale, at));
        of->sum += weight;
        for (int64_t i = threadIdx.x; i < kv->v_dim; i += THREADS)
            of->out[i / THREADS] = fmaf(weight * factor, octavo_e4m3_to_float(mean[i]), of->out[i / THREADS]);
    }
}

/* log of the mass in dropped units; one thread. */
static __device__ float dropped_mass(const attend_call &c, const attend_row &r, int64_t begin, int64_t end)
{
    const float *masses = c.p.log_upper ? c.p.log_upper : c.p.log_mass;
    log_sum of = { NOTHING, 0.0f };
    for (int64_t unit = begin; unit < end; unit++)
        if (unit_state(c, r, unit) == OCTAVO_UNIT_DROPPED) log_sum_add(&of, masses[r.flat * c.of.units + unit]);
    return log_sum_value(of);
}

/* Grid (splits, rows, batch * kv heads); shared memory: q. */
static __global__ void __launch_bounds__(THREADS) block_attend(const __grid_constant__ attend_call c)
{
    extern __shared__ float q[];
    __shared__ attend_tile tile;
    const octavo_kv_view *kv = &c.of.kv;
    attend_row r = { (int64_t)blockIdx.z / kv->kv_heads, (int64_t)blockIdx.z % kv->kv_heads, blockIdx.z, blockIdx.y, 0, {} };
    r.flat = r.group * c.of.rows + r.row;
    r.span = row_span(&c.p.in, sequence_length(kv, r.b), r.row);
    const int64_t begin = (int64_t)blockIdx.x * c.split_units, last = begin + c.split_units, end = last < c.of.units ? last : c.of.units;
    const int64_t sub = kv->sub_block_tokens, last_token = end * sub < r.span.end ? end * sub : r.span.end;
    float out[OUT_EACH] = { 0.0f };
    running of = { NOTHING, 0.0f, out };

    /* 1: kept units */
    load_query(c.of, r.b, r.head, r.row, q);
    __syncthreads();
    attend_tokens(c, r, q, begin * sub, last_token, &tile, &of);

    /* 2: what was dropped */
    const int64_t at = r.flat * c.p.splits + blockIdx.x;
    if (threadIdx.x == 0 && c.p.part_kept) c.p.part_kept[at] = of.max == NOTHING ? NOTHING : of.max + logf(of.sum);
    if (threadIdx.x == 0 && c.p.part_dropped) c.p.part_dropped[at] = c.p.kept && c.p.log_mass ? dropped_mass(c, r, begin, end) : NOTHING;
    if (c.p.compensate == OCTAVO_COMPENSATE_MEAN && c.p.kept && c.p.log_mass) attend_means(c, r, begin, end, &of);

    /* 3: normalised */
    const float scale = of.max == NOTHING ? 0.0f : 1.0f / of.sum;
    for (int64_t i = threadIdx.x; i < kv->v_dim; i += THREADS)
        c.p.part_out[at * kv->v_dim + i] = of.out[i / THREADS] * scale * channel_factor(kv, r.head, i);
    if (threadIdx.x == 0) c.p.part_lse[at] = of.max == NOTHING ? NOTHING : of.max + logf(of.sum);
}

octavo_status octavo_block_attend_cuda(const octavo_exec *exec, const octavo_block_attend_params *p)
{
    bool done = false;
    OCTAVO_CUDA_TRY(decode_check(&p->in));
    OCTAVO_CUDA_TRY(octavo_attend_tiles(exec, p, &done));
    if (done) return OCTAVO_OK;
    const attend_call call = { decode_call_of(&p->in), *p, octavo_split_units_of(p->in.kv, p->splits, p->split_units) };
    const dim3 grid((unsigned)p->splits, (unsigned)call.of.rows, (unsigned)(p->in.kv->batch * p->in.kv->kv_heads));
    block_attend<<<grid, THREADS, (size_t)p->in.kv->head_dim * sizeof(float), octavo_cuda_stream(exec)>>>(call);
    return octavo_cuda_launched("block_attend");
}
