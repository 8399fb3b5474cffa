/* prefill_ring.cuh - shared memory of the prefill kernels of sm_90, and the warps that fill it.
 *
 * A tile of keys or values is [columns][keys][128 bytes of a row], swizzled as the copy engine and the matrix unit agree on; the queries of
 * a warpgroup are such a tile of 64 rows. Where a row ends within a column the copy engine fills up with zeros. Keys and values have a ring
 * each. Of a tile of keys its first key and what a warpgroup has to know of it lie beside it, of a task what its rows need. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_RING_CUH
#define OCTAVO_CUDA_TILE_PREFILL_RING_CUH

#include "cuda/ptx/ptx_tma.cuh"
#include "cuda/ptx/ptx_wgmma.cuh"
#include "cuda/tile/prefill_cap.cuh"
#include "cuda/tile/prefill_tasks.cuh"

enum { GROUP_ROWS = 64, GROUP_THREADS = 128, ROW_BYTES = 128, ROW_ELEMENTS = 64, SWIZZLE_BYTES = 1024, TASKS = 2 /* known ahead */ };
enum ring_operand { OF_KEYS, OF_VALUES };
enum ring_source { FROM_TENSOR, FROM_PAGES, FROM_ROWS /* not by the copy engine */ };
enum { TILE_MASKED = 1, TILE_LAST = 2, SPAN_BYTES = 12 /* of a row: what it sees */ };
enum told_task { TOLD_INDEX, TOLD_TILES /* -1: there is no task any more */, TOLD_ROW, TOLD_BATCH, TOLD_HEAD, TOLD_QUERIES, TOLD_LENGTH, TOLD_WORDS };

struct prefill_tma_call {
    CUtensorMap q, k, v; /* axes: element, token (of a page), head, sequence (or page) */
    prefill_call of;
    prefill_order order;
    int *next_task; /* a word of the workspace, 0 at first */
    int page_tokens, boxes; /* tokens a box brings, of one page, and boxes of a tile; 0 and 1: the view has no page table */
    float scale_log2;
    int64_t q_tokens, kv_tokens;                   /* where queries and keys are codes: see kernel/prefill_eight.h */
    const float *q_scale, *q_shift, *k_scale;
    prefill_cap_terms cap;
};

/* Where things lie in shared memory, from a base that is a multiple of SWIZZLE_BYTES. */
template <int DIM_, int KEY_BYTES_, int KEYS_, int GROUPS_, int STAGES_> struct prefill_layout {
    enum { DIM = DIM_, KEY_BYTES = KEY_BYTES_ /* of an element of Q and K */, KEYS = KEYS_, GROUPS = GROUPS_, STAGES = STAGES_ };
    enum { ROWS = GROUPS * GROUP_ROWS, THREADS = (GROUPS + 1) * GROUP_THREADS, WARPS = GROUPS * GROUP_THREADS / WARP };
    enum { KEY_ROW = DIM * KEY_BYTES > 64 ? ROW_BYTES : 64 /* of a column */, KEY_COLUMNS = (DIM * KEY_BYTES + KEY_ROW - 1) / KEY_ROW };
    enum { V_COLUMNS = (DIM * 2 + ROW_BYTES - 1) / ROW_BYTES, V_TILE_BYTES = KEYS * V_COLUMNS * ROW_BYTES };
    enum { Q_GROUP_BYTES = GROUP_ROWS * KEY_COLUMNS * KEY_ROW, K_TILE_BYTES = KEYS * KEY_COLUMNS * KEY_ROW };
    enum { SCALES = KEY_BYTES == 1 ? KEYS / OCTAVO_PREFILL_BLOCK : 0, FACT_BYTES = 8 + 16 * SCALES /* of a tile: its first key, flags, codes' scales */ };
    enum { K = GROUPS * Q_GROUP_BYTES, V = K + STAGES * K_TILE_BYTES, BARRIERS = V + STAGES * V_TILE_BYTES };
    enum { Q_FULL = BARRIERS, Q_EMPTY = Q_FULL + 8, K_FULL = Q_EMPTY + 8, K_EMPTY = K_FULL + 8 * STAGES, V_FULL = K_EMPTY + 8 * STAGES };
    enum { V_EMPTY = V_FULL + 8 * STAGES, TASK_FULL = V_EMPTY + 8 * STAGES, TASK_EMPTY = TASK_FULL + 8 * TASKS, FACTS = TASK_EMPTY + 8 * TASKS };
    enum { TASK = FACTS + FACT_BYTES * STAGES, SPANS = TASK + 4 * TOLD_WORDS * TASKS, BYTES = SPANS + SPAN_BYTES * ROWS + SWIZZLE_BYTES };
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
    for (int i = 0; i < L::STAGES; i++) {
        mbarrier_init(base + L::K_FULL + 8 * i, 1), mbarrier_init(base + L::K_EMPTY + 8 * i, L::WARPS);
        mbarrier_init(base + L::V_FULL + 8 * i, 1), mbarrier_init(base + L::V_EMPTY + 8 * i, L::GROUPS);
    }
    for (int i = 0; i < TASKS; i++) mbarrier_init(base + L::TASK_FULL + 8 * i, 1), mbarrier_init(base + L::TASK_EMPTY + 8 * i, L::WARPS + 1);
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

/* One lane tells the other warps of a task; nullptr: that there is none any more. */
template <typename L> static __device__ __forceinline__ void ring_tell(uint32_t base, const ring_place &at, int index, const prefill_task *task)
{
    const uint32_t to = base + L::TASK + 4 * TOLD_WORDS * at.stage;
    store_shared(to + 4 * TOLD_INDEX, index), store_shared(to + 4 * TOLD_TILES, task ? task->tiles : -1);
    if (task) {
        store_shared(to + 4 * TOLD_ROW, task->first_row), store_shared(to + 4 * TOLD_BATCH, task->b), store_shared(to + 4 * TOLD_HEAD, task->q_head);
        store_shared(to + 4 * TOLD_QUERIES, task->queries), store_shared(to + 4 * TOLD_LENGTH, task->length);
    }
    mbarrier_report(base + L::TASK_FULL + 8 * at.stage);
}

/* Where a lane's box of a tile comes from: a page, or the sequence's row where there are none, and the box's first token there. */
struct ring_box {
    int page, token; /* token -1: no row sees the box */
};

/* The boxes of tiles from the task's j-th on, c.boxes a tile, a lane a box. The table's words are not waited for. */
template <typename L>
static __device__ __forceinline__ ring_box ring_look_up(const prefill_tma_call &c, const prefill_task &task, int row, int j, int lane)
{
    const octavo_kv_view *kv = &c.of.kv;
    const int tile = j + lane / c.boxes;
    if (tile >= task.tiles) return { -1, -1 };
    const int begin = prefill_tile_number(task, tile) * L::KEYS + lane % c.boxes * c.page_tokens, block = begin / kv->block_tokens;
    if (!prefill_task_sees(task, begin, begin + c.page_tokens)) return { -1, -1 };
    return { kv->page_table[row * kv->page_table_stride + block], begin - block * kv->block_tokens };
}

/* Its page once it has come; -1: the box arrives as zeros, as no row sees it, or it is not there. */
static __device__ __forceinline__ int ring_page_found(const prefill_tma_call &c, const ring_box &box)
{
    if (box.token < 0) return -1;
    if (box.page >= 0 && box.page < c.of.kv.pages) return box.page;
    report(c.of.device_status, OCTAVO_E_RANGE);
    return -1;
}

/* The boxes of a tile of one operand, of which each of the first lanes has one. */
template <typename L>
static __device__ __forceinline__ void ring_copy(const prefill_tma_call &c, const prefill_task &task, const CUtensorMap *map, const ring_box &box, uint32_t to,
                                                 uint32_t barrier, int lane)
{
    if (lane >= c.boxes) return;
#pragma unroll
    for (int i = 0; i < L::V_COLUMNS; i++)
        copy_box(to + (i * L::KEYS + lane * c.page_tokens) * ROW_BYTES, map, barrier, i * ROW_ELEMENTS, box.token, task.kv_head, box.page);
}

/* The same without the copy engine, for the tile in which the sequence ends: what lies behind need not be memory, and may hold a NaN, which no
 * weight makes vanish. Keys that no row sees are zeros. */
template <typename L>
static __device__ __forceinline__ void ring_copy_rows(const prefill_tma_call &c, const prefill_task &task, const octavo_section *section, int begin,
                                                      uint32_t to, int lane)
{
    enum { PIECE = 16, ROW_PIECES = ROW_BYTES / PIECE, PIECES = L::DIM * 2 / PIECE };
    const prefill_place at = { task.b, task.kv_head, task.length, task.queries };
    for (int t = lane; t < L::KEYS; t += WARP) {
        const uint8_t *from = nullptr;
        stored_token found;
        if (begin + t < task.length && prefill_task_sees(task, begin + t, begin + t + 1) && prefill_find(c.of, at, begin + t, &found))
            from = stored_at(section, found);
        for (int i = 0; i < L::V_COLUMNS; i++)
#pragma unroll
            for (int j = 0; j < ROW_PIECES; j++) {
                if (PIECES % ROW_PIECES && i * ROW_PIECES + j >= PIECES) continue; /* nothing reads what is beyond */
                const uint4 piece = from ? *(const uint4 *)(from + (i * ROW_PIECES + j) * PIECE) : make_uint4(0, 0, 0, 0);
                store_shared_16(to + (i * L::KEYS + t) * ROW_BYTES + (j ^ t % ROW_PIECES) * PIECE, piece);
            }
    }
    fence_for_engines();
    __syncwarp();
}

/* Fills a stage whose last use is over. */
template <typename L, ring_source FROM>
static __device__ __forceinline__ void ring_fill(const prefill_tma_call &c, const prefill_task &task, const CUtensorMap *map, const octavo_section *section,
                                                 int begin, const ring_box &box, uint32_t to, uint32_t full, int lane)
{
    if (FROM == FROM_ROWS) {
        ring_copy_rows<L>(c, task, section, begin, to, lane);
        if (lane == 0) mbarrier_report(full);
    } else {
        if (lane == 0) mbarrier_report_and_expect(full, L::V_TILE_BYTES);
        __syncwarp();
        ring_copy<L>(c, task, map, box, to, full, lane);
    }
    __syncwarp();
}

/* A tile of codes, whose rows are there for the padding of a sequence, too, and its scales. One lane stores them, the one that reports: tools that
 * look for races follow no other. */
template <typename L>
static __device__ __forceinline__ void ring_fill_codes(const prefill_tma_call &c, const prefill_task &task, int begin, uint32_t to, uint32_t facts, uint32_t full,
                                                       int lane)
{
    const int64_t line = (int64_t)task.b * c.of.kv.kv_heads + task.kv_head;
    const float4 *from = (const float4 *)c.k_scale + (line * c.kv_tokens + begin) / OCTAVO_PREFILL_BLOCK;
    float4 scales[L::SCALES];
    if (lane != 0) return;
#pragma unroll
    for (int i = 0; i < L::SCALES; i++) scales[i] = from[i];
    for (int i = 0; i < L::KEY_COLUMNS; i++) copy_box(to + i * L::KEYS * L::KEY_ROW, &c.k, full, i * L::KEY_ROW, begin, task.kv_head, task.b);
#pragma unroll
    for (int i = 0; i < 4 * L::SCALES; i++) store_shared(facts + 8 + 4 * i, __float_as_int((&scales[i / 4].x)[i % 4]));
    mbarrier_report_and_expect(full, L::K_TILE_BYTES);
}

/* The queries of a task, in columns of ROW bytes of a row, once those of the one before have had their last use. */
template <typename L, int COLUMNS, int ROW, int ELEMENT_BYTES>
static __device__ __forceinline__ void ring_ask_queries(const CUtensorMap *q, const prefill_task &task, uint32_t base, uint32_t parity)
{
    mbarrier_wait(base + L::Q_EMPTY, parity);
    if (threadIdx.x % WARP != 0) return;
    mbarrier_report_and_expect(base + L::Q_FULL, L::GROUPS * L::Q_GROUP_BYTES);
    for (int g = 0; g < L::GROUPS; g++)
        for (int i = 0; i < COLUMNS; i++)
            copy_box(base + g * L::Q_GROUP_BYTES + i * GROUP_ROWS * ROW, q, base + L::Q_FULL, i * ROW / ELEMENT_BYTES, task.first_row + g * GROUP_ROWS,
                     task.q_head, task.b);
}

/* The task's j-th tile of one operand; with the keys what there is to know of them. */
template <typename L, ring_operand OF, ring_source FROM>
static __device__ __forceinline__ void ring_put(const prefill_tma_call &c, const prefill_task &task, uint32_t base, int j, const ring_box &box, ring_place *at,
                                                int lane)
{
    const int begin = prefill_tile_number(task, j) * L::KEYS;
    const uint32_t ring = base + 8 * at->stage, facts = base + L::FACTS + L::FACT_BYTES * at->stage;
    if (OF == OF_VALUES) {
        mbarrier_wait(ring + L::V_EMPTY, at->parity);
        ring_fill<L, FROM>(c, task, &c.v, &c.of.kv.v, begin, box, base + L::V + at->stage * L::V_TILE_BYTES, ring + L::V_FULL, lane);
    } else {
        const uint32_t k = base + L::K + at->stage * L::K_TILE_BYTES;
        mbarrier_wait(ring + L::K_EMPTY, at->parity);
        if (lane == 0) {
            store_shared(facts, begin);
            store_shared(facts + 4, (prefill_tile_whole(task, begin, L::KEYS) ? 0 : TILE_MASKED) | (j == task.tiles - 1 ? TILE_LAST : 0));
        }
        if constexpr (L::KEY_BYTES == 1) ring_fill_codes<L>(c, task, begin, k, facts, ring + L::K_FULL, lane);
        else ring_fill<L, FROM>(c, task, &c.k, &c.of.kv.k[0], begin, box, k, ring + L::K_FULL, lane);
    }
    ring_advance<L::STAGES>(at);
}

/* The first `tiles` tiles of a task by the copy engine. Pages are looked up as many boxes at a time as a warp has lanes, and that long ahead. */
template <typename L, ring_operand OF, ring_source FROM>
static __device__ __forceinline__ void ring_put_tiles(const prefill_tma_call &c, const prefill_task &task, uint32_t base, int row, int tiles, ring_place *at,
                                                      int lane)
{
    ring_box ahead = { -1, -1 }, found = { -1, -1 };
    int first = WARP; /* of the tile's boxes among those found */
    if (FROM == FROM_PAGES) ahead = ring_look_up<L>(c, task, row, 0, lane);
#pragma unroll 1
    for (int j = 0; j < tiles; j++) {
        ring_box box = { row, prefill_tile_number(task, j) * L::KEYS };
        if (FROM == FROM_PAGES) {
            if (first + c.boxes > WARP) {
                found = { ring_page_found(c, ahead), ahead.token }, first = 0;
                ahead = ring_look_up<L>(c, task, row, j + WARP / c.boxes, lane);
            }
            box = { __shfl_sync(WHOLE_WARP, found.page, first + lane), __shfl_sync(WHOLE_WARP, found.token, first + lane) };
            first += c.boxes;
        }
        ring_put<L, OF, FROM>(c, task, base, j, box, at, lane);
    }
}

/* All tiles of a task, of which the sequence may end in the last only. */
template <typename L, ring_operand OF>
static __device__ __forceinline__ void ring_put_task(const prefill_tma_call &c, const prefill_task &task, uint32_t base, ring_place *at, int lane)
{
    const int row = (int)octavo_view_row(&c.of.kv, task.b), last = task.tiles - 1;
    const int tiles = (prefill_tile_number(task, last) + 1) * L::KEYS <= task.length ? task.tiles : last;
    if (c.page_tokens && (OF == OF_VALUES || L::KEY_BYTES > 1)) ring_put_tiles<L, OF, FROM_PAGES>(c, task, base, row, tiles, at, lane);
    else ring_put_tiles<L, OF, FROM_TENSOR>(c, task, base, row, tiles, at, lane);
    if (tiles == last) ring_put<L, OF, FROM_ROWS>(c, task, base, last, { -1, -1 }, at, lane);
}

/* The first of two warps that copy takes tasks as the block gets done with others, and brings queries and keys. */
template <typename L> static __device__ __forceinline__ void ring_produce_keys(const prefill_tma_call &c, uint32_t base)
{
    const int lane = (int)threadIdx.x % WARP;
    ring_place at = { 0, 1 }, told = { 0, 1 };
    uint32_t q_parity = 1;
    for (int index = (int)blockIdx.x, next = 0;; index = __shfl_sync(WHOLE_WARP, next, 0)) {
        const bool over = index >= c.order.tasks;
        mbarrier_wait(base + L::TASK_EMPTY + 8 * told.stage, told.parity);
        if (over && lane == 0) ring_tell<L>(base, told, index, nullptr);
        if (over) break;
        const prefill_task task = prefill_task_of(c.of, c.order, index, L::ROWS, L::KEYS);
        if (lane == 0) ring_tell<L>(base, told, index, &task), next = (int)gridDim.x + atomicAdd(c.next_task, 1);
        ring_advance<TASKS>(&told);
        if (task.tiles == 0) continue;
        ring_ask_queries<L, L::KEY_COLUMNS, L::KEY_ROW, L::KEY_BYTES>(&c.q, task, base, q_parity), q_parity ^= 1;
        ring_put_task<L, OF_KEYS>(c, task, base, &at, lane);
    }
}

/* The second brings values. */
template <typename L> static __device__ __forceinline__ void ring_produce_values(const prefill_tma_call &c, uint32_t base)
{
    const int lane = (int)threadIdx.x % WARP;
    ring_place at = { 0, 1 }, told = { 0, 0 };
    for (;;) {
        mbarrier_wait(base + L::TASK_FULL + 8 * told.stage, told.parity);
        const int index = ring_fact(base + L::TASK + 4 * (TOLD_WORDS * told.stage + TOLD_INDEX));
        if (index >= c.order.tasks) break;
        ring_report(base + L::TASK_EMPTY + 8 * told.stage);
        ring_advance<TASKS>(&told);
        const prefill_task task = prefill_task_of(c.of, c.order, index, L::ROWS, L::KEYS);
        if (task.tiles > 0) ring_put_task<L, OF_VALUES>(c, task, base, &at, lane);
    }
}

#endif
