/* prefill_tasks.cuh - what a block of the prefill kernels of sm_90 works on: its rows, and the tiles of keys that they see. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_TASKS_CUH
#define OCTAVO_CUDA_TILE_PREFILL_TASKS_CUH

#include "cuda/tile/prefill_call.cuh"

/* Heads are taken in sections whose keys and values stay in the second-level cache together; within one, the rows that see most come first. */
struct prefill_order {
    int tasks, row_tiles, heads, section_heads;
};

struct prefill_task {
    int b, q_head, kv_head, first_row, queries, length;
    int tiles, sink_tiles, near_tile; /* of keys: the sinks' first, then those from near_tile on */
    int sink_end, near_begin, end;             /* some row sees the keys before sink_end, and those from near_begin to end */
    int whole_end, whole_near, whole_sink; /* every row sees the keys from whole_near to whole_end, and those before whole_sink */
};

static __device__ __forceinline__ prefill_task prefill_task_of(const prefill_call &c, const prefill_order &order, int index, int rows, int keys)
{
    prefill_task task = {};
    const int section = index / (order.section_heads * order.row_tiles), first_head = section * order.section_heads;
    const int left = order.heads - first_head, heads = left < order.section_heads ? left : order.section_heads;
    const int within = index - first_head * order.row_tiles, head = first_head + within % heads, q_heads = (int)c.p.q.shape[2];
    task.b = head / q_heads, task.q_head = head % q_heads, task.kv_head = task.q_head / (int)c.group;
    task.first_row = (order.row_tiles - 1 - within / heads) * rows;
    const prefill_place at = prefill_place_of(c, task.b, task.kv_head);
    task.queries = (int)at.queries, task.length = (int)at.length;
    if (task.first_row >= task.queries) return task;
    const int last_row = task.first_row + rows < task.queries ? task.first_row + rows - 1 : task.queries - 1;
    const octavo_span first = octavo_prefill_span_of(&c.p, task.length, task.queries, task.first_row);
    const octavo_span last = octavo_prefill_span_of(&c.p, task.length, task.queries, last_row);
    task.whole_end = (int)first.end, task.whole_near = (int)last.near_begin, task.whole_sink = (int)first.sink_end;
    task.sink_end = (int)(last.sink_end < first.near_begin ? last.sink_end : first.near_begin);
    task.near_begin = (int)first.near_begin, task.end = (int)last.end;
    task.sink_tiles = (task.sink_end + keys - 1) / keys, task.near_tile = task.near_begin / keys;
    if (task.near_tile <= task.sink_tiles) task.near_tile = task.sink_tiles;
    const int end_tile = (task.end + keys - 1) / keys;
    task.tiles = task.sink_tiles + (end_tile > task.near_tile ? end_tile - task.near_tile : 0);
    return task;
}

/* Some row sees one of the keys [begin, end). */
static __device__ __forceinline__ bool prefill_task_sees(const prefill_task &task, int begin, int end)
{
    return begin < task.sink_end || (begin < task.end && end > task.near_begin);
}

static __device__ __forceinline__ int prefill_tile_number(const prefill_task &task, int j)
{
    return j < task.sink_tiles ? j : task.near_tile + j - task.sink_tiles;
}

/* 1: every row of the task sees every key of the tile. */
static __device__ __forceinline__ bool prefill_tile_whole(const prefill_task &task, int begin, int keys)
{
    return begin + keys <= task.whole_end && (begin >= task.whole_near || begin + keys <= task.whole_sink);
}

#endif
