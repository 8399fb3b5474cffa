/* prefill_ring.cuh - shared memory of the prefill kernels of sm_90, and the producer that fills it.
 *
 * A tile of keys or values is [columns][keys][128 bytes of a row], swizzled as the copy engine and the matrix unit agree on; the queries of
 * a warpgroup are such a tile of 64 rows. Keys and values have a ring each. Of a tile of keys its first key and what a warpgroup has to know of
 * it lie beside it, of a task what its rows need. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_RING_CUH
#define OCTAVO_CUDA_TILE_PREFILL_RING_CUH

#include "cuda/ptx/ptx_tma.cuh"
#include "cuda/ptx/ptx_wgmma.cuh"
#include "cuda/tile/prefill_tasks.cuh"

enum { GROUP_ROWS = 64, GROUP_THREADS = 128, ROW_BYTES = 128, ROW_ELEMENTS = 64, SWIZZLE_BYTES = 1024, TASKS = 2 /* known ahead */ };
enum { TILE_MASKED = 1, TILE_LAST = 2, SPAN_BYTES = 12 /* of a row: what it sees */ };
enum told_task { TOLD_TILES /* -1: there is no task any more */, TOLD_ROW, TOLD_BATCH, TOLD_HEAD, TOLD_QUERIES, TOLD_LENGTH, TOLD_WORDS };

struct prefill_tma_call {
    CUtensorMap q, k, v; /* axes: element, token (of a page), head, sequence (or page) */
    prefill_call of;
    prefill_order order;
    int *next_task; /* a word of the workspace, 0 at first */
    int page_tokens; /* tokens a box brings, of one page; 0: the view has no page table, and a box brings a tile */
    float scale_log2;
    int64_t q_tokens, kv_tokens;                   /* where queries and keys are codes: see kernel/prefill_eight.h */
    const float *q_scale, *q_shift, *k_scale;
};

/* Where things lie in shared memory, from a base that is a multiple of SWIZZLE_BYTES. */
template <int DIM_, int KEY_BYTES_, int KEYS_, int GROUPS_, int K_STAGES_, int V_STAGES_> struct prefill_layout {
    enum { DIM = DIM_, KEY_BYTES = KEY_BYTES_ /* of an element of Q and K */, KEYS = KEYS_, GROUPS = GROUPS_, K_STAGES = K_STAGES_, V_STAGES = V_STAGES_ };
    enum { ROWS = GROUPS * GROUP_ROWS, THREADS = (GROUPS + 1) * GROUP_THREADS, WARPS = GROUPS * GROUP_THREADS / WARP };
    enum { Q_GROUP_BYTES = GROUP_ROWS * DIM * KEY_BYTES, K_TILE_BYTES = KEYS * DIM * KEY_BYTES, V_TILE_BYTES = KEYS * DIM * 2 };
    enum { KEY_ROW = DIM * KEY_BYTES < ROW_BYTES ? DIM * KEY_BYTES : ROW_BYTES /* of a column */, KEY_COLUMNS = DIM * KEY_BYTES / KEY_ROW };
    enum { SCALES = KEY_BYTES == 1 ? KEYS / OCTAVO_PREFILL_BLOCK : 0, FACT_BYTES = 8 + 16 * SCALES /* of a tile: its first key, flags, codes' scales */ };
    enum { K = GROUPS * Q_GROUP_BYTES, V = K + K_STAGES * K_TILE_BYTES, BARRIERS = V + V_STAGES * V_TILE_BYTES };
    enum { Q_FULL = BARRIERS, Q_EMPTY = Q_FULL + 8, K_FULL = Q_EMPTY + 8, K_EMPTY = K_FULL + 8 * K_STAGES, V_FULL = K_EMPTY + 8 * K_STAGES };
    enum { V_EMPTY = V_FULL + 8 * V_STAGES, TASK_FULL = V_EMPTY + 8 * V_STAGES, TASK_EMPTY = TASK_FULL + 8 * TASKS, FACTS = TASK_EMPTY + 8 * TASKS };
    enum { TASK = FACTS + FACT_BYTES * K_STAGES, SPANS = TASK + 4 * TOLD_WORDS * TASKS, BYTES = SPANS + SPAN_BYTES * ROWS + SWIZZLE_BYTES };
};

/* Where 16 bytes of a row of ROW bytes lie in a column: rows of 64 bytes are swizzled two at a time. */
template <int ROW> static __device__ __forceinline__ uint32_t swizzled_piece(uint32_t column, int row, int piece)
{
    return column + row * ROW + (piece ^ (ROW == 128 ? row % 8 : row / 2 % 4)) * 16;
}

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
    mbarrier_init(base + L::Q_FULL, 1), mbarrier_init(base + L::Q_EMPTY, L::WARPS);
    for (int i = 0; i < L::K_STAGES; i++) mbarrier_init(base + L::K_FULL + 8 * i, 1), mbarrier_init(base + L::K_EMPTY + 8 * i, L::WARPS);
    for (int i = 0; i < L::V_STAGES; i++) mbarrier_init(base + L::V_FULL + 8 * i, 1), mbarrier_init(base + L::V_EMPTY + 8 * i, L::GROUPS);
    for (int i = 0; i < TASKS; i++) mbarrier_init(base + L::TASK_FULL + 8 * i, 1), mbarrier_init(base + L::TASK_EMPTY + 8 * i, L::WARPS);
    mbarrier_init_done();
}

/* A warp is done with what a barrier stands for. */
static __device__ __forceinline__ void ring_report(uint32_t barrier)
{
    __syncwarp();
    if (threadIdx.x % WARP == 0) mbarrier_report(barrier);
}

/* The next task's number, for a warp that multiplies. */
template <typename L> static __device__ __forceinline__ int ring_task(uint32_t base, ring_place *at)
{
    mbarrier_wait(base + L::TASK_FULL + 8 * at->stage, at->parity);
    const int index = load_shared(base + L::TASK + 4 * at->stage);
    ring_report(base + L::TASK_EMPTY + 8 * at->stage);
    ring_advance<TASKS>(at);
    return index;
}

/* A word that came with a tile, for a whole warp. One lane reads it, the one that reports later: tools that look for races know no other. */
static __device__ __forceinline__ int ring_fact(uint32_t from)
{
    int word = 0;
    if (threadIdx.x % WARP == 0) word = load_shared(from);
    return __shfl_sync(WHOLE_WARP, word, 0);
}

/* One lane tells the warps that multiply of a task; nullptr: that there is none any more. */
template <typename L> static __device__ __forceinline__ void ring_tell(uint32_t base, const ring_place &at, const prefill_task *task)
{
    const uint32_t to = base + L::TASK + 4 * TOLD_WORDS * at.stage;
    store_shared(to + 4 * TOLD_TILES, task ? task->tiles : -1);
    if (task) {
        store_shared(to + 4 * TOLD_ROW, task->first_row), store_shared(to + 4 * TOLD_BATCH, task->b), store_shared(to + 4 * TOLD_HEAD, task->q_head);
        store_shared(to + 4 * TOLD_QUERIES, task->queries), store_shared(to + 4 * TOLD_LENGTH, task->length);
    }
    mbarrier_report(base + L::TASK_FULL + 8 * at.stage);
}

/* With pages a lane has a box of the tile that begins at a key: does some row see it? */
template <typename L> static __device__ __forceinline__ bool ring_sees(const prefill_tma_call &c, const prefill_task &task, int begin, int lane)
{
    const int t = lane * c.page_tokens;
    return t < L::KEYS && prefill_task_sees(task, begin + t, begin + t + c.page_tokens);
}

/* Its page as the table has it, which is read a tile ahead; without pages the sequence's row. */
template <typename L> static __device__ __forceinline__ int ring_page(const prefill_tma_call &c, const prefill_task &task, int begin, int lane)
{
    const octavo_kv_view *kv = &c.of.kv;
    const int64_t row = octavo_view_row(kv, task.b);
    if (!c.page_tokens) return (int)row;
    return ring_sees<L>(c, task, begin, lane) ? kv->page_table[row * kv->page_table_stride + (begin + lane * c.page_tokens) / kv->block_tokens] : 0;
}

/* That page once it has come; -1: the box arrives as zeros, as no row sees it, or it is not there. */
template <typename L>
static __device__ __forceinline__ int ring_page_found(const prefill_tma_call &c, const prefill_task &task, int begin, int page, int lane)
{
    if (!c.page_tokens) return page;
    if (!ring_sees<L>(c, task, begin, lane)) return -1;
    if (page >= 0 && page < c.of.kv.pages) return page;
    report(c.of.device_status, OCTAVO_E_RANGE);
    return -1;
}

/* The boxes of tokens [begin, begin + KEYS) of one operand, a lane a page. */
template <typename L>
static __device__ __forceinline__ void ring_copy(const prefill_tma_call &c, const prefill_task &task, const CUtensorMap *map, int begin, int page, uint32_t to,
                                                 uint32_t barrier, int lane)
{
    const int t = lane * (c.page_tokens ? c.page_tokens : L::KEYS);
    if (t >= L::KEYS) return;
    const int token = c.page_tokens ? (begin + t) % c.of.kv.block_tokens : begin;
#pragma unroll
    for (int i = 0; i < L::DIM / ROW_ELEMENTS; i++)
        copy_box(to + (i * L::KEYS + t) * ROW_BYTES, map, barrier, i * ROW_ELEMENTS, token, task.kv_head, page);
}

/* The same without the copy engine, for the tile in which the sequence ends: what lies behind need not be memory, and may hold a NaN, which no
 * weight makes vanish. Keys that no row sees are zeros. */
template <typename L>
static __device__ __forceinline__ void ring_copy_rows(const prefill_tma_call &c, const prefill_task &task, const octavo_section *section, int begin,
                                                      uint32_t to, int lane)
{
    enum { PIECE = 16, ROW_PIECES = ROW_BYTES / PIECE };
    const prefill_place at = { task.b, task.kv_head, task.length, task.queries };
    for (int t = lane; t < L::KEYS; t += WARP) {
        const uint8_t *from = nullptr;
        stored_token found;
        if (begin + t < task.length && prefill_task_sees(task, begin + t, begin + t + 1) && prefill_find(c.of, at, begin + t, &found))
            from = stored_at(section, found);
        for (int i = 0; i < L::DIM / ROW_ELEMENTS; i++)
#pragma unroll
            for (int j = 0; j < ROW_PIECES; j++) {
                const uint4 piece = from ? *(const uint4 *)(from + (i * ROW_PIECES + j) * PIECE) : make_uint4(0, 0, 0, 0);
                store_shared_16(to + (i * L::KEYS + t) * ROW_BYTES + (j ^ t % ROW_PIECES) * PIECE, piece);
            }
    }
    fence_for_engines();
    __syncwarp();
}

/* Fills a stage whose last use is over. */
template <typename L>
static __device__ __forceinline__ void ring_fill(const prefill_tma_call &c, const prefill_task &task, const CUtensorMap *map, const octavo_section *section,
                                                 int begin, int page, uint32_t to, uint32_t full, int lane)
{
    if (begin + L::KEYS > task.length) {
        ring_copy_rows<L>(c, task, section, begin, to, lane);
        if (lane == 0) mbarrier_report(full);
    } else {
        if (lane == 0) mbarrier_report_and_expect(full, L::V_TILE_BYTES);
        __syncwarp();
        ring_copy<L>(c, task, map, begin, page, to, full, lane);
    }
    __syncwarp();
}

/* A tile of codes, whose rows are there for the padding of a sequence, too, and its scales. */
template <typename L>
static __device__ __forceinline__ void ring_fill_codes(const prefill_tma_call &c, const prefill_task &task, int begin, uint32_t to, uint32_t facts, uint32_t full,
                                                       int lane)
{
    const int64_t line = (int64_t)task.b * c.of.kv.kv_heads + task.kv_head;
    if (lane < 4 * L::SCALES)
        store_shared(facts + 8 + 4 * lane, __float_as_int(c.k_scale[(line * c.kv_tokens + begin) / OCTAVO_PREFILL_BLOCK * 4 + lane]));
    __syncwarp();
    if (lane != 0) return;
    mbarrier_report_and_expect(full, L::K_TILE_BYTES);
    for (int i = 0; i < L::KEY_COLUMNS; i++) copy_box(to + i * L::KEYS * L::KEY_ROW, &c.k, full, i * L::KEY_ROW, begin, task.kv_head, task.b);
}

/* The queries of a task, once those of the one before have had their last use. */
template <typename L> static __device__ __forceinline__ void ring_ask_queries(const prefill_tma_call &c, const prefill_task &task, uint32_t base, uint32_t parity)
{
    mbarrier_wait(base + L::Q_EMPTY, parity);
    if (threadIdx.x % WARP != 0) return;
    mbarrier_report_and_expect(base + L::Q_FULL, L::GROUPS * L::Q_GROUP_BYTES);
    for (int g = 0; g < L::GROUPS; g++)
        for (int i = 0; i < L::KEY_COLUMNS; i++)
            copy_box(base + g * L::Q_GROUP_BYTES + i * GROUP_ROWS * L::KEY_ROW, &c.q, base + L::Q_FULL, i * L::KEY_ROW / L::KEY_BYTES,
                     task.first_row + g * GROUP_ROWS, task.q_head, task.b);
}

/* The producer: one warp, of which a lane starts the copies. Blocks take tasks as they get done. */
template <typename L> static __device__ __forceinline__ void ring_produce(const prefill_tma_call &c, uint32_t base)
{
    const int lane = (int)threadIdx.x % WARP;
    ring_place k_at = { 0, 1 }, v_at = { 0, 1 }, told = { 0, 1 };
    uint32_t q_parity = 1;
    for (int index = (int)blockIdx.x, next = 0;; index = __shfl_sync(WHOLE_WARP, next, 0)) {
        const bool over = index >= c.order.tasks;
        mbarrier_wait(base + L::TASK_EMPTY + 8 * told.stage, told.parity);
        if (over && lane == 0) ring_tell<L>(base, told, nullptr);
        if (over) break;
        const prefill_task task = prefill_task_of(c.of, c.order, index, L::ROWS, L::KEYS);
        if (lane == 0) ring_tell<L>(base, told, &task), next = (int)gridDim.x + atomicAdd(c.next_task, 1);
        ring_advance<TASKS>(&told);
        if (task.tiles == 0) continue;
        ring_ask_queries<L>(c, task, base, q_parity), q_parity ^= 1;
        int ahead = ring_page<L>(c, task, prefill_tile_number(task, 0) * L::KEYS, lane);
        for (int j = 0; j < task.tiles; j++) {
            const int begin = prefill_tile_number(task, j) * L::KEYS, page = ring_page_found<L>(c, task, begin, ahead, lane);
            if (j + 1 < task.tiles) ahead = ring_page<L>(c, task, prefill_tile_number(task, j + 1) * L::KEYS, lane);
            const int flags = (prefill_tile_whole(task, begin, L::KEYS) ? 0 : TILE_MASKED) | (j == task.tiles - 1 ? TILE_LAST : 0);
            mbarrier_wait(base + L::K_EMPTY + 8 * k_at.stage, k_at.parity);
            const uint32_t facts = base + L::FACTS + L::FACT_BYTES * k_at.stage, k = base + L::K + k_at.stage * L::K_TILE_BYTES;
            if (lane == 0) store_shared(facts, begin), store_shared(facts + 4, flags);
            if (L::KEY_BYTES == 1) ring_fill_codes<L>(c, task, begin, k, facts, base + L::K_FULL + 8 * k_at.stage, lane);
            else ring_fill<L>(c, task, &c.k, &c.of.kv.k[0], begin, page, k, base + L::K_FULL + 8 * k_at.stage, lane);
            mbarrier_wait(base + L::V_EMPTY + 8 * v_at.stage, v_at.parity);
            ring_fill<L>(c, task, &c.v, &c.of.kv.v, begin, page, base + L::V + v_at.stage * L::V_TILE_BYTES, base + L::V_FULL + 8 * v_at.stage, lane);
            ring_advance<L::K_STAGES>(&k_at), ring_advance<L::V_STAGES>(&v_at);
        }
    }
}

#endif
