/* prefill_encode_sm80.cu - Q, K and V to codes of eight bits for one call of attention_prefill, bit for bit as the reference has them.
 *
 * Where all keys have a part in a mean or in a scale, `prefill_facts` reads K and V once before, and `prefill_join` joins what it found of
 * each 64 tokens. `prefill_encode` reads and writes everything once: a block has 64 tokens of a head in registers. Bound by memory. */
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/prefill_stored.cuh"

enum { TOKENS = OCTAVO_PREFILL_BLOCK, THREADS = 256, EIGHT = 8, AHEAD = 8 };
enum { FACT_SUM, FACT_MOST, FACT_LEAST, FACTS };

struct prefill_encode_call {
    prefill_call of;
    octavo_prefill_eight_layout at;
    uint8_t *workspace;
    prefill_stored as;
    bool fp8, rotates, channels; /* channels: V has a scale a channel               */
    bool sums[3], mosts[3];      /* of Q, K, V: smoothed; scaled by what all tokens have */
    int values;                                        /* heads of V that are encoded: none in Sage 1 */
    float rotation;                                    /* 1 / sqrt(head_dim)                          */
};

static __device__ __forceinline__ float *floats_at(const prefill_encode_call &c, size_t offset) { return (float *)(c.workspace + offset); }

/* What the call's queries see of the sequence; nothing else is encoded. */
static __device__ __forceinline__ octavo_span seen_of(const prefill_call &c, const prefill_place &at)
{
    if (at.queries <= 0) return { 0, 0, 0 };
    const octavo_span first = octavo_prefill_span_of(&c.p, at.length, at.queries, 0);
    const octavo_span last = octavo_prefill_span_of(&c.p, at.length, at.queries, at.queries - 1);
    return { last.sink_end < first.near_begin ? last.sink_end : first.near_begin, first.near_begin, last.end };
}

static __device__ __forceinline__ int64_t seen_count(const octavo_span &seen)
{
    return seen.end <= seen.sink_end ? seen.end : seen.sink_end + (seen.end > seen.near_begin ? seen.end - seen.near_begin : 0);
}

/* ---- facts about all keys ---- */

/* Sum, largest and smallest of eight channels over 64 tokens, in the order of the tokens. */
template <prefill_operand WHAT, bool WIDE>
static __device__ __forceinline__ void find_facts(const prefill_encode_call &c, const prefill_place &at, const octavo_span &seen, int64_t block, int d, int dim,
                                                  float *to)
{
    float sum[EIGHT], most[EIGHT], least[EIGHT];
#pragma unroll
    for (int i = 0; i < EIGHT; i++) sum[i] = 0.0f, most[i] = -INFINITY, least[i] = INFINITY;
    const bool some = block * TOKENS < seen.sink_end || (block + 1) * TOKENS > seen.near_begin;
    const prefill_row begin = some && c.as.runs[WHAT] ? prefill_row_of(c.of, c.as, WHAT, at, block * TOKENS) : prefill_row{ nullptr, nullptr, 1.0f };
    const int64_t step = WHAT == PREFILL_V ? c.of.kv.v.token_bytes : c.of.kv.k[0].token_bytes;
    for (int first = 0; first < TOKENS; first += AHEAD) {
        prefill_row row[AHEAD];
        eight_raw raw[AHEAD];
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            const int64_t token = block * TOKENS + first + j;
            row[j] = { nullptr, nullptr, 1.0f };
            if (!octavo_span_sees(&seen, token)) continue;
            if (!c.as.runs[WHAT]) row[j] = prefill_row_of(c.of, c.as, WHAT, at, token);
            else if (begin.base) row[j].base = begin.base + (first + j) * step;
        }
        prefill_ask_eights<WIDE>(c.as, WHAT, row, d, dim, raw);
#pragma unroll
        for (int j = 0; j < AHEAD; j++) {
            float x[EIGHT];
            if (!row[j].base) continue;
            prefill_take_eight<WIDE>(c.of, c.as, WHAT, at.head, row[j], d, dim, raw[j], x);
#pragma unroll
            for (int i = 0; i < EIGHT; i++) sum[i] += x[i], most[i] = fmaxf(most[i], x[i]), least[i] = fminf(least[i], x[i]);
        }
    }
#pragma unroll
    for (int i = 0; i < EIGHT; i++)
        if (d + i < dim) {
            if (c.sums[WHAT]) to[FACT_SUM * dim + d + i] = sum[i];
            if (c.mosts[WHAT]) to[FACT_MOST * dim + d + i] = most[i], to[FACT_LEAST * dim + d + i] = least[i];
        }
}

/* Largest magnitude of a lane's queries of a block. */
template <bool WIDE> static __device__ __forceinline__ float find_most(const prefill_encode_call &c, const prefill_place &at, int64_t block, int d)
{
    float most = 0.0f;
    for (int64_t token = block * TOKENS; token < (block + 1) * TOKENS && token < at.queries; token++) {
        const prefill_row row[1] = { prefill_row_of(c.of, c.as, PREFILL_Q, at, token) };
        eight_raw raw[1];
        float x[EIGHT];
        prefill_ask_eights<WIDE>(c.as, PREFILL_Q, row, d, c.of.kv.head_dim, raw);
        prefill_take_eight<WIDE>(c.of, c.as, PREFILL_Q, at.head, row[0], d, c.of.kv.head_dim, raw[0], x);
#pragma unroll
        for (int i = 0; i < EIGHT; i++) most = fmaxf(most, fabsf(x[i]));
    }
    return most;
}

/* Grid (THREADS / LANES blocks of tokens, heads of what, batch); LANES threads a block of tokens, eight channels each. */
template <int LANES, prefill_operand WHAT, bool WIDE> static __global__ void __launch_bounds__(THREADS, 2) prefill_facts(const __grid_constant__ prefill_encode_call c)
{
    wait_for_kernel_before();
    next_kernel_may_start();
    const octavo_kv_view *kv = &c.of.kv;
    const int head = (int)blockIdx.y, d = (int)threadIdx.x % LANES * EIGHT, dim = WHAT == PREFILL_V ? kv->v_dim : kv->head_dim;
    const int64_t block = (int64_t)blockIdx.x * (THREADS / LANES) + threadIdx.x / LANES, line = (int64_t)blockIdx.z * gridDim.y + head;
    const prefill_place at = prefill_place_of(c.of, blockIdx.z, head);
    if (WHAT == PREFILL_Q) {
        float most = block * TOKENS < at.queries ? find_most<WIDE>(c, at, block, d) : 0.0f;
#pragma unroll
        for (int step = 1; step < LANES; step *= 2) most = fmaxf(most, __shfl_xor_sync(WHOLE_WARP, most, step));
        if (d == 0 && block < c.at.q_tokens / TOKENS) floats_at(c, c.at.q_most)[line * (c.at.q_tokens / TOKENS) + block] = most;
        return;
    }
    const octavo_span seen = seen_of(c.of, at);
    if (block * TOKENS >= seen.end || d >= dim) return;
    float *to = floats_at(c, WHAT == PREFILL_V ? c.at.v_part : c.at.k_part) + (line * (c.at.kv_tokens / TOKENS) + block) * FACTS * dim;
    find_facts<WHAT, WIDE>(c, at, seen, block, d, dim, to);
}

/* A channel of all blocks: its mean, and the largest magnitude once that is off, which subtraction cannot reorder. */
struct channel_facts {
    float mean, most;
};
static __device__ __forceinline__ channel_facts join_channel(const float *from, int dim, int64_t blocks, int64_t count, bool smooths, bool scales)
{
    enum { BATCH = 32 };
    double sum = 0.0;
    float most = -INFINITY, least = INFINITY, part[BATCH];
    if (count == 0) return { 0.0f, 0.0f };
    for (int64_t block = 0; block < blocks && smooths; block += BATCH) {
#pragma unroll
        for (int j = 0; j < BATCH; j++) part[j] = block + j < blocks ? from[((block + j) * FACTS + FACT_SUM) * dim] : 0.0f;
#pragma unroll
        for (int j = 0; j < BATCH; j++) sum += (double)part[j];
    }
    for (int64_t block = 0; block < blocks && scales; block += BATCH) {
#pragma unroll
        for (int j = 0; j < BATCH; j++) part[j] = block + j < blocks ? from[((block + j) * FACTS + FACT_MOST) * dim] : -INFINITY;
#pragma unroll
        for (int j = 0; j < BATCH; j++) most = fmaxf(most, part[j]);
#pragma unroll
        for (int j = 0; j < BATCH; j++) part[j] = block + j < blocks ? from[((block + j) * FACTS + FACT_LEAST) * dim] : INFINITY;
#pragma unroll
        for (int j = 0; j < BATCH; j++) least = fminf(least, part[j]);
    }
    const float mean = smooths ? (float)(sum / (double)count) : 0.0f;
    return { mean, scales ? fmaxf(fabsf(most - mean), fabsf(least - mean)) : 0.0f };
}

/* Where the inverse of a channel's scale goes. */
static __device__ __forceinline__ float *channel_inverse(const prefill_encode_call &c, int64_t line, int d)
{
    return floats_at(c, c.at.v_part) + line * (c.at.kv_tokens / TOKENS) * FACTS * c.of.kv.v_dim + d;
}

/* Grid (1, heads of K, of V, of Q, batch), a thread a channel. */
static __global__ void __launch_bounds__(THREADS) prefill_join(const __grid_constant__ prefill_encode_call c)
{
    __shared__ float warps[THREADS / WARP];
    wait_for_kernel_before();
    next_kernel_may_start();
    const octavo_kv_view *kv = &c.of.kv;
    const int d = (int)threadIdx.x, role = (int)blockIdx.y / kv->kv_heads, heads = kv->kv_heads;
    if (role < 2) {
        const int head = (int)blockIdx.y % heads, dim = role ? kv->v_dim : kv->head_dim;
        const size_t parts = role ? c.at.v_part : c.at.k_part;
        if (!parts) return;
        const int64_t line = (int64_t)blockIdx.z * heads + head, all = c.at.kv_tokens / TOKENS;
        const octavo_span seen = seen_of(c.of, prefill_place_of(c.of, blockIdx.z, head));
        channel_facts facts = { 0.0f, 0.0f };
        if (d < dim)
            facts = join_channel(floats_at(c, parts) + line * all * FACTS * dim + d, dim, (seen.end + TOKENS - 1) / TOKENS, seen_count(seen),
                                 c.sums[role ? PREFILL_V : PREFILL_K], c.mosts[role ? PREFILL_V : PREFILL_K]);
        if (role == 0) {
            const float most = block_reduce(facts.most, warps, take_larger());
            if (d < dim && c.sums[PREFILL_K]) floats_at(c, c.at.k_mean)[line * dim + d] = facts.mean;
            if (d == 0 && c.at.k_most) floats_at(c, c.at.k_most)[line] = most;
        } else if (d < dim) {
            const octavo_prefill_scale scale = octavo_prefill_scale_of(facts.most, 448.0f);
            floats_at(c, c.at.v_scale)[line * dim + d] = scale.scale;
            if (all > 0) *channel_inverse(c, line, d) = scale.inverse; /* the sum there has been added */
            if (c.sums[PREFILL_V]) floats_at(c, c.at.v_mean)[line * dim + d] = facts.mean;
        }
        return;
    }
    const int64_t blocks = c.at.q_tokens / TOKENS;
    float *most_of = floats_at(c, c.at.q_most) + ((int64_t)blockIdx.z * c.of.p.q.shape[2] + blockIdx.y - 2 * heads) * blocks, most = 0.0f;
    for (int64_t block = d; block < blocks; block += THREADS) most = fmaxf(most, most_of[block]);
    most = block_reduce(most, warps, take_larger());
    if (d == 0) most_of[0] = most;
}

/* ---- codes ---- */

template <int DIM> struct encode_shared {
    prefill_row row[TOKENS];
    alignas(16) float most[TOKENS];
    float inverse[TOKENS];
    alignas(16) uint8_t codes[TOKENS * (DIM + 4)]; /* of V, before it is turned */
};

/* Walsh and Hadamard's butterflies over rows of which a lane has eight elements, in the reference's order. */
static __device__ __forceinline__ void rotate_rows(float (&x)[EIGHT], int d, int dim, float unit)
{
#pragma unroll
    for (int half = 1; half < EIGHT; half *= 2)
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            if (i & half || half >= dim) continue;
            const float a = x[i], b = x[i + half];
            x[i] = a + b, x[i + half] = a - b;
        }
    for (int half = EIGHT; half < dim; half *= 2) {
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            const float other = __shfl_xor_sync(WHOLE_WARP, x[i], half / EIGHT);
            x[i] = d & half ? other - x[i] : x[i] + other;
        }
    }
#pragma unroll
    for (int i = 0; i < EIGHT; i++) x[i] *= unit;
}

/* Largest magnitude of the tokens that share token r's scale. */
template <prefill_operand WHAT> static __device__ __forceinline__ float group_most(const prefill_encode_call &c, const float (&most)[TOKENS], int r)
{
    const octavo_sage_scales by = c.fp8 || WHAT == PREFILL_V ? OCTAVO_SAGE_PER_BLOCK : c.of.p.sage_scales;
    if (by == OCTAVO_SAGE_PER_TOKEN) return most[r];
    float out = 0.0f;
    if (by == OCTAVO_SAGE_PER_THREAD && WHAT == PREFILL_Q) return fmaxf(most[r & ~8], most[r | 8]);
    if (by == OCTAVO_SAGE_PER_THREAD) {
        for (int i = 0; i < TOKENS; i += 8) out = fmaxf(out, fmaxf(most[i + (r & 6)], most[i + (r & 6) + 1]));
        return out;
    }
    const bool warp = by == OCTAVO_SAGE_PER_WARP && WHAT == PREFILL_Q;
    const int begin = warp ? r / 16 * 16 : 0, count = warp ? 16 : TOKENS;
    for (int i = 0; i < count; i += 16)
#pragma unroll
        for (int j = 0; j < 16; j += 4) {
            const float4 four = *(const float4 *)&most[begin + i + j];
            out = fmaxf(out, fmaxf(fmaxf(four.x, four.y), fmaxf(four.z, four.w)));
        }
    return out;
}

/* Scale of token r, and what elements are multiplied by before they are rounded; *exponent: that as a power of two, where it is one. */
template <prefill_operand WHAT>
static __device__ __forceinline__ octavo_prefill_scale row_scale(const prefill_encode_call &c, const float (&most)[TOKENS], const prefill_row &row, int64_t line, int r,
                                                                int *exponent)
{
    *exponent = 0;
    if (c.as.codes[WHAT]) return { row.factor, 1.0f };
    if (WHAT == PREFILL_V && c.channels) return { 1.0f, 1.0f };
    if (!c.fp8 && c.of.p.sage_scales == OCTAVO_SAGE_PER_TENSOR) {
        const float whole = WHAT == PREFILL_Q ? floats_at(c, c.at.q_most)[line * (c.at.q_tokens / TOKENS)] : floats_at(c, c.at.k_most)[line];
        return octavo_prefill_scale_of(whole, 127.0f);
    }
    const float largest = group_most<WHAT>(c, most, r);
    if (!c.fp8) return octavo_prefill_scale_of(largest, 127.0f);
    *exponent = octavo_row_exponent(largest);
    return { ldexpf(1.0f, -*exponent), ldexpf(1.0f, *exponent) };
}

/* The scales of a block's tokens to memory. */
template <prefill_operand WHAT>
static __device__ __forceinline__ void put_scales(const prefill_encode_call &c, int64_t line, int64_t block, int r, float scale, int exponent)
{
    const int64_t tokens = WHAT == PREFILL_Q ? c.at.q_tokens : c.at.kv_tokens;
    if (WHAT == PREFILL_Q) {
        floats_at(c, c.at.q_scale)[line * tokens + block * TOKENS + r] = scale;
    } else if (WHAT == PREFILL_K) {
        float *to = floats_at(c, c.at.k_scale);
        if (c.at.per_token) to[line * tokens + block * TOKENS + r] = scale;
        else if (r < 8 && r % 2 == 0) to[(line * (tokens / TOKENS) + block) * 4 + r / 2] = scale;
    } else if (c.at.v_log2) {
        float *to = floats_at(c, c.at.v_log2);
        const float log = c.as.codes[PREFILL_V] ? (scale > 0.0f ? log2f(scale) : -120.0f) : (float)-exponent;
        if (c.at.per_token) to[line * tokens + block * TOKENS + r] = log;
        else if (r == 0) to[line * (tokens / TOKENS) + block] = log;
    }
}

/* Codes of V, four channels of 8 tokens of 16 at a time, to rows of channels. */
template <int DIM>
static __device__ __forceinline__ void put_turned(const prefill_encode_call &c, const encode_shared<DIM> &shared, int64_t line, int64_t first)
{
    enum { STRIDE = DIM + 4, ITEMS = DIM / 4 * TOKENS / 8 };
    const int dim = c.of.kv.v_dim;
    uint8_t *to = c.workspace + c.at.v + line * dim * c.at.kv_tokens + first;
#pragma unroll
    for (int item = (int)threadIdx.x; item < ITEMS; item += THREADS) {
        const int group = item % (TOKENS / 16 * 2) / 2, half = item % 2, d = item / (TOKENS / 16 * 2) * 4;
        uint32_t turned[2][4];
#pragma unroll
        for (int j = 0; j < 2; j++) {
            const uint8_t *from = shared.codes + (16 * group + 4 * half + 2 * j) * STRIDE + d;
            const uint32_t a = *(const uint32_t *)from, b = *(const uint32_t *)(from + STRIDE);
            const uint32_t e = *(const uint32_t *)(from + 8 * STRIDE), f = *(const uint32_t *)(from + 9 * STRIDE);
            const uint32_t ab = permute(a, b, 0x5140), ef = permute(e, f, 0x5140), ab_high = permute(a, b, 0x7362), ef_high = permute(e, f, 0x7362);
            turned[j][0] = permute(ab, ef, 0x5410), turned[j][1] = permute(ab, ef, 0x7632);
            turned[j][2] = permute(ab_high, ef_high, 0x5410), turned[j][3] = permute(ab_high, ef_high, 0x7632);
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (d + i < dim) *(uint2 *)(to + (d + i) * c.at.kv_tokens + 16 * group + 8 * half) = make_uint2(turned[0][i], turned[1][i]);
    }
}

/* A block of tokens of a head. */
template <int DIM, prefill_operand WHAT, bool WIDE>
static __device__ __forceinline__ void encode_block(const prefill_encode_call &c, encode_shared<DIM> &shared, int64_t b, int head)
{
    enum { LANES = DIM / EIGHT, ROWS = THREADS / LANES, CHUNKS = TOKENS / ROWS };
    const octavo_kv_view *kv = &c.of.kv;
    const int64_t block = blockIdx.x, first = block * TOKENS, tokens = WHAT == PREFILL_Q ? c.at.q_tokens : c.at.kv_tokens;
    const int64_t line = b * (WHAT == PREFILL_Q ? c.of.p.q.shape[2] : kv->kv_heads) + head;
    const prefill_place at = prefill_place_of(c.of, b, head);
    const octavo_span seen = WHAT == PREFILL_Q ? octavo_span{ 0, 0, at.queries } : seen_of(c.of, at);
    const int d = (int)threadIdx.x % LANES * EIGHT, r0 = (int)threadIdx.x / LANES, dim = WHAT == PREFILL_V ? kv->v_dim : kv->head_dim;
    if (WHAT == PREFILL_V && block == 0 && c.at.v_scale && !c.channels && (int)threadIdx.x < dim)
        floats_at(c, c.at.v_scale)[line * dim + threadIdx.x] = c.as.codes[PREFILL_V] ? channel_factor(kv, head, threadIdx.x) : 1.0f;
    if (first >= (seen.end + OCTAVO_PREFILL_EIGHT_TOKENS - 1) / OCTAVO_PREFILL_EIGHT_TOKENS * OCTAVO_PREFILL_EIGHT_TOKENS) return;

    /* 1. where the rows are, and the elements */
    if (threadIdx.x < TOKENS) {
        shared.row[threadIdx.x] = { nullptr, nullptr, 0.0f };
        if (octavo_span_sees(&seen, first + threadIdx.x)) shared.row[threadIdx.x] = prefill_row_of(c.of, c.as, WHAT, at, first + threadIdx.x);
    }
    __syncthreads();
    float x[CHUNKS][EIGHT];
    prefill_row row[CHUNKS];
    eight_raw raw[CHUNKS];
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) row[i] = shared.row[r0 + i * ROWS];
    prefill_ask_eights<WIDE>(c.as, WHAT, row, d, dim, raw);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) prefill_take_eight<WIDE>(c.of, c.as, WHAT, at.head, row[i], d, dim, raw[i], x[i]);

    /* 2. means, and what they take from scores */
    float mean[EIGHT];
#pragma unroll
    for (int j = 0; j < EIGHT; j++) mean[j] = 0.0f;
    const bool shifts = WHAT == PREFILL_Q && c.at.q_shift, smooths = WHAT == PREFILL_K ? c.sums[PREFILL_K] : WHAT == PREFILL_V && c.sums[PREFILL_V];
    if (shifts || smooths) {
        const int64_t kv_head = WHAT == PREFILL_Q ? head / c.of.group : head, kv_line = b * kv->kv_heads + kv_head;
        const float *found = WHAT == PREFILL_V ? floats_at(c, c.at.v_mean) : c.at.k_mean ? floats_at(c, c.at.k_mean) : nullptr;
        const float *stored = WHAT == PREFILL_Q && kv->k_mean ? kv->k_mean + (octavo_view_row(kv, b) * kv->kv_heads + kv_head) * dim : nullptr;
#pragma unroll
        for (int j = 0; j < EIGHT; j++)
            if (d + j < dim) mean[j] = (found ? found[kv_line * dim + d + j] : 0.0f) + (stored ? stored[d + j] : 0.0f);
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int r = r0 + i * ROWS;
        if (shifts) {
            float shift = 0.0f;
#pragma unroll
            for (int j = 0; j < EIGHT; j++) shift = fmaf(x[i][j], mean[j], shift);
#pragma unroll
            for (int step = 1; step < LANES; step *= 2) shift += __shfl_xor_sync(WHOLE_WARP, shift, step);
            if (d == 0) floats_at(c, c.at.q_shift)[line * tokens + first + r] = shift * c.of.p.softmax_scale;
        }
        if (smooths && shared.row[r].base)
#pragma unroll
            for (int j = 0; j < EIGHT; j++) x[i][j] -= mean[j];
        if (WHAT != PREFILL_V && c.rotates) rotate_rows(x[i], d, dim, c.rotation);
        float most = 0.0f;
#pragma unroll
        for (int j = 0; j < EIGHT; j++) most = fmaxf(most, fabsf(x[i][j]));
#pragma unroll
        for (int step = 1; step < LANES; step *= 2) most = fmaxf(most, __shfl_xor_sync(WHOLE_WARP, most, step));
        if (d == 0) shared.most[r] = most;
    }
    __syncthreads();

    /* 3. scales */
    if (threadIdx.x < TOKENS) {
        int exponent;
        const octavo_prefill_scale scale = row_scale<WHAT>(c, shared.most, shared.row[threadIdx.x], line, (int)threadIdx.x, &exponent);
        shared.inverse[threadIdx.x] = scale.inverse;
        put_scales<WHAT>(c, line, block, (int)threadIdx.x, scale.scale, exponent);
    }
    __syncthreads();

    /* 4. codes */
    const bool channels = WHAT == PREFILL_V && c.channels;
    const float lowest = c.as.codes[WHAT] ? -128.0f : -127.0f;
    float up[EIGHT];
#pragma unroll
    for (int j = 0; j < EIGHT; j++) up[j] = channels && d + j < dim ? *channel_inverse(c, line, d + j) : 0.0f;
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        const int r = r0 + i * ROWS;
        const float inverse = shared.inverse[r];
        uint32_t low, high;
#pragma unroll
        for (int j = 0; j < EIGHT; j++) x[i][j] *= channels ? up[j] : inverse;
        if (WHAT == PREFILL_V || c.fp8) {
            low = pack_e4m3(x[i][0], x[i][1], x[i][2], x[i][3]), high = pack_e4m3(x[i][4], x[i][5], x[i][6], x[i][7]);
        } else {
#pragma unroll
            for (int j = 0; j < EIGHT; j++) x[i][j] = fmaxf(lowest, fminf(x[i][j], 127.0f));
            low = pack_int8(x[i][0], x[i][1], x[i][2], x[i][3]), high = pack_int8(x[i][4], x[i][5], x[i][6], x[i][7]);
        }
        if (WHAT == PREFILL_V) *(uint32_t *)(shared.codes + r * (DIM + 4) + d) = low, *(uint32_t *)(shared.codes + r * (DIM + 4) + d + 4) = high;
        else if (d < c.at.width)
            *(uint2 *)(c.workspace + (WHAT == PREFILL_Q ? c.at.q : c.at.k) + (line * tokens + first + r) * c.at.width + d) = make_uint2(low, high);
    }
    if (WHAT != PREFILL_V) return;
    __syncthreads();
    put_turned<DIM>(c, shared, line, first);
}

/* Grid (blocks of tokens, heads of V, of K, of Q, batch). What was read last comes first: it may still be in the second-level cache. */
template <int DIM, bool WIDE> static __global__ void __launch_bounds__(THREADS, DIM > 128 ? 2 : 3) prefill_encode(const __grid_constant__ prefill_encode_call c)
{
    __shared__ encode_shared<DIM> shared;
    wait_for_kernel_before();
    next_kernel_may_start();
    const int index = (int)blockIdx.y, heads = c.of.kv.kv_heads, keys = c.values + heads;
    const int64_t b = gridDim.z - 1 - blockIdx.z;
    if (index < c.values) encode_block<DIM, PREFILL_V, WIDE>(c, shared, b, c.values - 1 - index);
    else if (index < keys) encode_block<DIM, PREFILL_K, WIDE>(c, shared, b, keys - 1 - index);
    else encode_block<DIM, PREFILL_Q, WIDE>(c, shared, b, index - keys);
}

/* ---- the call ---- */

static bool is_wide(const octavo_section *section)
{
    return ((uintptr_t)section->data | (uintptr_t)section->page_bytes | (uintptr_t)section->sequence_bytes | (uintptr_t)section->head_bytes |
            (uintptr_t)section->token_bytes) % 16 == 0;
}

static bool runs(const octavo_kv_view *kv, const octavo_section *section)
{
    return kv->block_tokens % TOKENS == 0 || (!kv->page_table && section->page_bytes == section->token_bytes * kv->block_tokens);
}

static prefill_stored stored_of(const octavo_attention_prefill_params *p)
{
    const octavo_kv_view *kv = p->kv;
    const octavo_tensor *q = &p->q;
    const bool k_float = kv->k_format == OCTAVO_K_F32 || kv->k_format == OCTAVO_K_BF16 || kv->k_format == OCTAVO_K_F16;
    const bool v_float = kv->v_format == OCTAVO_V_F32 || kv->v_format == OCTAVO_V_BF16 || kv->v_format == OCTAVO_V_F16;
    prefill_stored as = {};
    as.bytes[PREFILL_Q] = q->dtype == OCTAVO_F32 ? 4 : 2, as.halves[PREFILL_Q] = q->dtype == OCTAVO_F16;
    as.bytes[PREFILL_K] = kv->k_format == OCTAVO_K_F32 ? 4 : 2, as.halves[PREFILL_K] = kv->k_format == OCTAVO_K_F16;
    as.bytes[PREFILL_V] = kv->v_format == OCTAVO_V_F32 ? 4 : 2, as.halves[PREFILL_V] = kv->v_format == OCTAVO_V_F16;
    as.codes[PREFILL_K] = octavo_prefill_takes_k_codes(p), as.codes[PREFILL_V] = octavo_prefill_takes_v_codes(p);
    as.planes = octavo_prefill_k_planes(p);
    as.wide[PREFILL_K] = k_float && is_wide(&kv->k[0]), as.wide[PREFILL_V] = v_float && is_wide(&kv->v), as.wide[PREFILL_Q] = (uintptr_t)q->data % 16 == 0;
    for (int i = 0; i < 3; i++) as.wide[PREFILL_Q] = as.wide[PREFILL_Q] && q->strides[i] * as.bytes[PREFILL_Q] % 16 == 0;
    as.runs[PREFILL_K] = k_float && runs(kv, &kv->k[0]), as.runs[PREFILL_V] = v_float && runs(kv, &kv->v);
    return as;
}

template <int LANES, prefill_operand WHAT, bool WIDE>
static octavo_status launch_facts(const octavo_exec *exec, const prefill_encode_call &call, int64_t tokens, int64_t heads)
{
    const dim3 grid((unsigned)octavo_cuda_ceil(tokens / TOKENS, THREADS / LANES), (unsigned)heads, (unsigned)call.of.p.q.shape[0]);
    if (tokens == 0) return OCTAVO_OK;
    return octavo_cuda_launch(prefill_facts<LANES, WHAT, WIDE>, "attention_prefill", grid, THREADS, 0, exec, call);
}

template <int DIM, bool WIDE> static octavo_status launch(const octavo_exec *exec, const prefill_encode_call &call)
{
    enum { LANES = DIM / EIGHT };
    const int64_t q_heads = call.of.p.q.shape[2], heads = call.of.kv.kv_heads, tokens = call.at.q_tokens > call.at.kv_tokens ? call.at.q_tokens : call.at.kv_tokens;
    const unsigned batch = (unsigned)call.of.p.q.shape[0];
    if (call.at.k_part) OCTAVO_CUDA_TRY((launch_facts<LANES, PREFILL_K, WIDE>(exec, call, call.at.kv_tokens, heads)));
    if (call.at.v_part) OCTAVO_CUDA_TRY((launch_facts<LANES, PREFILL_V, WIDE>(exec, call, call.at.kv_tokens, heads)));
    if (call.at.q_most) OCTAVO_CUDA_TRY((launch_facts<LANES, PREFILL_Q, WIDE>(exec, call, call.at.q_tokens, q_heads)));
    if (call.at.k_part || call.at.v_part || call.at.q_most)
        OCTAVO_CUDA_TRY(octavo_cuda_launch(prefill_join, "attention_prefill", dim3(1, (unsigned)(2 * heads + (call.at.q_most ? q_heads : 0)), batch), THREADS, 0,
                                           exec, call));
    const dim3 grid((unsigned)(tokens / TOKENS), (unsigned)(call.values + heads + q_heads), batch);
    return octavo_cuda_launch(prefill_encode<DIM, WIDE>, "attention_prefill", grid, THREADS, 0, exec, call);
}

octavo_status octavo_prefill_encode(const octavo_exec *exec, const prefill_call &of, const octavo_prefill_eight_layout &at)
{
    const octavo_attention_prefill_params *p = &of.p;
    const int32_t dim = of.kv.head_dim > of.kv.v_dim ? of.kv.head_dim : of.kv.v_dim;
    const int64_t heads = p->q.shape[2] + 2 * (int64_t)of.kv.kv_heads;
    prefill_encode_call call = { of, at, (uint8_t *)exec->workspace, stored_of(p), p->precision == OCTAVO_ATTENTION_FP8, octavo_prefill_rotates(p) != 0, at.v_part != 0,
                                 { false, octavo_prefill_smooths_k(p) != 0, octavo_prefill_smooths_v(p) != 0 }, { at.q_most != 0, at.k_most != 0, at.v_part != 0 },
                                 at.v ? of.kv.kv_heads : 0, (float)(1.0 / sqrt((double)of.kv.head_dim)) };
    if (dim > PREFILL_EIGHT_DIM || heads > 65535 || p->q.shape[0] > 65535)
        return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "kv.head_dim is %d and v_dim %d for %lld heads of %lld sequences, expected at most %d for 65535 of 65535 on a GPU",
                                of.kv.head_dim, of.kv.v_dim, (long long)heads, (long long)p->q.shape[0], (int)PREFILL_EIGHT_DIM);
    const bool wide = call.as.wide[PREFILL_Q] && call.as.wide[PREFILL_K] && call.as.wide[PREFILL_V] && of.kv.head_dim % EIGHT == 0 && of.kv.v_dim % EIGHT == 0;
    if (dim <= 64) return wide ? launch<64, true>(exec, call) : launch<64, false>(exec, call);
    if (dim <= 128) return wide ? launch<128, true>(exec, call) : launch<128, false>(exec, call);
    return wide ? launch<256, true>(exec, call) : launch<256, false>(exec, call);
}
