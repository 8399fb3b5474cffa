/* kept_part.cuh - what attention over kept units does with a part of one, and with the mean rows of dropped ones: copies and multiplies. */
#ifndef OCTAVO_CUDA_SM90_KEPT_PART_CUH
#define OCTAVO_CUDA_SM90_KEPT_PART_CUH

#include "cuda/sm90/attend_stream.cuh"

enum { KEPT_DIM = 128, KEPT_UNIT = 64 /* tokens */, MEAN_TILE_BYTES = TILE_TOKENS * KEPT_DIM };

/* A kernel: K's format with both planes, V's. */
template <int KEY_KIND, int VALUE_KIND> struct kept_kind {
    static constexpr int KEY = KEY_KIND, VALUE = VALUE_KIND, TILES = 2, SLOTS = 2 * STREAM_WARPS;
    static constexpr int TOKENS = TILES * TILE_TOKENS, PARTS = KEPT_UNIT / TOKENS; /* of a part; of a unit */
    static constexpr int K_ROW = PIECE * key_pieces(KEY, KEPT_DIM), MORE_AT = TOKENS * K_ROW, V_AT = 2 * MORE_AT;
    static constexpr int SLOT = V_AT + TOKENS * KEPT_DIM;
    static constexpr int SIDE = 128, V_SIDE = 64; /* scales beside a slot, V's from there on */
    static constexpr int MEANS = 2, LIST_AT = SLOTS * SLOT; /* tiles of mean rows in a warp's second slot, before that is wanted */
    static_assert(MEANS * MEAN_TILE_BYTES <= SLOT, "");
};

struct kept_call {
    stream_call of; /* its maps: K's base, V; boxes of a part */
    CUtensorMap more;
    octavo_section v_mean, v_mean_scale; /* of units                                              */
    const uint8_t *kept;                 /* [batch, kv_heads, units]                              */
    const float *log_mass;               /* [batch, kv_heads, rows, units] or NULL: without means */
    float residual;                      /* a code of K's second plane in codes of its first      */
    int units;
    bool holds_pages; /* there is shared memory for the sequence's pages */
};

/* Where what the copy engine's maps do not cover begins, of the block's sequence and kv head. */
struct kept_bases {
    const uint8_t *k_scale, *v_scale, *mean, *mean_scale;
};

/* A part of a kept unit: its first token, below 0 where there is none, and the unit's page. */
struct kept_part {
    int token, page;
};

static __device__ __forceinline__ int page_of_kept(const kept_call &d, const stream_block &k, int token)
{
    const int block = token >> d.of.shift;
    return k.table ? k.table[block] : block;
}

/* ---- copies ---- */

/* Scales of a part's tokens: by the copy engine, or by all lanes where there may be no memory behind the last of them. */
template <int WIDTH, int TOKENS>
static __device__ __forceinline__ void ask_for_part_scales(const kept_call &d, const stream_block &k, const octavo_section *section, const uint8_t *base,
                                                           const kept_part &part, bool whole, uint32_t side, uint32_t full)
{
    if (!section->data) return;
    const uint8_t *from = base + part.page * section->page_bytes + (part.token & ((1 << d.of.shift) - 1)) * WIDTH;
    const int lane = threadIdx.x % 32;
    if (whole) {
        if (lane == 0) copy_bytes(side, from, TOKENS * WIDTH, full);
    } else if (lane < TOKENS) {
        const bool there = part.token + lane < k.length;
        if (WIDTH == 1) store_shared_u8(side + lane, there ? from[lane] : 0);
        else store_shared_u16(side + 2 * lane, there ? ((const uint16_t *)from)[lane] : 0);
    }
}

/* Both planes of K, V and scales of a part. */
template <class KIND> static __device__ __forceinline__ void ask_for_kept(const kept_call &d, const stream_block &k, const kept_bases &base, const kept_part &part, int slot)
{
    constexpr int K_WIDTH = key_width(KIND::KEY), V_WIDTH = value_width(KIND::VALUE);
    const uint32_t to = k.ring + slot * KIND::SLOT, side = k.scales + slot * KIND::SIDE, full = k.full + 8 * slot;
    const bool whole = part.token + KIND::TOKENS <= k.length;
    const int at = k.table ? part.token & ((1 << d.of.shift) - 1) : part.token, page = k.table ? part.page : 0, row = k.row * d.of.row_step;
    if (threadIdx.x % 32 == 0) {
        const int scales = whole ? (d.of.k_scale.data ? KIND::TOKENS * K_WIDTH : 0) + (d.of.v_scale.data ? KIND::TOKENS * V_WIDTH : 0) : 0;
        mbarrier_report_and_expect(full, KIND::SLOT + scales);
        copy_box_5_once(to, &d.of.k, full, 0, at, k.head, page, row);
        copy_box_5_once(to + KIND::MORE_AT, &d.more, full, 0, at, k.head, page, row);
        copy_box_5_once(to + KIND::V_AT, &d.of.v, full, 0, at, k.head, page, row);
    }
    ask_for_part_scales<K_WIDTH, KIND::TOKENS>(d, k, &d.of.k_scale, base.k_scale, part, whole, side, full);
    ask_for_part_scales<V_WIDTH, KIND::TOKENS>(d, k, &d.of.v_scale, base.v_scale, part, whole, side + KIND::V_SIDE, full);
}

/* ---- products ---- */

/* int4x2: sums = codes of eight bits times q. A byte of a plane holds elements j and j + 64. */
template <int TILES>
static __device__ __forceinline__ void stream_nibbles(float (&sums)[TILES][4], const uint32_t (&q)[KEPT_DIM / 16][2], uint32_t base, uint32_t more)
{
    constexpr int ROW = KEPT_DIM / 2, PIECES = ROW / PIECE;
    const int lane = threadIdx.x % 32, row = lane % 16, side = lane / 16;
    float odd[TILES][4] = {}; /* the high elements */
#pragma unroll
    for (int i = 0; i < TILES; i++) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0.0f;
#pragma unroll
    for (int c = 0; c < PIECES; c += 2)
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            const int at = i * tile_stride<ROW>() + box_piece<ROW>(row, c + side, TILES * TILE_TOKENS);
            uint32_t r[4], m[4];
            ldmatrix(r, base + at), ldmatrix(m, more + at);
#pragma unroll
            for (int j = 0; j < 2; j++) {
                uint32_t a[2][4];
#pragma unroll
                for (int n = 0; n < 2; n++) {
                    uint32_t low, high;
                    int4_join(r[2 * j + n], m[2 * j + n], &low, &high);
                    int8_to_f16(low, &a[0][n], &a[0][n + 2]), int8_to_f16(high, &a[1][n], &a[1][n + 2]);
                }
                mma_f16(sums[i], a[0], q[c + j][0], q[c + j][1]);
                mma_f16(odd[i], a[1], q[c + j + PIECES][0], q[c + j + PIECES][1]);
            }
        }
#pragma unroll
    for (int i = 0; i < TILES * 4; i++) sums[i / 4][i % 4] += odd[i / 4][i % 4];
}

/* sums = both planes times q, in codes of the first. */
template <class KIND>
static __device__ __forceinline__ void kept_scores(float (&sums)[KIND::TILES][4], const uint32_t (&q)[KEPT_DIM / 16][2], uint32_t keys, float residual)
{
    if constexpr (KIND::KEY == KEY_INT4X2) {
        stream_nibbles<KIND::TILES>(sums, q, keys, keys + KIND::MORE_AT);
    } else {
        float rest[KIND::TILES][4];
        stream_scores<KEPT_DIM, KIND::KEY, KIND::TILES>(sums, q, keys);
        stream_scores<KEPT_DIM, KIND::KEY, KIND::TILES>(rest, q, keys + KIND::MORE_AT);
#pragma unroll
        for (int i = 0; i < KIND::TILES * 4; i++) sums[i / 4][i % 4] = fmaf(rest[i / 4][i % 4], residual, sums[i / 4][i % 4]);
    }
}

/* What the lane's columns 2t and 2t + 1 see, and what all rows do. */
struct seen_tokens {
    int ends[2], all_to;
};

/* A part that is there joins the state. */
template <class KIND>
static __device__ __forceinline__ void attend_kept_part(const kept_call &d, const stream_block &k, const stream_queries<KEPT_DIM, KIND::KEY> &queries,
                                                        const seen_tokens &seen, int token, int slot, stream_state<KEPT_DIM> &of)
{
    constexpr int KEY = KIND::KEY, VALUE = KIND::VALUE, TILES = KIND::TILES;
    const int g = threadIdx.x % 32 / 4;
    const uint32_t at = k.ring + slot * KIND::SLOT, side = k.scales + slot * KIND::SIDE;
    float x[TILES][4];
    value_factors<VALUE> factors[TILES];
    kept_scores<KIND>(x, queries.q, at, d.residual);
    scale_stage<KEY, VALUE, TILES>(x, factors, side, KIND::V_SIDE, g, queries.scale);
    if (token + KIND::TOKENS > seen.all_to) {
        hide_beyond(token, seen.ends, g, x);
        clear_rows<KEPT_DIM, KIND::TOKENS>(at + KIND::V_AT, k.length > token ? k.length - token : 0);
    }
    weigh_stage<KEPT_DIM, VALUE, TILES>(of, x, factors);
#pragma unroll
    for (int j = 0; j < TILES; j++) stream_outputs<KEPT_DIM, VALUE, TILES>(of.out, x[j], at + KIND::V_AT + j * tile_stride<KEPT_DIM>());
}

#endif
