/* attend_kept.cuh - the second of two passes: attention over kept units and mean rows of dropped ones, merged as dense streams are.
 *
 * Every block lists the states of its kv head's units. A warp has slots for parts of kept units, of which the first are its own; then
 * whoever is ready takes the next one. Between them it adds up the mean rows of 16 dropped units at a time, which are asked for behind
 * the first parts. */
#ifndef OCTAVO_CUDA_SM90_ATTEND_KEPT_CUH
#define OCTAVO_CUDA_SM90_ATTEND_KEPT_CUH

#include "cuda/sm90/kept_part.cuh"
#include "cuda/tile/unit_lists.cuh"

enum { STATES_EACH = 16 /* that a thread reads at a time */, STATES_AT_ONCE = STATES_EACH * STREAM_THREADS };

/* Kept units from the list's begin on, dropped ones from its end backwards. */
struct unit_list {
    uint16_t *units;
    int size, kept, dropped;
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
    uint32_t before = 0; /* kept units and, from DROPPED_SHIFT on, dropped ones */
#pragma unroll 1
    for (int begin = 0, set = 0; begin < list->size; begin += STATES_AT_ONCE, set ^= 1) {
        const int first = begin + (int)threadIdx.x * STATES_EACH;
        uint32_t kept, dropped;
        read_states(mask, first, list->size, &kept, &dropped);
        const uint32_t count = (uint32_t)(__popc(kept) + (__popc(dropped) << DROPPED_SHIFT));
        uint32_t sum = count;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const uint32_t left = __shfl_up_sync(WHOLE_WARP, sum, step);
            if (lane >= step) sum += left;
        }
        if (lane == 31) sums[set][warp] = sum;
        __syncthreads();
        sum += before - count;
#pragma unroll
        for (int i = 0; i < STREAM_WARPS; i++) {
            if (i < warp) sum += sums[set][i];
            before += sums[set][i];
        }
        int at = count_of(sum, OCTAVO_UNIT_KEPT), end = list->size - count_of(sum, OCTAVO_UNIT_DROPPED);
#pragma unroll
        for (int i = 0; i < STATES_EACH; i++) {
            if (kept >> i & 1) list->units[at++] = (uint16_t)(first + i);
            if (dropped >> i & 1) list->units[--end] = (uint16_t)(first + i);
        }
    }
    list->kept = count_of(before, OCTAVO_UNIT_KEPT), list->dropped = count_of(before, OCTAVO_UNIT_DROPPED);
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
static __device__ __forceinline__ void take_number(const kept_call &d, const stream_block &k, const unit_list &list, part_supply &of)
{
    if (of.next.token < 0) return;
    int part = of.parts;
    if (of.begin < of.parts) {
        stream_count *word = d.of.counts + k.b * gridDim.y + k.head;
        if (threadIdx.x % 32 == 0) {
            part = of.begin + (int)(counted(word, of.number, 1) & ((1u << DONE_SHIFT) - 1));
            if (part < of.parts) of.number = atomicAdd(word, (stream_count)1);
        }
        part = __shfl_sync(WHOLE_WARP, part, 0);
    }
    of.next = part_of<KIND>(d, k, list, part);
}

/* ---- dropped units ---- */

/* Mean rows of 16 dropped units on their way into shared memory, and what weighs them; where the next ones lie. */
struct mean_rows {
    float mass[4];  /* of the lane's scores, in units of ln 2 */
    int exponent;   /* of row lane % 16                       */
    int unit, page; /* of row lane % 16 of the next tile; unit below 0: there is none */
    int first;      /* dropped unit with which the next tile begins */
};

static __device__ __forceinline__ void find_means(const kept_call &d, const stream_block &k, const unit_list &list, int first, mean_rows &of)
{
    const int entry = first + (int)threadIdx.x % TILE_TOKENS;
    of.first = first, of.unit = entry < list.dropped ? list.units[list.size - 1 - entry] : -1;
    of.page = of.unit < 0 ? 0 : page_of_kept(d, k, of.unit * KEPT_UNIT);
}

static __device__ __forceinline__ void ask_for_mean_rows(const kept_call &d, const stream_block &k, uint32_t tile, mean_rows &of)
{
    constexpr int PIECES = KEPT_DIM / PIECE;
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const float *masses = d.log_mass + (int64_t)(k.b * gridDim.y + k.head) * d.of.rows * d.units;
    const stored_token at = { k.row, of.page, k.head, of.unit & ((1 << d.of.shift) / KEPT_UNIT - 1) };
    const uint8_t *mean = stored_at(&d.v_mean, at);
    of.exponent = of.unit < 0 ? 0 : (int8_t)*stored_at(&d.v_mean_scale, at);
#pragma unroll
    for (int i = 0; i < TILE_TOKENS * PIECES / 32; i++) {
        const int row = (lane + 32 * i) / PIECES, piece = (lane + 32 * i) % PIECES;
        const uint8_t *from = (const uint8_t *)__shfl_sync(WHOLE_WARP, (unsigned long long)mean, row);
        const bool there = __shfl_sync(WHOLE_WARP, of.unit, row) >= 0;
        copy_16(tile + PIECE * tile_piece<PIECES>(row, piece), there ? (const void *)(from + PIECE * piece) : (const void *)masses, there ? 16 : 0);
    }
    copy_commit();
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const int unit = __shfl_sync(WHOLE_WARP, of.unit, g + i / 2 * 8), row = 2 * t + i % 2;
        of.mass[i] = unit >= 0 && row < d.of.rows ? LOG2_E * masses[row * d.units + unit] : NOTHING;
    }
}

/* The rows that were asked for join the state. */
static __device__ __forceinline__ void attend_mean_rows(uint32_t tile, const mean_rows &rows, stream_state<KEPT_DIM> &of)
{
    const int g = threadIdx.x % 32 / 4;
    float x[1][4];
    value_factors<VALUE_E4M3> factors[1];
    factors[0].plain = true;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int p = __shfl_sync(WHOLE_WARP, rows.exponent, g + 8 * i), held = held_exponent(-p);
        factors[0].exponent[i] = (float)held, factors[0].inverse[i] = __int_as_float((127 - held) << 23);
        factors[0].mantissa[i] = __int_as_float((127 - p - held) << 23), factors[0].plain &= held == -p;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) x[0][i] = rows.mass[i] + factors[0].exponent[i / 2];
    weigh_stage<KEPT_DIM, VALUE_E4M3, 1>(of, x, factors);
    copy_wait<0>();
    __syncwarp();
    stream_outputs<KEPT_DIM, VALUE_E4M3, 1>(of.out, x[0], tile);
    __syncwarp();
}

/* ---- the kernel ---- */

/* Grid (splits, kv heads, batch); shared memory: the warps' slots, their mean rows, the list. */
template <class KIND> static __global__ void __launch_bounds__(STREAM_THREADS, 1) attend_kept(const __grid_constant__ kept_call d)
{
    constexpr int KEY = KIND::KEY, SLOTS = KIND::SLOTS;
    extern __shared__ __align__(1024) uint8_t memory[];
    __shared__ __align__(128) uint8_t sides[KIND::ALL_SLOTS][KIND::SIDE];
    __shared__ __align__(8) uint64_t barriers[KIND::ALL_SLOTS];
    __shared__ uint32_t sums[2][STREAM_WARPS];
    const stream_call &c = d.of;
    const int warp = threadIdx.x / 32, t = threadIdx.x % 4;
    stream_block k = { (int)blockIdx.z, (int)blockIdx.y, 0, 0, c.page_table, shared_address(memory), shared_address(sides), shared_address(barriers) };
    const uint32_t means = shared_address(memory) + KIND::MEANS_AT + warp * MEAN_TILE_BYTES;

    /* 1: what is older than the kernel before this one, which decides for each unit */
    if (threadIdx.x == 0) prefetch_map(&c.k), prefetch_map(&c.v), prefetch_map(&d.more);
    if (threadIdx.x < KIND::ALL_SLOTS) mbarrier_init(k.full + 8 * threadIdx.x, 1), mbarrier_init_done();
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
#pragma unroll
    for (int i = 0; i < 2; i++) seen.ends[i] = 2 * t + i < c.rows ? k.length - c.q_tokens + 1 + (2 * t + i) % c.q_tokens : 0;
    unit_list list = { (uint16_t *)(memory + KIND::LIST_AT), (k.length + KEPT_UNIT - 1) / KEPT_UNIT, 0, 0 };
    stream_state<KEPT_DIM> of;
    begin_state(of);
    wait_for_kernel_before();

    /* 2: the list */
    const int stride = c.splits * STREAM_WARPS, first = warp * c.splits + (int)blockIdx.x;
    part_supply supply = { { -1, 0 }, 0, (SLOTS + 1) * stride, 0 };
    if (threadIdx.x % 32 == 0) supply.number = atomicAdd(c.counts + k.b * gridDim.y + k.head, (stream_count)1);
    list_states(d.kept + (int64_t)(k.b * gridDim.y + k.head) * d.units, sums, &list);
    supply.parts = list.kept * KIND::PARTS, supply.next = part_of<KIND>(d, k, list, first);
    mean_rows rows;
    rows.first = list.dropped; /* none */
    if (d.log_mass) find_means(d, k, list, first * TILE_TOKENS, rows);

    /* 3: parts, as many on their way as there are slots, and mean rows behind the first of them */
    kept_part held[SLOTS]; /* the oldest first */
#pragma unroll
    for (int i = 0; i < SLOTS; i++) held[i] = { -1, 0 };
    bool meaning = false; /* mean rows are on their way */
    int slot = warp, parity = 0;
#pragma unroll 1
    for (int round = -SLOTS; round < 0 || held[0].token >= 0 || meaning || rows.first < list.dropped; round++) {
        if (held[0].token >= 0) {
            mbarrier_wait(k.full + 8 * slot, parity);
            attend_kept_part<KIND>(d, k, queries, seen, held[0].token, slot, of);
            __syncwarp();
        }
#pragma unroll
        for (int i = 0; i + 1 < SLOTS; i++) held[i] = held[i + 1];
        held[SLOTS - 1] = supply.next;
        if (supply.next.token >= 0) ask_for_kept<KIND>(d, k, supply.next, slot);
        if (round < 0) supply.next = part_of<KIND>(d, k, list, first + (round + SLOTS + 1) * stride);
        else take_number<KIND>(d, k, list, supply);
        slot += STREAM_WARPS;
        if (slot >= KIND::ALL_SLOTS) slot -= KIND::ALL_SLOTS, parity ^= round >= 0;
        if (round < -1) continue;
        if (meaning) attend_mean_rows(means, rows, of);
        meaning = rows.first < list.dropped;
        if (meaning) ask_for_mean_rows(d, k, means, rows), find_means(d, k, list, rows.first + stride * TILE_TOKENS, rows);
    }
    next_kernel_may_start();

    /* 4: results */
    put_results<KEPT_DIM, KIND::VALUE>(c, k, of, *(stream_results<KEPT_DIM> *)memory);
    if (c.splits == 1 && threadIdx.x == 0) c.counts[k.b * gridDim.y + k.head] = COUNTS_TAG << TAG_SHIFT; /* else it is the last block's work */
}

#endif
