/* attend_stream.cuh - decode over everything that up to eight rows of a kv head see: a stream of boxes that the copy engine brings, and
 * the merge of all blocks' results by the last of them.
 *
 * A block is a split, one a multiprocessor at a time: with a second one, or more in flight, some get far more of the memory's speed than
 * others and all wait for the last. A warp has two slots of the ring and asks for the next stage when it has multiplied one. Steps of a
 * short sequence go around all warps of all splits, so that what is read at a time lies close together. A long one is cut into early
 * splits, with which all multiprocessors begin, and short late ones for whoever is done first. */
#ifndef OCTAVO_CUDA_SM90_ATTEND_STREAM_CUH
#define OCTAVO_CUDA_SM90_ATTEND_STREAM_CUH

#include "cuda/ptx/ptx_box.cuh"
#include "cuda/sm90/stream_stage.cuh"
#include "cuda/sm90/stream_state.cuh"
#include "cuda/tile/reduce.cuh"
#include "cuda/tile/tile_query.cuh"

enum { STREAM_ROWS = 8, SPLITS_MOST = 256, SPLITS_AT_ONCE = 16 };
enum { EARLY_SHARE = 27, ALL_SHARES = 32, EARLY_BYTES = 3 << 20 /* that an early split reads of a long sequence, at least */ };

/* A word of a kv head that may hold anything at first: COUNTS_TAG, from DONE_SHIFT on how many blocks are done, below that how many
 * units have been taken. The last block leaves the tag alone. */
typedef unsigned long long stream_count;
enum { DONE_SHIFT = 24, TAG_SHIFT = 40 };
static constexpr stream_count COUNTS_TAG = 0xffe9c3; /* of a float that is no number */

struct stream_call {
    CUtensorMap k, v;
    octavo_section k_scale, v_scale;
    const int32_t *lengths, *sequences, *page_table; /* page_table NULL: a sequence's rows lie one behind the other */
    int64_t page_table_stride;
    int max_tokens, shift; /* of block_tokens */
    int rows, q_tokens, group, kv_heads;
    int splits, early, late_from; /* sequences of fewer steps than late_from have the early splits alone */
    int row_step; /* the maps' last axis is the view's row: 1, or there is one for all: 0 */
    const uint16_t *q; /* bf16 or f16 */
    bool q_is_bf16, rounds_q; /* rounds_q: to E4M3, over codes of 8 bits */
    int64_t q_stride[3]; /* of a sequence, token, head: elements */
    float scale;         /* softmax_scale * log2(e) */
    const float *v_channel_scale;
    float *part_out; /* [batch, kv_heads, splits, rows, DIM] */
    float *part_lse; /* [batch, kv_heads, splits, rows] in units of ln 2 */
    stream_count *counts; /* [batch, kv_heads] */
    octavo_tensor out;
    float *lse; /* [batch, kv_heads, rows] or NULL */
};

/* What the ring's memory holds once every stage is read. */
template <int DIM> struct stream_results {
    float out[STREAM_WARPS][STREAM_ROWS][DIM + 4];
    float base[STREAM_WARPS][STREAM_ROWS], sum[STREAM_WARPS][STREAM_ROWS];
    float weight[STREAM_ROWS][SPLITS_MOST];
    int is_last;
};

/* A block's place in the call. */
struct stream_block {
    int b, head, split, row, length;
    const int32_t *table; /* NULL: there is none */
    uint32_t ring, scales, full;
};

static __device__ __forceinline__ int clamped_length(const stream_call &c, int length)
{
    return length < 0 ? 0 : length < c.max_tokens ? length : c.max_tokens;
}

static __device__ __forceinline__ const uint8_t *scales_of(const octavo_section *section, const stream_block &k, int block)
{
    return (const uint8_t *)section->data + k.row * section->sequence_bytes + k.head * section->head_bytes + block * section->page_bytes;
}

/* Lane 0 asks for a step's boxes and scales. Scales of the last tokens, behind which there may be no memory, are stored by all. */
template <int DIM, int KEY, int VALUE>
static __device__ __forceinline__ void ask_for_step(const stream_call &c, const stream_block &k, int step, int page, int slot)
{
    typedef stream_stage<DIM, KEY, VALUE> stage;
    const int token = step * stage::TOKENS, in_block = token & ((1 << c.shift) - 1), at = k.table ? in_block : token, lane = threadIdx.x % 32;
    const uint32_t to = k.ring + slot * stage::BYTES, barrier = k.full + 8 * slot, side = k.scales + slot * stage::SCALES;
    const int block = k.table ? page : token >> c.shift, row = k.row * c.row_step;
    const bool whole = token + stage::TOKENS <= k.length, k_scales = stage::K_SCALES && c.k_scale.data, v_scales = stage::V_SCALES && c.v_scale.data;
    const uint8_t *ks = k_scales ? scales_of(&c.k_scale, k, block) + in_block * key_width(KEY) : nullptr;
    const uint8_t *vs = v_scales ? scales_of(&c.v_scale, k, block) + in_block * value_width(VALUE) : nullptr;
    if (lane == 0) {
        constexpr int K_BOX = stage::K_ROW < BOX_BYTES ? stage::K_ROW : BOX_BYTES, V_BOX = stage::V_ROW < BOX_BYTES ? stage::V_ROW : BOX_BYTES;
        mbarrier_report_and_expect(barrier, stage::BYTES + (whole && k_scales ? stage::K_SCALES : 0) + (whole && v_scales ? stage::V_SCALES : 0));
#pragma unroll
        for (int i = 0; i < stage::K_ROW / K_BOX; i++)
            copy_box_5(to + i * stage::TOKENS * K_BOX, &c.k, barrier, i * K_BOX, at, k.head, page, row);
#pragma unroll
        for (int i = 0; i < stage::V_ROW / V_BOX; i++)
            copy_box_5(to + stage::V_AT + i * stage::TOKENS * V_BOX, &c.v, barrier, i * V_BOX, at, k.head, page, row);
        if (whole && k_scales) copy_bytes(side, ks, stage::K_SCALES, barrier);
        if (whole && v_scales) copy_bytes(side + stage::V_SCALES_AT, vs, stage::V_SCALES, barrier);
    }
    if (whole || lane >= stage::TOKENS) return;
    const bool there = token + lane < k.length;
    if (k_scales && key_width(KEY) == 1) store_shared_u8(side + lane, there ? ks[lane] : 0);
    if (k_scales && key_width(KEY) == 2) store_shared_u16(side + 2 * lane, there ? ((const uint16_t *)ks)[lane] : 0);
    if (v_scales && value_width(VALUE) == 1) store_shared_u8(side + stage::V_SCALES_AT + lane, there ? vs[lane] : 0);
    if (v_scales && value_width(VALUE) == 2) store_shared_u16(side + stage::V_SCALES_AT + 2 * lane, there ? ((const uint16_t *)vs)[lane] : 0);
}

/* The rows of V that the sequence does not have may hold anything: zeros instead. */
template <int ROW, int TOKENS> static __device__ __forceinline__ void clear_rows(uint32_t values, int from)
{
    constexpr int PIECES = ROW / PIECE;
    for (int i = threadIdx.x % 32; i < (TOKENS - from) * PIECES; i += 32)
        store_shared_16(values + box_piece<ROW>(from + i / PIECES, i % PIECES, TOKENS), make_uint4(0, 0, 0, 0));
    __syncwarp();
}

/* Out of the way of the stream's loop. */
template <int DIM, int KEY, int VALUE> static __device__ __noinline__ void clear_values(uint32_t values, int from)
{
    typedef stream_stage<DIM, KEY, VALUE> stage;
    clear_rows<stage::V_ROW, stage::TOKENS>(values, from);
}

/* Sums become scores plus e of V's factors, which are read, too. The tiles' scales lie at `side`, V's `values_at` bytes behind K's. */
template <int KEY, int VALUE, int TILES>
static __device__ __forceinline__ void scale_stage(float (&x)[TILES][4], value_factors<VALUE> (&factors)[TILES], uint32_t side, uint32_t values_at, int g,
                                                   const float (&q_scale)[2])
{
#pragma unroll
    for (int j = 0; j < TILES; j++) {
        const uint32_t ks = side + j * TILE_TOKENS * key_width(KEY), vs = side + values_at + j * TILE_TOKENS * value_width(VALUE);
        const float key[2] = { tile_factor<key_width(KEY)>(ks, g), tile_factor<key_width(KEY)>(ks, g + 8) };
        factors[j] = value_factors_of<VALUE>(vs, g);
#pragma unroll
        for (int i = 0; i < 4; i++) x[j][i] = fmaf(x[j][i], key[i / 2] * q_scale[i % 2], factors[j].exponent[i / 2]);
    }
}

/* Where what columns 2t and 2t + 1 see ends. */
static __device__ __forceinline__ void column_ends(const stream_call &c, const stream_block &k, int t, int (&ends)[2])
{
#pragma unroll
    for (int i = 0; i < 2; i++) ends[i] = 2 * t + i < c.rows ? k.length - c.q_tokens + 1 + (2 * t + i) % c.q_tokens : 0;
}

/* A row of queries as operands, lifted in f16; what sums of products are multiplied by, for columns 2t and 2t + 1. */
template <int DIM, int KEY> struct stream_queries {
    uint32_t q[DIM / 16][2];
    float scale[2];
};

template <int DIM, int KEY>
static __device__ __forceinline__ void ask_for_row(const stream_call &c, const stream_block &k, uint32_t (&asked)[DIM / 16][2])
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, of_head = c.q_tokens == 1 ? g : g / c.q_tokens;
    const uint16_t *from = c.q + k.b * c.q_stride[0] + (g - of_head * c.q_tokens) * c.q_stride[1] + (k.head * c.group + of_head) * c.q_stride[2];
#pragma unroll
    for (int s = 0; s < DIM / 16; s++)
#pragma unroll
        for (int i = 0; i < 2; i++) asked[s][i] = g < c.rows ? *(const uint32_t *)(from + query_element<KEY>(s, i, t)) : 0;
}

/* A hint that a block's queries will be wanted. */
template <int DIM> static __device__ __forceinline__ void hint_of_queries(const stream_call &c, const stream_block &k)
{
    const int g = threadIdx.x / 4, t = threadIdx.x % 4, of_head = c.q_tokens == 1 ? g : g / c.q_tokens;
    if (g >= c.rows || t * 64 >= DIM) return;
    prefetch_line(c.q + k.b * c.q_stride[0] + (g - of_head * c.q_tokens) * c.q_stride[1] + (k.head * c.group + of_head) * c.q_stride[2] + 64 * t);
}

/* Exponent that lifts the largest element to [2^13, 2^14), as far as 2^lift is a float. */
static __device__ __forceinline__ int stream_lift(float amax)
{
    const int exponent = (int)(__float_as_uint(amax) >> 23) - 127, lift = 13 - exponent;
    return amax == 0.0f ? 0 : lift > 126 ? 126 : lift;
}

template <int DIM, int KEY>
static __device__ __forceinline__ void take_row(const stream_call &c, const uint32_t (&asked)[DIM / 16][2], stream_queries<DIM, KEY> &of)
{
    const int t = threadIdx.x % 4;
    if constexpr (KEY == KEY_BF16) {
#pragma unroll
        for (int i = 0; i < DIM / 8; i++) of.q[i / 2][i % 2] = asked[i / 2][i % 2];
        of.scale[0] = of.scale[1] = c.scale;
    } else {
        float x[DIM / 4], amax = 0.0f;
#pragma unroll
        for (int i = 0; i < DIM / 4; i++) {
            const uint32_t pair = asked[i / 4][i / 2 % 2];
            x[i] = i % 2 == 0 ? (c.q_is_bf16 ? bf16_low(pair) : f16_low(pair)) : c.q_is_bf16 ? bf16_high(pair) : f16_high(pair);
            amax = fmaxf(amax, fabsf(x[i]));
        }
        amax = fmaxf(amax, __shfl_xor_sync(WHOLE_WARP, amax, 1));
        amax = fmaxf(amax, __shfl_xor_sync(WHOLE_WARP, amax, 2));
        if (c.rounds_q) {
            const int32_t p = octavo_row_exponent(amax);
            const float up = octavo_power_of_two(p), down = octavo_power_of_two(-p);
#pragma unroll
            for (int i = 0; i < DIM / 4; i += 4) {
                uint32_t low, high;
                e4m3_to_f16(pack_e4m3(x[i] * up, x[i + 1] * up, x[i + 2] * up, x[i + 3] * up), &low, &high);
                x[i] = f16_low(low) * down, x[i + 1] = f16_high(low) * down, x[i + 2] = f16_low(high) * down, x[i + 3] = f16_high(high) * down;
            }
            amax = octavo_e4m3_of_row(amax, p);
        }
        const int lift = stream_lift(amax);
        const float up = __int_as_float((127 + lift) << 23), down = __int_as_float((127 - lift) << 23);
#pragma unroll
        for (int i = 0; i < DIM / 8; i++) of.q[i / 2][i % 2] = pack_f16(x[2 * i] * up, x[2 * i + 1] * up);
#pragma unroll
        for (int i = 0; i < 2; i++) of.scale[i] = c.scale * __shfl_sync(WHOLE_WARP, down, 4 * (2 * t + i));
    }
}

/* ---- results ---- */

/* Elements d and d + 1 of a row of the output. */
template <int DIM>
static __device__ __forceinline__ void put_output(const stream_call &c, int b, int head, int r, int d, float2 o, float base, float sum)
{
    const float inverse = base == UNSET ? 0.0f : 1.0f / sum;
    const int of_head = c.q_tokens == 1 ? r : r / c.q_tokens;
    const int64_t to = b * c.out.strides[0] + (r - of_head * c.q_tokens) * c.out.strides[1] + (head * c.group + of_head) * c.out.strides[2];
    float2 factor = make_float2(inverse, inverse);
    if (c.v_channel_scale) factor.x *= c.v_channel_scale[head * DIM + d], factor.y *= c.v_channel_scale[head * DIM + d + 1];
    store_float(&c.out, to + d * c.out.strides[3], o.x * factor.x), store_float(&c.out, to + (d + 1) * c.out.strides[3], o.y * factor.y);
    if (d == 0 && c.lse) c.lse[(int64_t)(b * c.kv_heads + head) * c.rows + r] = base == UNSET ? NOTHING : (base + log2f(sum)) * LN_2;
}

/* The warps' states, relative to their own bases. */
template <int DIM, int VALUE>
static __device__ __forceinline__ void put_state(const stream_call &c, const stream_state<DIM> &of, stream_results<DIM> &all)
{
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int column = 2 * t + i;
        float sum = of.sum[i];
#pragma unroll
        for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
        if (g == 0) all.base[warp][column] = of.base[i], all.sum[warp][column] = sum;
        if (column >= c.rows) continue;
#pragma unroll
        for (int m = 0; m < DIM / 16; m++)
            if (value_is_half(VALUE)) all.out[warp][column][16 * m + g] = of.out[m][i], all.out[warp][column][16 * m + 8 + g] = of.out[m][i + 2];
            else *(float2 *)&all.out[warp][column][16 * m + 2 * g] = make_float2(of.out[m][i], of.out[m][i + 2]);
    }
}

/* Elements d and d + 1 of a row over the block's warps. */
template <int DIM>
static __device__ __forceinline__ float2 add_warps(const stream_results<DIM> &all, int r, int d, float *base, float *sum)
{
    float2 o = make_float2(0.0f, 0.0f);
    *base = UNSET, *sum = 0.0f;
#pragma unroll
    for (int w = 0; w < STREAM_WARPS; w++) *base = fmaxf(*base, all.base[w][r]);
#pragma unroll
    for (int w = 0; w < STREAM_WARPS; w++) {
        const float weight = exp2_fast(all.base[w][r] - *base);
        const float2 x = *(const float2 *)&all.out[w][r][d];
        o.x = fmaf(x.x, weight, o.x), o.y = fmaf(x.y, weight, o.y), *sum = fmaf(all.sum[w][r], weight, *sum);
    }
    return o;
}

/* What the word held before `one` was added, given what it held when that was tried. Nobody who finds it without its tag adds to it
 * before it has one. */
static __device__ __forceinline__ stream_count counted(stream_count *word, stream_count before, stream_count one)
{
    if (before >> TAG_SHIFT == COUNTS_TAG) return before;
    for (;;) {
        const stream_count seen = *(volatile stream_count *)word;
        if (seen >> TAG_SHIFT == COUNTS_TAG) return atomicAdd(word, one);
        atomicCAS(word, seen, COUNTS_TAG << TAG_SHIFT);
    }
}

/* Whether the kv head's other splits are done; counts this one in. */
static __device__ __forceinline__ bool is_last_block(const stream_call &c, int group, int splits)
{
    const stream_count one = (stream_count)1 << DONE_SHIFT;
    stream_count before = add_for_device(c.counts + group, one);
    if (before >> TAG_SHIFT != COUNTS_TAG) before = counted(c.counts + group, before, one), fence_for_device();
    if ((int)(before >> DONE_SHIFT & 0xffffu) != splits - 1) return false;
    c.counts[group] = COUNTS_TAG << TAG_SHIFT; /* nobody waits for it */
    return true;
}

/* Adds up what the kv head's `splits` blocks left. */
template <int DIM>
static __device__ __forceinline__ void merge_splits(const stream_call &c, const stream_block &k, int group, int splits, stream_results<DIM> &all)
{
    constexpr int PAIRS = DIM / 2;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, items = c.rows * PAIRS;
    const float2 *parts = (const float2 *)c.part_out + (int64_t)group * c.splits * items;
    const float *exponents = c.part_lse + (int64_t)group * c.splits * c.rows;
    float2 held[SPLITS_AT_ONCE];
    auto ask = [&](int i, int from) {
#pragma unroll
        for (int s = 0; s < SPLITS_AT_ONCE; s++)
            held[s] = from + s < splits && i < items ? __ldcg(parts + (from + s) * items + i) : make_float2(0.0f, 0.0f);
    };
    ask(threadIdx.x, 0);
#pragma unroll 1
    for (int r = warp; r < c.rows; r += STREAM_WARPS) { /* a warp a row: the splits' weights */
        const float first = lane < splits ? __ldcg(exponents + lane * c.rows + r) : NOTHING;
        float base = fmaxf(first, UNSET);
#pragma unroll 1
        for (int s = lane + 32; s < splits; s += 32) base = fmaxf(base, __ldcg(exponents + s * c.rows + r));
        base = warp_reduce(base, take_larger());
        float sum = exp2_fast(first - base);
        if (lane < splits) all.weight[r][lane] = sum;
#pragma unroll 1
        for (int s = lane + 32; s < splits; s += 32) {
            const float weight = exp2_fast(__ldcg(exponents + s * c.rows + r) - base);
            all.weight[r][s] = weight, sum += weight;
        }
        sum = warp_reduce(sum, add_up());
        if (lane == 0) all.base[0][r] = base, all.sum[0][r] = sum;
    }
    __syncthreads();
#pragma unroll 1
    for (int i = threadIdx.x; i < items; i += STREAM_THREADS) {
        const int r = i / PAIRS, d = i % PAIRS * 2;
        float2 o = make_float2(0.0f, 0.0f);
#pragma unroll 1
        for (int from = 0; from < splits; from += SPLITS_AT_ONCE) {
            if (from > 0 || i >= STREAM_THREADS) ask(i, from);
#pragma unroll
            for (int s = 0; s < SPLITS_AT_ONCE; s++) {
                const float weight = from + s < splits ? all.weight[r][from + s] : 0.0f;
                o.x = fmaf(held[s].x, weight, o.x), o.y = fmaf(held[s].y, weight, o.y);
            }
        }
        put_output<DIM>(c, k.b, k.head, r, d, o, all.base[0][r], all.sum[0][r]);
    }
}

/* A block's part of the work, one of `splits` of the kv head's, once its warps have multiplied all that is theirs. */
template <int DIM, int VALUE>
static __device__ __forceinline__ void put_results(const stream_call &c, const stream_block &k, int splits, const stream_state<DIM> &of,
                                                   stream_results<DIM> &all)
{
    constexpr int PAIRS = DIM / 2;
    const int group = k.b * c.kv_heads + k.head;
    __syncthreads();
    put_state<DIM, VALUE>(c, of, all);
    __syncthreads();
#pragma unroll 1
    for (int i = threadIdx.x; i < c.rows * PAIRS; i += STREAM_THREADS) {
        const int r = i / PAIRS, d = i % PAIRS * 2;
        const int64_t part = ((int64_t)group * c.splits + k.split) * c.rows + r;
        float base, sum;
        const float2 o = add_warps<DIM>(all, r, d, &base, &sum);
        if (splits == 1) {
            put_output<DIM>(c, k.b, k.head, r, d, o, base, sum);
            continue;
        }
        const float inverse = base == UNSET ? 0.0f : 1.0f / sum;
        *(float2 *)(c.part_out + part * DIM + d) = make_float2(o.x * inverse, o.y * inverse);
        if (d == 0) c.part_lse[part] = base == UNSET ? NOTHING : base + log2f(sum);
    }
    if (splits == 1) return;
    __syncthreads();
    if (threadIdx.x == 0) all.is_last = is_last_block(c, group, splits);
    __syncthreads();
    if (all.is_last) merge_splits<DIM>(c, k, group, splits, all);
}

/* The block's stages: stage n, of warp n % STREAM_WARPS, is step first + n % STREAM_WARPS + n / STREAM_WARPS * stride, up to `end`. */
struct stream_share {
    int first, stride, end, splits; /* of the sequence that have steps */
};

static __device__ __forceinline__ stream_share share_of(const stream_call &c, const stream_block &k, int steps)
{
    if (steps < c.late_from) return { k.split * STREAM_WARPS, c.early * STREAM_WARPS, steps, c.early };
    const int early = steps * EARLY_SHARE / ALL_SHARES, late = c.splits - c.early;
    auto begin = [&](int split) { return split <= c.early ? part_begin(early, split, c.early) : early + part_begin(steps - early, split - c.early, late); };
    return { begin(k.split), STREAM_WARPS, begin(k.split + 1), c.splits };
}

/* Grid (kv heads, batch, splits); shared memory: the ring. */
template <int DIM, int KEY, int VALUE>
static __global__ void __launch_bounds__(STREAM_THREADS, 1) attend_stream(const __grid_constant__ stream_call c)
{
    typedef stream_stage<DIM, KEY, VALUE> stage;
    constexpr int TILES = stage::TILES, SLOTS = stage::SLOTS;
    extern __shared__ __align__(1024) uint8_t memory[];
    __shared__ __align__(128) uint8_t scales_memory[SLOTS][stage::SCALES];
    __shared__ __align__(8) uint64_t barriers[SLOTS];
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    stream_block k = { (int)blockIdx.y, (int)blockIdx.x, (int)blockIdx.z, 0, 0, c.page_table,
                       shared_address(memory), shared_address(scales_memory), shared_address(barriers) };

    /* 1: what no kernel before this one decides, and hints */
    if (threadIdx.x == 0) prefetch_map(&c.k), prefetch_map(&c.v);
    if (threadIdx.x < SLOTS) mbarrier_init(k.full + 8 * threadIdx.x, 1), mbarrier_init_done();
    if ((stage::K_SCALES && !c.k_scale.data) || (stage::V_SCALES && !c.v_scale.data)) /* exponents of 0 */
        for (int i = threadIdx.x; i < SLOTS * stage::SCALES / 4; i += STREAM_THREADS) ((uint32_t *)scales_memory)[i] = 0;
    const int blocks = (c.max_tokens + (1 << c.shift) - 1) >> c.shift;
    hint_of_queries<DIM>(c, k);
    wait_for_kernel_before();

    /* 2: the first stages and the queries */
    k.row = c.sequences ? c.sequences[k.b] : k.b;
    if (k.table) k.table += k.row * c.page_table_stride;
    auto page_at = [&](int step) {
        const int block = (step * stage::TOKENS) >> c.shift;
        return k.table && block < blocks ? k.table[block] : 0;
    };
    k.length = clamped_length(c, c.lengths[k.row]);
    const stream_share share = share_of(c, k, (k.length + stage::TOKENS - 1) / stage::TOKENS);
    if (k.split >= share.splits) return;
    auto step_of = [&](int n) { return share.first + n % STREAM_WARPS + n / STREAM_WARPS * share.stride; };
    int first_pages[stage::EACH];
#pragma unroll
    for (int i = 0; i < stage::EACH; i++) first_pages[i] = page_at(step_of(warp + i * STREAM_WARPS));
    uint32_t asked[DIM / 16][2];
    ask_for_row<DIM, KEY>(c, k, asked);
    __syncthreads(); /* the barriers are there */
#pragma unroll
    for (int i = 0; i < stage::EACH; i++) {
        const int n = warp + i * STREAM_WARPS;
        if (step_of(n) < share.end) ask_for_step<DIM, KEY, VALUE>(c, k, step_of(n), first_pages[i], n);
    }
    int page = page_at(step_of(warp + SLOTS));
    stream_queries<DIM, KEY> queries;
    take_row<DIM, KEY>(c, asked, queries);
    int ends[2];
    column_ends(c, k, t, ends);
    const int all_see_to = k.length - c.q_tokens + 1;
    stream_state<DIM> of;
    begin_state(of);

    /* 3: the stream */
    int slot = warp, parity = 0;
#pragma unroll 1
    for (int n = warp; step_of(n) < share.end; n += STREAM_WARPS) {
        const int token = step_of(n) * stage::TOKENS;
        const uint32_t at = k.ring + slot * stage::BYTES, side = k.scales + slot * stage::SCALES;
        mbarrier_wait(k.full + 8 * slot, parity);
        if (token + stage::TOKENS > k.length) clear_values<DIM, KEY, VALUE>(at + stage::V_AT, k.length - token);
        float x[TILES][4];
        value_factors<VALUE> factors[TILES];
        stream_scores<DIM, KEY, TILES>(x, queries.q, at);
        scale_stage<KEY, VALUE, TILES>(x, factors, side, stage::V_SCALES_AT, g, queries.scale);
        if (token + stage::TOKENS > all_see_to) hide_beyond(token, ends, g, x);
        weigh_stage<DIM, VALUE, TILES>(of, x, factors);
#pragma unroll
        for (int j = 0; j < TILES; j++) stream_outputs<DIM, VALUE, TILES>(of.out, x[j], at + stage::V_AT + j * tile_stride<stage::V_ROW>());
        __syncwarp();
        const int next = step_of(n + SLOTS);
        if (next < share.end) ask_for_step<DIM, KEY, VALUE>(c, k, next, page, slot);
        page = page_at(step_of(n + STREAM_WARPS + SLOTS));
        slot += STREAM_WARPS;
        if (slot >= SLOTS) slot -= SLOTS, parity ^= 1;
    }
    next_kernel_may_start();

    /* 4: results */
    put_results<DIM, VALUE>(c, k, share.splits, of, *(stream_results<DIM> *)memory);
}

#endif
