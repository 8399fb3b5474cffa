/* decode_fused_sm90.cu - dense decode that streams and merges in one kernel, for the calls that ask for the merge and fit; delta by this
 * level's scan and selection. All other calls are handed down. */
#include "cuda/cuda_install.h"
#include "cuda/sm80/decode_tiles_sm80.h"
#include "cuda/sm90/stream_fit.h"
#include "cuda/sm90/stream_launch.cuh"

/* ---- what fits ---- */

/* What the copy engine can bring, of a call that asks for nothing but attention. */
static bool view_streams(const octavo_decode_fused_params *p, key_kind key, value_kind value)
{
    const bool delta = p->rule == OCTAVO_SELECT_DELTA;
    if (p->split_units || !p->kept == delta || p->part_kept || p->part_dropped) return false;
    return keys_and_values_stream(&p->in, key, value, delta ? 2 : 1);
}

static int64_t call_rows(const octavo_decode_fused_params *p) { return p->in.q.shape[1] * p->in.q.shape[2] / p->in.kv->kv_heads; }

static bool call_streams(const octavo_exec *exec, const octavo_decode_fused_params *p, key_kind key, value_kind value)
{
    const octavo_kv_view *kv = p->in.kv;
    const int64_t groups = kv->batch * kv->kv_heads;
    if (!p->merged || !p->merged_out.data || call_rows(p) > STREAM_ROWS || kv->block_tokens % 32 || groups > 65535) return false;
    if (exec->workspace_bytes < (size_t)groups * sizeof(stream_count) || (uintptr_t)exec->workspace % 8) return false;
    return (uintptr_t)p->part_out % sizeof(float4) == 0 && view_streams(p, key, value);
}

/* FP8 over E4M3, and so many rows that it pays: more than a stream has columns, and of short heads more than a tile has. */
static bool call_is_eight(const octavo_decode_fused_params *p, key_kind key, value_kind value)
{
    const octavo_kv_view *kv = p->in.kv;
    const bool dim = kv->head_dim == 64 || kv->head_dim == 128 || kv->head_dim == 256;
    if (p->in.precision != OCTAVO_ATTENTION_FP8 || p->rule == OCTAVO_SELECT_DELTA || key != KEY_E4M3 || value != VALUE_E4M3 || !dim) return false;
    if (call_rows(p) <= (kv->head_dim == 64 ? 16 : STREAM_ROWS) || kv->block_tokens % 64 || kv->batch * ((call_rows(p) + 63) / 64) > 65535 || kv->kv_heads > 65535) return false;
    return p->splits < 65536 && (uintptr_t)p->part_out % sizeof(float2) == 0 && view_streams(p, key, value);
}

/* ---- the call ---- */

static stream_call fused_call_of(const octavo_exec *exec, const octavo_decode_fused_params *p, int processors)
{
    return stream_call_of(&p->in, { p->splits, p->part_out, p->part_lse, p->merged_out, p->merged_lse }, exec->workspace, processors);
}

octavo_status octavo_decode_fused_sm90(const octavo_exec *exec, const octavo_decode_fused_params *p)
{
    const octavo_kv_view *kv = p->in.kv;
    const bool delta = p->rule == OCTAVO_SELECT_DELTA;
    const key_kind key = key_kind_of(kv->k_format, delta || p->rule == OCTAVO_SELECT_BASE ? 1 : p->in.planes); /* what is read of every unit */
    const value_kind value = value_kind_of(kv->v_format);
    octavo_cuda_machine machine;
    bool done = false;
    OCTAVO_CUDA_TRY(decode_check(&p->in));
    OCTAVO_CUDA_TRY(octavo_cuda_machine_of(&machine));
    if (call_is_eight(p, key, value)) {
        const stream_call call = fused_call_of(exec, p, machine.processors);
        return octavo_attend_eight(exec, &call, p);
    }
    if (key != KEY_NONE && key_planes(key) == 1 && value != VALUE_ANY && call_streams(exec, p, key, value)) {
        stream_call call = fused_call_of(exec, p, machine.processors);
        if (delta) OCTAVO_CUDA_TRY(p->in.planes > 1 ? octavo_attend_delta(exec, &call, p, &done) : OCTAVO_OK);
        else if (kv->head_dim == 64) OCTAVO_CUDA_TRY(octavo_attend_stream_64(exec, &call, kv, key, value, &done));
        else if (kv->head_dim == 128) OCTAVO_CUDA_TRY(octavo_attend_stream_128(exec, &call, kv, key, value, &done));
        else if (kv->head_dim == 256) OCTAVO_CUDA_TRY(octavo_attend_stream_256(exec, &call, kv, key, value, &done));
    }
    if (done) *p->merged = 1;
    if (done) return OCTAVO_OK;
    return delta ? octavo_decode_above_threshold(exec, p, octavo_block_score_sm90, octavo_block_select_sm90) : octavo_decode_fused_cuda(exec, p);
}
