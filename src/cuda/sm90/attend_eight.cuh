/* attend_eight.cuh - decode in FP8 on the warpgroup's matrix unit: E4M3 keys and values as they lie, queries and weights rounded to E4M3.
 *
 * A block is a warpgroup and a split of a kv head for up to 64 of its rows; stages of 64 tokens go around all splits. A warp has rows 16 w + g
 * and 16 w + g + 8, g = lane / 4, and does not weigh if the call has none of them. The unit wants values with tokens side by side, so that
 * the block transposes them while it multiplies queries and keys: within each 16, tokens 2t, 2t + 1, 8 + 2t, 9 + 2t lie at 4t, the order in
 * which scores come, t = lane % 4. Weights are relative to the row's largest of the stage, 256 there; a stage's sums begin anew, since the
 * unit keeps 13 bits. */
#ifndef OCTAVO_CUDA_SM90_ATTEND_EIGHT_CUH
#define OCTAVO_CUDA_SM90_ATTEND_EIGHT_CUH

#include "cuda/ptx/ptx_wgmma_eight.cuh"
#include "cuda/sm90/attend_stream.cuh"

enum { EIGHT_TOKENS = 64, EIGHT_ROWS = 64, EIGHT_WARPS = 4, EIGHT_THREADS = 32 * EIGHT_WARPS, EIGHT_ALIGN = 1024 };
static constexpr float EIGHT_LIFT = 8.0f;   /* the largest weight of a stage is 2^8 */
static constexpr float EIGHT_BELOW = 60.0f; /* what a stage's unit may lie below the largest: float32 bears it, and what is less is lost in it */

struct eight_call {
    stream_call of;
    int row_tiles, all_splits; /* splits of the params, of which those past of.splits are empty */
    float *part_lse;           /* part_out is [batch, kv_heads, rows, all_splits, DIM] and normalised here */
};

/* Shared memory from a multiple of EIGHT_ALIGN on. FACTORS: of a stage's tokens and of the next one's. */
template <int DIM_> struct eight_layout {
    enum { DIM = DIM_, ROW = DIM < 128 ? DIM : 128, COLUMNS = DIM / ROW, V_AT = EIGHT_TOKENS * DIM, STAGE = 2 * V_AT };
    enum { CHANNELS = DIM < 128 ? DIM : 128, PARTS = DIM / CHANNELS, SUMS = CHANNELS / 2 /* a lane's of a part */ };
    enum { BLOCKS = DIM <= 128 ? 2 : 1 /* a multiprocessor */, MOST_BYTES = DIM <= 128 ? 106 << 10 : 200 << 10 };
    enum { Q = 0, TURNED = Q + EIGHT_ROWS * DIM, STAGES = TURNED + 2 * V_AT, FIT = (MOST_BYTES - STAGES) / STAGE, SLOTS = FIT < 6 ? FIT : 6 };
    enum { FACTORS = STAGES + SLOTS * STAGE, SCALE = FACTORS + 2 * 16 * EIGHT_TOKENS, FULL = SCALE + 4 * EIGHT_ROWS, BYTES = FULL + 8 * SLOTS + EIGHT_ALIGN };
};

/* A block's place in the call. */
struct eight_block {
    stream_block of;
    uint32_t base;
    int first_row, rows;
};

/* ---- memory ---- */

static __device__ __forceinline__ int eight_page(const eight_call &c, const eight_block &k, int step)
{
    const int block = (step * EIGHT_TOKENS) >> c.of.shift, blocks = (c.of.max_tokens + (1 << c.of.shift) - 1) >> c.of.shift;
    return k.of.table && block < blocks ? k.of.table[block] : 0;
}

/* One thread asks for a stage. */
template <typename L> static __device__ __forceinline__ void eight_ask(const eight_call &c, const eight_block &k, int step, int page, int slot)
{
    const int token = step * EIGHT_TOKENS, at = k.of.table ? token & ((1 << c.of.shift) - 1) : token, row = k.of.row * c.of.row_step;
    const uint32_t to = k.base + L::STAGES + slot * L::STAGE, barrier = k.base + L::FULL + 8 * slot;
    mbarrier_report_and_expect(barrier, L::STAGE);
#pragma unroll
    for (int i = 0; i < L::COLUMNS; i++) copy_box_5(to + i * EIGHT_TOKENS * L::ROW, &c.of.k, barrier, i * L::ROW, at, k.of.head, page, row);
#pragma unroll
    for (int i = 0; i < L::COLUMNS; i++) copy_box_5(to + L::V_AT + i * EIGHT_TOKENS * L::ROW, &c.of.v, barrier, i * L::ROW, at, k.of.head, page, row);
}

/* Exponents of token threadIdx.x of a stage, of the first 64 threads. */
struct eight_exponents {
    int key, value;
};

static __device__ __forceinline__ eight_exponents eight_exponents_of(const eight_call &c, const eight_block &k, int step, int page)
{
    const int token = step * EIGHT_TOKENS + (int)threadIdx.x, block = k.of.table ? page : step * EIGHT_TOKENS >> c.of.shift, mask = (1 << c.of.shift) - 1;
    eight_exponents of = { 0, 0 };
    if (threadIdx.x >= EIGHT_TOKENS || token >= k.of.length) return of;
    if (c.of.k_scale.data) of.key = ((const int8_t *)scales_of(&c.of.k_scale, k.of, block))[token & mask];
    if (c.of.v_scale.data) of.value = ((const int8_t *)scales_of(&c.of.v_scale, k.of, block))[token & mask];
    return of;
}

/* 2^-p of K; e of V, 2^-e, and what of V's factor e does not hold. */
template <typename L> static __device__ __forceinline__ void eight_put_factors(const eight_block &k, const eight_exponents &at, int turn)
{
    const int held = held_exponent(-at.value);
    if (threadIdx.x < EIGHT_TOKENS)
        store_shared_16(k.base + L::FACTORS + 16 * (turn * EIGHT_TOKENS + threadIdx.x),
                        make_uint4(__float_as_uint(octavo_power_of_two(-at.key)), __float_as_uint((float)held),
                                   __float_as_uint(octavo_power_of_two(-held)), __float_as_uint(octavo_power_of_two(-at.value - held))));
}

/* ---- queries ---- */

/* Where word `word` of row r lies in columns of ROW bytes that are swizzled as the copy engine does it. */
template <int ROW> static __device__ __forceinline__ int swizzled_word(int r, int word, int rows)
{
    const int piece = word / 4;
    return piece / (ROW / PIECE) * rows * ROW + PIECE * tile_piece<ROW / PIECE>(r, piece % (ROW / PIECE)) + word % 4 * 4;
}

/* A warp makes every fourth row ready: codes, and what their products are worth in powers of two. */
template <typename L> static __device__ __forceinline__ void eight_queries(const eight_call &c, const eight_block &k)
{
    constexpr int WORDS = L::DIM / 4, EACH = (WORDS + 31) / 32;
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int r = threadIdx.x / 32; r < EIGHT_ROWS; r += EIGHT_WARPS) {
        const int of_group = k.first_row + r, of_head = of_group / c.of.q_tokens;
        const uint16_t *from = c.of.q + k.of.b * c.of.q_stride[0] + (of_group - of_head * c.of.q_tokens) * c.of.q_stride[1] +
                               (k.of.head * c.of.group + of_head) * c.of.q_stride[2];
        float x[EACH][4] = {}, amax = 0.0f;
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                if (r >= k.rows || lane + 32 * i >= WORDS) continue;
                const uint32_t pair = ((const uint32_t *)from)[2 * (lane + 32 * i) + j];
                x[i][2 * j] = c.of.q_is_bf16 ? bf16_low(pair) : f16_low(pair), x[i][2 * j + 1] = c.of.q_is_bf16 ? bf16_high(pair) : f16_high(pair);
                amax = fmaxf(amax, fmaxf(fabsf(x[i][2 * j]), fabsf(x[i][2 * j + 1])));
            }
        const int32_t p = octavo_row_exponent(warp_reduce(amax, take_larger()));
        const float up = octavo_power_of_two(p);
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (lane + 32 * i < WORDS)
                store_shared(k.base + L::Q + swizzled_word<L::ROW>(r, lane + 32 * i, EIGHT_ROWS),
                             (int)pack_e4m3(x[i][0] * up, x[i][1] * up, x[i][2] * up, x[i][3] * up));
        if (lane == 0) store_shared(k.base + L::SCALE + 4 * r, __float_as_int(c.of.scale * octavo_power_of_two(-p)));
    }
}

/* ---- a stage ---- */

/* A lane's two rows: the unit of their sums, the largest score so far, and denominators relative to the latter. */
template <typename L> struct eight_state {
    float out[L::PARTS][L::SUMS], unit[2], largest[2], sum[2];
};

template <typename L> static __device__ __forceinline__ void eight_ask_scores(const eight_block &k, uint32_t keys, float (&x)[EIGHT_TOKENS / 2])
{
    enum { STEPS = L::ROW / 32 };
    const uint32_t a = wgmma_begin(k.base + L::Q), b = wgmma_begin(keys);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < L::DIM / 32; i++)
        wgmma_eight_shared(x, wgmma_matrix_at<L::ROW>(a + (i / STEPS * EIGHT_ROWS * L::ROW + i % STEPS * 32) / 16),
                           wgmma_matrix_at<L::ROW>(b + (i / STEPS * EIGHT_TOKENS * L::ROW + i % STEPS * 32) / 16), i > 0);
    wgmma_commit();
}

/* Values to rows of a channel's 64 tokens, swizzled by 64 bytes; a warp takes every fourth 16 channels. */
template <typename L> static __device__ __forceinline__ void eight_turn_values(uint32_t values, uint32_t to)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int i = 0; i < L::DIM / 64; i++)
#pragma unroll
        for (int step = 0; step < 2; step++) {
            const int piece = 4 * i + warp, channel = 16 * piece + 2 * g;
            uint32_t r[4];
            ldmatrix_transposed(r, values + box_piece<L::DIM>(32 * step + lane, piece, EIGHT_TOKENS));
#pragma unroll
            for (int j = 0; j < 2; j++) { /* bytes: two channels of tokens 2t and 2t + 1, of eight tokens and of the next */
                const uint32_t at = to + PIECE * tile_piece<4>(channel, 2 * step + j) + 4 * t;
                store_shared(at, (int)permute(r[2 * j], r[2 * j + 1], 0x6420)), store_shared(at + EIGHT_TOKENS, (int)permute(r[2 * j], r[2 * j + 1], 0x7531));
            }
        }
}

/* Scores in powers of two, V's exponents taken in; what a row does not see is NOTHING. */
template <typename L>
static __device__ __forceinline__ void eight_finish_scores(const eight_call &c, const eight_block &k, int token, uint32_t factors, const float (&scale)[2],
                                                           float (&x)[EIGHT_TOKENS / 2])
{
    const int t = threadIdx.x % 4, row = k.first_row + (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < EIGHT_TOKENS / 4; i++) { /* tokens 8 n + 2 t and the next */
        const uint4 of = load_piece(factors + 16 * (8 * (i / 2) + 2 * t + i % 2));
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float &score = x[4 * (i / 2) + 2 * r + i % 2];
            score = fmaf(score, __uint_as_float(of.x) * scale[r], __uint_as_float(of.y));
        }
    }
    if (token + EIGHT_TOKENS <= k.of.length - c.of.q_tokens + 1) return;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int end = k.of.length - c.of.q_tokens + 1 + (row + 8 * r) % c.of.q_tokens - token - 2 * t;
#pragma unroll
        for (int i = 0; i < EIGHT_TOKENS / 4; i++)
            if (8 * (i / 2) + i % 2 >= end) x[4 * (i / 2) + 2 * r + i % 2] = NOTHING;
    }
}

/* Weights as operands, and as they are into the denominators. down: what the sums so far are multiplied by. */
template <typename L>
static __device__ __forceinline__ void eight_weigh(uint32_t factors, float (&x)[EIGHT_TOKENS / 2], eight_state<L> &of, float (&down)[2], uint32_t (&weight)[2][4])
{
    const int t = threadIdx.x % 4;
    float up[2], sum[2] = { 0.0f, 0.0f };
#pragma unroll
    for (int r = 0; r < 2; r++) {
        float most = UNSET + EIGHT_LIFT;
#pragma unroll
        for (int i = 0; i < EIGHT_TOKENS / 4; i++) most = fmaxf(most, x[4 * (i / 2) + 2 * r + i % 2]);
        most = fmaxf(most, __shfl_xor_sync(WHOLE_WARP, most, 1));
        most = fmaxf(most, __shfl_xor_sync(WHOLE_WARP, most, 2)) - EIGHT_LIFT;
        const float largest = fmaxf(of.largest[r], most), unit = fmaxf(most, largest - EIGHT_BELOW);
        down[r] = exp2_fast(of.unit[r] - unit), up[r] = exp2_fast(unit - largest);
        of.sum[r] *= exp2_fast(of.largest[r] - largest), of.largest[r] = largest, of.unit[r] = unit;
    }
    bool plain = true;
#pragma unroll
    for (int i = 0; i < EIGHT_TOKENS / 4; i++) {
        const uint4 at = load_piece(factors + 16 * (8 * (i / 2) + 2 * t + i % 2));
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float &w = x[4 * (i / 2) + 2 * r + i % 2];
            w = exp2_fast(w - of.unit[r]);
            sum[r] = fmaf(w, __uint_as_float(at.z), sum[r]);
        }
        plain &= at.w == 0x3f800000u;
    }
#pragma unroll
    for (int r = 0; r < 2; r++) of.sum[r] = fmaf(sum[r], up[r], of.sum[r]);
    if (!plain)
#pragma unroll
        for (int i = 0; i < EIGHT_TOKENS / 4; i++) {
            const float mantissa = __uint_as_float(load_piece(factors + 16 * (8 * (i / 2) + 2 * t + i % 2)).w);
            x[4 * (i / 2) + i % 2] *= mantissa, x[4 * (i / 2) + 2 + i % 2] *= mantissa;
        }
#pragma unroll
    for (int i = 0; i < 8; i++) { /* rows g and g + 8 of 16 tokens, then of the next 16 */
        const float *from = &x[16 * (i / 4) + 8 * (i / 2 % 2) + 2 * (i % 2)];
        weight[i / 4][i % 4] = pack_e4m3(from[0], from[1], from[4], from[5]);
    }
}

/* A stage's sums join the others. */
template <typename L>
static __device__ __forceinline__ void eight_sums(uint32_t values, const uint32_t (&weight)[2][4], const float (&down)[2], eight_state<L> &of)
{
    const uint32_t b = wgmma_begin(values);
#pragma unroll
    for (int part = 0; part < L::PARTS; part++) {
        float fresh[L::SUMS];
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 2; step++)
            wgmma_eight_registers(fresh, weight[step], wgmma_matrix_at<EIGHT_TOKENS>(b + (part * L::CHANNELS * EIGHT_TOKENS + 32 * step) / 16), step);
        wgmma_commit();
        wgmma_wait<0>();
        wgmma_pin(fresh);
#pragma unroll
        for (int i = 0; i < L::SUMS; i++) of.out[part][i] = fmaf(of.out[part][i], down[i / 2 % 2], fresh[i]);
    }
}

/* ---- results ---- */

template <typename L> static __device__ __forceinline__ void eight_put(const eight_call &c, const eight_block &k, const eight_state<L> &of)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
        const int row = (int)threadIdx.x / 32 * 16 + g + 8 * r;
        float sum = of.sum[r];
        sum += __shfl_xor_sync(WHOLE_WARP, sum, 1);
        sum += __shfl_xor_sync(WHOLE_WARP, sum, 2);
        if (row >= k.rows) continue;
        const bool none = of.largest[r] == UNSET;
        const float inverse = none ? 0.0f : exp2_fast(of.unit[r] - of.largest[r]) / sum;
        const int64_t part = (((int64_t)k.of.b * gridDim.y + k.of.head) * c.of.rows + k.first_row + row) * c.all_splits + blockIdx.x;
        if (t == 0) c.part_lse[part] = none ? NOTHING : (of.largest[r] + log2f(sum)) * LN_2;
#pragma unroll
        for (int i = 0; i < L::PARTS * (L::SUMS / 4); i++) {
            const int d = 8 * i + 2 * t;
            const float *from = &of.out[i / (L::SUMS / 4)][i % (L::SUMS / 4) * 4 + 2 * r];
            float2 o = make_float2(from[0] * inverse, from[1] * inverse);
            if (c.of.v_channel_scale) o.x *= c.of.v_channel_scale[k.of.head * L::DIM + d], o.y *= c.of.v_channel_scale[k.of.head * L::DIM + d + 1];
            *(float2 *)(c.of.part_out + part * L::DIM + d) = o;
        }
    }
}

/* The splits that nobody has are empty. */
template <typename L> static __device__ __forceinline__ void eight_put_nothing(const eight_call &c, const eight_block &k)
{
    const int unused = c.all_splits - c.of.splits, count = k.rows * unused;
    const int64_t first = (((int64_t)k.of.b * gridDim.y + k.of.head) * c.of.rows + k.first_row) * c.all_splits;
    for (int i = blockIdx.x * EIGHT_THREADS + threadIdx.x; i < count; i += c.of.splits * EIGHT_THREADS)
        c.part_lse[first + (int64_t)(i / unused) * c.all_splits + c.of.splits + i % unused] = NOTHING;
    for (int i = blockIdx.x * EIGHT_THREADS + threadIdx.x; i < count * L::DIM; i += c.of.splits * EIGHT_THREADS)
        c.of.part_out[(first + (int64_t)(i / L::DIM / unused) * c.all_splits + c.of.splits + i / L::DIM % unused) * L::DIM + i % L::DIM] = 0.0f;
}

/* Grid (splits, kv heads, batch * row tiles). */
template <typename L> static __global__ void __launch_bounds__(EIGHT_THREADS, L::BLOCKS) attend_eight(const __grid_constant__ eight_call c)
{
    extern __shared__ uint8_t memory[];
    eight_block k = { { (int)blockIdx.z / c.row_tiles, (int)blockIdx.y, (int)blockIdx.x, 0, 0, c.of.page_table, 0, 0, 0 }, 0, (int)blockIdx.z % c.row_tiles * EIGHT_ROWS, 0 };
    k.base = (shared_address(memory) + EIGHT_ALIGN - 1) / EIGHT_ALIGN * EIGHT_ALIGN;
    k.rows = c.of.rows - k.first_row < EIGHT_ROWS ? c.of.rows - k.first_row : EIGHT_ROWS;
    const bool asks = threadIdx.x == 0, weighs = (int)threadIdx.x / 32 * 16 < k.rows;

    /* 1: barriers, the first stages, queries */
    if (asks) {
        prefetch_map(&c.of.k), prefetch_map(&c.of.v);
        for (int i = 0; i < L::SLOTS; i++) mbarrier_init(k.base + L::FULL + 8 * i, 1);
        mbarrier_init_done();
    }
    wait_for_kernel_before();
    k.of.row = c.of.sequences ? c.of.sequences[k.of.b] : k.of.b;
    if (k.of.table) k.of.table += k.of.row * c.of.page_table_stride;
    k.of.length = clamped_length(c.of, c.of.lengths[k.of.row]);
    const int steps = (k.of.length + EIGHT_TOKENS - 1) / EIGHT_TOKENS, first = blockIdx.x, stride = c.of.splits;
    __syncthreads();
    if (asks)
        for (int i = 0; i < L::SLOTS && first + i * stride < steps; i++)
            eight_ask<L>(c, k, first + i * stride, eight_page(c, k, first + i * stride), i);
    /* pages are looked up a stage before they are needed, exponents two */
    int page_next = eight_page(c, k, first + 2 * stride), page_asked = eight_page(c, k, first + L::SLOTS * stride);
    eight_exponents next = eight_exponents_of(c, k, first + stride, eight_page(c, k, first + stride));
    eight_put_factors<L>(k, eight_exponents_of(c, k, first, eight_page(c, k, first)), 0);
    eight_queries<L>(c, k);
    eight_put_nothing<L>(c, k);
    eight_state<L> of;
#pragma unroll
    for (int i = 0; i < 2; i++) of.unit[i] = of.largest[i] = UNSET, of.sum[i] = 0.0f;
#pragma unroll
    for (int i = 0; i < L::PARTS * L::SUMS; i++) of.out[i / L::SUMS][i % L::SUMS] = 0.0f;
    fence_for_engines();
    __syncthreads();
    float scale[2];
#pragma unroll
    for (int i = 0; i < 2; i++) scale[i] = __int_as_float(load_shared(k.base + L::SCALE + 4 * ((int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4 + 8 * i)));

    /* 2: the stream */
    int slot = 0, parity = 0, turn = 0;
#pragma unroll 1
    for (int step = first; step < steps; step += stride, turn ^= 1) {
        const int token = step * EIGHT_TOKENS, ahead = step + L::SLOTS * stride;
        const uint32_t keys = k.base + L::STAGES + slot * L::STAGE, values = keys + L::V_AT, turned = k.base + L::TURNED + turn * L::V_AT;
        const uint32_t factors = k.base + L::FACTORS + 16 * EIGHT_TOKENS * turn;
        float x[EIGHT_TOKENS / 2], down[2] = { 1.0f, 1.0f };
        uint32_t weight[2][4] = {};
        mbarrier_wait(k.base + L::FULL + 8 * slot, parity);
        eight_ask_scores<L>(k, keys, x);
        if (token + EIGHT_TOKENS > k.of.length) { /* the rows that are not there may hold anything */
            for (int i = threadIdx.x; i < (token + EIGHT_TOKENS - k.of.length) * (L::DIM / PIECE); i += EIGHT_THREADS)
                store_shared_16(values + box_piece<L::DIM>(k.of.length - token + i / (L::DIM / PIECE), i % (L::DIM / PIECE), EIGHT_TOKENS), make_uint4(0, 0, 0, 0));
            __syncthreads();
        }
        eight_turn_values<L>(values, turned);
        eight_put_factors<L>(k, next, turn ^ 1);
        next = eight_exponents_of(c, k, step + 2 * stride, page_next);
        page_next = eight_page(c, k, step + 3 * stride);
        wgmma_wait<0>();
        wgmma_pin(x);
        if (weighs) {
            eight_finish_scores<L>(c, k, token, factors, scale, x);
            eight_weigh<L>(factors, x, of, down, weight);
        }
        fence_for_engines();
        __syncthreads(); /* values are turned, and nobody needs the stage any more */
        if (asks && ahead < steps) eight_ask<L>(c, k, ahead, page_asked, slot);
        page_asked = eight_page(c, k, ahead + stride);
        eight_sums<L>(turned, weight, down, of);
        if (++slot == L::SLOTS) slot = 0, parity ^= 1;
    }
    next_kernel_may_start();

    /* 3: results */
    eight_put<L>(c, k, of);
}

#endif
