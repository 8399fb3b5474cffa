/* prefill_facts.cuh - what a call of attention_prefill has to know of all keys before it encodes one: means for smoothing, largest values for scales.
 *
 * Sums are those of the reference: float32 over 64 tokens in their order, float64 over these. Bound by memory. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_FACTS_CUH
#define OCTAVO_CUDA_TILE_PREFILL_FACTS_CUH

#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/prefill_stored.cuh"

enum { TOKENS = OCTAVO_PREFILL_BLOCK, THREADS = 256, FACT_THREADS = 128 /* few blocks of tokens are many blocks of threads so */, AHEAD = 8 };
enum { FACT_SUM, FACT_MOST, FACT_LEAST, FACTS };

/* The largest magnitude that a scale of a whole head is made for, given or found; at NULL: fewer tokens share one. */
struct prefill_whole_most {
    float *at;
    int64_t sequence, head; /* floats from one to the next: 0 where they share one */
    bool sought;            /* a pass of its own finds it                          */
};

struct prefill_encode_call {
    prefill_call of;
    octavo_prefill_eight_layout at;
    uint8_t *workspace;
    prefill_stored as;
    bool fp8, rotates, channels; /* channels: V has a scale a channel               */
    bool sums[3], mosts[3];      /* of Q, K, V: smoothed; scaled by largest values of channels */
    prefill_whole_most whole[3];
    int lanes;                                         /* that share a row: eight channels each               */
    int values;                                        /* heads of V that are encoded: none in Sage 1, unless it sums in f16 */
    float rotation;                                    /* 1 / sqrt(head_dim)                          */
};

static __device__ __forceinline__ float *floats_at(const prefill_encode_call &c, size_t offset) { return (float *)(c.workspace + offset); }

static __device__ __forceinline__ float *whole_most_at(const prefill_encode_call &c, prefill_operand what, int64_t b, int64_t head)
{
    return c.whole[what].at + b * c.whole[what].sequence + head * c.whole[what].head;
}

/* No magnitude is negative, and so they are ordered as their bits are. */
static __device__ __forceinline__ void raise_most(const prefill_encode_call &c, prefill_operand what, int64_t b, int64_t head, float most)
{
    atomicMax((int *)whole_most_at(c, what, b, head), __float_as_int(most));
}

static __device__ __forceinline__ int64_t seen_count(const octavo_span &seen)
{
    return seen.end <= seen.sink_end ? seen.end : seen.sink_end + (seen.end > seen.near_begin ? seen.end - seen.near_begin : 0);
}

/* Of eight channels. */
struct eight_facts {
    float sum[EIGHT], most[EIGHT], least[EIGHT];
};
static __device__ __forceinline__ void add_token(eight_facts *facts, const float (&x)[EIGHT])
{
#pragma unroll
    for (int i = 0; i < EIGHT; i++) facts->sum[i] += x[i], facts->most[i] = fmaxf(facts->most[i], x[i]), facts->least[i] = fminf(facts->least[i], x[i]);
}

/* Where a token's row is, if it is seen. */
template <prefill_operand WHAT>
static __device__ __forceinline__ prefill_row seen_row(const prefill_encode_call &c, const prefill_place &at, const octavo_span &seen, int64_t token)
{
    if (!octavo_span_sees(&seen, token)) return { nullptr, nullptr, 0.0f };
    return prefill_row_of(c.of, c.as, WHAT, at, token);
}

/* 64 tokens in their order, each of whose rows one of the threads that share them looks up, a round ahead. rows: of these threads alone. */
template <prefill_operand WHAT>
static __device__ __forceinline__ void find_shared_facts(const prefill_encode_call &c, const prefill_place &at, const octavo_span &seen, int64_t block, int d, int dim,
                                                         prefill_row *rows, eight_facts *facts)
{
    const int lane = (int)threadIdx.x % c.lanes;
    const uint32_t sharers = WHOLE_WARP >> (WARP - c.lanes) << ((int)threadIdx.x % WARP - lane);
    const int64_t first = block * TOKENS;
    prefill_row next = seen_row<WHAT>(c, at, seen, first + lane);
#pragma unroll 1
    for (int begin = 0; begin < TOKENS; begin += c.lanes) {
        __syncwarp(sharers);
        rows[lane] = next;
        __syncwarp(sharers);
        if (begin + c.lanes < TOKENS) next = seen_row<WHAT>(c, at, seen, first + begin + c.lanes + lane);
#pragma unroll 1
        for (int t = 0; t < c.lanes; t += AHEAD) {
            float x[AHEAD][EIGHT];
            prefill_row row[AHEAD];
#pragma unroll
            for (int j = 0; j < AHEAD; j++) row[j] = rows[t + j];
            prefill_load_eights<FROM_EIGHTS>(c.of, c.as, WHAT, at.head, row, d, dim, x);
#pragma unroll
            for (int j = 0; j < AHEAD; j++)
                if (octavo_span_sees(&seen, first + begin + t + j)) add_token(facts, x[j]);
        }
    }
}

/* The same, a thread alone. */
template <prefill_operand WHAT, encode_from FROM>
static __device__ __forceinline__ void find_facts(const prefill_encode_call &c, const prefill_place &at, const octavo_span &seen, int64_t block, int d, int dim,
                                                  eight_facts *facts)
{
    const int64_t first = block * TOKENS, end = first + TOKENS;
    if (FROM != FROM_ANY && end <= seen.end && (end <= seen.sink_end || first >= seen.near_begin)) {
        const uint8_t *from = prefill_row_of(c.of, c.as, WHAT, at, first).base;
        const int64_t step = WHAT == PREFILL_V ? c.of.kv.v.token_bytes : c.of.kv.k[0].token_bytes;
        if (!from) return;
        from += 2 * d;
        for (int t = 0; t < TOKENS; t += AHEAD) {
            uint4 raw[AHEAD];
            float x[EIGHT];
#pragma unroll
            for (int j = 0; j < AHEAD; j++) raw[j] = load_once_16(from + (t + j) * step);
#pragma unroll
            for (int j = 0; j < AHEAD; j++) unpack_eight<FROM>(raw[j], x), add_token(facts, x);
        }
        return;
    }
#pragma unroll 1
    for (int64_t token = first; token < end; token++) {
        float x[1][EIGHT];
        const prefill_row row[1] = { seen_row<WHAT>(c, at, seen, token) };
        prefill_load_eights<FROM>(c.of, c.as, WHAT, at.head, row, d, dim, x);
        if (octavo_span_sees(&seen, token)) add_token(facts, x[0]);
    }
}

template <prefill_operand WHAT, encode_from FROM>
static __device__ __forceinline__ void put_facts(const prefill_encode_call &c, int head, prefill_row *rows)
{
    const int d = (int)threadIdx.x % c.lanes * EIGHT, dim = WHAT == PREFILL_V ? c.of.kv.v_dim : c.of.kv.head_dim, part = (int)threadIdx.x / c.lanes;
    const int64_t block = (int64_t)blockIdx.x * (FACT_THREADS / c.lanes) + part, line = (int64_t)blockIdx.z * c.of.kv.kv_heads + head;
    const prefill_place at = prefill_place_of(c.of, blockIdx.z, head);
    const octavo_span seen = prefill_seen_of(c.of, at);
    if (block * TOKENS >= seen.end || (FROM != FROM_EIGHTS && d >= dim)) return;
    float *to = floats_at(c, WHAT == PREFILL_V ? c.at.v_part : c.at.k_part) + (line * (c.at.kv_tokens / TOKENS) + block) * FACTS * dim + d;
    eight_facts facts;
#pragma unroll
    for (int i = 0; i < EIGHT; i++) facts.sum[i] = 0.0f, facts.most[i] = -INFINITY, facts.least[i] = INFINITY;
    if constexpr (FROM == FROM_EIGHTS) find_shared_facts<WHAT>(c, at, seen, block, d, dim, rows + part * c.lanes, &facts);
    else find_facts<WHAT, FROM>(c, at, seen, block, d, dim, &facts);
#pragma unroll
    for (int i = 0; i < EIGHT; i++) {
        if (d + i >= dim) continue;
        if (c.sums[WHAT]) to[FACT_SUM * dim + i] = facts.sum[i];
        if (c.mosts[WHAT]) to[FACT_MOST * dim + i] = facts.most[i], to[FACT_LEAST * dim + i] = facts.least[i];
    }
}

/* Grid (FACT_THREADS / lanes blocks of tokens, heads of K, if it has facts, then of V, batch); `lanes` threads a block of tokens, eight channels each. */
template <encode_from FROM> static __global__ void __launch_bounds__(FACT_THREADS, 3) prefill_facts(const __grid_constant__ prefill_encode_call c)
{
    __shared__ prefill_row rows[FROM == FROM_EIGHTS ? FACT_THREADS : 1];
    wait_for_kernel_before();
    next_kernel_may_start();
    const int head = (int)blockIdx.y, keys = c.at.k_part ? c.of.kv.kv_heads : 0;
    if (head < keys) put_facts<PREFILL_K, FROM>(c, head, rows);
    else put_facts<PREFILL_V, FROM>(c, head - keys, rows);
}

/* Where the inverse of a channel's scale goes. */
static __device__ __forceinline__ float *channel_inverse(const prefill_encode_call &c, int64_t line, int d)
{
    return floats_at(c, c.at.v_part) + line * (c.at.kv_tokens / TOKENS) * FACTS * c.of.kv.v_dim + d;
}

/* A channel's scale in Sage 1 with sums in f16: a power of two with which no value exceeds 448, nor 64 of them together f16's range. */
static __device__ __forceinline__ octavo_prefill_scale f16_scale_of(float most)
{
    const int exponent = octavo_row_exponent(most);
    return { ldexpf(1.0f, -exponent), ldexpf(1.0f, exponent) };
}

/* Numbers of blocks, of which a warp has EACH at a time, 32 channels side by side. */
enum { EACH = 32, WARPS = THREADS / WARP, ROUND = WARPS * EACH };

struct join_shared {
    float sum[ROUND][WARP];
    float most[WARPS][WARP], least[WARPS][WARP];
};

/* A warp's number of each of its blocks, all asked for before one is used; `none` behind the last block. */
static __device__ __forceinline__ void load_blocks(const float *from, int64_t step, int first, int blocks, float none, float (&x)[EACH])
{
#pragma unroll
    for (int j = 0; j < EACH; j++) x[j] = first + j < blocks ? load_once(from + (first + j) * step) : none;
}

/* A lane's channel of all blocks: its mean, and the largest magnitude once that is off, which subtraction cannot reorder. Of use to the first warp. */
struct channel_facts {
    float mean, most;
};
static __device__ __forceinline__ channel_facts join_channel(const float *from, int dim, int blocks, int64_t count, bool smooths, bool scales, join_shared &shared)
{
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    float most = -INFINITY, least = INFINITY, x[EACH];
    double sum = 0.0;
    for (int begin = 0; begin < blocks; begin += ROUND) {
        const int first = begin + warp * EACH;
        if (smooths) {
            load_blocks(from + FACT_SUM * dim, FACTS * dim, first, blocks, 0.0f, x);
#pragma unroll
            for (int j = 0; j < EACH; j++) shared.sum[warp * EACH + j][lane] = x[j];
        }
        if (scales) {
            load_blocks(from + FACT_MOST * dim, FACTS * dim, first, blocks, -INFINITY, x);
#pragma unroll
            for (int j = 0; j < EACH; j++) most = fmaxf(most, x[j]);
            load_blocks(from + FACT_LEAST * dim, FACTS * dim, first, blocks, INFINITY, x);
#pragma unroll
            for (int j = 0; j < EACH; j++) least = fminf(least, x[j]);
        }
        if (!smooths) continue;
        __syncthreads();
        for (int j = 0; warp == 0 && j < ROUND; j++) sum += (double)shared.sum[j][lane]; /* in the reference's order */
        __syncthreads();
    }
    shared.most[warp][lane] = most, shared.least[warp][lane] = least;
    __syncthreads();
    for (int w = 0; w < WARPS; w++) most = fmaxf(most, shared.most[w][lane]), least = fminf(least, shared.least[w][lane]);
    __syncthreads();
    const float mean = smooths && count > 0 ? (float)(sum / (double)count) : 0.0f;
    return { mean, scales && count > 0 ? fmaxf(fabsf(most - mean), fabsf(least - mean)) : 0.0f };
}

/* Channels of K or V of a kv head, 32 at a time. */
template <prefill_operand WHAT> static __device__ __forceinline__ void join_facts(const prefill_encode_call &c, int head, join_shared &shared)
{
    const int dim = WHAT == PREFILL_V ? c.of.kv.v_dim : c.of.kv.head_dim;
    const int64_t line = (int64_t)blockIdx.z * c.of.kv.kv_heads + head, all = c.at.kv_tokens / TOKENS;
    const octavo_span seen = prefill_seen_of(c.of, prefill_place_of(c.of, blockIdx.z, head));
    const float *parts = floats_at(c, WHAT == PREFILL_V ? c.at.v_part : c.at.k_part) + line * all * FACTS * dim;
    const int d = (int)blockIdx.x * WARP + (int)threadIdx.x % WARP;
    const channel_facts facts = join_channel(parts + (d < dim ? d : 0), dim, (int)((seen.end + TOKENS - 1) / TOKENS), seen_count(seen), c.sums[WHAT],
                                             c.mosts[WHAT], shared);
    if (threadIdx.x >= WARP) return;
    if (WHAT == PREFILL_K) {
        if (d < dim && c.sums[PREFILL_K]) floats_at(c, c.at.k_mean)[line * dim + d] = facts.mean;
        if (!c.mosts[PREFILL_K]) return;
        const float most = warp_reduce(d < dim ? facts.most : 0.0f, take_larger());
        if (threadIdx.x == 0) raise_most(c, PREFILL_K, blockIdx.z, head, most);
        return;
    }
    if (d >= dim) return;
    const octavo_prefill_scale scale = c.at.v_f16 ? f16_scale_of(facts.most) : octavo_prefill_scale_of(facts.most, 448.0f);
    floats_at(c, c.at.v_scale)[line * dim + d] = scale.scale;
    if (all > 0) *channel_inverse(c, line, d) = scale.inverse; /* the sum there has been added */
    if (c.sums[PREFILL_V]) floats_at(c, c.at.v_mean)[line * dim + d] = facts.mean;
}

/* Grid (32 channels each; heads of K, of V; batch). */
static __global__ void __launch_bounds__(THREADS) prefill_join(const __grid_constant__ prefill_encode_call c)
{
    __shared__ join_shared shared;
    wait_for_kernel_before();
    next_kernel_may_start();
    const int heads = c.of.kv.kv_heads, role = (int)blockIdx.y / heads, head = (int)blockIdx.y % heads;
    if (role == 0) {
        if (c.at.k_part) join_facts<PREFILL_K>(c, head, shared);
        return;
    }
    if (c.at.v_part) join_facts<PREFILL_V>(c, head, shared);
}

/* What codes leave out of V: sums of blocks to those of all blocks before each. Grid (32 channels each, heads, batch); a warp has a part of the
 * blocks. */
static __global__ void __launch_bounds__(THREADS) prefill_join_rest(const __grid_constant__ prefill_encode_call c)
{
    __shared__ double sums[WARPS][WARP];
    wait_for_kernel_before();
    next_kernel_may_start();
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, dim = c.of.kv.v_dim, d = (int)blockIdx.x * WARP + lane;
    const int blocks = (int)((prefill_seen_of(c.of, prefill_place_of(c.of, blockIdx.z, blockIdx.y)).end + TOKENS - 1) / TOKENS);
    const int each = (blocks + WARPS - 1) / WARPS, begin = warp * each < blocks ? warp * each : blocks, end = begin + each < blocks ? begin + each : blocks;
    float *rest = floats_at(c, c.at.v_rest) + ((int64_t)blockIdx.z * c.of.kv.kv_heads + blockIdx.y) * (c.at.kv_tokens / TOKENS + 1) * dim + (d < dim ? d : 0);
    float x[EACH];
    double before = 0.0;
    for (int first = begin; first < end; first += EACH) {
        load_blocks(rest, dim, first, end, 0.0f, x);
#pragma unroll
        for (int j = 0; j < EACH; j++) before += (double)x[j];
    }
    sums[warp][lane] = before;
    __syncthreads();
    before = 0.0;
    for (int w = 0; w < warp; w++) before += sums[w][lane];
    for (int first = begin; first < end; first += EACH) {
        load_blocks(rest, dim, first, end, 0.0f, x);
#pragma unroll
        for (int j = 0; j < EACH; j++) {
            if (first + j < end && d < dim) rest[(first + j) * (int64_t)dim] = (float)before;
            before += (double)x[j];
        }
    }
    if (warp == WARPS - 1 && d < dim) rest[blocks * (int64_t)dim] = (float)before;
}

#endif
