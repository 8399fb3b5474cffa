/* prefill_eight_ring.cuh - shared memory of the eight-bit prefill kernels of sm_90, and the producer that fills it.
 *
 * Q and K lie as in prefill_ring.cuh, in columns of ROW bytes of a row; V, [dim][tokens], in columns of 128 tokens, below which eight more rows
 * make the matrix unit sum up the weights themselves: the first has what a weight counts, the others are zeros. With a tile of keys come its
 * first key, what a warpgroup has to know of it, and the factors of its scores and weights. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_EIGHT_RING_CUH
#define OCTAVO_CUDA_TILE_PREFILL_EIGHT_RING_CUH

#include "cuda/ptx/ptx_box.cuh"
#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/ptx/ptx_wgmma_eight.cuh"
#include "cuda/tile/prefill_ring.cuh"
#include "kernel/prefill_eight.h"

struct prefill_codes_call {
    CUtensorMap q, k, v; /* axes: element (of v token), token (of v element), head, sequence */
    prefill_call of;
    prefill_order order;
    int *next_task; /* a word of the workspace, 0 at first */
    int64_t q_tokens, kv_tokens;
    const float *q_scale, *q_shift;                  /* see kernel/prefill_eight.h; NULL: there is none */
    const float *k_scale, *v_log2, *v_scale, *v_mean, *v_rest;
    float scale_log2, zero; /* zero: 0, which the compiler does not know */
    prefill_cap_terms cap;
};

/* TILE_SPECIAL: some row does not see some key, or V's factors are too far from one another for weights to be summed as codes. */
enum { TILE_SPECIAL = TILE_MASKED, V_COLUMN = 128, V_COLUMN_ROWS_MORE = 8, PART_KEYS = 128 /* whose scores are an array */ };

/* Where things lie in shared memory, from a base that is a multiple of SWIZZLE_BYTES. */
template <int DIM_, int KEYS_, int STAGES_, int GROUPS_> struct prefill_eight_layout {
    enum { DIM = DIM_, KEYS = KEYS_, STAGES = STAGES_, GROUPS = GROUPS_ };
    enum { TURNS = GROUPS == 2, REGISTERS = GROUPS == 2 ? 240 : 160 /* of a thread that multiplies */ };
    enum { ROWS = GROUPS * GROUP_ROWS, THREADS = (GROUPS + 1) * GROUP_THREADS, HALVES = KEYS / OCTAVO_PREFILL_BLOCK, PARTS = KEYS / PART_KEYS };
    enum { HELD = DIM < 128 ? DIM / 32 : 0 /* steps of 32 columns of the queries in registers */, HELD_ALL = HELD == DIM / 32 };
    enum { ASKS = HELD_ALL && PARTS == 1 ? 2 : 1 /* groups of products of a part: narrow ones would read queries in shared memory twice as often */ };
    enum { ROW = DIM > 64 ? 128 : 64, COLUMNS = (DIM + ROW - 1) / ROW, TILE_BYTES = KEYS * COLUMNS * ROW, Q_GROUP_BYTES = GROUP_ROWS * COLUMNS * ROW };
    enum { V_COLUMN_BYTES = (DIM + V_COLUMN_ROWS_MORE) * V_COLUMN, V_TILE_BYTES = KEYS / V_COLUMN * V_COLUMN_BYTES };
    /* floats of a tile: factors of scores, logarithms of the weights' factors, what a sum of weights is worth; then the first key and what else */
    enum { K_FACTORS = 4 * HALVES, V_LOGS = K_FACTORS, TILE_WORTH = V_LOGS + HALVES, TILE_BEGIN = TILE_WORTH + 1, TILE_FLAGS = TILE_BEGIN + 1 };
    enum { FACT_BYTES = (TILE_FLAGS + 1 + 3) / 4 * 16 };
    enum { K = GROUPS * Q_GROUP_BYTES, V = K + STAGES * TILE_BYTES, FACTS = V + STAGES * V_TILE_BYTES, SPANS = FACTS + STAGES * FACT_BYTES };
    enum { BARRIERS = SPANS + SPAN_BYTES * ROWS, Q_FULL = BARRIERS, Q_EMPTY = Q_FULL + 8, K_FULL = Q_EMPTY + 8, K_EMPTY = K_FULL + 8 * STAGES };
    enum { V_FULL = K_EMPTY + 8 * STAGES, V_EMPTY = V_FULL + 8 * STAGES, TASK_FULL = V_EMPTY + 8 * STAGES, TASK_EMPTY = TASK_FULL + 8 * TASKS };
    enum { TASK = TASK_EMPTY + 8 * TASKS, BYTES = TASK + 4 * TASKS + SWIZZLE_BYTES };
};

template <typename L> static __device__ __forceinline__ void eight_init(uint32_t base)
{
    enum { WARPS = L::GROUPS * GROUP_THREADS / WARP };
    mbarrier_init(base + L::Q_FULL, 1), mbarrier_init(base + L::Q_EMPTY, WARPS);
    for (int i = 0; i < L::STAGES; i++) {
        mbarrier_init(base + L::K_FULL + 8 * i, 1), mbarrier_init(base + L::K_EMPTY + 8 * i, WARPS);
        mbarrier_init(base + L::V_FULL + 8 * i, 1), mbarrier_init(base + L::V_EMPTY + 8 * i, L::GROUPS);
    }
    for (int i = 0; i < TASKS; i++) mbarrier_init(base + L::TASK_FULL + 8 * i, 1), mbarrier_init(base + L::TASK_EMPTY + 8 * i, WARPS);
    mbarrier_init_done();
}

static __device__ __forceinline__ void store_shared(uint32_t to, float x) { store_shared(to, __float_as_int(x)); }
static __device__ __forceinline__ float load_shared_float(uint32_t from) { return __int_as_float(load_shared(from)); }

/* What the factors of V are relative to within a task: that of the first block. */
static __device__ __forceinline__ float eight_v_unit(const prefill_codes_call &c, int64_t kv_line)
{
    return c.v_log2 ? c.v_log2[kv_line * (c.kv_tokens / OCTAVO_PREFILL_BLOCK)] : 0.0f;
}

/* The rows of zeros below V, by all threads of the block. */
template <typename L> static __device__ __forceinline__ void eight_init_values(uint32_t base)
{
    enum { PIECES = V_COLUMN_ROWS_MORE * V_COLUMN / 16 };
    for (int i = (int)threadIdx.x; i < L::STAGES * L::KEYS / V_COLUMN * PIECES; i += L::THREADS)
        store_shared_16(base + L::V + i / PIECES * L::V_COLUMN_BYTES + L::DIM * V_COLUMN + i % PIECES * 16, make_uint4(0, 0, 0, 0));
    fence_for_engines();
}

/* Facts of a tile to shared memory, but for the factors of its scores. Returns what weights of the lane's 16 keys count, as four codes: the factors
 * of V are in the weights, and weights that a small factor pushes below the least code would be missed, so that these have to be close to one
 * another. One lane stores them all, the one that reports: tools that look for races follow no other. */
template <typename L>
static __device__ __forceinline__ uint32_t put_facts(const prefill_codes_call &c, int64_t kv_line, float v_unit, int begin, int flags, uint32_t to,
                                                     int lane)
{
    static constexpr float LOG_LEAST = -100.0f, APART_MOST = 3.0f;
    const int64_t blocks = c.kv_tokens / OCTAVO_PREFILL_BLOCK, first = begin / OCTAVO_PREFILL_BLOCK, block = first + lane % L::HALVES;
    const float log = c.v_log2 ? fmaxf(c.v_log2[kv_line * blocks + (block < blocks ? block : first)] - v_unit, LOG_LEAST) : 0.0f;
    float least = log, most = log;
#pragma unroll
    for (int step = 1; step < L::HALVES; step *= 2)
        least = fminf(least, __shfl_xor_sync(WHOLE_WARP, least, step)), most = fmaxf(most, __shfl_xor_sync(WHOLE_WARP, most, step));
    if (most - least > APART_MOST) flags |= TILE_SPECIAL;
#pragma unroll
    for (int half = 0; half < L::HALVES; half++) {
        const float its = __shfl_sync(WHOLE_WARP, log, half);
        if (lane == 0) store_shared(to + 4 * (L::V_LOGS + half), its);
    }
    if (lane == 0) {
        store_shared(to + 4 * L::TILE_WORTH, flags & TILE_SPECIAL ? 0.0f : exp2f(-least));
        store_shared(to + 4 * L::TILE_BEGIN, begin), store_shared(to + 4 * L::TILE_FLAGS, flags);
    }
    const float count = exp2f(least - __shfl_sync(WHOLE_WARP, log, lane / 4 % L::HALVES));
    return pack_e4m3(count, count, count, count);
}

/* Asks for a tile's keys and for the factors of their scores, as far as there are any; the rest no row sees. Returns how many bytes that are. */
template <typename L>
static __device__ __forceinline__ uint32_t ask_for_keys(const prefill_codes_call &c, const prefill_task &task, int64_t kv_line, int begin,
                                                        uint32_t keys, uint32_t facts, uint32_t full)
{
    const int64_t blocks = c.kv_tokens / OCTAVO_PREFILL_BLOCK, first = begin / OCTAVO_PREFILL_BLOCK;
    const uint32_t factors = 16 * (uint32_t)(blocks - first < L::HALVES ? blocks - first : L::HALVES);
    for (int i = 0; i < L::COLUMNS; i++) copy_box(keys + i * L::KEYS * L::ROW, &c.k, full, i * L::ROW, begin, task.kv_head, task.b);
    copy_bytes(facts, c.k_scale + (kv_line * blocks + first) * 4, factors, full);
    return L::TILE_BYTES + factors;
}

/* The producer: one warp, of which a lane starts the copies. Blocks take tasks as they get done. */
template <typename L> static __device__ __forceinline__ void eight_produce(const prefill_codes_call &c, uint32_t base)
{
    const int lane = (int)threadIdx.x % WARP;
    ring_place at = { 0, 1 }, told = { 0, 1 };
    uint32_t q_parity = 1;
    for (int index = (int)blockIdx.x, next = 0;; index = __shfl_sync(WHOLE_WARP, next, 0)) {
        mbarrier_wait(base + L::TASK_EMPTY + 8 * told.stage, told.parity);
        if (lane == 0) {
            store_shared(base + L::TASK + 4 * told.stage, index);
            mbarrier_report(base + L::TASK_FULL + 8 * told.stage);
        }
        ring_advance<TASKS>(&told);
        if (index >= c.order.tasks) break;
        if (lane == 0) next = (int)gridDim.x + atomicAdd(c.next_task, 1);
        const prefill_task task = prefill_task_of(c.of, c.order, index, L::ROWS, L::KEYS);
        if (task.tiles == 0) continue;
        const int64_t kv_line = (int64_t)task.b * c.of.kv.kv_heads + task.kv_head;
        const float v_unit = eight_v_unit(c, kv_line);
        for (int j = 0; j < task.tiles; j++) {
            const int begin = prefill_tile_number(task, j) * L::KEYS, ring = 8 * at.stage;
            const int flags = (prefill_tile_whole(task, begin, L::KEYS) ? 0 : TILE_SPECIAL) | (j == task.tiles - 1 ? TILE_LAST : 0);
            const uint32_t k = base + L::K + at.stage * L::TILE_BYTES, v = base + L::V + at.stage * L::V_TILE_BYTES;
            const uint32_t facts = base + L::FACTS + at.stage * L::FACT_BYTES;
            mbarrier_wait(base + L::K_EMPTY + ring, at.parity);
            uint32_t asked = 0;
            if (lane == 0) asked = ask_for_keys<L>(c, task, kv_line, begin, k, facts, base + L::K_FULL + ring);
            const uint32_t counts = put_facts<L>(c, kv_line, v_unit, begin, flags, facts, lane);
            if (lane == 0) mbarrier_report_and_expect(base + L::K_FULL + ring, asked);
            if (j == 0) { /* keys need not wait for the last task's queries to be free */
                ring_ask_queries<L, L::COLUMNS, L::ROW, 1>(&c.q, task, base, q_parity);
                q_parity ^= 1;
            }
            mbarrier_wait(base + L::V_EMPTY + ring, at.parity);
            if (lane < L::KEYS / 16)
                store_shared_16(v + lane / 8 * L::V_COLUMN_BYTES + L::DIM * V_COLUMN + lane % 8 * 16, make_uint4(counts, counts, counts, counts));
            fence_for_engines();
            __syncwarp();
            if (lane == 0) {
                mbarrier_report_and_expect(base + L::V_FULL + ring, L::KEYS * L::DIM);
                for (int i = 0; i < L::KEYS / V_COLUMN; i++)
                    copy_box(v + i * L::V_COLUMN_BYTES, &c.v, base + L::V_FULL + ring, begin + i * V_COLUMN, 0, task.kv_head, task.b);
            }
            __syncwarp();
            ring_advance<L::STAGES>(&at);
        }
    }
}

#endif
