/* block_attend_sm90.cu - attention over kept units of 64 tokens and heads of 128 elements, with both planes of K, for the calls that ask
 * for the merge. All other calls are handed down. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/sm90/attend_kept.cuh"
#include "cuda/sm90/stream_fit.h"
#include "cuda/sm90/stream_launch.cuh"

/* Bytes of shared memory that a block may have; that let a block of the selection run beside it. */
enum { KEPT_MEMORY = 226 << 10, KEPT_MEMORY_BESIDE = 216 << 10 };

template <int KEY, int VALUE>
static octavo_status launch_kept(const octavo_exec *exec, kept_call *call, const octavo_kv_view *kv, bool *done)
{
    typedef kept_kind<KEY, VALUE> KIND;
    const size_t declared = KIND::SLOTS * (KIND::SIDE + 8) + 1024;
    const size_t pages = kv->page_table ? sizeof(int32_t) * (size_t)octavo_cuda_ceil(kv->max_tokens, kv->block_tokens) : 0;
    const size_t least = KIND::LIST_AT + (size_t)(call->units + call->units / STATES_EACH + 1) * sizeof(uint16_t);
    call->holds_pages = least + pages + declared <= KEPT_MEMORY_BESIDE;
    const size_t bytes = least + (call->holds_pages ? pages : 0);
    *done = bytes + declared <= KEPT_MEMORY;
    if (!*done) return OCTAVO_OK;
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->k[0], KIND::K_ROW, KIND::TOKENS, &call->of.k));
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->k[1], KIND::K_ROW, KIND::TOKENS, &call->more));
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->v, KEPT_DIM, KIND::TOKENS, &call->of.v));
    const dim3 grid((unsigned)kv->kv_heads, (unsigned)kv->batch, (unsigned)call->of.splits);
    return octavo_cuda_launch(attend_kept<KIND>, "block_attend", grid, STREAM_THREADS, bytes, exec, *call);
}

static octavo_status launch_kept_of(const octavo_exec *exec, kept_call *call, const octavo_kv_view *kv, key_kind key, value_kind value, bool *done)
{
    if (key == KEY_E4M3X2 && value == VALUE_E4M3) return launch_kept<KEY_E4M3X2, VALUE_E4M3>(exec, call, kv, done);
    if (key == KEY_E4M3X2 && value == VALUE_INT8) return launch_kept<KEY_E4M3X2, VALUE_INT8>(exec, call, kv, done);
    if (key == KEY_INT8X2 && value == VALUE_INT8) return launch_kept<KEY_INT8X2, VALUE_INT8>(exec, call, kv, done);
    if (key == KEY_INT8X2 && value == VALUE_E4M3) return launch_kept<KEY_INT8X2, VALUE_E4M3>(exec, call, kv, done);
    if (key == KEY_INT4X2 && value == VALUE_INT8) return launch_kept<KEY_INT4X2, VALUE_INT8>(exec, call, kv, done);
    if (key == KEY_INT4X2 && value == VALUE_E4M3) return launch_kept<KEY_INT4X2, VALUE_E4M3>(exec, call, kv, done);
    return OCTAVO_OK;
}

static bool call_fits(const octavo_exec *exec, const octavo_block_attend_params *p, key_kind key, value_kind value)
{
    const octavo_kv_view *kv = p->in.kv;
    const int64_t groups = kv->batch * kv->kv_heads, rows = p->in.q.shape[1] * p->in.q.shape[2] / kv->kv_heads;
    if (!p->merged || !p->merged_out.data || p->split_units || !p->kept || p->scores || p->log_upper || p->part_kept || p->part_dropped) return false;
    if (kv->head_dim != KEPT_DIM || kv->sub_block_tokens != KEPT_UNIT || octavo_view_units(kv) > UNITS_MOST || rows > STREAM_ROWS || groups > 65535) return false;
    if (exec->workspace_bytes < 2 * (size_t)groups * sizeof(stream_count) || (uintptr_t)exec->workspace % 8) return false;
    if ((uintptr_t)p->part_out % sizeof(float4) || !keys_and_values_stream(&p->in, key, value, 2)) return false;
    return p->compensate != OCTAVO_COMPENSATE_MEAN || !p->log_mass || means_stream(kv);
}

static kept_call kept_call_of(const octavo_exec *exec, const octavo_block_attend_params *p, int processors)
{
    const octavo_kv_view *kv = p->in.kv;
    stream_count *counts = (stream_count *)exec->workspace + kv->batch * kv->kv_heads; /* behind those of the scan */
    kept_call call = {};
    call.of = stream_call_of(&p->in, { p->splits, p->part_out, p->part_lse, p->merged_out, p->merged_lse }, counts, processors);
    call.of.splits = call.of.early, call.v_mean = kv->v_mean, call.v_mean_scale = kv->v_mean_scale, call.kept = p->kept;
    call.log_mass = p->compensate == OCTAVO_COMPENSATE_MEAN ? p->log_mass : nullptr;
    call.residual = kv->k_format == OCTAVO_K_INT8X2 ? 1.0f / 254.0f : kv->k_residual_exponent ? 0.0625f : 1.0f;
    call.units = (int)octavo_view_units(kv);
    return call;
}

octavo_status octavo_block_attend_sm90(const octavo_exec *exec, const octavo_block_attend_params *p)
{
    const octavo_kv_view *kv = p->in.kv;
    const key_kind key = key_kind_of(kv->k_format, p->in.planes);
    const value_kind value = value_kind_of(kv->v_format);
    octavo_cuda_machine machine;
    bool done = false;
    OCTAVO_CUDA_TRY(decode_check(&p->in));
    OCTAVO_CUDA_TRY(octavo_cuda_machine_of(&machine));
    if (key_planes(key) == 2 && key != KEY_E5M2X2 && call_fits(exec, p, key, value)) {
        kept_call call = kept_call_of(exec, p, machine.processors);
        OCTAVO_CUDA_TRY(launch_kept_of(exec, &call, kv, key, value, &done));
    }
    if (!done) return octavo_block_attend_cuda(exec, p);
    *p->merged = 1;
    return OCTAVO_OK;
}
