/* attend_kept.cuh - the second of two passes: attention over kept units and mean rows of dropped ones, merged as dense streams are.
 *
 * Every block lists its kv head's kept units. A warp has two slots for parts of them: the next one is on its way while one is multiplied.
 * The first two are its own; then whoever is ready takes the next one. Before its second slot is wanted for a part, mean rows of units go
 * through it, 16 neighbours at a time: the first of those come before it is known which units are dropped, while the kernel that decides
 * it, or even the scan before that, runs. */
#ifndef OCTAVO_CUDA_SM90_ATTEND_KEPT_CUH
#define OCTAVO_CUDA_SM90_ATTEND_KEPT_CUH

#include "cuda/sm90/kept_part.cuh"
#include "cuda/tile/unit_lists.cuh"

enum { STATES_EACH = 16 /* that a thread reads at a time: of the units of a tile of mean rows */ };

/* The kept units, and a bit for each dropped one in words of 16. */
struct unit_list {
    uint16_t *units, *dropped;
    int size, kept; /* units that the sequence has; that are kept */
};

/* States of 16 units, of which those from `limit` on are not there, as bits. */
static __device__ __forceinline__ void read_states(const uint8_t *mask, int first, int limit, uint32_t *kept, uint32_t *dropped)
{
    uint32_t bytes[STATES_EACH / 4] = { 0 };
    if (first + STATES_EACH <= limit && (uintptr_t)(mask + first) % 16 == 0) {
        const uint4 all = *(const uint4 *)(mask + first);
        bytes[0] = all.x, bytes[1] = all.y, bytes[2] = all.z, bytes[3] = all.w;
    } else {
#pragma unroll
        for (int i = 0; i < STATES_EACH / 4; i++)
#pragma unroll 1
            for (int j = 0; j < 4 && first + 4 * i + j < limit; j++) bytes[i] |= (uint32_t)mask[first + 4 * i + j] << 8 * j;
    }
    *kept = *dropped = 0;
#pragma unroll
    for (int i = 0; i < STATES_EACH / 4; i++) *kept |= four_bits(bytes[i], 0) << 4 * i, *dropped |= four_bits(bytes[i], 1) << 4 * i;
}

/* Fills the list from a mask; the whole block, which has met afterwards. `sums`: two sets of a word a warp. */
static __device__ __forceinline__ void list_states(const uint8_t *mask, uint32_t (&sums)[2][STREAM_WARPS], unit_list *list)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll 1
    for (int begin = 0, set = 0; begin < list->size; begin += STREAM_THREADS * STATES_EACH, set ^= 1) {
        const int first = begin + (int)threadIdx.x * STATES_EACH;
        uint32_t kept, dropped;
        read_states(mask, first, list->size, &kept, &dropped);
        if (first < list->size) list->dropped[first / STATES_EACH] = (uint16_t)dropped;
        const uint32_t count = (uint32_t)__popc(kept);
        uint32_t sum = count;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const uint32_t left = __shfl_up_sync(WHOLE_WARP, sum, step);
            if (lane >= step) sum += left;
        }
        if (lane == 31) sums[set][warp] = sum;
        __syncthreads();
        int at = list->kept + (int)(sum - count);
#pragma unroll
        for (int i = 0; i < STREAM_WARPS; i++) {
            if (i < warp) at += (int)sums[set][i];
            list->kept += (int)sums[set][i];
        }
        for (; kept; kept &= kept - 1) list->units[at++] = (uint16_t)(first + __ffs((int)kept) - 1);
    }
    __syncthreads();
}

/* ---- kept units ---- */

/* What a warp knows of the parts to come: one with its page on its way, and in lane 0 the number of the one after it. */
struct part_supply {
    kept_part next;
    stream_count number;
    int begin, parts; /* from where on parts are taken, before it the warps' own; that there are */
};

template <class KIND> static __device__ __forceinline__ kept_part part_of(const kept_call &d, const stream_block &k, const unit_list &list, int part)
{
    if (part >= list.kept * KIND::PARTS) return { -1, 0 };
    const int token = list.units[part / KIND::PARTS] * KEPT_UNIT + part % KIND::PARTS * KIND::TOKENS;
    return { token, page_of_kept(d, k, token) };
}

/* The number that was asked for becomes a part; asks for another one. */
template <class KIND>
static __device__ __forceinline__ void take_next_part(const kept_call &d, const stream_block &k, const unit_list &list, part_supply &of)
{
    if (of.next.token < 0) return;
    int part = of.parts;
    if (of.begin < of.parts) {
        stream_count *word = d.of.counts + k.b * d.of.kv_heads + k.head;
        if (threadIdx.x % 32 == 0) {
            part = of.begin + (int)(counted(word, of.number, 1) & ((1u << DONE_SHIFT) - 1));
            if (part < of.parts) of.number = atomicAdd(word, (stream_count)1);
        }
        part = __shfl_sync(WHOLE_WARP, part, 0);
    }
    of.next = part_of<KIND>(d, k, list, part);
}

/* ---- dropped units ---- */

/* Mean rows of 16 units on their way into shared memory, and what weighs them. */
struct mean_rows {
    int first;     /* unit; from the sequence's units on: there are none */
    int exponent;  /* of row lane % 16                                   */
    float mass[4]; /* of the lane's scores, in units of ln 2             */
    uint32_t tile;
};

/* Units that are not there as a whole have no mean, and are never dropped. */
static __device__ __forceinline__ bool mean_is_there(const stream_block &k, int unit) { return (unit + 1) * KEPT_UNIT <= k.length; }

static __device__ __forceinline__ void ask_for_mean_rows(const kept_call &d, const stream_block &k, const kept_bases &at, int first, mean_rows &of)
{
    constexpr int PIECES = KEPT_DIM / PIECE;
    const int lane = threadIdx.x % 32, unit = first + lane % TILE_TOKENS;
    of.first = first, of.exponent = 0;
    if (mean_is_there(k, first)) {
        const bool there = mean_is_there(k, unit);
        const int page = there ? page_of_kept(d, k, unit * KEPT_UNIT) : 0, in_block = unit & ((1 << d.of.shift) / KEPT_UNIT - 1);
        const uint8_t *mean = at.mean + page * d.v_mean.page_bytes + in_block * (int)d.v_mean.token_bytes;
        if (there) of.exponent = (int8_t)at.mean_scale[page * d.v_mean_scale.page_bytes + in_block * (int)d.v_mean_scale.token_bytes];
#pragma unroll
        for (int i = 0; i < TILE_TOKENS * PIECES / 32; i++) {
            const int row = (lane + 32 * i) / PIECES, piece = (lane + 32 * i) % PIECES;
            const uint8_t *from = (const uint8_t *)__shfl_sync(WHOLE_WARP, (unsigned long long)mean, row);
            if (mean_is_there(k, first + row)) copy_16(of.tile + PIECE * tile_piece<PIECES>(row, piece), from + PIECE * piece, 16);
        }
    }
}

static __device__ __forceinline__ void ask_for_masses(const kept_call &d, const stream_block &k, mean_rows &of)
{
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const float *masses = d.log_mass + (int64_t)(k.b * d.of.kv_heads + k.head) * d.of.rows * d.units;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int unit = of.first + g + i / 2 * 8, row = 2 * t + i % 2;
        of.mass[i] = mean_is_there(k, unit) && row < d.of.rows ? masses[row * d.units + unit] : NOTHING;
    }
}

/* Of rows that are there, those of dropped units join the state. */
static __device__ __forceinline__ void attend_mean_rows(const mean_rows &rows, uint32_t dropped, stream_state<KEPT_DIM> &of)
{
    constexpr int PIECES = KEPT_DIM / PIECE;
    const int lane = threadIdx.x % 32, g = lane / 4;
    float x[1][4];
    value_factors<VALUE_E4M3> factors[1];
    if (dropped == 0) return; /* the same for all lanes */
    for (uint32_t others = dropped ^ 0xffffu; others; others &= others - 1) /* may hold anything */
        if (lane < PIECES) store_shared_16(rows.tile + PIECE * tile_piece<PIECES>(__ffs((int)others) - 1, lane), make_uint4(0, 0, 0, 0));
    factors[0].plain = true;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        put_exponent(factors[0], i, __shfl_sync(WHOLE_WARP, rows.exponent, g + 8 * i));
    }
#pragma unroll
    for (int i = 0; i < 4; i++) x[0][i] = dropped >> (g + i / 2 * 8) & 1 ? fmaf(LOG2_E, rows.mass[i], factors[0].exponent[i / 2]) : NOTHING;
    weigh_stage<KEPT_DIM, VALUE_E4M3, 1>(of, x, factors);
    __syncwarp();
    stream_outputs<KEPT_DIM, VALUE_E4M3, 1>(of.out, x[0], rows.tile);
    __syncwarp();
}

/* All of the warp's tiles of mean rows, of which the first ones are on their way; `step` units lie between two of them. Afterwards the
 * copy engine may have the memory. */
template <int TILES>
static __device__ __forceinline__ void attend_means(const kept_call &d, const stream_block &k, const kept_bases &at, const unit_list &list, int step,
                                                    mean_rows (&rows)[TILES], stream_state<KEPT_DIM> &of)
{
#pragma unroll 1
    while (rows[0].first < list.size) {
        copy_wait<0>();
        __syncwarp();
#pragma unroll
        for (int i = 0; i < TILES; i++)
            if (rows[i].first < list.size) attend_mean_rows(rows[i], list.dropped[rows[i].first / STATES_EACH], of);
        if (rows[0].first + TILES * step >= list.size) break;
#pragma unroll
        for (int i = 0; i < TILES; i++) ask_for_mean_rows(d, k, at, rows[i].first + TILES * step, rows[i]), ask_for_masses(d, k, rows[i]);
    }
    fence_for_engines();
    __syncwarp();
}

/* ---- the kernel ---- */

/* Grid (kv heads, batch, splits); shared memory: the warps' slots, pages, the list. Half of the registers: blocks begin beside those of
 * the kernel that decides. */
template <class KIND> static __global__ void __launch_bounds__(STREAM_THREADS, 2) attend_kept(const __grid_constant__ kept_call d)
{
    constexpr int KEY = KIND::KEY;
    extern __shared__ __align__(1024) uint8_t memory[];
    __shared__ __align__(128) uint8_t sides[KIND::SLOTS][KIND::SIDE];
    __shared__ __align__(8) uint64_t barriers[KIND::SLOTS];
    __shared__ uint32_t sums[2][STREAM_WARPS];
    const stream_call &c = d.of;
    const int warp = threadIdx.x / 32, t = threadIdx.x % 4;
    stream_block k = { (int)blockIdx.y, (int)blockIdx.x, (int)blockIdx.z, 0, 0, c.page_table,
                       shared_address(memory), shared_address(sides), shared_address(barriers) };

    /* 1: what is older than the scan; the kernel after that decides for each unit */
    if (threadIdx.x == 0) prefetch_map(&c.k), prefetch_map(&c.v), prefetch_map(&d.more);
    if (threadIdx.x < KIND::SLOTS) mbarrier_init(k.full + 8 * threadIdx.x, 1), mbarrier_init_done();
    for (int i = threadIdx.x; i < (int)sizeof sides / 4; i += STREAM_THREADS) ((uint32_t *)sides)[i] = 0; /* exponents of 0 where there are none */
    fence_for_engines();
    uint32_t asked[KEPT_DIM / 16][2];
    ask_for_row<KEPT_DIM, KEY>(c, k, asked);
    k.row = c.sequences ? c.sequences[k.b] : k.b;
    if (k.table) k.table += k.row * c.page_table_stride;
    k.length = clamped_length(c, c.lengths[k.row]);
    stream_queries<KEPT_DIM, KEY> queries;
    take_row<KEPT_DIM, KEY>(c, asked, queries);
    seen_tokens seen = { { 0, 0 }, k.length - c.q_tokens + 1 };
    column_ends(c, k, t, seen.ends);
    const kept_bases at = { scales_of(&c.k_scale, k, 0), scales_of(&c.v_scale, k, 0), scales_of(&d.v_mean, k, 0), scales_of(&d.v_mean_scale, k, 0) };
    int32_t *pages = (int32_t *)(memory + KIND::LIST_AT); /* the sequence's, for later */
    const int blocks = k.table && d.holds_pages ? (k.length + (1 << c.shift) - 1) >> c.shift : 0;
    for (int i = threadIdx.x; i < blocks; i += STREAM_THREADS) copy_4(shared_address(pages + i), k.table + i);
    copy_commit();
    unit_list list = { (uint16_t *)(pages + blocks), nullptr, (k.length + KEPT_UNIT - 1) / KEPT_UNIT, 0 };
    list.dropped = list.units + list.size;
    const int stride = c.splits * STREAM_WARPS, first = warp * c.splits + k.split;
    mean_rows rows[KIND::MEANS];
#pragma unroll
    for (int i = 0; i < KIND::MEANS; i++) {
        rows[i].tile = k.ring + (warp + STREAM_WARPS) * KIND::SLOT + i * MEAN_TILE_BYTES;
        if (d.log_mass) ask_for_mean_rows(d, k, at, (first + i * stride) * TILE_TOKENS, rows[i]);
    }
    copy_commit();
    copy_wait<1>();
    if (blocks > 0) k.table = pages; /* once the block has met */
    stream_state<KEPT_DIM> of;
    begin_state(of);
    wait_for_kernel_before();

    /* 2: the list */
    part_supply supply = { { -1, 0 }, 0, 2 * stride, 0 };
    if (threadIdx.x % 32 == 0) supply.number = atomicAdd(c.counts + k.b * d.of.kv_heads + k.head, (stream_count)1);
#pragma unroll
    for (int i = 0; i < KIND::MEANS; i++)
        if (d.log_mass) ask_for_masses(d, k, rows[i]);
    list_states(d.kept + (int64_t)(k.b * d.of.kv_heads + k.head) * d.units, sums, &list);
    supply.parts = list.kept * KIND::PARTS, supply.next = part_of<KIND>(d, k, list, first);

    /* 3: parts: more of them on their way would only wait for each other */
    int token = supply.next.token, slot = warp, other = warp + STREAM_WARPS, parity = 0;
    if (token >= 0) ask_for_kept<KIND>(d, k, at, supply.next, slot);
    supply.next = part_of<KIND>(d, k, list, first + stride);
    if (d.log_mass) attend_means(d, k, at, list, stride * TILE_TOKENS, rows, of);
#pragma unroll 1
    while (token >= 0) {
        mbarrier_wait(k.full + 8 * slot, parity);
        const int next = supply.next.token, used = slot;
        if (next >= 0) ask_for_kept<KIND>(d, k, at, supply.next, other);
        take_next_part<KIND>(d, k, list, supply);
        attend_kept_part<KIND>(d, k, queries, seen, token, slot, of);
        __syncwarp();
        slot = other, other = used, token = next, parity ^= slot == warp;
    }
    next_kernel_may_start();

    /* 4: results */
    put_results<KEPT_DIM, KIND::VALUE>(c, k, c.splits, of, *(stream_results<KEPT_DIM> *)memory);
    if (c.splits == 1 && threadIdx.x == 0) c.counts[k.b * d.of.kv_heads + k.head] = COUNTS_TAG << TAG_SHIFT; /* else it is the last block's work */
}

#endif
