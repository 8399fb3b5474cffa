/* block_score_sm90.cu - which scans the streaming kernels of sm_90 take, and their plan. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/sm90/score_stream.cuh"

enum { BLOCKS_A_PROCESSOR = 2, BLOCK_BYTES = 80 << 10 /* so that there are no more of them, yet room for a block of the selection */ };

template <int KEY, int COLS> static octavo_status launch(const octavo_exec *exec, const score_stream_call &call)
{
    const int64_t heads = call.of.kv.batch * call.of.kv.kv_heads;
    octavo_cuda_machine machine;
    OCTAVO_CUDA_TRY(octavo_cuda_machine_of(&machine));
    const int64_t slots = (int64_t)machine.processors * BLOCKS_A_PROCESSOR, shares = heads < slots ? slots / heads : 1;
    const dim3 grid((unsigned)(shares < call.of.units ? shares : call.of.units), (unsigned)heads);
    static_assert(STREAM_WARPS * stream_unit<KEY>::DEPTH * stream_unit<KEY>::BYTES <= BLOCK_BYTES, "a ring a warp");
    OCTAVO_CUDA_TRY(octavo_cuda_share_processors(score_stream<KEY, COLS>, "block_score"));
    return octavo_cuda_launch(score_stream<KEY, COLS>, "block_score", grid, STREAM_THREADS, BLOCK_BYTES, exec, call);
}

template <int KEY> static octavo_status launch(const octavo_exec *exec, const score_stream_call &call)
{
    return call.of.rows <= COLUMN_ROWS ? launch<KEY, 1>(exec, call) : launch<KEY, 2>(exec, call);
}

/* Whole units lie as one run each in pages of a power of two of units, and so do their scales. */
static bool units_are_runs(const octavo_kv_view *kv, key_kind key)
{
    const int blocks = kv->block_tokens / UNIT_TOKENS, pieces = key_pieces(key, STREAM_DIM);
    const bool scales = kv->k_scale.data ? scales_are_dense(&kv->k_scale, key_width(key)) : key_width(key) == 1;
    return kv->sub_block_tokens == UNIT_TOKENS && kv->block_tokens % UNIT_TOKENS == 0 && (blocks & (blocks - 1)) == 0 && rows_fit(&kv->k[0], pieces) &&
           kv->k[0].token_bytes == PIECE * pieces && scales;
}

octavo_status octavo_block_score_sm90(const octavo_exec *exec, const octavo_block_score_params *p)
{
    const octavo_kv_view *kv = p->in.kv;
    const key_kind key = key_kind_of(kv->k_format, p->in.planes);
    const size_t pools = (size_t)(kv->batch * kv->kv_heads) * sizeof(stream_pool);
    const score_stream_call call = { decode_call_of(&p->in), *p, exec->workspace_bytes >= pools ? (stream_pool *)exec->workspace : nullptr };
    const bool fits = !p->only && !p->log_upper && !p->scores && p->in.window == 0 && kv->head_dim == STREAM_DIM && p->in.q.dtype != OCTAVO_F32 &&
                      call.of.rows <= STREAM_ROWS && kv->batch * kv->kv_heads <= 65535 && kv->max_tokens < INT32_MAX - UNIT_TOKENS;
    if (fits && key == KEY_E4M3 && units_are_runs(kv, key)) return launch<KEY_E4M3>(exec, call);
    if (fits && key == KEY_INT8 && units_are_runs(kv, key)) return launch<KEY_INT8>(exec, call);
    if (fits && key == KEY_INT4_BASE && units_are_runs(kv, key)) return launch<KEY_INT4_BASE>(exec, call);
    return octavo_block_score_cuda(exec, p);
}
