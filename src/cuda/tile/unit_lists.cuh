/* unit_lists.cuh - the units of a mask that are in one state, counted by a block and listed a share at a time. A thread makes bits of 32
 * units; a segment of bits stays in shared memory, which is all units of most calls. */
#ifndef OCTAVO_CUDA_TILE_UNIT_LISTS_CUH
#define OCTAVO_CUDA_TILE_UNIT_LISTS_CUH

#include "cuda/tile/reduce.cuh"
#include "octavo/attention.h"

enum { WARPS_MOST = 6, LIST_UNITS = 256, WORD_UNITS = 32, SEGMENT_WORDS = 128, SEGMENT_UNITS = SEGMENT_WORDS * WORD_UNITS };
enum { UNITS_MOST = 65535, SEGMENTS_MOST = UNITS_MOST / SEGMENT_UNITS + 1, DROPPED_SHIFT = 16 };

struct attend_shared {
    int32_t list[LIST_UNITS], means[LIST_UNITS];          /* kept units, dropped ones                          */
    uint32_t kept[SEGMENT_WORDS], dropped[SEGMENT_WORDS]; /* bits of the segment that is held                 */
    uint32_t before[SEGMENT_WORDS];                       /* units before the word in the segment, counts as below */
    uint32_t first[SEGMENTS_MOST + 1];                    /* units before each segment                        */
    uint32_t counts[WARPS_MOST];
    int held;
};

/* The units of a domain by state. Counts of both states in one word. */
struct unit_walk {
    const uint8_t *kept;
    int begin, limit;
    uint32_t total; /* kept units + 65536 * dropped ones */
    attend_shared *shared;
};

static __device__ __forceinline__ int count_of(uint32_t counts, int state)
{
    return (int)(state == OCTAVO_UNIT_KEPT ? counts & 0xffffu : counts >> DROPPED_SHIFT);
}

/* One bit of each of four bytes, side by side. */
static __device__ __forceinline__ uint32_t four_bits(uint32_t bytes, int bit) { return ((bytes >> bit & 0x01010101u) * 0x10204080u) >> 28; }

/* States of units first .. first + 31, of which those from `limit` on are not there, as bits. */
static __device__ __forceinline__ void read_word(const uint8_t *mask, int first, int limit, uint32_t *kept, uint32_t *dropped)
{
    uint32_t bytes[WORD_UNITS / 4] = { 0 };
    const uint8_t *from = mask + first;
    if (first + WORD_UNITS <= limit && (uintptr_t)from % 16 == 0) {
        const uint4 low = *(const uint4 *)from, high = *(const uint4 *)(from + 16);
        bytes[0] = low.x, bytes[1] = low.y, bytes[2] = low.z, bytes[3] = low.w, bytes[4] = high.x, bytes[5] = high.y, bytes[6] = high.z, bytes[7] = high.w;
    } else {
#pragma unroll
        for (int i = 0; i < WORD_UNITS; i++)
            if (first + i < limit) bytes[i / 4] |= (uint32_t)from[i] << i % 4 * 8;
    }
    *kept = *dropped = 0;
#pragma unroll
    for (int i = 0; i < WORD_UNITS / 4; i++) { /* OCTAVO_UNIT_KEPT is 1, _DROPPED 2 */
        *kept |= four_bits(bytes[i], 0) << 4 * i;
        *dropped |= four_bits(bytes[i], 1) << 4 * i;
    }
}

/* Holds a segment; the whole block. */
static __device__ __noinline__ uint32_t hold_segment(const uint8_t *mask, int from, int to, int segment, attend_shared *shared)
{
    const int begin = from + segment * SEGMENT_UNITS, limit = begin + SEGMENT_UNITS < to ? begin + SEGMENT_UNITS : to;
    const int words = (limit - begin + WORD_UNITS - 1) / WORD_UNITS, each = (words + (int)blockDim.x - 1) / (int)blockDim.x;
    const int mine = (int)threadIdx.x * each, end = mine + each < words ? mine + each : words, lane = threadIdx.x % 32;
    uint32_t count = 0;
    __syncthreads(); /* nobody reads what was held */
#pragma unroll 1
    for (int i = mine; i < end; i++) {
        uint32_t kept, dropped;
        read_word(mask, begin + i * WORD_UNITS, limit, &kept, &dropped);
        shared->kept[i] = kept, shared->dropped[i] = dropped, shared->before[i] = count;
        count += (uint32_t)(__popc(kept) + (__popc(dropped) << DROPPED_SHIFT));
    }
    uint32_t sum = count; /* of the lanes up to this one */
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const uint32_t left = __shfl_up_sync(WHOLE_WARP, sum, step);
        if (lane >= step) sum += left;
    }
    if (lane == 31) shared->counts[threadIdx.x / 32] = sum;
    if (threadIdx.x == 0) shared->held = segment;
    __syncthreads();
    uint32_t before = sum - count, total = 0;
#pragma unroll
    for (int i = 0; i < WARPS_MOST; i++) {
        const uint32_t its = i < (int)blockDim.x / 32 ? shared->counts[i] : 0;
        if (i < (int)threadIdx.x / 32) before += its;
        total += its;
    }
#pragma unroll 1
    for (int i = mine; i < end; i++) shared->before[i] += before;
    return total;
}

static __device__ __forceinline__ void walk_units(unit_walk *w, const uint8_t *kept, int begin, int limit, attend_shared *shared)
{
    *w = { kept, begin, limit, 0, shared };
    for (int segment = 0; segment == 0 || begin + segment * SEGMENT_UNITS < limit; segment++) {
        const uint32_t here = hold_segment(kept, begin, limit, segment, shared);
        if (threadIdx.x == 0) shared->first[segment] = w->total, shared->first[segment + 1] = w->total + here;
        w->total += here;
    }
}

/* Puts entries [first, end) of the units in one state, at most LIST_UNITS, into its list. */
static __device__ __noinline__ void list_entries(const uint8_t *mask, int from, int to, int state, int first, int end, attend_shared *shared)
{
    int32_t *list = state == OCTAVO_UNIT_KEPT ? shared->list : shared->means;
    const int lane = threadIdx.x % 32, warps = (int)blockDim.x / 32;
    __syncthreads();
    for (int segment = 0; segment == 0 || from + segment * SEGMENT_UNITS < to; segment++) {
        const int base = count_of(shared->first[segment], state);
        if (base >= end || count_of(shared->first[segment + 1], state) <= first) continue; /* the same for all threads */
        if (shared->held != segment) hold_segment(mask, from, to, segment, shared), __syncthreads();
        const int begin = from + segment * SEGMENT_UNITS, left = to - begin;
        const int words = left < SEGMENT_UNITS ? (left + WORD_UNITS - 1) / WORD_UNITS : SEGMENT_WORDS;
        for (int some = (int)threadIdx.x / 32 * 32; some < words; some += 32 * warps) { /* a lane a word, then a lane a unit */
            const int word = some + lane;
            const uint32_t bits = word >= words ? 0u : state == OCTAVO_UNIT_KEPT ? shared->kept[word] : shared->dropped[word];
            const int at = word >= words ? 0 : base + count_of(shared->before[word], state);
            unsigned meet = __ballot_sync(WHOLE_WARP, bits && at < end && at + __popc(bits) > first);
            for (; meet; meet &= meet - 1) {
                const int which = __ffs((int)meet) - 1;
                const uint32_t these = __shfl_sync(WHOLE_WARP, bits, which);
                const int entry = __shfl_sync(WHOLE_WARP, at, which) + __popc(these & ((1u << lane) - 1));
                if ((these >> lane & 1u) && entry >= first && entry < end) list[entry - first] = begin + (some + which) * WORD_UNITS + lane;
            }
        }
    }
    __syncthreads();
}

static __device__ __forceinline__ void list_units(const unit_walk &w, int state, int first, int end)
{
    list_entries(w.kept, w.begin, w.limit, state, first, end, w.shared);
}

#endif
