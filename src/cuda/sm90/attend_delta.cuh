/* attend_delta.cuh - delta in one pass: a warp scores a unit by K's base and, while the unit's successor arrives, asks for the rest of K and
 * for V where it is kept, or adds up its mass where it is dropped; merged as dense streams are.
 *
 * Units are 64 tokens. A warp has two slots for bases, one for what a kept unit needs, which it multiplies when it meets the next kept
 * one, and room for the mean rows of 16 dropped units, which are multiplied together. */
#ifndef OCTAVO_CUDA_SM90_ATTEND_DELTA_CUH
#define OCTAVO_CUDA_SM90_ATTEND_DELTA_CUH

#include "cuda/sm90/attend_stream.cuh"

enum { DELTA_WARPS = 6, DELTA_THREADS = 32 * DELTA_WARPS, DELTA_SLOTS = 2 * DELTA_WARPS, UNIT_TOKENS = 64, UNIT_TILES = UNIT_TOKENS / TILE_TOKENS };
enum { DELTA_DIM = 128, UNIT_BYTES = UNIT_TOKENS * DELTA_DIM, SIDE_BYTES = 256, SIDE_HALF = 128, THRESHOLD_UNITS = 4 };
enum { RING_BYTES = DELTA_SLOTS * UNIT_BYTES, KEPT_BYTES = 2 * UNIT_BYTES, MEANS_BYTES = TILE_TOKENS * DELTA_DIM };
enum { DELTA_BYTES = RING_BYTES + DELTA_WARPS * (KEPT_BYTES + MEANS_BYTES) };

struct delta_call {
    stream_call of; /* its maps: K's base, V; boxes of a unit */
    CUtensorMap more;
    octavo_section v_mean, v_mean_scale; /* of units */
    const float *thresholds;             /* [batch, q_heads] or NULL */
    uint8_t *kept;                       /* [batch, kv_heads, units] */
    float delta;                         /* in units of ln 2 */
    float residual;                      /* a code of K's second plane in codes of its first */
    int units, unit_shift;               /* of a block       */
    int keep_first_blocks, keep_last_blocks;
    bool compensate;
};

/* What a warp has beside the ring. */
struct delta_warp {
    uint32_t kept, kept_side, kept_full, means;
    float *masses; /* [16, 8] of dropped units, in units of ln 2 */
    int *exponents; /* [16] p of their mean rows */
    int parity, dropped, pending; /* of the kept slot; units in `means`; the unit in the kept slot or -1 */
};

/* The unit's place. */
struct unit_place {
    int token, at, block, page, row;
    bool there; /* all of its tokens */
};

static __device__ __forceinline__ unit_place place_of(const delta_call &d, const stream_block &k, int unit)
{
    const int token = unit * UNIT_TOKENS, block = unit >> d.unit_shift, in_block = token & ((1 << d.of.shift) - 1);
    return { token, k.table ? in_block : token, block, k.table ? k.table[block] : block, k.row * d.of.row_step, token + UNIT_TOKENS <= k.length };
}

/* Scales of a unit's tokens: by the copy engine, or by all lanes where there may be no memory behind the last of them. */
template <int WIDTH>
static __device__ __forceinline__ uint32_t unit_scale_bytes(const octavo_section *section, const unit_place &at)
{
    return section->data && at.there ? UNIT_TOKENS * WIDTH : 0;
}

template <int WIDTH>
static __device__ __forceinline__ void ask_for_scales(const delta_call &d, const stream_block &k, const octavo_section *section, const unit_place &at,
                                                      uint32_t to, uint32_t barrier)
{
    if (!section->data) return;
    const uint8_t *from = scales_of(section, k, at.page) + (at.token & ((1 << d.of.shift) - 1)) * WIDTH;
    const int lane = threadIdx.x % 32;
    if (at.there) {
        if (lane == 0) copy_bytes(to, from, UNIT_TOKENS * WIDTH, barrier);
        return;
    }
#pragma unroll
    for (int i = lane; i < UNIT_TOKENS; i += 32) {
        const bool there = at.token + i < k.length;
        if (WIDTH == 1) store_shared_u8(to + i, there ? from[i] : 0);
        else store_shared_u16(to + 2 * i, there ? ((const uint16_t *)from)[i] : 0);
    }
}

/* A unit's base, with its mean row where it may be dropped; gives p of that row. */
template <int BASE>
static __device__ __forceinline__ int ask_for_base(const delta_call &d, const stream_block &k, int unit, bool with_mean, uint32_t to, uint32_t side,
                                                   uint32_t barrier)
{
    const unit_place at = place_of(d, k, unit);
    const stored_token mean = { k.row, k.table ? at.page : at.block, k.head, unit & ((1 << d.unit_shift) - 1) };
    const bool means = with_mean && d.compensate && at.there;
    if (threadIdx.x % 32 == 0) {
        mbarrier_report_and_expect(barrier, UNIT_BYTES + unit_scale_bytes<key_width(BASE)>(&d.of.k_scale, at) + (means ? DELTA_DIM : 0));
        copy_box_5(to, &d.of.k, barrier, 0, at.at, k.head, k.table ? at.page : 0, at.row);
        if (means) copy_bytes(side + SIDE_HALF, stored_at(&d.v_mean, mean), DELTA_DIM, barrier);
    }
    ask_for_scales<key_width(BASE)>(d, k, &d.of.k_scale, at, side, barrier);
    return means ? (int)(int8_t)*stored_at(&d.v_mean_scale, mean) : 0;
}

/* What a kept unit needs beside its base. */
template <int BASE, int VALUE>
static __device__ __forceinline__ void ask_for_rest(const delta_call &d, const stream_block &k, int unit, const delta_warp &w)
{
    const unit_place at = place_of(d, k, unit);
    if (threadIdx.x % 32 == 0) {
        mbarrier_report_and_expect(w.kept_full, KEPT_BYTES + unit_scale_bytes<key_width(BASE)>(&d.of.k_scale, at) +
                                                    unit_scale_bytes<value_width(VALUE)>(&d.of.v_scale, at));
        copy_box_5(w.kept, &d.more, w.kept_full, 0, at.at, k.head, k.table ? at.page : 0, at.row);
        copy_box_5(w.kept + UNIT_BYTES, &d.of.v, w.kept_full, 0, at.at, k.head, k.table ? at.page : 0, at.row);
    }
    ask_for_scales<key_width(BASE)>(d, k, &d.of.k_scale, at, w.kept_side, w.kept_full);
    ask_for_scales<value_width(VALUE)>(d, k, &d.of.v_scale, at, w.kept_side + SIDE_HALF, w.kept_full);
}

/* x [.] = sums of a plane in units of ln 2. */
template <int BASE>
static __device__ __forceinline__ void unit_scores(const stream_queries<DELTA_DIM, BASE> &q, uint32_t plane, uint32_t side, float factor, float (&x)[UNIT_TILES][4])
{
    const int g = threadIdx.x % 32 / 4;
    stream_scores<DELTA_DIM, BASE, UNIT_TILES>(x, q.q, plane);
#pragma unroll
    for (int j = 0; j < UNIT_TILES; j++) {
        const uint32_t scales = side + j * TILE_TOKENS * key_width(BASE);
        const float low = factor * tile_factor<key_width(BASE)>(scales, g), high = factor * tile_factor<key_width(BASE)>(scales, g + 8);
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] *= (i < 2 ? low : high) * q.scale[i % 2];
    }
}

static __device__ __forceinline__ void hide_unseen(int token, const int (&ends)[2], float (&x)[UNIT_TILES][4])
{
    const int g = threadIdx.x % 32 / 4;
#pragma unroll
    for (int i = 0; i < UNIT_TILES * 4; i++)
        if (token + i / 4 * TILE_TOKENS + g + i % 4 / 2 * 8 >= ends[i % 2]) x[i / 4][i % 4] = NOTHING;
}

/* Largest of the unit's scores in the lane's columns. */
static __device__ __forceinline__ float column_max(const float (&x)[UNIT_TILES][4], int i)
{
    float max = NOTHING;
#pragma unroll
    for (int j = 0; j < UNIT_TILES; j++) max = fmaxf(max, fmaxf(x[j][i], x[j][i + 2]));
#pragma unroll
    for (int step = 4; step < 32; step *= 2) max = fmaxf(max, __shfl_xor_sync(WHOLE_WARP, max, step));
    return max;
}

/* The kept unit whose scores by the base are x. */
template <int BASE, int VALUE>
static __device__ __forceinline__ void finish_kept(const delta_call &d, const stream_block &k, const stream_queries<DELTA_DIM, BASE> &q, delta_warp &w,
                                                   const float (&x)[UNIT_TILES][4], stream_state<DELTA_DIM> &of)
{
    constexpr int PAIR = 2, PIECES = DELTA_DIM / PIECE;
    const int g = threadIdx.x % 32 / 4, left = k.length - w.pending * UNIT_TOKENS;
    mbarrier_wait(w.kept_full, (uint32_t)w.parity);
    w.parity ^= 1;
    __syncwarp();
    if (left < UNIT_TOKENS) { /* rows of V that the sequence does not have may hold anything */
        for (int i = threadIdx.x % 32; i < (UNIT_TOKENS - left) * PIECES; i += 32)
            store_shared_16(w.kept + UNIT_BYTES + box_piece<DELTA_DIM>(left + i / PIECES, i % PIECES, UNIT_TOKENS), make_uint4(0, 0, 0, 0));
        __syncwarp();
    }
    float more[UNIT_TILES][4];
    unit_scores<BASE>(q, w.kept, w.kept_side, d.residual, more);
#pragma unroll
    for (int first = 0; first < UNIT_TILES; first += PAIR) {
        float y[PAIR][4];
        value_factors<VALUE> factors[PAIR];
#pragma unroll
        for (int j = 0; j < PAIR; j++) {
            factors[j] = value_factors_of<VALUE>(w.kept_side + SIDE_HALF + (first + j) * TILE_TOKENS * value_width(VALUE), g);
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const float base = x[first + j][i];
                y[j][i] = base == NOTHING ? NOTHING : base + more[first + j][i] + factors[j].exponent[i / 2];
            }
        }
        weigh_stage<DELTA_DIM, VALUE, PAIR>(of, y, factors);
#pragma unroll
        for (int j = 0; j < PAIR; j++)
            stream_outputs<DELTA_DIM, VALUE, UNIT_TILES>(of.out, y[j], w.kept + UNIT_BYTES + (first + j) * tile_stride<DELTA_DIM>());
    }
    w.pending = -1;
    __syncwarp();
}

/* The mean rows that are there, each with its unit's mass. */
static __device__ __forceinline__ void finish_dropped(delta_warp &w, stream_state<DELTA_DIM> &of)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    float y[1][4];
    value_factors<VALUE_E4M3> factors[1];
    __syncwarp();
    factors[0].plain = true;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int p = g + 8 * i < w.dropped ? w.exponents[g + 8 * i] : 0, held = held_exponent(-p);
        factors[0].exponent[i] = (float)held, factors[0].inverse[i] = __int_as_float((127 - held) << 23);
        factors[0].mantissa[i] = __int_as_float((127 - p - held) << 23), factors[0].plain &= held == -p;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int unit = g + i / 2 * 8;
        y[0][i] = unit < w.dropped ? w.masses[unit * STREAM_ROWS + 2 * t + i % 2] + factors[0].exponent[i / 2] : NOTHING;
    }
    weigh_stage<DELTA_DIM, VALUE_E4M3, 1>(of, y, factors);
    stream_outputs<DELTA_DIM, VALUE_E4M3, 1>(of.out, y[0], w.means);
    w.dropped = 0;
    __syncwarp();
}

/* A dropped unit joins the others: its mass, and its mean row from `side`. */
static __device__ __forceinline__ void drop_unit(delta_warp &w, const float (&x)[UNIT_TILES][4], uint32_t side, int exponent)
{
    const int lane = threadIdx.x % 32, t = lane % 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float max = column_max(x, i);
        float sum = 0.0f;
#pragma unroll
        for (int j = 0; j < UNIT_TILES; j++) sum += exp2_fast(x[j][i] - max) + exp2_fast(x[j][i + 2] - max);
#pragma unroll
        for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
        if (lane < 4) w.masses[w.dropped * STREAM_ROWS + 2 * t + i] = max + log2_fast(sum);
    }
    if (lane < DELTA_DIM / PIECE) {
        uint4 row;
        asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];" : "=r"(row.x), "=r"(row.y), "=r"(row.z), "=r"(row.w) : "r"(side + SIDE_HALF + PIECE * lane) : "memory");
        store_shared_16(w.means + PIECE * tile_piece<DELTA_DIM / PIECE>(w.dropped, lane), row);
    }
    if (lane == 0) w.exponents[w.dropped] = exponent;
    w.dropped++;
}

/* The largest score of each column in the first block and in the newest, a warp a unit. */
template <int BASE>
static __device__ __forceinline__ void find_thresholds(const delta_call &d, const stream_block &k, const stream_queries<DELTA_DIM, BASE> &q,
                                                       const int (&ends)[2], delta_warp &w, float (*found)[STREAM_ROWS])
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, per_block = 1 << d.unit_shift;
    const int newest = k.length > 0 ? ((k.length - 1) / UNIT_TOKENS) >> d.unit_shift : 0;
    if (warp < THRESHOLD_UNITS) {
        const int unit = warp < per_block ? warp : newest * per_block + warp - per_block;
        float x[UNIT_TILES][4];
        const bool there = warp < 2 * per_block && unit * UNIT_TOKENS < k.length;
        if (there) {
            ask_for_base<BASE>(d, k, unit, false, w.kept, w.kept_side, w.kept_full);
            mbarrier_wait(w.kept_full, 0);
            w.parity = 1;
            __syncwarp();
            unit_scores<BASE>(q, w.kept, w.kept_side, 1.0f, x);
            hide_unseen(unit * UNIT_TOKENS, ends, x);
        }
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float max = there ? column_max(x, i) : NOTHING;
            if (lane < 4) found[warp][2 * lane + i] = max;
        }
    }
    __syncthreads();
}

/* Grid (splits, kv heads, batch); shared memory: DELTA_BYTES. */
template <int BASE, int VALUE>
static __global__ void __launch_bounds__(DELTA_THREADS, 1) attend_delta(const __grid_constant__ delta_call d)
{
    extern __shared__ __align__(1024) uint8_t memory[];
    __shared__ __align__(128) uint8_t sides[DELTA_SLOTS + DELTA_WARPS][SIDE_BYTES];
    __shared__ float masses[DELTA_WARPS][TILE_TOKENS * STREAM_ROWS], found[THRESHOLD_UNITS][STREAM_ROWS];
    __shared__ int exponents[DELTA_WARPS][TILE_TOKENS];
    __shared__ __align__(8) uint64_t barriers[DELTA_SLOTS + DELTA_WARPS];
    const stream_call &c = d.of;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, t = lane % 4, shared = (int)shared_address(memory);
    stream_block k = { (int)blockIdx.z, (int)blockIdx.y, 0, 0, c.page_table, (uint32_t)shared, shared_address(sides), shared_address(barriers) };
    delta_warp w = { (uint32_t)(shared + RING_BYTES + warp * KEPT_BYTES), k.scales + (DELTA_SLOTS + warp) * SIDE_BYTES, k.full + 8 * (DELTA_SLOTS + warp),
                     (uint32_t)(shared + RING_BYTES + DELTA_WARPS * KEPT_BYTES + warp * MEANS_BYTES), masses[warp], exponents[warp], 0, 0, -1 };

    /* 1: what no kernel before this one decides */
    if (threadIdx.x == 0) prefetch_map(&c.k), prefetch_map(&c.v), prefetch_map(&d.more);
    if (threadIdx.x < DELTA_SLOTS + DELTA_WARPS) mbarrier_init(k.full + 8 * threadIdx.x, 1), mbarrier_init_done();
    for (int i = threadIdx.x; i < (int)sizeof sides / 4; i += DELTA_THREADS) ((uint32_t *)sides)[i] = 0; /* exponents of 0 where there are none */
    for (int i = lane; i < MEANS_BYTES / PIECE; i += 32) store_shared_16(w.means + PIECE * i, make_uint4(0, 0, 0, 0));
    fence_for_engines();
    hint_of_queries<DELTA_DIM>(c, k);
    wait_for_kernel_before();

    /* 2: the first bases, the queries, the thresholds */
    k.row = c.sequences ? c.sequences[k.b] : k.b;
    if (k.table) k.table += k.row * c.page_table_stride;
    begin_arrivals(c, k);
    uint32_t asked[DELTA_DIM / 16][2];
    ask_for_row<DELTA_DIM, BASE>(c, k, asked);
    k.length = clamped_length(c, c.lengths[k.row]);
    const int units = (k.length + UNIT_TOKENS - 1) / UNIT_TOKENS, stride = c.splits * DELTA_WARPS, first = blockIdx.x * DELTA_WARPS + warp;
    __syncthreads(); /* the barriers are there */
    int mean = 0, next_mean = 0; /* p of the mean rows in the two slots */
    if (first < units) mean = ask_for_base<BASE>(d, k, first, true, k.ring + warp * UNIT_BYTES, k.scales + warp * SIDE_BYTES, k.full + 8 * warp);
    if (first + stride < units)
        next_mean = ask_for_base<BASE>(d, k, first + stride, true, k.ring + (warp + DELTA_WARPS) * UNIT_BYTES,
                                       k.scales + (warp + DELTA_WARPS) * SIDE_BYTES, k.full + 8 * (warp + DELTA_WARPS));
    uint8_t *kept = d.kept + (int64_t)(k.b * gridDim.y + k.head) * d.units;
    for (int unit = units + blockIdx.x * DELTA_THREADS + threadIdx.x; unit < d.units; unit += c.splits * DELTA_THREADS) kept[unit] = OCTAVO_UNIT_UNSEEN;
    stream_queries<DELTA_DIM, BASE> queries;
    take_row<DELTA_DIM, BASE>(c, asked, queries);
    int ends[2];
    float least[2]; /* from here on a unit is kept */
#pragma unroll
    for (int i = 0; i < 2; i++) ends[i] = 2 * t + i < c.rows ? k.length - c.q_tokens + 1 + (2 * t + i) % c.q_tokens : 0;
    if (!d.thresholds) find_thresholds<BASE>(d, k, queries, ends, w, found);
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int r = 2 * t + i;
        least[i] = -NOTHING;
        if (r >= c.rows) continue;
        if (d.thresholds) least[i] = d.thresholds[(k.b * gridDim.y + k.head) * c.group + r / c.q_tokens] * LOG2_E - d.delta;
        else least[i] = fmaxf(fmaxf(found[0][r], found[1][r]), fmaxf(found[2][r], found[3][r])) - d.delta;
    }
    const int all_see_to = k.length - c.q_tokens + 1, newest = k.length > 0 ? ((k.length - 1) / UNIT_TOKENS) >> d.unit_shift : 0;
    const int last = newest - d.keep_last_blocks + 1, held_from = last < newest ? last : newest;
    stream_state<DELTA_DIM> of;
    begin_state(of);

    /* 3: the units */
    float x[UNIT_TILES][4], kept_x[UNIT_TILES][4];
    int slot = warp, parity = 0;
#pragma unroll 1
    for (int unit = first; unit < units; unit += stride) {
        const uint32_t at = k.ring + slot * UNIT_BYTES, side = k.scales + slot * SIDE_BYTES;
        mbarrier_wait(k.full + 8 * slot, parity);
        __syncwarp();
        unit_scores<BASE>(queries, at, side, 1.0f, x);
        const bool whole = (unit + 1) * UNIT_TOKENS <= all_see_to;
        const int block = unit >> d.unit_shift;
        bool keep = !whole || block < d.keep_first_blocks || block >= held_from;
        if (!whole) hide_unseen(unit * UNIT_TOKENS, ends, x);
#pragma unroll
        for (int i = 0; i < UNIT_TILES * 4; i++) keep |= x[i / 4][i % 4] >= least[i % 2];
        keep = __any_sync(WHOLE_WARP, keep);
        if (lane == 0) kept[unit] = keep ? OCTAVO_UNIT_KEPT : OCTAVO_UNIT_DROPPED;
        if (keep) {
            if (w.pending >= 0) finish_kept<BASE, VALUE>(d, k, queries, w, kept_x, of);
            ask_for_rest<BASE, VALUE>(d, k, unit, w);
            w.pending = unit;
#pragma unroll
            for (int i = 0; i < UNIT_TILES * 4; i++) kept_x[i / 4][i % 4] = x[i / 4][i % 4];
        } else if (d.compensate) {
            drop_unit(w, x, side, mean);
            if (w.dropped == TILE_TOKENS) finish_dropped(w, of);
        }
        __syncwarp();
        const int next = unit + 2 * stride;
        mean = next_mean;
        if (next < units) next_mean = ask_for_base<BASE>(d, k, next, true, at, side, k.full + 8 * slot);
        slot = slot < DELTA_WARPS ? slot + DELTA_WARPS : slot - DELTA_WARPS, parity ^= slot < DELTA_WARPS;
    }
    if (w.pending >= 0) finish_kept<BASE, VALUE>(d, k, queries, w, kept_x, of);
    if (w.dropped > 0) finish_dropped(w, of);
    next_kernel_may_start();

    /* 4: results */
    put_results<DELTA_DIM, VALUE>(c, k, of, *(stream_results<DELTA_DIM> *)memory);
}

#endif
