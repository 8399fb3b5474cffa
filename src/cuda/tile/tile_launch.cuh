/* tile_launch.cuh - plans and launches the matrix kernels of one head size; each source that includes it instantiates its own. */
#ifndef OCTAVO_CUDA_TILE_TILE_LAUNCH_CUH
#define OCTAVO_CUDA_TILE_TILE_LAUNCH_CUH

#include "cuda/cuda_call.h"
#include "cuda/tile/attend_tiles.cuh"
#include "cuda/tile/score_tiles.cuh"

template <int DIM, int KEY, int VALUE, int COLS>
static octavo_status launch_attend(const octavo_exec *exec, const attend_tiles_call &planned)
{
    attend_tiles_call call = planned;
    const octavo_kv_view *kv = &call.of.kv;
    const int results = means_other<DIM, COLS>() + TILE_TOKENS * DIM, ring = attend_stage<DIM, KEY, VALUE>::DEPTH * attend_stage<DIM, KEY, VALUE>::BYTES;
    constexpr int WARPS = attend_stage<DIM, KEY, VALUE>::WARPS;
    call.ring_bytes = (ring > results ? ring : results) / 128 * 128 + 128;
    const dim3 grid((unsigned)octavo_cuda_ceil(call.of.rows, 8 * COLS), (unsigned)call.p.splits, (unsigned)(kv->batch * kv->kv_heads));
    return octavo_cuda_launch(attend_tiles<DIM, KEY, VALUE, COLS>, "block_attend", grid, 32 * WARPS, (size_t)WARPS * call.ring_bytes, exec, call);
}

template <int DIM, int KEY, int COLS, int TILES> static octavo_status launch_score_of(const octavo_exec *exec, const score_tiles_call &planned)
{
    enum { PROCESSOR_BYTES = 220 << 10, BLOCKS_MOST = DIM <= 128 && COLS == 1 ? 4 : 2 };
    score_tiles_call call = planned;
    const octavo_kv_view *kv = &call.of.kv;
    octavo_cuda_machine machine;
    OCTAVO_CUDA_TRY(octavo_cuda_machine_of(&machine));
    call.unit_tiles = kv->sub_block_tokens / TILE_TOKENS;
    call.ring_bytes = STAGES * TILES * tile_layout_of(KEY, VALUE_ANY, DIM).bytes / 128 * 128 + 128;
    const int fit = PROCESSOR_BYTES / (SCORE_WARPS * call.ring_bytes + 1024), blocks = fit < 1 ? 1 : fit < BLOCKS_MOST ? fit : BLOCKS_MOST;
    const int64_t heads = kv->batch * kv->kv_heads, slots = (int64_t)machine.processors * blocks, shares = heads < slots ? slots / heads : 1;
    const dim3 grid((unsigned)octavo_cuda_ceil(call.of.rows, 8 * COLS), (unsigned)(shares < call.of.units ? shares : call.of.units), (unsigned)heads);
    return octavo_cuda_launch(score_tiles<DIM, KEY, COLS, TILES>, "block_score", grid, SCORE_THREADS, (size_t)SCORE_WARPS * call.ring_bytes, exec, call);
}

template <int DIM, int KEY, int COLS> static octavo_status launch_score(const octavo_exec *exec, const score_tiles_call &call)
{
    constexpr int TILES = stage_tiles(tile_layout_of(KEY, VALUE_ANY, DIM).bytes); /* where units are smaller: one */
    return call.of.kv.sub_block_tokens % (TILES * TILE_TOKENS) == 0 ? launch_score_of<DIM, KEY, COLS, TILES>(exec, call)
                                                                    : launch_score_of<DIM, KEY, COLS, 1>(exec, call);
}

/* The kernels of a head size: X(key, value) for attention, Y(key) for scores. */
#define TILE_ATTEND_CASE(key_name, value_name)                                                        \
    if (key == KEY_##key_name && value == VALUE_##value_name) {                                       \
        *done = true;                                                                                 \
        return call.of.rows <= 8 ? launch_attend<TILE_DIM, KEY_##key_name, VALUE_##value_name, 1>(exec, call) \
                                 : launch_attend<TILE_DIM, KEY_##key_name, VALUE_##value_name, 2>(exec, call); \
    }
#define TILE_SCORE_CASE(key_name)                                                                     \
    if (key == KEY_##key_name) {                                                                      \
        *done = true;                                                                                 \
        return call.of.rows <= 8 ? launch_score<TILE_DIM, KEY_##key_name, 1>(exec, call)              \
                                 : launch_score<TILE_DIM, KEY_##key_name, 2>(exec, call);             \
    }

#define TILE_ATTEND_OF(name)                                                                                              \
    octavo_status name(const octavo_exec *exec, const attend_tiles_call &call, key_kind key, value_kind value, bool *done)
#define TILE_SCORE_OF(name) octavo_status name(const octavo_exec *exec, const score_tiles_call &call, key_kind key, bool *done)

TILE_ATTEND_OF(octavo_attend_tiles_64);
TILE_ATTEND_OF(octavo_attend_tiles_96);
TILE_ATTEND_OF(octavo_attend_tiles_128);
TILE_ATTEND_OF(octavo_attend_tiles_128_nested);
TILE_ATTEND_OF(octavo_attend_tiles_256);
TILE_SCORE_OF(octavo_score_tiles_64);
TILE_SCORE_OF(octavo_score_tiles_96);
TILE_SCORE_OF(octavo_score_tiles_128);
TILE_SCORE_OF(octavo_score_tiles_256);

#endif
