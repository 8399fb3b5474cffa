/* score_stream.cuh - units' masses from one plane of K of one byte or half a byte an element, as fast as it can be read. A block a share
 * of a kv head's units; a warp takes every so-manyth of them, each as two runs that the copy engine brings into a ring of the warp's own.
 *
 * With g = lane / 4 and t = lane % 4, a lane reads pieces of 16 bytes of tokens 8 g + .. of a unit as they lie: products need only that
 * q has its elements in the same order. Column 2 r of a product is row r of q, so that a lane has the scores of row t of its eight
 * tokens. Integer keys meet q in two digits of base 254, of which column 2 r + 1 is the lower. */
#ifndef OCTAVO_CUDA_SM90_SCORE_STREAM_CUH
#define OCTAVO_CUDA_SM90_SCORE_STREAM_CUH

#include "cuda/ptx/ptx_box.cuh"
#include "cuda/ptx/ptx_cluster.cuh"
#include "cuda/ptx/ptx_tma.cuh"
#include "cuda/tile/tile_query.cuh"
#include "cuda/tile/tile_ring.cuh"

enum { STREAM_WARPS = 4, STREAM_THREADS = 32 * STREAM_WARPS, STREAM_DIM = 128, UNIT_TOKENS = 64, LANE_TOKENS = 8 };
enum { STREAM_ROWS = 8, COLUMN_ROWS = 4, DIGIT_BASE = 254, DIGITS_MOST = 127 * DIGIT_BASE };

/* The units of a kv head beside those that its warps have from the start: whoever is ready takes the next one, since not every
 * multiprocessor gets the same share of the memory's speed. A word of memory that may hold anything at first: below TAG_SHIFT how many
 * have been taken; every warp takes one that is not there, and the last one to do so leaves a word without TAG. */
typedef unsigned long long stream_pool;
enum { TAG_SHIFT = 40 };
static constexpr stream_pool TAG = 0xffe9c3; /* of a float that is no number */

struct score_stream_call {
    decode_call of;
    octavo_block_score_params p;
    stream_pool *pools; /* [batch, kv_heads]; NULL: all units are the warps' own */
};

/* A unit in shared memory: rows, then scales. No more bytes are on their way than keep the memory busy: every load that a warp waits for
 * queues behind them. */
template <int KEY> struct stream_unit {
    static constexpr int ROW = PIECE * key_pieces(KEY, STREAM_DIM), KEYS = UNIT_TOKENS * ROW, SCALES = UNIT_TOKENS * key_width(KEY);
    static constexpr int BYTES = KEYS + 128, DEPTH = 34 * 1024 / (STREAM_WARPS * BYTES);
};

/* What a warp keeps of the queries: the products' operands, what is added to integer sums, and the rows' factors in units of ln 2. */
template <int KEY, int COLS> struct stream_queries {
    static constexpr int STEPS = KEY == KEY_E4M3 ? 8 : 4;
    uint32_t q[COLS][STEPS][2];
    int bias[COLS];
    float scale[COLS];
};

/* One block's place in the call. */
struct stream_block {
    int64_t b, head, group;
    int length, whole_to;  /* tokens; of those the ones that all rows see */
    int units, warps;      /* of the kv head                              */
    int first, own;        /* this warp's: the first of its own, every warps-th from there on; how many */
    int pool;              /* unit from which on they are taken as it comes */
};

/* ---- queries ---- */

enum { ROW_WORDS = STREAM_DIM / 4 + 1 /* so that rows begin in different banks */ };

/* Rows of q as the products take them: two digits a row, or f16; what a row's products are worth; twice what int4's base leaves out. */
struct stream_staged {
    uint32_t words[2 * STREAM_ROWS * ROW_WORDS]; /* two rows of digits a row of q; f16 takes both as one */
    float scale[STREAM_ROWS];
    int bias[STREAM_ROWS];
};

/* A warp makes one row ready from its lanes' elements lane + 32 i. */
template <int KEY>
static __device__ __forceinline__ void stage_row(const score_stream_call &c, const uint16_t *codes, int row, stream_staged *to)
{
    constexpr int EACH = STREAM_DIM / 32;
    const int lane = threadIdx.x % 32;
    float x[EACH], amax = 0.0f;
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        x[i] = c.of.in.q.dtype == OCTAVO_BF16 ? __uint_as_float((uint32_t)codes[i] << 16) : f16_low(codes[i]);
        amax = fmaxf(amax, fabsf(x[i]));
    }
    amax = warp_reduce(amax, take_larger());
    if (c.of.in.precision == OCTAVO_ATTENTION_FP8) {
        const int32_t p = octavo_row_exponent(amax);
#pragma unroll
        for (int i = 0; i < EACH; i++) x[i] = octavo_e4m3_of_row(x[i], p);
        amax = octavo_e4m3_of_row(amax, p);
    }
    const int lift = lift_of(amax);
    const float most = lifted(amax, lift), factor = most > 0.0f ? (float)DIGITS_MOST / most : 0.0f;
    uint8_t *upper = (uint8_t *)(to->words + 2 * row * ROW_WORDS), *lower = (uint8_t *)(to->words + (2 * row + 1) * ROW_WORDS);
    int bias = 0; /* low nibbles are 8 too large, all codes 7.5 too small */
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        const int e = lane + 32 * i;
        if (KEY == KEY_E4M3) {
            ((uint16_t *)upper)[e] = (uint16_t)pack_f16(lifted(x[i], lift), 0.0f);
        } else {
            const int code = __float2int_rn(lifted(x[i], lift) * factor), digit = __float2int_rn((float)code * (1.0f / DIGIT_BASE));
            upper[e] = (uint8_t)digit, lower[e] = (uint8_t)(code - DIGIT_BASE * digit);
            bias += (e < STREAM_DIM / 2 ? 15 - 256 : 15) * code;
        }
    }
    if (KEY == KEY_INT4_BASE) bias = warp_reduce(bias, add_up());
    if (lane) return;
    to->scale[row] = ldexpf(c.of.in.softmax_scale * LOG2_E * (KEY == KEY_E4M3 ? 1.0f : most / (float)DIGITS_MOST), -lift);
    to->bias[row] = bias / 2;
}

/* Word of a row at which the lane's operand register `half` of step `step` lies. */
template <int KEY> static __device__ __forceinline__ int operand_word(int step, int half)
{
    const int t = threadIdx.x % 4;
    return KEY == KEY_E4M3 ? step / 4 * 32 + 8 * t + step % 4 * 2 + half : step / 2 * 16 + 4 * t + step % 2 * 2 + half;
}

template <int KEY, int COLS> static __device__ __forceinline__ void load_operands(const stream_staged &from, stream_queries<KEY, COLS> *of)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < COLS; n++) {
        const uint32_t *row = from.words + (2 * COLUMN_ROWS * n + (KEY == KEY_E4M3 ? g / 2 * 2 : g)) * ROW_WORDS;
#pragma unroll
        for (int step = 0; step < stream_queries<KEY, COLS>::STEPS; step++)
#pragma unroll
            for (int half = 0; half < 2; half++) of->q[n][step][half] = KEY == KEY_E4M3 && g % 2 ? 0u : row[operand_word<KEY>(step, half)];
        of->scale[n] = from.scale[COLUMN_ROWS * n + t], of->bias[n] = from.bias[COLUMN_ROWS * n + t];
    }
}

/* ---- products ---- */

/* Scores of two tokens, whose rows begin at `a` and `b` (the lane's own piece), in units of the codes and of q's. */
template <int COLS>
static __device__ __forceinline__ void pair_scores(const stream_queries<KEY_E4M3, COLS> &rows, uint32_t a, uint32_t b, float (&x)[COLS][2])
{
    float sum[COLS][4] = {};
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const uint4 low = load_piece(a + 64 * side), high = load_piece(b + 64 * side);
        const uint32_t p[4] = { low.x, low.y, low.z, low.w }, r[4] = { high.x, high.y, high.z, high.w };
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t k[4];
            e4m3_to_f16(p[i], &k[0], &k[2]), e4m3_to_f16(r[i], &k[1], &k[3]);
#pragma unroll
            for (int n = 0; n < COLS; n++) mma_f16(sum[n], k, rows.q[n][4 * side + i][0], rows.q[n][4 * side + i][1]);
        }
    }
#pragma unroll
    for (int n = 0; n < COLS; n++) x[n][0] = sum[n][0], x[n][1] = sum[n][2];
}

/* Both digits' sums as one. */
template <int COLS> static __device__ __forceinline__ void join_digits(const int32_t (&sum)[COLS][4], float (&x)[COLS][2])
{
#pragma unroll
    for (int n = 0; n < COLS; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) x[n][i] = (float)(DIGIT_BASE * sum[n][2 * i] + sum[n][2 * i + 1]);
}

template <int COLS>
static __device__ __forceinline__ void pair_scores(const stream_queries<KEY_INT8, COLS> &rows, uint32_t a, uint32_t b, float (&x)[COLS][2])
{
    int32_t sum[COLS][4] = {};
#pragma unroll
    for (int side = 0; side < 2; side++) {
        const uint4 low = load_piece(a + 64 * side), high = load_piece(b + 64 * side);
        const uint32_t p[4] = { low.x, low.y, low.z, low.w }, r[4] = { high.x, high.y, high.z, high.w };
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const uint32_t k[4] = { p[2 * i], r[2 * i], p[2 * i + 1], r[2 * i + 1] };
#pragma unroll
            for (int n = 0; n < COLS; n++) mma_int8(sum[n], k, rows.q[n][2 * side + i][0], rows.q[n][2 * side + i][1]);
        }
    }
    join_digits<COLS>(sum, x);
}

template <int COLS>
static __device__ __forceinline__ void pair_scores(const stream_queries<KEY_INT4_BASE, COLS> &rows, uint32_t a, uint32_t b, float (&x)[COLS][2])
{
    const uint4 low = load_piece(a), high = load_piece(b);
    const uint32_t p[4] = { low.x, low.y, low.z, low.w }, r[4] = { high.x, high.y, high.z, high.w };
    int32_t sum[COLS][4], sixteenth[COLS][4] = {}; /* of high nibbles, which are 16 h; of low ones as h + 8 */
#pragma unroll
    for (int n = 0; n < COLS; n++) sum[n][0] = sum[n][2] = 0, sum[n][1] = sum[n][3] = rows.bias[n];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t k[4] = { p[2 * i], r[2 * i], p[2 * i + 1], r[2 * i + 1] };
        uint32_t up[4], down[4];
#pragma unroll
        for (int j = 0; j < 4; j++) up[j] = k[j] & 0xf0f0f0f0u, down[j] = (k[j] & 0x0f0f0f0fu) ^ 0x08080808u;
#pragma unroll
        for (int n = 0; n < COLS; n++) {
            mma_int8(sixteenth[n], down, rows.q[n][i][0], rows.q[n][i][1]);
            mma_int8(sum[n], up, rows.q[n][2 + i][0], rows.q[n][2 + i][1]);
        }
    }
#pragma unroll
    for (int i = 0; i < COLS * 4; i++) (&sum[0][0])[i] += 16 * (&sixteenth[0][0])[i];
    join_digits<COLS>(sum, x);
}

/* Factors of the lane's eight tokens, those of a pair in the order in which the lane takes them. */
template <int KEY> static __device__ __forceinline__ void token_factors(uint32_t scales, float (&factors)[LANE_TOKENS])
{
    const int g = threadIdx.x % 32 / 4;
    if (key_width(KEY) == 2) {
        const uint4 x = load_piece(scales + 16 * g);
        const uint32_t pairs[4] = { x.x, x.y, x.z, x.w }, first = g % 2 ? 0x3244u : 0x1044u, second = g % 2 ? 0x1044u : 0x3244u; /* bytes 4: 0 */
#pragma unroll
        for (int i = 0; i < 4; i++)
            factors[2 * i] = __uint_as_float(permute(pairs[i], 0, first)), factors[2 * i + 1] = __uint_as_float(permute(pairs[i], 0, second));
        return;
    }
    uint32_t words[2];
    load_shared_pair(scales + 8 * g, words[0], words[1]);
    const uint32_t turn = g % 2 ? 0x2301u : 0x3210u;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t exponents = permute(words[i], 0, turn) ^ 0x7f7f7f7fu; /* 127 - p in each byte */
        factors[4 * i] = __uint_as_float((exponents << 23) & 0x7f800000u), factors[4 * i + 1] = __uint_as_float((exponents << 15) & 0x7f800000u);
        factors[4 * i + 2] = __uint_as_float((exponents << 7) & 0x7f800000u), factors[4 * i + 3] = __uint_as_float((exponents >> 1) & 0x7f800000u);
    }
}

/* ---- units ---- */

/* The unit's results from its lanes' scores, in units of ln 2. */
template <int COLS>
static __device__ __forceinline__ void put_unit(const score_stream_call &c, const stream_block &k, int unit, const float (&x)[COLS][LANE_TOKENS])
{
    const int lane = threadIdx.x % 32;
    float max[COLS], sum[COLS];
#pragma unroll
    for (int n = 0; n < COLS; n++) {
        max[n] = x[n][0];
#pragma unroll
        for (int i = 1; i < LANE_TOKENS; i++) max[n] = fmaxf(max[n], x[n][i]);
    }
#pragma unroll
    for (int step = 4; step < 32; step *= 2)
#pragma unroll
        for (int n = 0; n < COLS; n++) max[n] = fmaxf(max[n], __shfl_xor_sync(WHOLE_WARP, max[n], step));
#pragma unroll
    for (int n = 0; n < COLS; n++) {
        const float from = max[n] == NOTHING ? 0.0f : max[n];
        sum[n] = 0.0f;
#pragma unroll
        for (int i = 0; i < LANE_TOKENS; i++) sum[n] += exp2_fast(x[n][i] - from);
    }
#pragma unroll
    for (int step = 4; step < 32; step *= 2)
#pragma unroll
        for (int n = 0; n < COLS; n++) sum[n] += __shfl_xor_sync(WHOLE_WARP, sum[n], step);
#pragma unroll
    for (int n = 0; n < COLS; n++) {
        const int row = COLUMN_ROWS * n + lane;
        if (lane >= COLUMN_ROWS || row >= (int)c.of.rows) continue;
        const int64_t to = (k.group * c.of.rows + row) * c.of.units + unit;
        c.p.log_mass[to] = max[n] == NOTHING ? NOTHING : (max[n] + log2_fast(sum[n])) * LN_2;
        if (c.p.unit_max) c.p.unit_max[to] = max[n] == NOTHING ? NOTHING : max[n] * LN_2;
    }
}

/* Scores of tokens that a row does not see become -inf. */
template <int COLS>
static __device__ __forceinline__ void hide_unseen(const score_stream_call &c, const stream_block &k, int unit, float (&x)[COLS][LANE_TOKENS])
{
    const int lane = threadIdx.x % 32, g = lane / 4, q_tokens = (int)c.of.in.q.shape[1];
#pragma unroll
    for (int n = 0; n < COLS; n++) {
        const int sees = k.length - q_tokens + (COLUMN_ROWS * n + lane % 4) % q_tokens + 1; /* tokens */
#pragma unroll
        for (int i = 0; i < LANE_TOKENS; i++)
            if (unit * UNIT_TOKENS + LANE_TOKENS * g + (i ^ (g & 1)) >= sees) x[n][i] = NOTHING;
    }
}

template <int KEY, int COLS>
static __device__ __forceinline__ void score_unit(const score_stream_call &c, const stream_block &k, const stream_queries<KEY, COLS> &rows, int unit,
                                                  uint32_t stage)
{
    typedef stream_unit<KEY> at;
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const uint32_t mine = stage + LANE_TOKENS * at::ROW * g + PIECE * t, odd = at::ROW * (g & 1);
    float x[COLS][LANE_TOKENS], factors[LANE_TOKENS];
    token_factors<KEY>(stage + at::KEYS, factors);
#pragma unroll
    for (int i = 0; i < LANE_TOKENS / 2; i++) { /* neighbours in memory are in different banks */
        float pair[COLS][2];
        pair_scores(rows, mine + 2 * i * at::ROW + odd, mine + (2 * i + 1) * at::ROW - odd, pair);
#pragma unroll
        for (int n = 0; n < COLS; n++)
#pragma unroll
            for (int j = 0; j < 2; j++) x[n][2 * i + j] = pair[n][j] * (factors[2 * i + j] * rows.scale[n]);
    }
    if (c.of.in.soft_cap > 0.0f)
#pragma unroll
        for (int i = 0; i < COLS * LANE_TOKENS; i++) (&x[0][0])[i] = capped((&x[0][0])[i], c.of.in.soft_cap * LOG2_E);
    if ((unit + 1) * UNIT_TOKENS > k.whole_to) hide_unseen<COLS>(c, k, unit, x);
    put_unit<COLS>(c, k, unit, x);
}

/* ---- the ring ---- */

struct stream_source {
    const uint8_t *keys, *scales; /* of page 0 */
    const int32_t *table;         /* of the sequence; NULL: pages in order */
    int64_t page_bytes, scale_page_bytes;
    int per_page_shift; /* units a page */
};

static __device__ __forceinline__ int page_of(const stream_source &from, int unit, int end)
{
    if (unit >= end) return 0;
    const int block = unit >> from.per_page_shift;
    return from.table ? from.table[block] : block;
}

/* Asks for a unit. */
template <int KEY>
static __device__ __forceinline__ void ask_for_unit(const score_stream_call &c, const stream_block &k, const stream_source &from, int unit, int page,
                                                    uint32_t to, uint32_t barrier)
{
    typedef stream_unit<KEY> at;
    const int lane = threadIdx.x % 32, in_page = unit & ((1 << from.per_page_shift) - 1), left = k.length - unit * UNIT_TOKENS;
    const uint8_t *scales = from.scales + page * from.scale_page_bytes + in_page * at::SCALES;
    const bool whole = left >= UNIT_TOKENS || from.table; /* a pool's pages are there as a whole */
    const bool scaled = c.of.kv.k_scale.data != nullptr;
    if (scaled && !whole) { /* else there may be no memory behind the last one */
#pragma unroll 1
        for (int token = lane; token < left; token += 32) {
            const uint32_t scale = key_width(KEY) == 2 ? ((const uint16_t *)scales)[token] : scales[token], place = to + at::KEYS + key_width(KEY) * token;
            if (key_width(KEY) == 2) asm volatile("st.shared.u16 [%0], %1;" ::"r"(place), "h"((uint16_t)scale) : "memory");
            else asm volatile("st.shared.u8 [%0], %1;" ::"r"(place), "r"(scale) : "memory");
        }
        __syncwarp();
    }
    if (lane) return;
    const uint32_t keys = whole ? (uint32_t)at::KEYS : (uint32_t)(left * at::ROW);
    mbarrier_report_and_expect(barrier, keys + (scaled && whole ? (uint32_t)at::SCALES : 0u));
    copy_bytes_once(to, from.keys + page * from.page_bytes + (int64_t)in_page * at::KEYS, keys, barrier);
    if (scaled && whole) copy_bytes_once(to + at::KEYS, scales, at::SCALES, barrier);
}

/* The pool of a kv head is there, whatever its word was. */
static __device__ __forceinline__ void open_pool(stream_pool *pool)
{
    stream_pool seen = *(volatile stream_pool *)pool, was;
    for (; seen >> TAG_SHIFT != TAG; seen = was)
        if ((was = atomicCAS(pool, seen, TAG << TAG_SHIFT)) == seen) break;
}

/* The number of a unit of the pool, which is opened by whoever finds it closed. */
static __device__ __forceinline__ uint32_t take_number(stream_pool *pool)
{
    stream_pool taken = atomicAdd(pool, (stream_pool)1);
    if (taken >> TAG_SHIFT != TAG) open_pool(pool), taken = atomicAdd(pool, (stream_pool)1);
    return (uint32_t)taken;
}

/* The warp's units one after the other: its own, then those of the pool. What it takes there arrives while two others go their way: a
 * number, then the number's page. */
struct stream_order {
    stream_pool *pool;
    int pages;       /* of the own unit that is some multiple of 32 plus the lane */
    int unit, page;  /* that comes next; -1: none */
    uint32_t number; /* lane 0: of the one after it */
};

/* Unit i of the warp, -1: there is none; to be called with every i from 0 on. */
static __device__ __forceinline__ int next_unit(const stream_block &k, const stream_source &from, stream_order *of, int i, int *page)
{
    const int lane = threadIdx.x % 32;
    int unit = of->unit;
    *page = of->page;
    if (i < k.own) {
        if (i % 32 == 0 && i > 0) of->pages = page_of(from, k.first + (i + lane) * k.warps, k.pool);
        unit = k.first + i * k.warps, *page = __shfl_sync(WHOLE_WARP, of->pages, i % 32);
    }
    if (i + 1 >= k.own && of->pool) {
        const int next = k.pool + (int)__shfl_sync(WHOLE_WARP, of->number, 0);
        if (next == k.units + k.warps - 1 && lane == 0) atomicExch(of->pool, (stream_pool)0);
        of->unit = next < k.units ? next : -1, of->pool = next < k.units ? of->pool : nullptr;
        of->page = page_of(from, next, k.units);
    } else if (i + 1 >= k.own) {
        of->unit = -1;
    }
    if (i + 2 >= k.own && lane == 0 && of->pool) of->number = take_number(of->pool);
    return unit;
}

/* Units that no row sees, this block's share of them. */
static __device__ __forceinline__ void put_unseen(const score_stream_call &c, const stream_block &k)
{
#pragma unroll 1
    for (int unit = k.units + (int)(blockIdx.x * STREAM_THREADS + threadIdx.x); unit < (int)c.of.units; unit += (int)gridDim.x * STREAM_THREADS)
        for (int64_t row = 0; row < c.of.rows; row++) {
            const int64_t to = (k.group * c.of.rows + row) * c.of.units + unit;
            c.p.log_mass[to] = NOTHING;
            if (c.p.unit_max) c.p.unit_max[to] = NOTHING;
        }
}

/* Cuts the kv head's units: three quarters are the warps' own, where that is enough for a warp to be ahead. */
template <int KEY> static __device__ __forceinline__ void cut_units(const score_stream_call &c, stream_block *k)
{
    const int share = k->units / k->warps * 3 / 4;
    const bool pooled = c.pools && share >= stream_unit<KEY>::DEPTH + 2;
    k->own = pooled ? share : (k->units - k->first + k->warps - 1) / k->warps, k->pool = pooled ? k->warps * share : k->units;
}

/* What is read first comes to the second-level cache while the kernel before still runs, which may write it. */
static __device__ __forceinline__ void fetch_facts(const score_stream_call &c, const stream_block &k)
{
    const octavo_kv_view *kv = &c.of.kv;
    const int unit = k.first + (int)(threadIdx.x % 32) * k.warps;
    if (kv->sequences) return;
    if (threadIdx.x == 0) prefetch_line(kv->lengths + k.b);
    if (kv->page_table && unit < (int)c.of.units) prefetch_line(kv->page_table + k.b * kv->page_table_stride + unit / (kv->block_tokens / UNIT_TOKENS));
}

/* Grid (shares, batch * kv heads); shared memory: a ring a warp. */
template <int KEY, int COLS>
static __global__ void __launch_bounds__(STREAM_THREADS, 4) score_stream(const __grid_constant__ score_stream_call c)
{
    typedef stream_unit<KEY> at;
    const octavo_kv_view *kv = &c.of.kv;
    extern __shared__ __align__(128) uint8_t memory[];
    __shared__ stream_staged staged;
    __shared__ __align__(8) uint64_t full[STREAM_WARPS][at::DEPTH];
    __shared__ int unit_at[STREAM_WARPS][at::DEPTH];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    uint8_t *mine = memory + (size_t)warp * at::DEPTH * at::BYTES;
    const uint32_t ring = shared_address(mine), barriers = shared_address(full[warp]);
    if (lane < at::DEPTH) mbarrier_init(barriers + 8 * lane, 1);
    if (!kv->k_scale.data) /* exponents of 0, once */
        for (int i = lane; i < at::DEPTH * at::SCALES / 4; i += 32)
            *(uint32_t *)(mine + i / (at::SCALES / 4) * at::BYTES + at::KEYS + i % (at::SCALES / 4) * 4) = 0;
    mbarrier_init_done();
    __syncwarp();
    stream_block k = { (int)blockIdx.y / kv->kv_heads, (int)blockIdx.y % kv->kv_heads, blockIdx.y, 0, 0, 0, (int)gridDim.x * STREAM_WARPS,
                       (int)blockIdx.x * STREAM_WARPS + warp, 0, 0 };
    fetch_facts(c, k);
    wait_for_kernel_before();
    next_kernel_may_start();

    /* 1: the warp's units; its pages do not wait for the length */
    const int64_t row = octavo_view_row(kv, k.b);
    const stream_source from = { section_base(&kv->k[0], row, k.head), section_base(&kv->k_scale, row, k.head),
                                 kv->page_table ? kv->page_table + row * kv->page_table_stride : nullptr, kv->k[0].page_bytes, kv->k_scale.page_bytes,
                                 31 - __clz(kv->block_tokens / UNIT_TOKENS) };
    uint16_t asked[query_codes<STREAM_DIM, 1>(STREAM_WARPS)];
    ask_for_queries<STREAM_DIM, 1, STREAM_WARPS>(c.of, k.b, k.head, 0, asked);
    stream_order order = { nullptr, page_of(from, k.first + lane * k.warps, (int)c.of.units), -1, 0, 0 };
    k.length = (int)sequence_length(kv, k.b);
    k.units = (k.length + UNIT_TOKENS - 1) / UNIT_TOKENS, k.whole_to = k.length - (int)c.of.in.q.shape[1] + 1;
    cut_units<KEY>(c, &k);
    if (k.pool < k.units) order.pool = c.pools + k.group;

    /* 2: unit after unit; the queries while the first copies are on their way */
    stream_queries<KEY, COLS> rows;
    int place = 0;
    uint32_t parity = 0;
#pragma unroll 1
    for (int i = -at::DEPTH;; i++) {
        if (i >= 0) {
            const int unit = unit_at[warp][place];
            if (unit < 0) break;
            mbarrier_wait(barriers + 8 * place, parity);
            score_unit<KEY, COLS>(c, k, rows, unit, ring + place * at::BYTES);
            __syncwarp();
        }
        int page;
        const int unit = next_unit(k, from, &order, i + at::DEPTH, &page);
        if (unit >= 0) ask_for_unit<KEY>(c, k, from, unit, page, ring + place * at::BYTES, barriers + 8 * place);
        if (lane == 0) unit_at[warp][place] = unit;
        __syncwarp();
        if (++place == at::DEPTH) place = 0, parity ^= i >= 0 ? 1u : 0u;
        if (i != -1) continue;
#pragma unroll
        for (int n = 0; n < COLS; n++) stage_row<KEY>(c, asked + n * (STREAM_DIM / 32), warp + n * STREAM_WARPS, &staged);
        put_unseen(c, k);
        __syncthreads();
        load_operands<KEY, COLS>(staged, &rows);
        if (order.pool && blockIdx.x == 0 && threadIdx.x == 0) open_pool(order.pool);
    }
}

#endif
