/* prefill_facts.cuh - what a call of attention_prefill has to know of all keys before it encodes one: means for smoothing, largest values for scales.
 *
 * Sums are those of the reference: float32 over 64 tokens in their order, float64 over these. Bound by memory. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_FACTS_CUH
#define OCTAVO_CUDA_TILE_PREFILL_FACTS_CUH

#include "cuda/tile/prefill_steps.cuh"

enum { TOKENS = OCTAVO_PREFILL_BLOCK, THREADS = 128, EIGHT = 8, AHEAD = 8 };
enum { FACT_SUM, FACT_MOST, FACT_LEAST, FACTS };

struct prefill_encode_call {
    prefill_call of;
    octavo_prefill_eight_layout at;
    uint8_t *workspace;
    prefill_stored as;
    bool fp8, rotates, channels; /* channels: V has a scale a channel               */
    bool sums[3], mosts[3];      /* of Q, K, V: smoothed; scaled by what all tokens have */
    float rotation;                                    /* 1 / sqrt(head_dim)                          */
    bool waits[3];                                     /* codes of Q, K, V wait until facts are known */
    prefill_steps steps;
};

static __device__ __forceinline__ float *floats_at(const prefill_encode_call &c, size_t offset) { return (float *)(c.workspace + offset); }

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

/* 64 tokens in their order. */
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
        if (!octavo_span_sees(&seen, token)) continue;
        const prefill_row row[1] = { prefill_row_of(c.of, c.as, WHAT, at, token) };
        prefill_load_eights<FROM>(c.of, c.as, WHAT, at.head, row, d, dim, x);
        add_token(facts, x[0]);
    }
}

/* THREADS / LANES blocks of tokens; LANES threads a block, eight channels each. */
template <int LANES, prefill_operand WHAT, encode_from FROM>
static __device__ __forceinline__ void put_facts(const prefill_encode_call &c, const prefill_place &at, int part)
{
    const int d = (int)threadIdx.x % LANES * EIGHT, dim = WHAT == PREFILL_V ? c.of.kv.v_dim : c.of.kv.head_dim;
    const int64_t block = (int64_t)part * (THREADS / LANES) + threadIdx.x / LANES, line = at.b * c.of.kv.kv_heads + at.head;
    const octavo_span seen = prefill_seen_of(c.of, at);
    if (block * TOKENS >= seen.end || d >= dim) return;
    float *to = floats_at(c, WHAT == PREFILL_V ? c.at.v_part : c.at.k_part) + (line * (c.at.kv_tokens / TOKENS) + block) * FACTS * dim + d;
    eight_facts facts;
#pragma unroll
    for (int i = 0; i < EIGHT; i++) facts.sum[i] = 0.0f, facts.most[i] = -INFINITY, facts.least[i] = INFINITY;
    find_facts<WHAT, FROM>(c, at, seen, block, d, dim, &facts);
#pragma unroll
    for (int i = 0; i < EIGHT; i++) {
        if (d + i >= dim) continue;
        if (c.sums[WHAT]) to[FACT_SUM * dim + i] = facts.sum[i];
        if (c.mosts[WHAT]) to[FACT_MOST * dim + i] = facts.most[i], to[FACT_LEAST * dim + i] = facts.least[i];
    }
}

/* The same of a query head, at.head. */
template <int LANES, encode_from FROM> static __device__ __forceinline__ void put_q_most(const prefill_encode_call &c, const prefill_place &at, int part)
{
    const int d = (int)threadIdx.x % LANES * EIGHT;
    const int64_t block = (int64_t)part * (THREADS / LANES) + threadIdx.x / LANES, blocks = c.at.q_tokens / TOKENS;
    float most = 0.0f;
    for (int64_t token = block * TOKENS; token < (block + 1) * TOKENS && token < at.queries; token++) {
        const prefill_row row[1] = { prefill_row_of(c.of, c.as, PREFILL_Q, at, token) };
        float x[1][EIGHT];
        prefill_load_eights<FROM>(c.of, c.as, PREFILL_Q, at.head, row, d, c.of.kv.head_dim, x);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) most = fmaxf(most, fabsf(x[0][i]));
    }
#pragma unroll
    for (int step = 1; step < LANES; step *= 2) most = fmaxf(most, __shfl_xor_sync(WHOLE_WARP, most, step));
    if (d == 0 && block < blocks) floats_at(c, c.at.q_most)[(at.b * c.of.p.q.shape[2] + at.head) * blocks + block] = most;
}

/* Gives take() the blocks' numbers in their order, many of which are on their way at a time. */
template <typename Take> static __device__ __forceinline__ void for_each_block(const float *from, int64_t step, int blocks, Take take)
{
    enum { BATCH = 32 };
    int block = 0;
    for (; block + BATCH <= blocks; block += BATCH) {
        float x[BATCH];
#pragma unroll
        for (int j = 0; j < BATCH; j++) x[j] = load_once(from + (block + j) * step);
#pragma unroll
        for (int j = 0; j < BATCH; j++) take(x[j]);
    }
    for (; block < blocks; block++) take(load_once(from + block * step));
}

/* A channel of all blocks: its mean, and the largest magnitude once that is off, which subtraction cannot reorder. */
struct channel_facts {
    float mean, most;
};
static __device__ __forceinline__ channel_facts join_channel(const float *from, int dim, int blocks, int64_t count, bool smooths, bool scales)
{
    double sum = 0.0;
    float most = -INFINITY, least = INFINITY;
    if (count == 0) return { 0.0f, 0.0f };
    if (smooths) for_each_block(from + FACT_SUM * dim, FACTS * dim, blocks, [&](float x) { sum += (double)x; });
    if (scales) for_each_block(from + FACT_MOST * dim, FACTS * dim, blocks, [&](float x) { most = fmaxf(most, x); });
    if (scales) for_each_block(from + FACT_LEAST * dim, FACTS * dim, blocks, [&](float x) { least = fminf(least, x); });
    const float mean = smooths ? (float)(sum / (double)count) : 0.0f;
    return { mean, scales ? fmaxf(fabsf(most - mean), fabsf(least - mean)) : 0.0f };
}

/* Where the inverse of a channel's scale goes. */
static __device__ __forceinline__ float *channel_inverse(const prefill_encode_call &c, int64_t line, int d)
{
    return floats_at(c, c.at.v_part) + line * (c.at.kv_tokens / TOKENS) * FACTS * c.of.kv.v_dim + d;
}

/* All that was found of K or V of a kv head, channel by channel. */
template <prefill_operand WHAT> static __device__ __forceinline__ void join_facts(const prefill_encode_call &c, const prefill_place &at, float *warps)
{
    const int dim = WHAT == PREFILL_V ? c.of.kv.v_dim : c.of.kv.head_dim;
    const int64_t line = at.b * c.of.kv.kv_heads + at.head, all = c.at.kv_tokens / TOKENS;
    const octavo_span seen = prefill_seen_of(c.of, at);
    const float *from = floats_at(c, WHAT == PREFILL_V ? c.at.v_part : c.at.k_part) + line * all * FACTS * dim;
    float most = 0.0f;
    for (int d = (int)threadIdx.x; d < dim; d += THREADS) {
        const channel_facts facts = join_channel(from + d, dim, (int)((seen.end + TOKENS - 1) / TOKENS), seen_count(seen), c.sums[WHAT], c.mosts[WHAT]);
        most = fmaxf(most, facts.most);
        if (WHAT == PREFILL_K && c.sums[PREFILL_K]) floats_at(c, c.at.k_mean)[line * dim + d] = facts.mean;
        if (WHAT == PREFILL_K) continue;
        const octavo_prefill_scale scale = octavo_prefill_scale_of(facts.most, 448.0f);
        floats_at(c, c.at.v_scale)[line * dim + d] = scale.scale;
        if (all > 0) *channel_inverse(c, line, d) = scale.inverse; /* the sum there has been added */
        if (c.sums[PREFILL_V]) floats_at(c, c.at.v_mean)[line * dim + d] = facts.mean;
    }
    if (WHAT == PREFILL_V || !c.at.k_most) return;
    most = block_reduce(most, warps, take_larger());
    if (threadIdx.x == 0) floats_at(c, c.at.k_most)[line] = most;
}

static __device__ __forceinline__ void join_q_most(const prefill_encode_call &c, int64_t q_line, float *warps)
{
    const int64_t blocks = c.at.q_tokens / TOKENS;
    float *most_of = floats_at(c, c.at.q_most) + q_line * blocks, most = 0.0f;
    for (int64_t block = threadIdx.x; block < blocks; block += THREADS) most = fmaxf(most, most_of[block]);
    most = block_reduce(most, warps, take_larger());
    if (threadIdx.x == 0) most_of[0] = most;
}

/* A part of what has to be known of a kv head, for Q of a query head, before it is encoded; the last block to find its part joins them. */
template <int LANES, encode_from FROM>
static __device__ __forceinline__ void find_part(const prefill_encode_call &c, const prefill_place &at, const prefill_step &step, float *warps, int *word)
{
    const prefill_steps &steps = c.steps;
    const bool values = step.what == PREFILL_V;
    if (values) put_facts<LANES, PREFILL_V, FROM>(c, at, step.part);
    else if (step.what == PREFILL_K) put_facts<LANES, PREFILL_K, FROM>(c, at, step.part);
    else put_q_most<LANES, FROM>(c, at, step.part);
    int *found = step_word(steps, step.line, values ? STEP_VALUES_FOUND : STEP_KEYS_FOUND);
    if (!step_is_last(found, values ? steps.facts[PREFILL_V] : steps.facts[PREFILL_K] + steps.facts[PREFILL_Q], word)) return;
    if (values) join_facts<PREFILL_V>(c, at, warps);
    else if (c.at.k_part) join_facts<PREFILL_K>(c, { at.b, step.line % c.of.kv.kv_heads, at.length, at.queries }, warps);
    if (!values && c.at.q_most)
        for (int h = 0; h < steps.q_heads; h++) join_q_most(c, step.line * c.of.group + h, warps);
    step_tell(step_word(steps, step.line, values ? STEP_VALUES_KNOWN : STEP_KEYS_KNOWN));
}

/* What codes leave out of V: sums of blocks to those of all blocks before each. */
static __device__ __forceinline__ void join_rest(const prefill_encode_call &c, const prefill_place &at)
{
    enum { BATCH = 32 };
    const int dim = c.of.kv.v_dim, blocks = (int)((prefill_seen_of(c.of, at).end + TOKENS - 1) / TOKENS);
    for (int d = (int)threadIdx.x; d < dim; d += THREADS) {
        float *rest = floats_at(c, c.at.v_rest) + (at.b * c.of.kv.kv_heads + at.head) * (c.at.kv_tokens / TOKENS + 1) * dim + d;
        double before = 0.0;
        for (int first = 0; first <= blocks; first += BATCH) {
            float its[BATCH];
#pragma unroll
            for (int j = 0; j < BATCH; j++) its[j] = first + j < blocks ? load_once(rest + (first + j) * (int64_t)dim) : 0.0f;
#pragma unroll
            for (int j = 0; j < BATCH; j++) {
                if (first + j <= blocks) rest[(first + j) * (int64_t)dim] = (float)before;
                before += (double)its[j];
            }
        }
    }
}

#endif
