/* prefill_encode_sm80.cu - Q, K and V to codes of eight bits for one call of attention_prefill, bit for bit as the reference has them.
 *
 * Where all keys have a part in a mean or in a scale, `prefill_facts` reads K and V once before, and `prefill_join` joins what it found of
 * each 64 tokens; where all of a head, or of the call, shares a scale, `prefill_most` does. `prefill_encode` reads and writes everything once: a block has 64 tokens of a head in registers. Bound by memory. */
#include "cuda/tile/prefill_fit.cuh"
#include "cuda/tile/prefill_most.cuh"

/* ---- codes ---- */

template <int DIM> struct encode_shared {
    prefill_row row[TOKENS];
    alignas(16) float most[TOKENS];
    float scale[TOKENS], inverse[TOKENS];
    alignas(16) float rest[THREADS / WARP][DIM]; /* what a warp's codes leave out of V */
    alignas(16) uint8_t codes[TOKENS * (DIM + 4)]; /* of V, before it is turned */
};

/* Largest magnitude of the tokens that share token r's scale. */
static __device__ __forceinline__ float group_most(const prefill_encode_call &c, prefill_operand what, const float (&most)[TOKENS], int r)
{
    const octavo_prefill_scales by = c.fp8 || what == PREFILL_V ? OCTAVO_PREFILL_PER_BLOCK : c.of.p.scales;
    if (by == OCTAVO_PREFILL_PER_TOKEN) return most[r];
    float out = 0.0f;
    if (by == OCTAVO_PREFILL_PER_THREAD && what == PREFILL_Q) return fmaxf(most[r & ~8], most[r | 8]);
    if (by == OCTAVO_PREFILL_PER_THREAD) {
        for (int i = 0; i < TOKENS; i += 8) out = fmaxf(out, fmaxf(most[i + (r & 6)], most[i + (r & 6) + 1]));
        return out;
    }
    const bool warp = by == OCTAVO_PREFILL_PER_WARP && what == PREFILL_Q;
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
static __device__ __forceinline__ octavo_prefill_scale row_scale(const prefill_encode_call &c, prefill_operand what, const float (&most)[TOKENS],
                                                                const prefill_row &row, int64_t b, int head, int r, int *exponent)
{
    *exponent = 0;
    if (c.as.codes[what]) return { row.factor, 1.0f };
    if (what == PREFILL_V && c.channels) return { 1.0f, 1.0f };
    const float largest = c.whole[what].at ? *whole_most_at(c, what, b, head) : group_most(c, what, most, r);
    if (!c.fp8) return octavo_prefill_scale_of(largest, 127.0f);
    *exponent = octavo_row_exponent(largest);
    return { ldexpf(1.0f, -*exponent), ldexpf(1.0f, *exponent) };
}

/* The scales of a block's tokens to memory. */
static __device__ __forceinline__ void put_scales(const prefill_encode_call &c, prefill_operand what, int64_t line, int64_t block, int r, float scale,
                                                  int exponent)
{
    const int64_t tokens = what == PREFILL_Q ? c.at.q_tokens : c.at.kv_tokens;
    if (what == PREFILL_Q) {
        floats_at(c, c.at.q_scale)[line * tokens + block * TOKENS + r] = scale;
    } else if (what == PREFILL_K) {
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

/* What a warp's codes leave out of V, of which a lane has eight channels of some rows, to shared memory. */
template <int DIM, int CHUNKS>
static __device__ __forceinline__ void share_rest(encode_shared<DIM> &shared, const float (&x)[CHUNKS][EIGHT], const uint32_t (&low)[CHUNKS],
                                                  const uint32_t (&high)[CHUNKS], int d)
{
    float rest[EIGHT] = {};
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        float code[EIGHT];
        decode_eight(low[i], high[i], code);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) rest[j] += x[i][j] - code[j];
    }
#pragma unroll
    for (int j = 0; j < EIGHT; j++) {
#pragma unroll
        for (int step = DIM / EIGHT; step < WARP; step *= 2) rest[j] += __shfl_xor_sync(WHOLE_WARP, rest[j], step);
        if (threadIdx.x % WARP < DIM / EIGHT) shared.rest[threadIdx.x / WARP][d + j] = rest[j];
    }
}

/* What a block's codes leave out of V, to memory; a thread a channel. */
template <int DIM> static __device__ __forceinline__ void put_rest(const prefill_encode_call &c, const encode_shared<DIM> &shared, int64_t line, int64_t block)
{
    const int d = (int)threadIdx.x, dim = c.of.kv.v_dim;
    float sum = 0.0f;
    if (d >= dim) return;
#pragma unroll
    for (int warp = 0; warp < THREADS / WARP; warp++) sum += shared.rest[warp][d];
    floats_at(c, c.at.v_rest)[(line * (c.at.kv_tokens / TOKENS + 1) + block) * dim + d] = c.channels ? sum : sum * shared.scale[0];
}

/* Eight channels from d on of a row of `dim` floats; zeros behind. */
template <encode_from FROM> static __device__ __forceinline__ void load_channels(const float *from, int d, int dim, float (&x)[EIGHT])
{
#pragma unroll
    for (int j = 0; j < EIGHT; j++) x[j] = 0.0f;
    if constexpr (FROM != FROM_ANY) { /* whole eights */
        if (d >= dim) return;
        const float4 low = *(const float4 *)(from + d), high = *(const float4 *)(from + d + 4);
        x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w, x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
    } else {
#pragma unroll
        for (int j = 0; j < EIGHT; j++)
            if (d + j < dim) x[j] = from[d + j];
    }
}

/* Eight channels of a value as f16, with zeros behind the last. */
static __device__ __forceinline__ void put_f16(const prefill_encode_call &c, int64_t line, int64_t token, int d, const float (&x)[EIGHT])
{
    const int64_t row = octavo_prefill_f16_row(&c.of.kv);
    if (2 * d >= row) return;
    *(uint4 *)(c.workspace + c.at.v_f16 + (line * c.at.kv_tokens + token) * row + 2 * d) =
        make_uint4(pack_f16(x[0], x[1]), pack_f16(x[2], x[3]), pack_f16(x[4], x[5]), pack_f16(x[6], x[7]));
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

/* What the mean takes from the scores of rows of Q, of which LANES lanes have eight elements each; the row at `row`, and those 256 / LANES on. */
template <int LANES, int CHUNKS>
static __device__ __forceinline__ void put_shifts(const prefill_encode_call &c, const float (&x)[CHUNKS][EIGHT], const float (&mean)[EIGHT], int64_t row, bool puts)
{
    float shift[CHUNKS] = {};
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
#pragma unroll
        for (int j = 0; j < EIGHT; j++) shift[i] = fmaf(x[i][j], mean[j], shift[i]);
#pragma unroll
        for (int step = 1; step < LANES; step *= 2) shift[i] += __shfl_xor_sync(WHOLE_WARP, shift[i], step);
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
        if (puts) floats_at(c, c.at.q_shift)[row + i * (THREADS / LANES)] = shift[i] * c.of.p.softmax_scale;
}

/* The largest magnitudes of such rows. */
template <int LANES, int CHUNKS> static __device__ __forceinline__ void find_mosts(const float (&x)[CHUNKS][EIGHT], float *to, bool puts)
{
    float most[CHUNKS] = {};
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
#pragma unroll
        for (int j = 0; j < EIGHT; j++) most[i] = fmaxf(most[i], fabsf(x[i][j]));
#pragma unroll
        for (int step = 1; step < LANES; step *= 2) most[i] = fmaxf(most[i], __shfl_xor_sync(WHOLE_WARP, most[i], step));
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
        if (puts) to[i * (THREADS / LANES)] = most[i];
}

/* The better scales of rows of Q in FP8: *inverse becomes theirs. scale: those that were found first. */
template <int LANES, int CHUNKS>
static __device__ __forceinline__ void fit_rows(const prefill_encode_call &c, const float (&x)[CHUNKS][EIGHT], bool plain, const float *scale,
                                                float (&inverse)[CHUNKS], int64_t row, bool puts)
{
    octavo_prefill_scale fitted[CHUNKS];
    if (plain) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) fitted[i] = fit_query<LANES, true>(x[i], { scale[i * (THREADS / LANES)], inverse[i] });
    } else {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) fitted[i] = fit_query<LANES, false>(x[i], { scale[i * (THREADS / LANES)], inverse[i] });
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        inverse[i] = fitted[i].inverse;
        if (puts) floats_at(c, c.at.q_scale)[row + i * (THREADS / LANES)] = fitted[i].scale;
    }
}

/* Elements to codes, e4m3 or, from `lowest` on, int8. */
template <int CHUNKS>
static __device__ __forceinline__ void pack_rows(const float (&x)[CHUNKS][EIGHT], bool e4m3, float lowest, uint32_t (&low)[CHUNKS], uint32_t (&high)[CHUNKS])
{
    if (e4m3) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++)
            low[i] = pack_e4m3(x[i][0], x[i][1], x[i][2], x[i][3]), high[i] = pack_e4m3(x[i][4], x[i][5], x[i][6], x[i][7]);
        return;
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        float held[EIGHT];
#pragma unroll
        for (int j = 0; j < EIGHT; j++) held[j] = fmaxf(lowest, fminf(x[i][j], 127.0f));
        low[i] = pack_int8(held[0], held[1], held[2], held[3]), high[i] = pack_int8(held[4], held[5], held[6], held[7]);
    }
}

/* A block of tokens of a head. */
template <int DIM, encode_from FROM>
static __device__ __forceinline__ void encode_block(const prefill_encode_call &c, prefill_operand what, encode_shared<DIM> &shared, int64_t b, int head)
{
    enum { LANES = DIM / EIGHT, ROWS = THREADS / LANES, CHUNKS = TOKENS / ROWS };
    const octavo_kv_view *kv = &c.of.kv;
    const int64_t block = blockIdx.x, first = block * TOKENS, tokens = what == PREFILL_Q ? c.at.q_tokens : c.at.kv_tokens;
    const int64_t line = b * (what == PREFILL_Q ? c.of.p.q.shape[2] : kv->kv_heads) + head;
    const prefill_place at = prefill_place_of(c.of, b, head);
    const octavo_span seen = what == PREFILL_Q ? octavo_span{ 0, 0, at.queries } : prefill_seen_of(c.of, at);
    const bool channels = what == PREFILL_V && c.channels;
    const int d = (int)threadIdx.x % LANES * EIGHT, r0 = (int)threadIdx.x / LANES, dim = what == PREFILL_V ? kv->v_dim : kv->head_dim;
    if (what == PREFILL_V && block == 0 && c.at.v_scale && !channels && (int)threadIdx.x < dim)
        floats_at(c, c.at.v_scale)[line * dim + threadIdx.x] = c.as.codes[PREFILL_V] ? channel_factor(kv, head, threadIdx.x) : 1.0f;
    if (first >= (seen.end + OCTAVO_PREFILL_EIGHT_TOKENS - 1) / OCTAVO_PREFILL_EIGHT_TOKENS * OCTAVO_PREFILL_EIGHT_TOKENS) return;

    /* 1. where the rows are, and the elements */
    if (threadIdx.x < TOKENS) {
        shared.row[threadIdx.x] = { nullptr, nullptr, 0.0f };
        if (octavo_span_sees(&seen, first + threadIdx.x)) shared.row[threadIdx.x] = prefill_row_of(c.of, c.as, what, at, first + threadIdx.x);
    }
    __syncthreads();
    float x[CHUNKS][EIGHT];
    prefill_row row[CHUNKS];
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) row[i] = shared.row[r0 + i * ROWS];
    prefill_load_eights<FROM>(c.of, c.as, what, at.head, row, d, dim, x);

    /* 2. means, and what they take from scores */
    float mean[EIGHT] = {};
    const bool shifts = what == PREFILL_Q && c.at.q_shift, smooths = what == PREFILL_K ? c.sums[PREFILL_K] : what == PREFILL_V && c.sums[PREFILL_V];
    const int64_t kv_head = what == PREFILL_Q ? head / c.of.group : head, kv_line = b * kv->kv_heads + kv_head;
    if (smooths || (shifts && c.at.k_mean)) load_channels<FROM>(floats_at(c, what == PREFILL_V ? c.at.v_mean : c.at.k_mean) + kv_line * dim, d, dim, mean);
    if (shifts && kv->k_mean) {
        float stored[EIGHT];
        load_channels<FROM_ANY>(kv->k_mean + (octavo_view_row(kv, b) * kv->kv_heads + kv_head) * dim, d, dim, stored);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) mean[j] += stored[j];
    }
    if (shifts) put_shifts<LANES>(c, x, mean, line * tokens + first + r0, d == 0);
    if (smooths) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) {
            const bool there = shared.row[r0 + i * ROWS].base != nullptr;
#pragma unroll
            for (int j = 0; j < EIGHT; j++) x[i][j] = there ? x[i][j] - mean[j] : x[i][j];
        }
    }
    if (what != PREFILL_V && c.rotates) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) rotate_rows(x[i], d, dim, c.rotation);
    }
    if (!channels) find_mosts<LANES>(x, &shared.most[r0], d == 0);
    float up[EIGHT];
    if (channels) load_channels<FROM>(channel_inverse(c, line, 0), d, dim, up);
    __syncthreads();

    /* 3. scales */
    const bool fits = what == PREFILL_Q && c.fp8 && !c.whole[PREFILL_Q].at, plain = FROM == FROM_HALVES && !c.as.halves[PREFILL_Q] && !c.rotates;
    if (threadIdx.x < TOKENS) {
        int exponent;
        const octavo_prefill_scale scale = row_scale(c, what, shared.most, shared.row[threadIdx.x], b, head, (int)threadIdx.x, &exponent);
        shared.scale[threadIdx.x] = scale.scale, shared.inverse[threadIdx.x] = scale.inverse;
        if (!fits) put_scales(c, what, line, block, (int)threadIdx.x, scale.scale, exponent);
    }
    __syncthreads();

    /* 4. codes: one choice after the other for all rows, so that these do not wait for each other */
    uint32_t low[CHUNKS], high[CHUNKS];
    float inverse[CHUNKS];
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) inverse[i] = shared.inverse[r0 + i * ROWS];
    if (fits) fit_rows<LANES>(c, x, plain, shared.scale + r0, inverse, line * tokens + first + r0, d == 0);
#pragma unroll
    for (int i = 0; i < CHUNKS; i++)
#pragma unroll
        for (int j = 0; j < EIGHT; j++) x[i][j] *= channels ? up[j] : inverse[i];
    if (what == PREFILL_V && c.at.v_f16) {
#pragma unroll
        for (int i = 0; i < CHUNKS; i++) put_f16(c, line, first + r0 + i * ROWS, d, x[i]);
        return;
    }
    pack_rows(x, what == PREFILL_V || c.fp8, c.as.codes[what] ? -128.0f : -127.0f, low, high);
    if (what != PREFILL_V) {
        uint8_t *to = c.workspace + (what == PREFILL_Q ? c.at.q : c.at.k) + (line * tokens + first + r0) * c.at.width + d;
#pragma unroll
        for (int i = 0; i < CHUNKS; i++)
            if (d < c.at.width) *(uint2 *)(to + i * ROWS * c.at.width) = make_uint2(low[i], high[i]);
        return;
    }
#pragma unroll
    for (int i = 0; i < CHUNKS; i++) {
        uint32_t *to = (uint32_t *)(shared.codes + (r0 + i * ROWS) * (DIM + 4) + d);
        to[0] = low[i], to[1] = high[i];
    }
    if (c.at.v_rest) share_rest<DIM>(shared, x, low, high, d);
    __syncthreads();
    put_turned<DIM>(c, shared, line, first);
    if (c.at.v_rest) put_rest<DIM>(c, shared, line, block);
}

/* Grid (blocks of tokens, heads of V, of K, of Q, batch). What was read last comes first: it may still be in the second-level cache. */
template <int DIM, encode_from FROM>
static __global__ void __launch_bounds__(THREADS, DIM > 128 ? 2 : 3) prefill_encode(const __grid_constant__ prefill_encode_call c)
{
    __shared__ encode_shared<DIM> shared;
    wait_for_kernel_before();
    next_kernel_may_start();
    if (threadIdx.x == 0 && blockIdx.x + blockIdx.y + blockIdx.z == 0) *(int *)c.workspace = 0; /* the next task */
    const int index = (int)blockIdx.y, heads = c.of.kv.kv_heads, keys = c.values + heads;
    const int64_t b = gridDim.z - 1 - blockIdx.z;
    const prefill_operand what = index < c.values ? PREFILL_V : index < keys ? PREFILL_K : PREFILL_Q;
    encode_block<DIM, FROM>(c, what, shared, b, what == PREFILL_V ? c.values - 1 - index : what == PREFILL_K ? keys - 1 - index : index - keys);
}

/* ---- the call ---- */

static bool is_wide(const octavo_section *section, int bytes)
{
    return ((uintptr_t)section->data | (uintptr_t)section->page_bytes | (uintptr_t)section->sequence_bytes | (uintptr_t)section->head_bytes |
            (uintptr_t)section->token_bytes) % (uintptr_t)bytes == 0;
}

static bool runs(const octavo_kv_view *kv, const octavo_section *section)
{
    return kv->block_tokens % TOKENS == 0 || (!kv->page_table && section->page_bytes == section->token_bytes * kv->block_tokens);
}

/* Bytes of an element of K or V, eight of which may be read at a time; 0: they may not. */
static int eights_of(const octavo_section *base, const octavo_section *more, int bytes, int32_t dim)
{
    const bool wide = is_wide(base, 8 * bytes) && (!more || is_wide(more, 8 * bytes));
    return wide && dim % EIGHT == 0 && bytes <= 2 ? bytes : 0;
}

static int key_bytes(octavo_k_format format)
{
    return format == OCTAVO_K_F32 ? 4 : format == OCTAVO_K_BF16 || format == OCTAVO_K_F16 ? 2 : 1;
}

static void set_eights(const octavo_attention_prefill_params *p, prefill_stored *as)
{
    const octavo_kv_view *kv = p->kv;
    const octavo_tensor *q = &p->q;
    const int32_t row = kv->k_format == OCTAVO_K_INT4X2 ? kv->head_dim / 2 : kv->head_dim; /* elements that lie side by side */
    bool wide = q->dtype != OCTAVO_F32 && (uintptr_t)q->data % 16 == 0 && kv->head_dim % EIGHT == 0;
    for (int i = 0; i < 3; i++) wide = wide && q->strides[i] % EIGHT == 0;
    as->eights[PREFILL_Q] = wide ? 2 : 0;
    as->eights[PREFILL_K] = eights_of(&kv->k[0], as->planes > 1 ? &kv->k[1] : nullptr, key_bytes(kv->k_format), row);
    as->eights[PREFILL_V] = eights_of(&kv->v, nullptr, (int)octavo_v_element_bytes(kv->v_format), kv->v_dim);
}

static prefill_stored stored_of(const octavo_attention_prefill_params *p)
{
    const octavo_kv_view *kv = p->kv;
    prefill_stored as = {};
    as.bytes[PREFILL_Q] = p->q.dtype == OCTAVO_F32 ? 4 : 2, as.halves[PREFILL_Q] = p->q.dtype == OCTAVO_F16;
    as.bytes[PREFILL_K] = kv->k_format == OCTAVO_K_F32 ? 4 : 2, as.halves[PREFILL_K] = kv->k_format == OCTAVO_K_F16;
    as.bytes[PREFILL_V] = kv->v_format == OCTAVO_V_F32 ? 4 : 2, as.halves[PREFILL_V] = kv->v_format == OCTAVO_V_F16;
    as.codes[PREFILL_K] = octavo_prefill_takes_k_codes(p), as.codes[PREFILL_V] = octavo_prefill_takes_v_codes(p);
    as.planes = octavo_prefill_k_planes(p);
    set_eights(p, &as);
    return as;
}

static encode_from source_of(const octavo_attention_prefill_params *p, const prefill_stored &as)
{
    const octavo_kv_view *kv = p->kv;
    const octavo_tensor *q = &p->q;
    const bool bf16 = q->dtype == OCTAVO_BF16 && kv->k_format == OCTAVO_K_BF16 && kv->v_format == OCTAVO_V_BF16;
    const bool f16 = q->dtype == OCTAVO_F16 && kv->k_format == OCTAVO_K_F16 && kv->v_format == OCTAVO_V_F16;
    bool wide = (uintptr_t)q->data % 16 == 0 && kv->head_dim % EIGHT == 0 && kv->v_dim % EIGHT == 0 && !kv->v_channel_scale;
    for (int i = 0; i < 3; i++) wide = wide && q->strides[i] % EIGHT == 0;
    wide = wide && is_wide(&kv->k[0], 16) && is_wide(&kv->v, 16) && runs(kv, &kv->k[0]) && runs(kv, &kv->v);
    if (wide && (bf16 || f16)) return FROM_HALVES;
    return as.eights[PREFILL_Q] && as.eights[PREFILL_K] && as.eights[PREFILL_V] ? FROM_EIGHTS : FROM_ANY;
}

template <encode_from FROM> static octavo_status launch_facts(const octavo_exec *exec, const prefill_encode_call &call, const dim3 &grid)
{
    if constexpr (FROM == FROM_HALVES)
        return octavo_cuda_launch(call.as.halves[PREFILL_K] ? prefill_facts<FROM_F16> : prefill_facts<FROM_BF16>, "attention_prefill", grid, FACT_THREADS, 0, exec, call);
    else
        return octavo_cuda_launch(prefill_facts<FROM>, "attention_prefill", grid, FACT_THREADS, 0, exec, call);
}

template <encode_from FROM> static octavo_status launch_encode(const octavo_exec *exec, const prefill_encode_call &call, const dim3 &grid)
{
    switch (call.lanes) {
    case 8:  return octavo_cuda_launch(prefill_encode<64, FROM>, "attention_prefill", grid, THREADS, 0, exec, call);
    case 16: return octavo_cuda_launch(prefill_encode<128, FROM>, "attention_prefill", grid, THREADS, 0, exec, call);
    default: return octavo_cuda_launch(prefill_encode<256, FROM>, "attention_prefill", grid, THREADS, 0, exec, call);
    }
}

template <encode_from FROM> static octavo_status launch(const octavo_exec *exec, const prefill_encode_call &call)
{
    const int64_t q_heads = call.of.p.q.shape[2], heads = call.of.kv.kv_heads, q_blocks = call.at.q_tokens / TOKENS, blocks = call.at.kv_tokens / TOKENS;
    const int64_t facts = (call.at.k_part ? heads : 0) + (call.at.v_part ? heads : 0), most_tokens = q_blocks > blocks ? call.at.q_tokens : call.at.kv_tokens;
    const int64_t mosts = (call.whole[PREFILL_Q].sought ? q_heads : 0) + (call.whole[PREFILL_K].sought ? heads : 0) + (call.whole[PREFILL_V].sought ? heads : 0);
    const int32_t dim = call.of.kv.head_dim > call.of.kv.v_dim ? call.of.kv.head_dim : call.of.kv.v_dim;
    const unsigned batch = (unsigned)call.of.p.q.shape[0];
    const dim3 facts_grid((unsigned)octavo_cuda_ceil(blocks, FACT_THREADS / call.lanes), (unsigned)facts, batch);
    const dim3 most_grid((unsigned)octavo_cuda_ceil(most_tokens, THREADS), (unsigned)mosts, batch);
    const dim3 grid((unsigned)(q_blocks > blocks ? q_blocks : blocks), (unsigned)(call.values + heads + q_heads), batch);
    const dim3 join_grid((unsigned)octavo_cuda_ceil(dim, WARP), (unsigned)(2 * heads), batch);
    if (call.at.most)
        OCTAVO_CUDA_TRY(octavo_cuda_check(cudaMemsetAsync(call.workspace + call.at.most, 0, sizeof(float) * (size_t)(batch * (q_heads + 2 * heads)), octavo_cuda_stream(exec)),
                                          "attention_prefill"));
    if (facts && blocks) OCTAVO_CUDA_TRY(launch_facts<FROM>(exec, call, facts_grid));
    if (mosts) OCTAVO_CUDA_TRY(octavo_cuda_launch(prefill_most<FROM>, "attention_prefill", most_grid, THREADS, 0, exec, call));
    if (facts) OCTAVO_CUDA_TRY(octavo_cuda_launch(prefill_join, "attention_prefill", join_grid, THREADS, 0, exec, call));
    OCTAVO_CUDA_TRY(launch_encode<FROM>(exec, call, grid));
    const dim3 rest_grid((unsigned)octavo_cuda_ceil(call.of.kv.v_dim, WARP), (unsigned)heads, batch);
    return call.at.v_rest ? octavo_cuda_launch(prefill_join_rest, "attention_prefill", rest_grid, THREADS, 0, exec, call) : OCTAVO_OK;
}

/* What scales of whole heads are made for: given by the caller, or sought in the call and kept from `found` on. */
static void set_whole_most(prefill_encode_call *call)
{
    const octavo_attention_prefill_params *p = &call->of.p;
    const int64_t q_heads = p->q.shape[2], kv_heads = call->of.kv.kv_heads, heads[3] = { q_heads, kv_heads, kv_heads };
    const float *const given[3] = { p->q_amax, p->k_amax, p->v_amax };
    const bool sought[3] = { octavo_prefill_seeks_q(p) != 0, octavo_prefill_seeks_k(p) && !call->sums[PREFILL_K], octavo_prefill_seeks_v(p) != 0 };
    const bool tensor = p->scales == OCTAVO_PREFILL_PER_TENSOR;
    float *found = (float *)(call->workspace + call->at.most);
    for (int i = 0; i < 3 && octavo_prefill_scales_whole(p); found += p->q.shape[0] * heads[i], i++) {
        call->whole[i].at = given[i] ? (float *)given[i] : found, call->whole[i].sought = sought[i];
        call->whole[i].head = tensor ? 0 : 1, call->whole[i].sequence = tensor || given[i] ? 0 : heads[i];
    }
}

octavo_status octavo_prefill_encode(const octavo_exec *exec, const prefill_call &of, const octavo_prefill_eight_layout &at)
{
    const octavo_attention_prefill_params *p = &of.p;
    const int32_t dim = of.kv.head_dim > of.kv.v_dim ? of.kv.head_dim : of.kv.v_dim;
    const int64_t heads = p->q.shape[2] + 2 * (int64_t)of.kv.kv_heads;
    prefill_encode_call call = { of, at, (uint8_t *)exec->workspace, stored_of(p), p->precision == OCTAVO_ATTENTION_FP8, octavo_prefill_rotates(p) != 0, at.v_part != 0,
                                 { false, octavo_prefill_smooths_k(p) != 0, octavo_prefill_smooths_v(p) != 0 },
                                 { false, octavo_prefill_seeks_k(p) && octavo_prefill_smooths_k(p), at.v_part != 0 }, {},
                                 (dim <= 64 ? 64 : dim <= 128 ? 128 : 256) / EIGHT, at.v || at.v_f16 ? of.kv.kv_heads : 0, (float)(1.0 / sqrt((double)of.kv.head_dim)) };
    if (dim > PREFILL_EIGHT_DIM || heads > 65535 || p->q.shape[0] > 65535)
        return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "kv.head_dim is %d and v_dim %d for %lld heads of %lld sequences, expected at most %d for 65535 of 65535 on a GPU",
                                of.kv.head_dim, of.kv.v_dim, (long long)heads, (long long)p->q.shape[0], (int)PREFILL_EIGHT_DIM);
    set_whole_most(&call);
    switch (source_of(p, call.as)) {
    case FROM_HALVES: return launch<FROM_HALVES>(exec, call);
    case FROM_EIGHTS: return launch<FROM_EIGHTS>(exec, call);
    default:          return launch<FROM_ANY>(exec, call);
    }
}
