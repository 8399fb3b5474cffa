/* prefill_eight_sm80.cu - attention of many queries in FP8 or with SageAttention's INT8, with the matrix instructions of sm_80.
 *
 * A block has ROWS rows of a kv head (tokens times the heads of its group), a warp 16 of them. Codes come KEYS keys at a time, the next tile's
 * while this one's are multiplied: Q K^T of INT8 as it is, of E4M3 as f16, both exact. Weights are bf16, which loses no tail below a sink; V's
 * codes become bf16 in registers. Sage 1 with sums in f16 has weights relative to the largest of their tile and values of f16 in the workspace; what a
 * tile gives is added up in float32. Bound by the matrix unit. */
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/ptx/ptx_mma.cuh"
#include "cuda/tile/prefill_lanes.cuh"
#include "cuda/tile/prefill_operands.cuh"

enum { ROWS = 64, THREADS = 128, WARP_ROWS = 16, KEYS = 64, TILES = KEYS / 8, STAGES = 2, PIECE = 16 };
enum eight_kind { EIGHT_FP8, EIGHT_SAGE1, EIGHT_SAGE1_F16 /* sums in f16 */, EIGHT_SAGE2 };

struct prefill_eight_call {
    prefill_call of;
    octavo_prefill_eight_layout at;
    const uint8_t *workspace;
};

/* Shared memory; rows are a piece longer, so that those of a matrix lie in different banks. */
template <int DIM, eight_kind KIND> struct eight_shape {
    enum { WIDE_V = KIND == EIGHT_SAGE1 || KIND == EIGHT_SAGE1_F16, V_STRIDE = WIDE_V ? 2 * DIM + PIECE : KEYS + PIECE };
    enum { STRIDE = DIM + PIECE, PIECES = DIM / PIECE };
    enum { Q_BYTES = ROWS * STRIDE, K_BYTES = KEYS * STRIDE, V_BYTES = (WIDE_V ? KEYS : DIM) * V_STRIDE };
    enum { STAGE = K_BYTES + V_BYTES, BYTES = Q_BYTES + STAGES * STAGE, BLOCKS = DIM > 128 ? 1 : DIM > 64 ? 2 : 3 /* a processor */ };
};

/* What the codes of a stage's keys count. */
struct eight_factors {
    float k[STAGES][KEYS], v[STAGES][KEYS];
    const uint8_t *row[KEYS]; /* of V, in Sage 1 */
};

static __device__ __forceinline__ const float *floats_at(const prefill_eight_call &c, size_t offset) { return (const float *)(c.workspace + offset); }

template <int DIM, eight_kind KIND>
static __device__ __forceinline__ void load_queries(const prefill_eight_call &c, const prefill_place &at, int64_t first_row, uint32_t to)
{
    typedef eight_shape<DIM, KIND> S;
#pragma unroll
    for (int i = (int)threadIdx.x; i < ROWS * S::PIECES; i += THREADS) {
        const int r = i / S::PIECES, byte = i % S::PIECES * PIECE;
        const int64_t row = first_row + r, token = row / c.of.group, head = at.head * c.of.group + row % c.of.group;
        const bool there = row < c.of.rows && token < at.queries && byte < c.at.width;
        const int64_t from = there ? ((at.b * c.of.p.q.shape[2] + head) * c.at.q_tokens + token) * c.at.width + byte : 0;
        copy_16(to + r * S::STRIDE + byte, c.workspace + c.at.q + from, there ? PIECE : 0);
    }
}

/* Where V's rows of a tile of Sage 1 lie, and what their codes count. */
static __device__ __forceinline__ void find_values(const prefill_eight_call &c, const prefill_place &at, const octavo_span &seen, int64_t token, const uint8_t **row,
                                                   float *factor)
{
    stored_token found;
    *row = nullptr, *factor = 1.0f;
    if (!octavo_span_sees(&seen, token) || !prefill_find(c.of, at, token, &found)) return;
    *row = stored_at(&c.of.kv.v, found), *factor = row_factor(&c.of.kv.v_scale, octavo_v_scale_bytes(c.of.kv.v_format), found);
}

/* V of Sage 1 as bf16; zeros where nobody sees the key. */
template <int DIM>
static __device__ __forceinline__ void load_stored_values(const prefill_eight_call &c, const uint8_t *const (&rows)[KEYS], uint8_t *to)
{
    typedef eight_shape<DIM, EIGHT_SAGE1> S;
    const octavo_kv_view *kv = &c.of.kv;
    const bool as_it_is = kv->v_format == OCTAVO_V_BF16 && c.of.v_wide && kv->v_dim % EIGHT == 0;
#pragma unroll 1
    for (int i = (int)threadIdx.x; i < KEYS * DIM / EIGHT; i += THREADS) {
        const int r = i / (DIM / EIGHT), d = i % (DIM / EIGHT) * EIGHT;
        const uint8_t *row = d < kv->v_dim ? rows[r] : nullptr;
        if (as_it_is) {
            copy_16(shared_address(to) + r * S::V_STRIDE + 2 * d, row ? row + 2 * d : c.workspace, row ? PIECE : 0);
            continue;
        }
        term_pairs terms = {};
        if (row && kv->v_format != OCTAVO_V_F32) terms = load_value(c.of, row, d);
        for (int j = 0; row && kv->v_format == OCTAVO_V_F32 && j < 4; j++) {
            const int e = d + 2 * j;
            put_pair(&terms, j, e < kv->v_dim ? value_code(kv, row, e) : 0.0f, e + 1 < kv->v_dim ? value_code(kv, row, e + 1) : 0.0f);
        }
        *(uint4 *)(to + r * S::V_STRIDE + 2 * d) = make_uint4(terms.first[0], terms.first[1], terms.first[2], terms.first[3]);
    }
}

/* V of Sage 1 as f16 in the workspace; zeros where nobody sees the key. */
template <int DIM> static __device__ __forceinline__ void load_f16_values(const prefill_eight_call &c, int64_t first, uint32_t to)
{
    typedef eight_shape<DIM, EIGHT_SAGE1_F16> S;
    const int64_t row = octavo_prefill_f16_row(&c.of.kv);
#pragma unroll 4
    for (int i = (int)threadIdx.x; i < KEYS * 2 * S::PIECES; i += THREADS) {
        const int r = i / (2 * S::PIECES), byte = i % (2 * S::PIECES) * PIECE;
        const bool there = byte < row;
        copy_16(to + r * S::V_STRIDE + byte, c.workspace + c.at.v_f16 + (first + r) * row + (there ? byte : 0), there ? PIECE : 0);
    }
}

/* Asks for the keys [begin, begin + KEYS) and finds their factors. */
template <int DIM, eight_kind KIND>
static __device__ __forceinline__ void load_tile(const prefill_eight_call &c, const prefill_place &at, const octavo_span &seen, int64_t begin, int stage,
                                                 uint8_t *memory, eight_factors *factors)
{
    typedef eight_shape<DIM, KIND> S;
    const octavo_kv_view *kv = &c.of.kv;
    const int64_t line = at.b * kv->kv_heads + at.head, token = begin + threadIdx.x;
    const uint32_t to = shared_address(memory) + S::Q_BYTES + stage * S::STAGE;
#pragma unroll
    for (int i = (int)threadIdx.x; i < KEYS * S::PIECES; i += THREADS) {
        const int r = i / S::PIECES, byte = i % S::PIECES * PIECE;
        const bool there = byte < c.at.width;
        copy_16(to + r * S::STRIDE + byte, c.workspace + c.at.k + (line * c.at.kv_tokens + begin + r) * c.at.width + (there ? byte : 0), there ? PIECE : 0);
    }
    if (KIND == EIGHT_SAGE1) {
        if (threadIdx.x < KEYS) find_values(c, at, seen, token, &factors->row[threadIdx.x], &factors->v[stage][threadIdx.x]);
        __syncthreads();
        load_stored_values<DIM>(c, factors->row, memory + S::Q_BYTES + stage * S::STAGE + S::K_BYTES);
    } else if (KIND == EIGHT_SAGE1_F16) {
        load_f16_values<DIM>(c, line * c.at.kv_tokens + begin, to + S::K_BYTES);
    } else {
#pragma unroll
        for (int i = (int)threadIdx.x; i < DIM * (KEYS / PIECE); i += THREADS) {
            const int d = i / (KEYS / PIECE), byte = i % (KEYS / PIECE) * PIECE;
            const bool there = d < kv->v_dim;
            copy_16(to + S::K_BYTES + d * S::V_STRIDE + byte, c.workspace + c.at.v + (line * kv->v_dim + (there ? d : 0)) * c.at.kv_tokens + begin + byte,
                    there ? PIECE : 0);
        }
    }
    if (threadIdx.x >= KEYS) return;
    const int64_t block = (line * c.at.kv_tokens + begin) / OCTAVO_PREFILL_BLOCK, place = line * c.at.kv_tokens + token;
    factors->k[stage][threadIdx.x] = floats_at(c, c.at.k_scale)[c.at.per_token ? place : 4 * block + threadIdx.x % 8 / 2];
    if (S::WIDE_V) return;
    factors->v[stage][threadIdx.x] = c.at.v_log2 ? ldexpf(1.0f, (int)floats_at(c, c.at.v_log2)[c.at.per_token ? place : block]) : 1.0f;
}

/* Scores of the warp's rows and keys [8 n, 8 n + 8), in units of the codes. */
template <int DIM> static __device__ __forceinline__ void int8_scores(float (&score)[TILES][4], uint32_t q_at, uint32_t k_at)
{
    enum { STRIDE = DIM + PIECE };
    int32_t sum[TILES][4] = {};
#pragma unroll
    for (int step = 0; step < DIM / 32; step++) {
        uint32_t rows[4];
        ldmatrix(rows, q_at + 32 * step);
#pragma unroll
        for (int n = 0; n < TILES; n += 2) {
            uint32_t keys[4];
            ldmatrix(keys, k_at + 8 * n * STRIDE + 32 * step);
            mma_int8(sum[n], rows, keys[0], keys[1]);
            mma_int8(sum[n + 1], rows, keys[2], keys[3]);
        }
    }
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) score[n][i] = (float)sum[n][i];
}

/* A lane's four bytes of a row are the four elements that it has of 16, in whatever order: the same for rows and keys. */
template <int DIM> static __device__ __forceinline__ void e4m3_scores(float (&score)[TILES][4], uint32_t q_at, uint32_t k_at)
{
    enum { STRIDE = DIM + PIECE };
#pragma unroll
    for (int n = 0; n < TILES; n++) score[n][0] = score[n][1] = score[n][2] = score[n][3] = 0.0f;
#pragma unroll
    for (int step = 0; step < DIM / 32; step++) {
        uint32_t codes[4], rows[2][4];
        ldmatrix(codes, q_at + 32 * step);
#pragma unroll
        for (int i = 0; i < 4; i++) e4m3_to_f16(codes[i], &rows[i / 2][i % 2], &rows[i / 2][i % 2 + 2]);
#pragma unroll
        for (int n = 0; n < TILES; n += 2) {
            ldmatrix(codes, k_at + 8 * n * STRIDE + 32 * step);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                uint32_t low, high;
                e4m3_to_f16(codes[i], &low, &high);
                mma_f16(score[n + i / 2], rows[i % 2], low, high);
            }
        }
    }
}

/* out += weights times values; weights take in the values' factors. V's codes of 16 tokens lie in the order in which a lane has their weights. */
template <int DIM>
static __device__ __forceinline__ void add_codes(const float (&weight)[TILES][4], const float *v_factor, uint32_t v, float (&out)[DIM / 8][4])
{
    const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < TILES; n += 2) {
        const float2 low = *(const float2 *)(v_factor + 8 * n + 2 * t), high = *(const float2 *)(v_factor + 8 * n + 8 + 2 * t);
        const uint32_t a[4] = { pack_bf16(weight[n][0] * low.x, weight[n + 1][0] * high.x), pack_bf16(weight[n][2] * low.x, weight[n + 1][2] * high.x),
                                pack_bf16(weight[n][1] * low.y, weight[n + 1][1] * high.y), pack_bf16(weight[n][3] * low.y, weight[n + 1][3] * high.y) };
#pragma unroll
        for (int m = 0; m < DIM / 8; m++) {
            uint32_t even, odd;
            e4m3_to_bf16(load_shared_word(v + (8 * m + g) * (KEYS + PIECE) + 8 * n + 4 * t), &even, &odd);
            mma_bf16(out[m], a, even, odd);
        }
    }
}

template <int DIM>
static __device__ __forceinline__ void add_values(const float (&weight)[TILES][4], const float *v_factor, uint32_t v, float (&out)[DIM / 8][4])
{
    enum { STRIDE = 2 * DIM + PIECE };
    const int lane = (int)threadIdx.x % 32, t = lane % 4;
    const uint32_t v_at = v + (lane % 8 + lane / 8 % 2 * 8) * STRIDE + lane / 16 * PIECE;
#pragma unroll
    for (int n = 0; n < TILES; n += 2) {
        const float2 low = *(const float2 *)(v_factor + 8 * n + 2 * t), high = *(const float2 *)(v_factor + 8 * n + 8 + 2 * t);
        const uint32_t a[4] = { pack_bf16(weight[n][0] * low.x, weight[n][1] * low.y), pack_bf16(weight[n][2] * low.x, weight[n][3] * low.y),
                                pack_bf16(weight[n + 1][0] * high.x, weight[n + 1][1] * high.y), pack_bf16(weight[n + 1][2] * high.x, weight[n + 1][3] * high.y) };
#pragma unroll
        for (int m = 0; m < DIM / 8; m += 2) {
            uint32_t values[4];
            ldmatrix_transposed(values, v_at + 8 * n * STRIDE + 16 * m);
            mma_bf16(out[m], a, values[0], values[1]);
            mma_bf16(out[m + 1], a, values[2], values[3]);
        }
    }
}

/* out = out * down + up * (weights times values), the latter summed up in f16: 64 weights of at most 1 times values of at most 448. */
template <int DIM>
static __device__ __forceinline__ void add_f16_values(const float (&weight)[TILES][4], const float (&down)[2], const float (&up)[2], uint32_t v,
                                                      float (&out)[DIM / 8][4])
{
    enum { STRIDE = 2 * DIM + PIECE };
    const int lane = (int)threadIdx.x % 32;
    const uint32_t v_at = v + (lane % 8 + lane / 8 % 2 * 8) * STRIDE + lane / 16 * PIECE;
    uint32_t a[TILES / 2][4];
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int row = 0; row < 2; row++) a[n / 2][n % 2 * 2 + row] = pack_f16(weight[n][2 * row], weight[n][2 * row + 1]);
#pragma unroll
    for (int m = 0; m < DIM / 8; m += 2) {
        uint32_t sum[2][2] = {};
#pragma unroll
        for (int n = 0; n < TILES; n += 2) {
            uint32_t values[4];
            ldmatrix_transposed(values, v_at + 8 * n * STRIDE + 16 * m);
            mma_f16_sums(sum[0], a[n / 2], values[0], values[1]);
            mma_f16_sums(sum[1], a[n / 2], values[2], values[3]);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int row = i % 2;
            float(&to)[4] = out[m + i / 2];
            to[2 * row] = fmaf(f16_low(sum[i / 2][row]), up[row], to[2 * row] * down[row]);
            to[2 * row + 1] = fmaf(f16_high(sum[i / 2][row]), up[row], to[2 * row + 1] * down[row]);
        }
    }
}

/* What becomes of a row's sums. */
struct eight_end {
    const prefill_eight_call &c;
    const prefill_place &at;
    __device__ float shift(int64_t row) const
    {
        const int64_t line = at.b * c.of.p.q.shape[2] + at.head * c.of.group + row % c.of.group;
        return c.at.q_shift ? floats_at(c, c.at.q_shift)[line * c.at.q_tokens + row / c.of.group] : 0.0f;
    }
    __device__ prefill_rest rest(int64_t row) const
    {
        const int64_t line = at.b * c.of.kv.kv_heads + at.head, blocks = c.at.kv_tokens / OCTAVO_PREFILL_BLOCK + 1;
        if (!c.at.v_rest) return {};
        return prefill_rest_of(c.of, at, floats_at(c, c.at.v_rest) + line * blocks * c.of.kv.v_dim, row / c.of.group);
    }
    __device__ float element(float x, float share, int64_t d, float left) const
    {
        const int64_t line = (at.b * c.of.kv.kv_heads + at.head) * c.of.kv.v_dim + d;
        const float scale = c.at.v_scale ? floats_at(c, c.at.v_scale)[line] : c.at.v ? 1.0f : channel_factor(&c.of.kv, at.head, d);
        if (share == 0.0f) return 0.0f;
        x = fmaf(left, share, x);
        return c.at.v_mean ? fmaf(floats_at(c, c.at.v_mean)[line], share, x * scale) : x * scale;
    }
};

/* The first tile behind one that some row sees. */
static __device__ __forceinline__ int64_t next_tile(const octavo_span &seen, int64_t begin)
{
    const int64_t next = begin + KEYS, near_tile = seen.near_begin / KEYS * KEYS;
    return next >= seen.sink_end && next < near_tile ? near_tile : next;
}

/* What codes of the lane's rows, `row` and the eighth behind it, count. */
static __device__ __forceinline__ void find_scales(const prefill_eight_call &c, const prefill_place &at, int64_t row, float (&scale)[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int64_t its = row + 8 * i, line = at.b * c.of.p.q.shape[2] + at.head * c.of.group + its % c.of.group;
        scale[i] = its / c.of.group < at.queries ? floats_at(c, c.at.q_scale)[line * c.at.q_tokens + its / c.of.group] * c.of.p.softmax_scale : 0.0f;
    }
}

/* Grid (tiles of rows, kv heads, batch). */
template <int DIM, eight_kind KIND>
static __global__ void __launch_bounds__(THREADS, eight_shape<DIM, KIND>::BLOCKS) prefill_eight(const __grid_constant__ prefill_eight_call c)
{
    typedef eight_shape<DIM, KIND> S;
    extern __shared__ __align__(16) uint8_t memory[];
    __shared__ eight_factors factors;
    __shared__ row_spans<ROWS> spans;
    wait_for_kernel_before();
    const prefill_place at = prefill_place_of(c.of, blockIdx.z, blockIdx.y);
    const int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32, g = lane / 4;
    const int64_t first_row = (int64_t)(gridDim.x - 1 - blockIdx.x) * ROWS;
    if (first_row / c.of.group >= at.queries) return;

    /* 1. the queries, what they see, and what their codes count */
    const tile_sight sight = tile_sight_of(c.of, at, first_row, ROWS);
    const octavo_span seen = sight.seen;
    lane_rows rows = {};
    float scale[2] = {}, out[DIM / 8][4] = {};
    load_queries<DIM, KIND>(c, at, first_row, shared_address(memory));

    /* 2. tiles of keys, the next one on its way while one is multiplied; there is none in the first turn */
    const uint32_t q_at = shared_address(memory) + (WARP_ROWS * warp + lane % 16) * S::STRIDE + lane / 16 * PIECE;
    const uint32_t k_at = shared_address(memory) + S::Q_BYTES + (lane % 8 + lane / 16 * 8) * S::STRIDE + lane / 8 % 2 * PIECE;
    int64_t next = seen.sink_end > 0 ? 0 : next_tile(seen, -KEYS);
    int stage = 1;
#pragma unroll 1
    for (int64_t begin = -KEYS; begin < seen.end; begin = next, next = next_tile(seen, begin), stage ^= 1) {
        if (next < seen.end) load_tile<DIM, KIND>(c, at, seen, next, stage ^ 1, memory, &factors);
        copy_commit();
        if (begin < 0) {
            find_spans(c.of, at, first_row, &spans);
            __syncthreads();
            rows = lane_rows_of(spans, WARP_ROWS * warp + g);
            find_scales(c, at, first_row + WARP_ROWS * warp + g, scale);
            continue;
        }
        copy_wait<1>();
        __syncthreads();
        float score[TILES][4];
        if (KIND == EIGHT_FP8) e4m3_scores<DIM>(score, q_at, k_at + stage * S::STAGE);
        else int8_scores<DIM>(score, q_at, k_at + stage * S::STAGE);
        const uint32_t v = shared_address(memory) + S::Q_BYTES + stage * S::STAGE + S::K_BYTES;
        const bool whole = tile_whole(sight, begin, KEYS);
        float down[2], up[2];
        if (KIND == EIGHT_SAGE1_F16) weigh_apart(score, factors.k[stage], scale, c.of.p.soft_cap, (int)begin, whole, &rows, down, up);
        else weigh_tile<DIM, TILES>(score, factors.k[stage], scale, c.of.p.soft_cap, (int)begin, whole, &rows, out);
        if (KIND == EIGHT_SAGE1) add_values<DIM>(score, factors.v[stage], v, out);
        else if (KIND == EIGHT_SAGE1_F16) add_f16_values<DIM>(score, down, up, v, out);
        else add_codes<DIM>(score, factors.v[stage], v, out);
        __syncthreads();
    }
    copy_wait<0>();

    /* 3. results */
    put_rows<DIM>(c.of, at, first_row + WARP_ROWS * warp, rows, out, eight_end{ c, at });
}

/* ---- the call ---- */

template <int DIM, eight_kind KIND> static octavo_status launch(const octavo_exec *exec, const prefill_eight_call &call)
{
    enum { BYTES = eight_shape<DIM, KIND>::BYTES };
    /* what the kernel declares itself counts as well */
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaFuncSetAttribute(prefill_eight<DIM, KIND>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)BYTES), "attention_prefill"));
    const dim3 grid((unsigned)octavo_cuda_ceil(call.of.rows, ROWS), (unsigned)call.of.kv.kv_heads, (unsigned)call.of.kv.batch);
    return octavo_cuda_launch(prefill_eight<DIM, KIND>, "attention_prefill", grid, THREADS, (size_t)BYTES, exec, call);
}

template <eight_kind KIND> static octavo_status launch_dim(const octavo_exec *exec, const prefill_eight_call &call)
{
    const int32_t dim = call.of.kv.head_dim > call.of.kv.v_dim ? call.of.kv.head_dim : call.of.kv.v_dim;
    if (dim <= 64) return launch<64, KIND>(exec, call);
    if (dim <= 96) return launch<96, KIND>(exec, call);
    return dim <= 128 ? launch<128, KIND>(exec, call) : launch<256, KIND>(exec, call);
}

octavo_status octavo_prefill_eight(const octavo_exec *exec, const prefill_call &of)
{
    const prefill_eight_call call = { of, octavo_prefill_eight_layout_of(&of.p), (const uint8_t *)exec->workspace };
    OCTAVO_CUDA_TRY(octavo_prefill_encode(exec, of, call.at));
    switch (of.p.precision) {
    case OCTAVO_ATTENTION_FP8:   return launch_dim<EIGHT_FP8>(exec, call);
    case OCTAVO_ATTENTION_SAGE1: return call.at.v_f16 ? launch_dim<EIGHT_SAGE1_F16>(exec, call) : launch_dim<EIGHT_SAGE1>(exec, call);
    default:                     return launch_dim<EIGHT_SAGE2>(exec, call);
    }
}
