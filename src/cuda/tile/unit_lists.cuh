/* unit_lists.cuh - the units of a mask that are in one state, counted by a block and listed a share at a time. */
#ifndef OCTAVO_CUDA_TILE_UNIT_LISTS_CUH
#define OCTAVO_CUDA_TILE_UNIT_LISTS_CUH

#include "cuda/tile/reduce.cuh"
#include "octavo/attention.h"

enum { WARPS_MOST = 6, LIST_UNITS = 512 };

struct attend_shared {
    int32_t list[LIST_UNITS];
    uint32_t counts[WARPS_MOST];
};

/* The units of a domain by state: each thread counts its own, and knows how many come before. Counts of both states in one word. */
struct unit_walk {
    const uint8_t *kept;
    int mine_begin, mine_end; /* units of this thread, a multiple of four each */
    uint32_t before, total;   /* kept units + 65536 * dropped ones             */
};

enum { UNITS_MOST = 65535, DROPPED_SHIFT = 16 };

static __device__ __forceinline__ uint32_t count_four(const uint8_t *kept, int u, int limit)
{
    uint32_t four = 0;
    if (u + 4 <= limit && (uintptr_t)(kept + u) % 4 == 0) four = *(const uint32_t *)(kept + u);
    else
        for (int i = 0; i < 4 && u + i < limit; i++) four |= (uint32_t)kept[u + i] << 8 * i;
    return (uint32_t)(__popc(four & 0x01010101u) + (__popc(four & 0x02020202u) << DROPPED_SHIFT)); /* OCTAVO_UNIT_KEPT, _DROPPED */
}

static __device__ __noinline__ void walk_units(unit_walk *w, const uint8_t *kept, int begin, int limit, attend_shared *shared)
{
    const int threads = blockDim.x, each = (limit - begin + 4 * threads - 1) / (4 * threads) * 4, from = begin + (int)threadIdx.x * each;
    uint32_t count = 0;
    w->kept = kept, w->total = 0;
    w->mine_begin = from < limit ? from : limit, w->mine_end = from + each < limit ? from + each : limit;
#pragma unroll 8
    for (int u = w->mine_begin; u < w->mine_end; u += 4) count += count_four(kept, u, w->mine_end);
    uint32_t sum = count; /* of the lanes up to this one */
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
        const uint32_t left = __shfl_up_sync(WHOLE_WARP, sum, step);
        if ((int)threadIdx.x % 32 >= step) sum += left;
    }
    if (threadIdx.x % 32 == 31) shared->counts[threadIdx.x / 32] = sum;
    __syncthreads();
    w->before = sum - count;
    for (int i = 0; i < threads / 32; i++) {
        w->total += shared->counts[i];
        if (i < (int)threadIdx.x / 32) w->before += shared->counts[i];
    }
}

static __device__ __forceinline__ int count_of(uint32_t counts, int state)
{
    return (int)(state == OCTAVO_UNIT_KEPT ? counts & 0xffffu : counts >> DROPPED_SHIFT);
}

/* Puts entries [first, end) of the units in one state, at most LIST_UNITS, into the list. */
static __device__ __noinline__ void list_units(const unit_walk &w, int state, int first, int end, int32_t *list)
{
    __syncthreads();
    int at = count_of(w.before, state);
    for (int u = w.mine_begin; u < w.mine_end && at < end; u += 4) {
        const int here = count_of(count_four(w.kept, u, w.mine_end), state);
        if (here == 0 || at + here <= first) {
            at += here;
            continue;
        }
        for (int i = u; i < u + 4 && i < w.mine_end; i++) {
            if (w.kept[i] != state) continue;
            if (at >= first && at < end) list[at - first] = i;
            at++;
        }
    }
    __syncthreads();
}

#endif
