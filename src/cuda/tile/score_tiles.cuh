/* score_tiles.cuh - units' largest scores and masses through the matrix unit. A block a share of a kv head's visible units and up to
 * 8 COLS of its rows; a warp takes every WARPS-th unit, its tiles of 16 tokens through a ring of its own. */
#ifndef OCTAVO_CUDA_TILE_SCORE_TILES_CUH
#define OCTAVO_CUDA_TILE_SCORE_TILES_CUH

#include "cuda/tile/tile_query.cuh"
#include "cuda/tile/tile_ring.cuh"

enum { SCORE_WARPS = 4, SCORE_THREADS = 32 * SCORE_WARPS };

struct score_tiles_call {
    decode_call of;
    octavo_block_score_params p;
    float residual;
    int unit_tiles; /* a multiple of a stage's */
    int ring_bytes;
    bool k_dense; /* scales */
    bool dense;   /* everything that a tile has, in pages of one stride */
};

/* One block's place in the call. */
struct score_block {
    int64_t b, head, group, first_row;
    int length, first, end; /* units of this block */
    int seen_sinks, seen_from; /* some row sees a token below the one, or from the other on */
    whole_range range;
};

/* The lane's own largest score and sum of each of its columns. */
template <int COLS> struct lane_masses {
    float max[COLS][2], sum[COLS][2];
};

template <int COLS> static __device__ __forceinline__ void forget(lane_masses<COLS> &of)
{
#pragma unroll
    for (int n = 0; n < COLS; n++) of.max[n][0] = of.max[n][1] = NOTHING, of.sum[n][0] = of.sum[n][1] = 0.0f;
}

/* What a warp keeps of the queries. */
template <int DIM, int COLS> struct score_queries {
    uint32_t q[COLS][DIM / 16][2];
    float scale[COLS][2], off[COLS][2]; /* scores are (sum - off) * scale */
    column_span spans[COLS][2];
};

/* The tiles of one stage join the lane's masses. */
template <int DIM, int KEY, int COLS, int TILES>
static __device__ __forceinline__ void score_stage(const score_tiles_call &c, const score_block &k, const score_queries<DIM, COLS> &rows, int token,
                                                   uint32_t stage, lane_masses<COLS> &of)
{
    constexpr tile_layout AT = tile_layout_of(KEY, VALUE_ANY, DIM);
    const int g = threadIdx.x % 32 / 4;
    float x[TILES][COLS][4];
    if constexpr (KEY == KEY_BF16 || KEY == KEY_F16)
#pragma unroll 1
        for (int j = 0; c.of.in.precision == OCTAVO_ATTENTION_FP8 && j < TILES; j++) round_tile<key_pieces(KEY, DIM), KEY == KEY_BF16>(stage + j * AT.bytes);
    tile_scores<DIM, KEY, COLS, TILES>(x, rows.q, stage, AT.more, AT.bytes, c.residual);
    if (KEY == KEY_INT4_BASE)
#pragma unroll
        for (int i = 0; i < TILES * COLS * 4; i++) x[i / (4 * COLS)][i / 4 % COLS][i % 4] -= rows.off[i / 4 % COLS][i % 2];
#pragma unroll
    for (int j = 0; j < TILES; j++) {
        const uint32_t scales = stage + j * AT.bytes + AT.k_scale;
        const float low = tile_factor<key_width(KEY)>(scales, g), high = tile_factor<key_width(KEY)>(scales, g + 8);
#pragma unroll
        for (int n = 0; n < COLS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) x[j][n][i] *= (i < 2 ? low : high) * rows.scale[n][i % 2];
    }
    if (c.of.in.soft_cap > 0.0f)
#pragma unroll
        for (int i = 0; i < TILES * COLS * 4; i++) (&x[0][0][0])[i] = capped((&x[0][0][0])[i], c.of.in.soft_cap * LOG2_E);
#pragma unroll
    for (int j = 0; j < TILES; j++) {
        if (all_see(k.range, token + j * TILE_TOKENS)) continue;
#pragma unroll
        for (int n = 0; n < COLS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (!column_sees(rows.spans[n][i % 2], token + j * TILE_TOKENS + g + (i < 2 ? 0 : 8))) x[j][n][i] = NOTHING;
    }
#pragma unroll
    for (int n = 0; n < COLS; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float max = of.max[n][i], sum = 0.0f;
#pragma unroll
            for (int j = 0; j < TILES; j++) max = fmaxf(max, fmaxf(x[j][n][i], x[j][n][i + 2]));
            const float from = max == NOTHING ? 0.0f : max;
#pragma unroll
            for (int j = 0; j < TILES; j++) sum += exp2_fast(x[j][n][i] - from) + exp2_fast(x[j][n][i + 2] - from);
            of.sum[n][i] = fmaf(of.sum[n][i], exp2_fast(of.max[n][i] - from), sum);
            of.max[n][i] = max;
        }
}

/* The unit's results from those of its lanes. */
template <int COLS>
static __device__ __forceinline__ void put_unit(const score_tiles_call &c, const score_block &k, int unit, const lane_masses<COLS> &of)
{
    const int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
    for (int n = 0; n < COLS; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float max = of.max[n][i];
#pragma unroll
            for (int step = 4; step < 32; step *= 2) max = fmaxf(max, __shfl_xor_sync(WHOLE_WARP, max, step));
            float sum = max == NOTHING ? 0.0f : of.sum[n][i] * exp2_fast(of.max[n][i] - max);
#pragma unroll
            for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
            const int64_t row = k.first_row + 8 * n + 2 * t + i;
            if (lane >= 4 || row >= c.of.rows) continue;
            const int64_t to = (k.group * c.of.rows + row) * c.of.units + unit;
            c.p.log_mass[to] = max == NOTHING ? NOTHING : (max + log2_fast(sum)) * LN_2;
            if (c.p.unit_max) c.p.unit_max[to] = max == NOTHING ? NOTHING : max * LN_2;
        }
}

/* Units that no row sees, this block's share of them: [0, before) and [from, end) of the call's. */
static __device__ __forceinline__ void put_unseen(const score_tiles_call &c, const score_block &k, int before, int from, int end, int rows)
{
    const int share = blockIdx.y, shares = gridDim.y, count = before + end - from, last = part_begin(count, share + 1, shares);
    const int64_t left = c.of.rows - k.first_row;
#pragma unroll 1
    for (int i = part_begin(count, share, shares) + (int)threadIdx.x; i < last; i += SCORE_THREADS) {
        int64_t to = (k.group * c.of.rows + k.first_row) * c.of.units + (i < before ? i : from + i - before);
#pragma unroll 1
        for (int row = 0; row < rows && row < left; row++, to += c.of.units) {
            c.p.log_mass[to] = NOTHING;
            if (c.p.unit_max) c.p.unit_max[to] = NOTHING;
        }
    }
}

template <int DIM, int KEY>
static __device__ __forceinline__ void copy_keys(const score_tiles_call &c, const score_block &k, const tile_pages &pages, int page, int token, uint32_t to)
{
    constexpr tile_layout AT = tile_layout_of(KEY, VALUE_ANY, DIM);
    const octavo_kv_view *kv = &c.of.kv;
    const int tokens = k.length - token, at = token & pages.mask, back = c.dense ? PIECE * (int)(threadIdx.x % 32) : 0;
    if (tokens <= 0 || (token >= k.seen_sinks && token + TILE_TOKENS <= k.seen_from)) return; /* its page may be gone; no row takes it in */
    copy_rows<key_pieces(KEY, DIM)>(to, tile_rows(pages.k[0] - back, &kv->k[0], page, at), (int)kv->k[0].token_bytes, tokens);
    if (key_planes(KEY) > 1)
        copy_rows<key_pieces(KEY, DIM)>(to + AT.more, tile_rows(pages.k[1] - back, &kv->k[1], page, at), (int)kv->k[1].token_bytes, tokens);
    if (key_width(KEY))
        copy_scales(to + AT.k_scale, &kv->k_scale, key_width(KEY), tile_rows(pages.k_scale - back, &kv->k_scale, page, at), tokens, c.k_dense);
}

/* The tiles of a stage, which are neighbours in one block. */
template <int DIM, int KEY, int TILES>
static __device__ __forceinline__ void copy_stage(const score_tiles_call &c, const score_block &k, const tile_pages &pages, int page, int token, uint32_t to)
{
    constexpr tile_layout AT = tile_layout_of(KEY, VALUE_ANY, DIM);
    constexpr int TILE_ROWS = TILE_TOKENS * PIECE * key_pieces(KEY, DIM), TILE_SCALES = TILE_TOKENS * key_width(KEY);
    if (!c.dense || token + TILES * TILE_TOKENS > k.length || token < k.seen_from) {
#pragma unroll 1
        for (int j = 0; j < TILES; j++) copy_keys<DIM, KEY>(c, k, pages, page, token + j * TILE_TOKENS, to + j * AT.bytes);
        return;
    }
    const int64_t page_at = page * c.of.kv.k[0].page_bytes;
    const int at = token & pages.mask, lane = threadIdx.x % 32;
    const uint8_t *base = pages.k[0] + page_at + at * PIECE * key_pieces(KEY, DIM), *more = pages.k[1] + page_at + at * PIECE * key_pieces(KEY, DIM);
    const uint8_t *scales = pages.k_scale + page_at + at * key_width(KEY);
#pragma unroll
    for (int j = 0; j < TILES; j++) {
        copy_dense<key_pieces(KEY, DIM)>(to + j * AT.bytes, base + j * TILE_ROWS);
        if (key_planes(KEY) > 1) copy_dense<key_pieces(KEY, DIM)>(to + j * AT.bytes + AT.more, more + j * TILE_ROWS);
        if (lane < key_width(KEY)) copy_16(to + j * AT.bytes + AT.k_scale + PIECE * lane, scales + j * TILE_SCALES, 16);
    }
}

/* The warp's units; a stage lies in one block. */
template <int DIM, int KEY, int COLS, int TILES, typename Begin>
static __device__ __forceinline__ void score_units(const score_tiles_call &c, const score_block &k, const score_queries<DIM, COLS> &rows, uint32_t ring,
                                                   Begin begin)
{
    constexpr int TILE_BYTES = tile_layout_of(KEY, VALUE_ANY, DIM).bytes, STAGE = TILES * TILE_BYTES;
    const int parts = c.unit_tiles / TILES, warp = __shfl_sync(WHOLE_WARP, (int)(threadIdx.x / 32), 0);
    const tile_pages pages = c.dense ? dense_pages_of(&c.of.kv, k.b, k.head) : tile_pages_of(&c.of.kv, k.b, k.head);
    const int stages = (k.end - k.first - warp + SCORE_WARPS - 1) / SCORE_WARPS * parts; /* of this warp */
    const int next_part = TILES * TILE_TOKENS, next_unit = ((SCORE_WARPS - 1) * parts + 1) * next_part;
    int into = 0, from = 0, token = (k.first + warp) * parts * next_part, now = token, part_ahead = 0, part = 0;
    int page = token < k.length ? tile_page(pages, token) : 0;
    lane_masses<COLS> of;
    forget<COLS>(of);
#pragma unroll 1
    for (int i = 0; i < stages + STAGES - 1; i++) {
        if (i < stages) copy_stage<DIM, KEY, TILES>(c, k, pages, page, token, ring + into * STAGE);
        copy_commit();
        into = into + 1 == STAGES ? 0 : into + 1;
        const bool last_ahead = ++part_ahead == parts;
        token += last_ahead ? next_unit : next_part, part_ahead = last_ahead ? 0 : part_ahead;
        page = token < k.length && i + 1 < stages ? tile_page(pages, token) : 0;
        if (i == 0) begin();
        const int behind = i - (STAGES - 1);
        if (behind < 0) continue;
        copy_wait<STAGES - 1>();
        __syncwarp();
        if (now < k.length) score_stage<DIM, KEY, COLS, TILES>(c, k, rows, now, ring + from * STAGE, of);
        from = from + 1 == STAGES ? 0 : from + 1;
        const bool last = ++part == parts;
        if (last) put_unit<COLS>(c, k, now / (c.unit_tiles * TILE_TOKENS), of), forget<COLS>(of);
        now += last ? next_unit : next_part, part = last ? 0 : part;
        __syncwarp();
    }
    copy_wait<0>();
}

/* Grid (row tiles, shares, batch * kv heads); shared memory: SCORE_WARPS rings. */
template <int DIM, int KEY, int COLS, int TILES>
static __global__ void __launch_bounds__(SCORE_THREADS, DIM <= 128 && COLS == 1 ? 4 : 2) score_tiles(const __grid_constant__ score_tiles_call c)
{
    extern __shared__ __align__(128) uint8_t memory[];
    const octavo_kv_view *kv = &c.of.kv;
    wait_for_kernel_before();
    next_kernel_may_start();
    score_block k = { (int)blockIdx.z / kv->kv_heads, (int)blockIdx.z % kv->kv_heads, blockIdx.z, (int64_t)blockIdx.x * 8 * COLS,
                      0, 0, 0, 0, 0, {} };
    k.length = (int)sequence_length(kv, k.b);
    __shared__ float staged[8 * COLS][DIM + 2];
    uint16_t asked[query_codes<DIM, COLS>(SCORE_WARPS)]; /* before K: what is asked for later waits for it */
    ask_for_queries<DIM, COLS, SCORE_WARPS>(c.of, k.b, k.head, k.first_row, asked);
    k.range = whole_range_of(&c.of.in, k.length);

    /* 1: the block's share: of the units from the window (or the sinks) to the length, and of the others */
    const int64_t q_tokens = c.of.in.q.shape[1];
    const octavo_span oldest = octavo_visible_span(k.length, q_tokens, 0, c.of.in.window, c.of.in.sink_tokens);
    const octavo_span newest = octavo_visible_span(k.length, q_tokens, q_tokens - 1, c.of.in.window, c.of.in.sink_tokens);
    k.seen_sinks = (int)newest.sink_end, k.seen_from = oldest.end > 0 ? (int)oldest.near_begin : 0;
    const int sub = kv->sub_block_tokens, units = (int)c.of.units, shares = gridDim.y, share = blockIdx.y;
    const int begin = oldest.end > 0 && c.of.in.sink_tokens == 0 ? (int)oldest.near_begin / sub : 0, limit = (k.length + sub - 1) / sub;
    k.first = begin + part_begin(limit - begin, share, shares), k.end = begin + part_begin(limit - begin, share + 1, shares);
    put_unseen(c, k, begin, limit, units, 8 * COLS);
    if (k.first >= k.end) return;

    /* 2: the queries, then the units */
    score_queries<DIM, COLS> rows;
#pragma unroll
    for (int n = 0; n < COLS; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) rows.spans[n][i] = column_span_of(c.of, k.length, k.first_row + 8 * n + 2 * (threadIdx.x % 4) + i);
    auto queries = [&]() { /* while the first copies are on their way */
        int lift[COLS];
        float bias[COLS];
        stage_queries<DIM, COLS, SCORE_WARPS>(c.of, asked, staged);
        load_queries<DIM, KEY, COLS>(staged, rows.q, lift, bias);
        column_scales<COLS>(c.of, lift, bias, rows.scale, rows.off);
    };
    uint8_t *mine = memory + (size_t)(threadIdx.x / 32) * c.ring_bytes;
    if (key_width(KEY) == 1 && !kv->k_scale.data) /* exponents of 0, once */
        for (int i = threadIdx.x % 32; i < c.ring_bytes / 4; i += 32) ((uint32_t *)mine)[i] = 0;
    __syncwarp();
    score_units<DIM, KEY, COLS, TILES>(c, k, rows, shared_address(mine), queries);
}

#endif
