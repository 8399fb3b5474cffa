/* prefill_ring.cuh - shared memory of the prefill kernels of sm_90, and the producer that fills it.
 *
 * A tile of keys or values is [head_dim / 64][keys][64 elements], its rows of 128 bytes swizzled as the copy engine and the matrix unit
 * agree on; the queries of a warpgroup are such a tile of 64 rows. Keys and values have a ring each, of the same depth. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_RING_CUH
#define OCTAVO_CUDA_TILE_PREFILL_RING_CUH

#include "cuda/ptx/ptx_tma.cuh"
#include "cuda/ptx/ptx_wgmma.cuh"
#include "cuda/tile/prefill_tasks.cuh"

enum { GROUP_ROWS = 64, GROUP_THREADS = 128, ROW_BYTES = 128, ROW_ELEMENTS = 64, SWIZZLE_BYTES = 1024 };

struct prefill_tma_call {
    CUtensorMap q, k, v; /* axes: element, token (of a page), head, sequence (or page) */
    prefill_call of;
    prefill_order order;
    int page_tokens; /* tokens a box brings: all of a tile, or those of a page; 0: the view has no page table */
    float scale_log2;
};

/* Where things lie in shared memory, from a base that is a multiple of SWIZZLE_BYTES. */
template <int DIM_, int KEYS_, int GROUPS_, int STAGES_> struct prefill_layout {
    enum { DIM = DIM_, KEYS = KEYS_, GROUPS = GROUPS_, STAGES = STAGES_, ROWS = GROUPS * GROUP_ROWS, THREADS = (GROUPS + 1) * GROUP_THREADS };
    enum { COLUMNS = DIM / ROW_ELEMENTS, TILE_BYTES = KEYS * DIM * 2, Q_GROUP_BYTES = GROUP_ROWS * DIM * 2 };
    enum { K = GROUPS * Q_GROUP_BYTES, V = K + STAGES * TILE_BYTES, BARRIERS = V + STAGES * TILE_BYTES };
    enum { Q_FULL = BARRIERS, Q_EMPTY = Q_FULL + 8, PATCH = Q_EMPTY + 8, K_FULL = PATCH + 8, K_EMPTY = K_FULL + 8 * STAGES };
    enum { V_FULL = K_EMPTY + 8 * STAGES, V_EMPTY = V_FULL + 8 * STAGES, BYTES = V_EMPTY + 8 * STAGES + SWIZZLE_BYTES };
};

/* A place in a ring. */
struct ring_place {
    int stage;
    uint32_t parity;
};
template <int STAGES> static __device__ __forceinline__ void ring_advance(ring_place *at)
{
    if (++at->stage == STAGES) at->stage = 0, at->parity ^= 1;
}

template <typename L> static __device__ __forceinline__ void ring_init(uint32_t base)
{
    mbarrier_init(base + L::Q_FULL, 1), mbarrier_init(base + L::Q_EMPTY, L::GROUPS), mbarrier_init(base + L::PATCH, 1);
    for (int i = 0; i < L::STAGES; i++) {
        mbarrier_init(base + L::K_FULL + 8 * i, 1), mbarrier_init(base + L::K_EMPTY + 8 * i, L::GROUPS);
        mbarrier_init(base + L::V_FULL + 8 * i, 1), mbarrier_init(base + L::V_EMPTY + 8 * i, L::GROUPS);
    }
    mbarrier_init_done();
}

/* The boxes of tokens [begin, begin + KEYS) of one operand. Pages past the sequence, or that are not there, arrive as zeros. */
template <typename L>
static __device__ __forceinline__ void ring_copy(const prefill_tma_call &c, const prefill_task &task, const CUtensorMap *map, int begin, uint32_t to,
                                                 uint32_t barrier)
{
    const octavo_kv_view *kv = &c.of.kv;
    const int row = (int)octavo_view_row(kv, task.b), step = c.page_tokens ? c.page_tokens : L::KEYS;
    for (int t = 0; t < L::KEYS; t += step) {
        int last = row, token = begin + t;
        if (c.page_tokens) {
            const int block = token / kv->block_tokens;
            last = -1;
            if (token < task.length) {
                const int64_t page = kv->page_table[row * kv->page_table_stride + block];
                if (page >= 0 && page < kv->pages) last = (int)page;
                else report(c.of.device_status, OCTAVO_E_RANGE);
            }
            token -= block * kv->block_tokens;
        }
#pragma unroll
        for (int i = 0; i < L::COLUMNS; i++)
            copy_box(to + (i * L::KEYS + t) * ROW_BYTES, map, barrier, i * ROW_ELEMENTS, token, task.kv_head, last);
    }
}

/* Values that nobody wrote may be anything, and no weight makes a NaN vanish: they become zeros before anyone multiplies them. */
template <typename L> static __device__ __forceinline__ void ring_clear(uint32_t tile, int from_key, int lane)
{
    for (int i = 0; i < L::COLUMNS; i++)
        for (int at = from_key * ROW_BYTES + 16 * lane; at < L::KEYS * ROW_BYTES; at += 16 * WARP) store_zeros_16(tile + i * L::KEYS * ROW_BYTES + at);
    fence_for_engines();
    __syncwarp();
}

/* The producer: one warp, of which a lane starts the copies. */
template <typename L> static __device__ __forceinline__ void ring_produce(const prefill_tma_call &c, uint32_t base)
{
    const int lane = (int)threadIdx.x % WARP;
    ring_place at = { 0, 1 };
    uint32_t q_parity = 1, patch_parity = 0;
    for (int round = 0;; round++) {
        const int index = prefill_task_index(round);
        if (round * (int)gridDim.x >= c.order.tasks) break;
        if (index >= c.order.tasks) continue;
        const prefill_task task = prefill_task_of(c.of, c.order, index, L::ROWS, L::KEYS);
        if (task.tiles == 0) continue;
        mbarrier_wait(base + L::Q_EMPTY, q_parity), q_parity ^= 1;
        if (lane == 0) {
            mbarrier_report_and_expect(base + L::Q_FULL, L::GROUPS * L::Q_GROUP_BYTES);
            for (int g = 0; g < L::GROUPS; g++)
                for (int i = 0; i < L::COLUMNS; i++)
                    copy_box(base + g * L::Q_GROUP_BYTES + i * GROUP_ROWS * ROW_BYTES, &c.q, base + L::Q_FULL, i * ROW_ELEMENTS,
                             task.first_row + g * GROUP_ROWS, task.q_head, task.b);
        }
        for (int j = 0; j < task.tiles; j++) {
            const int begin = prefill_tile_number(task, j) * L::KEYS, ring = 8 * at.stage;
            const uint32_t k = base + L::K + at.stage * L::TILE_BYTES, v = base + L::V + at.stage * L::TILE_BYTES;
            const bool ragged = begin + L::KEYS > task.length;
            mbarrier_wait(base + L::K_EMPTY + ring, at.parity);
            if (lane == 0) {
                mbarrier_report_and_expect(base + L::K_FULL + ring, L::TILE_BYTES);
                ring_copy<L>(c, task, &c.k, begin, k, base + L::K_FULL + ring);
            }
            mbarrier_wait(base + L::V_EMPTY + ring, at.parity);
            const uint32_t full = base + (ragged ? L::PATCH : L::V_FULL + ring);
            if (lane == 0) {
                mbarrier_report_and_expect(full, L::TILE_BYTES);
                ring_copy<L>(c, task, &c.v, begin, v, full);
            }
            __syncwarp();
            if (ragged) {
                mbarrier_wait(full, patch_parity), patch_parity ^= 1;
                ring_clear<L>(v, task.length - begin, lane);
                if (lane == 0) mbarrier_report(base + L::V_FULL + ring);
            }
            ring_advance<L::STAGES>(&at);
        }
    }
}

#endif
