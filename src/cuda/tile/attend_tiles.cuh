/* attend_tiles.cuh - attention over kept units through the matrix unit. A block a split of a kv head and up to 8 COLS of its rows.
 *
 * Each warp works alone on tiles of 16 tokens, every WARPS-th stage of the block's share, with its own ring of copies in flight:
 * nothing in the main loop waits for another warp. Running maxima may lag by SLACK (in powers of two) before anything is rescaled.
 * The warps' results are merged at the end.
 *
 * A split's share: of the tokens that are seen, or of the units that are kept, an equal number of each split where the kernel may
 * choose (split_units 0), else what lies in the split's units. */
#ifndef OCTAVO_CUDA_TILE_ATTEND_TILES_CUH
#define OCTAVO_CUDA_TILE_ATTEND_TILES_CUH

#include "cuda/tile/attend_state.cuh"
#include "cuda/tile/tile_query.cuh"
#include "cuda/tile/tile_ring.cuh"
#include "cuda/tile/unit_lists.cuh"

struct attend_tiles_call {
    decode_call of;
    octavo_block_attend_params p;
    int64_t split_units;
    float residual; /* what a code of K's second plane counts */
    int ring_bytes; /* of a warp                              */
    bool k_dense, v_dense; /* scales */
    bool dense;            /* everything that a tile has, in pages of one stride */
};

/* After the kept units a warp's ring holds a tile of mean rows, the warp's result and another tile of mean rows. */
template <int DIM, int COLS> static __host__ __device__ constexpr int means_other()
{
    return (TILE_TOKENS * DIM + (int)sizeof(warp_result<DIM, COLS>) + 127) / 128 * 128;
}

/* A stage of the ring, which a warp copies, waits for and multiplies as a whole. */
template <int DIM, int KEY, int VALUE> struct attend_stage {
    static constexpr tile_layout AT = tile_layout_of(KEY, VALUE, DIM);
    static constexpr int BYTES = AT.bytes;
    /* Two blocks a multiprocessor: the fewer bytes a tile has, the more warps it takes to keep the memory busy. */
    static constexpr int WARPS = AT.bytes > 6000 ? 4 : 6, THREADS = 32 * WARPS, DEPTH = AT.bytes > 6000 ? 3 : 4;
};

/* Where this block's share of tiles lies. */
struct tile_share {
    int first, end;       /* tiles of the whole, or entries of the list times tiles a unit */
    int sink_tiles, near_tile; /* without a mask: tile i is i below sink_tiles, then near_tile + i - sink_tiles */
};

/* ---- a stage ---- */

/* First token of tile i of the share; -1: there is none. */
static __device__ __forceinline__ int tile_token(const attend_tiles_call &c, const tile_share &share, const attend_shared *shared, int list_first, int i)
{
    if (i >= share.end) return -1;
    if (!c.p.kept) return TILE_TOKENS * (i < share.sink_tiles ? i : share.near_tile + i - share.sink_tiles);
    const int shift = 31 - __clz(c.of.kv.sub_block_tokens / TILE_TOKENS), unit = shared->list[(i >> shift) - list_first];
    return ((unit << shift) + (i & ((1 << shift) - 1))) * TILE_TOKENS;
}

template <int DIM, int KEY, int VALUE>
static __device__ __forceinline__ void copy_tile(const attend_tiles_call &c, const tile_pages &pages, int page, int token, int tokens, uint32_t to)
{
    constexpr tile_layout AT = attend_stage<DIM, KEY, VALUE>::AT;
    const octavo_kv_view *kv = &c.of.kv;
    const int at = token & pages.mask;
    if (c.dense && tokens >= TILE_TOKENS) {
        const int64_t page_at = page * kv->k[0].page_bytes;
        const int lane = threadIdx.x % 32;
        copy_dense<key_pieces(KEY, DIM)>(to, pages.k[0] + page_at + at * PIECE * key_pieces(KEY, DIM));
        if (key_planes(KEY) > 1) copy_dense<key_pieces(KEY, DIM)>(to + AT.more, pages.k[1] + page_at + at * PIECE * key_pieces(KEY, DIM));
        copy_dense<value_pieces(VALUE, DIM)>(to + AT.v, pages.v + page_at + at * PIECE * value_pieces(VALUE, DIM));
        if (lane < key_width(KEY)) copy_16(to + AT.k_scale + PIECE * lane, pages.k_scale + page_at + at * key_width(KEY), 16);
        if (lane < value_width(VALUE)) copy_16(to + AT.v_scale + PIECE * lane, pages.v_scale + page_at + at * value_width(VALUE), 16);
        return;
    }
    const int back = c.dense ? PIECE * (int)(threadIdx.x % 32) : 0; /* to the section's own begin */
    copy_rows<key_pieces(KEY, DIM)>(to, tile_rows(pages.k[0] - back, &kv->k[0], page, at), (int)kv->k[0].token_bytes, tokens);
    if (key_planes(KEY) > 1)
        copy_rows<key_pieces(KEY, DIM)>(to + AT.more, tile_rows(pages.k[1] - back, &kv->k[1], page, at), (int)kv->k[1].token_bytes, tokens);
    copy_rows<value_pieces(VALUE, DIM)>(to + AT.v, tile_rows(pages.v - back, &kv->v, page, at), (int)kv->v.token_bytes, tokens);
    if (key_width(KEY)) copy_scales(to + AT.k_scale, &kv->k_scale, key_width(KEY), tile_rows(pages.k_scale - back, &kv->k_scale, page, at), tokens, c.k_dense);
    if (value_width(VALUE)) copy_scales(to + AT.v_scale, &kv->v_scale, value_width(VALUE), tile_rows(pages.v_scale - back, &kv->v_scale, page, at), tokens, c.v_dense);
}

/* ---- arithmetic ---- */

/* Scores of a tile in units of ln 2; what a row does not see is -inf. */
template <int COLS, int WIDTH>
static __device__ __forceinline__ void finish_scores(const attend_tiles_call &c, const float (&scale)[COLS][2], const column_span (&spans)[COLS][2],
                                                     int token, bool whole, uint32_t scales, float (&x)[COLS][4])
{
    const int g = threadIdx.x % 32 / 4;
    const float low = tile_factor<WIDTH>(scales, g), high = tile_factor<WIDTH>(scales, g + 8);
#pragma unroll
    for (int n = 0; n < COLS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) x[n][i] *= (i < 2 ? low : high) * scale[n][i % 2];
    if (c.of.in.soft_cap > 0.0f)
#pragma unroll
        for (int i = 0; i < COLS * 4; i++) (&x[0][0])[i] = capped((&x[0][0])[i], c.of.in.soft_cap * LOG2_E);
    if (whole) return;
#pragma unroll
    for (int n = 0; n < COLS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (!column_sees(spans[n][i % 2], token + g + (i < 2 ? 0 : 8))) x[n][i] = NOTHING;
}

/* What a warp keeps of the queries. */
template <int DIM, int COLS> struct query_operands {
    uint32_t q[COLS][DIM / 16][2];
    float scale[COLS][2], off[COLS][2]; /* scores are (sum - off) * scale */
    column_span spans[COLS][2];
};

template <int DIM, int KEY, int VALUE, int COLS>
static __device__ __forceinline__ void attend_tile(const attend_tiles_call &c, const query_operands<DIM, COLS> &rows, int token, bool whole,
                                                   uint32_t tile, attend_state<DIM, COLS> &of)
{
    constexpr tile_layout AT = attend_stage<DIM, KEY, VALUE>::AT;
    const int g = threadIdx.x % 32 / 4;
    float x[1][COLS][4];
    if (c.of.in.precision == OCTAVO_ATTENTION_FP8) {
        if constexpr (KEY == KEY_BF16 || KEY == KEY_F16) round_tile<key_pieces(KEY, DIM), KEY == KEY_BF16>(tile);
        if constexpr (VALUE == VALUE_BF16 || VALUE == VALUE_F16) round_tile<value_pieces(VALUE, DIM), VALUE == VALUE_BF16>(tile + AT.v);
    }
    tile_scores<DIM, KEY, COLS, 1>(x, rows.q, tile, AT.more, AT.bytes, c.residual);
    if (KEY == KEY_INT4_BASE)
#pragma unroll
        for (int i = 0; i < COLS * 4; i++) x[0][i / 4][i % 4] -= rows.off[i / 4][i % 2];
    finish_scores<COLS, key_width(KEY)>(c, rows.scale, rows.spans, token, whole, tile + AT.k_scale, x[0]);
    weigh<DIM, COLS, 1>(of, x);
    const uint32_t scales = tile + AT.v_scale;
    fold_factors<DIM, VALUE, COLS>(of, x[0], tile_factor<value_width(VALUE)>(scales, g), tile_factor<value_width(VALUE)>(scales, g + 8));
    tile_outputs<DIM, VALUE, COLS>(of.out, x[0], tile + AT.v);
}

/* ---- the parts of a block's work ---- */

/* One block's place in the call. */
struct attend_block {
    int64_t b, head, group, first_row;
    int split, length;
    whole_range range;
};

/* The warp's tiles of a share, through its ring: DEPTH - 1 copies are under way when the first tile is multiplied. */
template <int DIM, int KEY, int VALUE, int COLS, typename Begin>
static __device__ __forceinline__ void attend_share(const attend_tiles_call &c, const attend_block &k, const tile_share &share,
                                                    const attend_shared *shared, int list_first, const query_operands<DIM, COLS> &rows, uint32_t ring,
                                                    attend_state<DIM, COLS> &of, Begin begin)
{
    typedef attend_stage<DIM, KEY, VALUE> stage;
    const int first = share.first + (int)(threadIdx.x / 32), end = share.end + (stage::DEPTH - 1) * stage::WARPS;
    const tile_pages pages = c.dense ? dense_pages_of(&c.of.kv, k.b, k.head) : tile_pages_of(&c.of.kv, k.b, k.head);
    int into = 0, from = 0, token = tile_token(c, share, shared, list_first, first), page = token < 0 ? 0 : tile_page(pages, token);
#pragma unroll 1
    for (int i = first; i < end; i += stage::WARPS) {
        if (token >= 0) copy_tile<DIM, KEY, VALUE>(c, pages, page, token, k.length - token, ring + into * stage::BYTES);
        copy_commit();
        into = into + 1 == stage::DEPTH ? 0 : into + 1;
        token = tile_token(c, share, shared, list_first, i + stage::WARPS); /* of the next copy: nothing waits for the page table */
        page = token < 0 ? 0 : tile_page(pages, token);
        if (i == first) begin();
        const int behind = i - (stage::DEPTH - 1) * stage::WARPS;
        if (behind < first) continue;
        copy_wait<stage::DEPTH - 1>();
        __syncwarp();
        const int now = tile_token(c, share, shared, list_first, behind);
        attend_tile<DIM, KEY, VALUE, COLS>(c, rows, now, all_see(k.range, now), ring + from * stage::BYTES, of);
        from = from + 1 == stage::DEPTH ? 0 : from + 1;
        __syncwarp();
    }
    copy_wait<0>();
}

/* Entry of the units in one state at which a split's share of them begins. */
static __device__ __forceinline__ int first_listed(const attend_tiles_call &c, const attend_block &k, const unit_walk &walk, int state, int split)
{
    const int total = count_of(walk.total, state);
    return c.split_units == 0 ? part_begin(total, split, (int)c.p.splits) : split == k.split ? 0 : total;
}

/* Mean rows of up to 16 dropped units on their way into shared memory, and what weighs them. */
template <int COLS> struct mean_tile {
    float x[1][COLS][4]; /* masses in units of ln 2 */
    float factor;        /* of unit lane % 16       */
};

template <int DIM, int COLS>
static __device__ __forceinline__ void ask_for_means(const attend_tiles_call &c, const attend_block &k, int count, const int32_t *list, int first,
                                                     uint32_t tile, mean_tile<COLS> *of)
{
    constexpr int PIECES = DIM / 16;
    const octavo_kv_view *kv = &c.of.kv;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, left = count - first, row = lane % TILE_TOKENS;
    if (left > 0) {
        const int unit = list[first + (row < left ? row : 0)], shift = 31 - __clz(kv->block_tokens / kv->sub_block_tokens);
        const int64_t sequence = octavo_view_row(kv, k.b);
        const stored_token at = { sequence, octavo_view_page(kv, sequence, unit >> shift), k.head, unit & ((1 << shift) - 1) };
#pragma unroll
        for (int n = 0; n < COLS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int64_t r = k.first_row + 8 * n + 2 * t + i % 2;
                const int u = first + g + (i < 2 ? 0 : 8);
                of->x[0][n][i] = u < count && r < c.of.rows ? LOG2_E * c.p.log_mass[(k.group * c.of.rows + r) * c.of.units + list[u]] : NOTHING;
            }
        const uint8_t *mean = stored_at(&kv->v_mean, at);
        of->factor = power_of_minus((int8_t)*stored_at(&kv->v_mean_scale, at));
#pragma unroll
        for (int i = 0; i < TILE_TOKENS * PIECES / 32; i++) {
            const int piece = lane + 32 * i, r = piece / PIECES, p = piece % PIECES;
            const uint8_t *from = (const uint8_t *)__shfl_sync(WHOLE_WARP, (unsigned long long)mean, r);
            copy_16(tile + PIECE * tile_piece<PIECES>(r, p), from + PIECE * p, r < left ? 16 : 0);
        }
    }
    copy_commit();
}

/* The units' mean rows: e4m3 rows with scores that are given, a tile multiplied while the warp's next one is on its way. */
template <int DIM, int COLS>
static __device__ __forceinline__ void attend_dropped(const attend_tiles_call &c, const attend_block &k, int count, const int32_t *list, uint32_t ring,
                                                      attend_state<DIM, COLS> &of)
{
    const int g = threadIdx.x % 32 / 4, step = TILE_TOKENS * (int)(blockDim.x / 32);
    uint32_t tile = ring, other = ring + means_other<DIM, COLS>();
    mean_tile<COLS> now = {}, next;
#pragma unroll 1
    for (int first = (int)(threadIdx.x / 32) * TILE_TOKENS - step; first < count; first += step) { /* below 0 there is none yet */
        ask_for_means<DIM, COLS>(c, k, count, list, first + step, other, &next);
        if (first >= 0) {
            weigh<DIM, COLS, 1>(of, now.x);
            fold_factors<DIM, VALUE_E4M3, COLS>(of, now.x[0], __shfl_sync(WHOLE_WARP, now.factor, g), __shfl_sync(WHOLE_WARP, now.factor, g + 8));
            copy_wait<1>();
            __syncwarp();
            tile_outputs<DIM, VALUE_E4M3, COLS>(of.out, now.x[0], tile);
            __syncwarp();
        }
        const uint32_t free = tile;
        tile = other, other = free, now = next;
    }
    copy_wait<0>();
    __syncwarp();
}

/* ---- results ---- */

template <int DIM, int COLS> static __device__ __forceinline__ const warp_result<DIM, COLS> *result_of(const warp_result<DIM, COLS> *results, int stride, int warp)
{
    return (const warp_result<DIM, COLS> *)((const uint8_t *)results + warp * stride);
}

/* log of the sum of all warps' masses in one column. */
template <int DIM, int COLS, int WARPS>
static __device__ __forceinline__ float column_mass(const warp_result<DIM, COLS> *results, int stride, int column, float *max)
{
    float sum = 0.0f;
    *max = NOTHING;
#pragma unroll
    for (int w = 0; w < WARPS; w++) *max = fmaxf(*max, result_of(results, stride, w)->max[column]);
    if (*max == NOTHING) return 0.0f;
#pragma unroll
    for (int w = 0; w < WARPS; w++) sum += result_of(results, stride, w)->sum[column] * exp2_fast(result_of(results, stride, w)->max[column] - *max);
    return sum;
}

/* The warps' outputs, each weighed once for all of its elements. */
template <int DIM, int COLS, int WARPS>
static __device__ __forceinline__ void merge_warps(const attend_tiles_call &c, const attend_block &k, const warp_result<DIM, COLS> *results, int stride,
                                                   float (&weights)[WARPS][8 * COLS])
{
    const int left = (int)(c.of.rows - k.first_row), columns = left < 8 * COLS ? left : 8 * COLS;
    const int64_t first = (k.group * c.of.rows + k.first_row) * c.p.splits + k.split; /* of the block's parts */
    if ((int)threadIdx.x < columns) {
        const int column = threadIdx.x;
        float max;
        const float sum = column_mass<DIM, COLS, WARPS>(results, stride, column, &max);
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float own = result_of(results, stride, w)->max[column];
            weights[w][column] = own == NOTHING ? 0.0f : exp2_fast(own - max) / sum;
        }
        c.p.part_lse[first + column * c.p.splits] = max == NOTHING ? NOTHING : (max + log2f(sum)) * LN_2;
    }
    __syncthreads();
#pragma unroll 1
    for (int i = threadIdx.x; i < DIM * ((columns + 3) / 4); i += 32 * WARPS) { /* four columns of an element */
        const int column = i / DIM * 4, d = i % DIM;
        float out[4] = {};
#pragma unroll
        for (int w = 0; w < WARPS; w++) {
            const float4 part = *(const float4 *)&result_of(results, stride, w)->out[d][column], weight = *(const float4 *)&weights[w][column];
            out[0] = fmaf(part.x, weight.x, out[0]), out[1] = fmaf(part.y, weight.y, out[1]);
            out[2] = fmaf(part.z, weight.z, out[2]), out[3] = fmaf(part.w, weight.w, out[3]);
        }
        float *to = c.p.part_out + (first + column * c.p.splits) * DIM + d;
        const float channel = channel_factor(&c.of.kv, k.head, d);
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (column + j < columns) to[j * c.p.splits * DIM] = out[j] * channel;
    }
}

/* log of what the warps have so far, a thread a row. */
template <int DIM, int COLS, int WARPS>
static __device__ __forceinline__ void put_logs(const attend_tiles_call &c, const attend_block &k, const warp_result<DIM, COLS> *results, int stride,
                                                float *to)
{
    const int64_t row = k.first_row + threadIdx.x;
    if (threadIdx.x >= 8 * COLS || row >= c.of.rows) return;
    float max;
    const float sum = column_mass<DIM, COLS, WARPS>(results, stride, threadIdx.x, &max);
    to[(k.group * c.of.rows + row) * c.p.splits + k.split] = max == NOTHING ? NOTHING : (max + log2f(sum)) * LN_2;
}

/* Tiles that some row sees, without a mask: those of the sinks, then those from the window on. */
static __device__ __forceinline__ tile_share visible_tiles(const attend_tiles_call &c, const attend_block &k)
{
    const int64_t q_tokens = c.of.in.q.shape[1];
    int64_t oldest = 0; /* the oldest query token that exists sees furthest back */
    while (oldest < q_tokens - 1 && k.length - q_tokens + oldest + 1 <= 0) oldest++;
    const octavo_span first = octavo_visible_span(k.length, q_tokens, oldest, c.of.in.window, c.of.in.sink_tokens);
    const octavo_span last = octavo_visible_span(k.length, q_tokens, q_tokens - 1, c.of.in.window, c.of.in.sink_tokens);
    const int near_tile = (int)first.near_begin / TILE_TOKENS, tiles = (k.length + TILE_TOKENS - 1) / TILE_TOKENS;
    const int sinks = ((int)last.sink_end + TILE_TOKENS - 1) / TILE_TOKENS, sink_tiles = sinks < near_tile ? sinks : near_tile;
    return { 0, sink_tiles + tiles - near_tile, sink_tiles, near_tile };
}

/* The share of an unmasked call: tiles in the split's units, or an equal part. */
static __device__ __forceinline__ void cut_share(const attend_tiles_call &c, const attend_block &k, tile_share *share)
{
    if (c.split_units == 0) {
        const int all = share->end, splits = (int)c.p.splits;
        share->first = part_begin(all, k.split, splits), share->end = part_begin(all, k.split + 1, splits);
        return;
    }
    const int64_t per_unit = c.of.kv.sub_block_tokens / TILE_TOKENS, begin = k.split * c.split_units * per_unit, end = begin + c.split_units * per_unit;
    auto index_of = [&](int64_t tile) { /* the first tile of the whole that is not before this one */
        const int64_t i = tile < share->sink_tiles ? tile : tile < share->near_tile ? share->sink_tiles : tile - share->near_tile + share->sink_tiles;
        return (int)(i < share->end ? i : share->end);
    };
    const int first = index_of(begin), last = index_of(end);
    share->first = first, share->end = last;
}

/* Grid (row tiles, splits, batch * kv heads); shared memory: a ring a warp, which become the warps' results. */
template <int DIM, int KEY, int VALUE, int COLS>
static __global__ void __launch_bounds__(attend_stage<DIM, KEY, VALUE>::THREADS, DIM <= 128 ? 2 : 1) attend_tiles(const __grid_constant__ attend_tiles_call c)
{
    typedef attend_stage<DIM, KEY, VALUE> stage;
    extern __shared__ __align__(128) uint8_t memory[];
    __shared__ attend_shared shared;
    const octavo_kv_view *kv = &c.of.kv;
    if (!c.p.kept) wait_for_kernel_before(); /* else that is the kernel which wrote the mask: lengths and queries are older than the scan before it */
    attend_block k = { (int)blockIdx.z / kv->kv_heads, (int)blockIdx.z % kv->kv_heads, blockIdx.z, (int64_t)blockIdx.x * 8 * COLS,
                       (int)blockIdx.y, 0, {} };
    k.length = (int)sequence_length(kv, k.b);
    __shared__ float staged[8 * COLS][DIM + 2];
    uint16_t asked[query_codes<DIM, COLS>(stage::WARPS)]; /* before K and V: what is asked for later waits for them */
    ask_for_queries<DIM, COLS, stage::WARPS>(c.of, k.b, k.head, k.first_row, asked);
    k.range = whole_range_of(&c.of.in, k.length);
    uint8_t *mine = memory + (size_t)(threadIdx.x / 32) * c.ring_bytes;
    const uint32_t ring = shared_address(mine);

    /* 1: the queries */
    query_operands<DIM, COLS> rows;
    attend_state<DIM, COLS> of;
    auto queries = [&]() {
        int lift[COLS];
        float bias[COLS];
        stage_queries<DIM, COLS, stage::WARPS>(c.of, asked, staged);
        load_queries<DIM, KEY, COLS>(staged, rows.q, lift, bias);
        column_scales<COLS>(c.of, lift, bias, rows.scale, rows.off);
    };
    of.lift = -1000;
    constexpr tile_layout AT = stage::AT;
    if ((key_width(KEY) == 1 && !kv->k_scale.data) || (value_width(VALUE) == 1 && !kv->v_scale.data)) /* exponents of 0 */
        for (int i = threadIdx.x % 32; i < stage::DEPTH * 2 * SCALES_BYTES / 4; i += 32)
            *(uint32_t *)(mine + i / (2 * SCALES_BYTES / 4) * AT.bytes + AT.k_scale + i % (2 * SCALES_BYTES / 4) * 4) = 0;
    __syncwarp();
#pragma unroll
    for (int n = 0; n < COLS; n++) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            of.max[n][i] = NOTHING, of.sum[n][i] = 0.0f;
            rows.spans[n][i] = column_span_of(c.of, k.length, k.first_row + 8 * n + 2 * (threadIdx.x % 4) + i);
        }
#pragma unroll
        for (int m = 0; m < DIM / 16; m++) of.out[n][m][0] = of.out[n][m][1] = of.out[n][m][2] = of.out[n][m][3] = 0.0f;
    }

    if (c.p.kept) wait_for_kernel_before();
    next_kernel_may_start();

    /* 2: kept units */
    const uint8_t *kept = c.p.kept ? c.p.kept + k.group * c.of.units : nullptr;
    const int begin = (int)(c.split_units ? k.split * c.split_units : 0);
    const int64_t last = begin + c.split_units;
    const int limit = (int)(c.split_units && last < c.of.units ? last : c.of.units);
    tile_share share = visible_tiles(c, k);
    unit_walk walk = {};
    int at = 0, stop = 0, means = 0, means_end = 0; /* entries of kept units and of dropped ones */
    bool listed = false;
    if (!kept) {
        cut_share(c, k, &share);
    } else {
        walk_units(&walk, kept, begin < limit ? begin : limit, limit, &shared);
        at = first_listed(c, k, walk, OCTAVO_UNIT_KEPT, k.split), stop = first_listed(c, k, walk, OCTAVO_UNIT_KEPT, k.split + 1);
        if (c.p.compensate == OCTAVO_COMPENSATE_MEAN && c.p.log_mass)
            means = first_listed(c, k, walk, OCTAVO_UNIT_DROPPED, k.split), means_end = first_listed(c, k, walk, OCTAVO_UNIT_DROPPED, k.split + 1);
    }
#pragma unroll 1
    do { /* once without a mask, else a list of units at a time */
        const int list_end = at + LIST_UNITS < stop ? at + LIST_UNITS : stop, per_unit = kv->sub_block_tokens / TILE_TOKENS;
        if (kept) {
            list_units(walk, OCTAVO_UNIT_KEPT, at, list_end);
            share = { at * per_unit, list_end * per_unit, 0, 0 };
        }
        attend_share<DIM, KEY, VALUE, COLS>(c, k, share, &shared, at, rows, ring, of, [&]() { /* while the first copies are on their way */
            if (listed) return;
            queries();
            if (means < means_end) list_units(walk, OCTAVO_UNIT_DROPPED, means, means + LIST_UNITS < means_end ? means + LIST_UNITS : means_end);
            listed = true;
        });
        at = list_end;
    } while (at < stop);
    __syncwarp();

    /* 3: the ring is free; results go behind what the mean rows need */
    constexpr int MEANS = TILE_TOKENS * DIM; /* of one tile */
    warp_result<DIM, COLS> *result = (warp_result<DIM, COLS> *)(mine + MEANS), *results = (warp_result<DIM, COLS> *)(memory + MEANS);
    put_result<DIM, VALUE, COLS>(of, result, true);
    if (c.p.part_kept) {
        __syncthreads();
        put_logs<DIM, COLS, stage::WARPS>(c, k, results, c.ring_bytes, c.p.part_kept);
        __syncthreads();
    }
    if (means < means_end) {
#pragma unroll 1
        for (at = means; at < means_end; at += LIST_UNITS) { /* the first list is there */
            stop = at + LIST_UNITS < means_end ? at + LIST_UNITS : means_end;
            if (at > means) list_units(walk, OCTAVO_UNIT_DROPPED, at, stop);
            attend_dropped<DIM, COLS>(c, k, stop - at, shared.means, ring, of);
        }
        put_result<DIM, VALUE_E4M3, COLS>(of, result, false);
    }
    __syncthreads();
    __shared__ __align__(16) float weights[stage::WARPS][8 * COLS];
    merge_warps<DIM, COLS, stage::WARPS>(c, k, results, c.ring_bytes, weights);
}

#endif
