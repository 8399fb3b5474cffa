/* attend_delta_sm90.cu - delta in one pass over heads of 128 elements. */
#include "cuda/sm90/stream_launch.cuh"
#include "cuda/sm90/attend_delta.cuh"

template <int BASE, int VALUE> static octavo_status launch_delta(const octavo_exec *exec, delta_call *call, const octavo_kv_view *kv)
{
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->k[0], DELTA_DIM, UNIT_TOKENS, &call->of.k));
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->k[1], DELTA_DIM, UNIT_TOKENS, &call->more));
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->v, DELTA_DIM, UNIT_TOKENS, &call->of.v));
    const dim3 grid((unsigned)call->of.splits, (unsigned)kv->kv_heads, (unsigned)kv->batch);
    return octavo_cuda_launch(attend_delta<BASE, VALUE>, "decode_fused", grid, DELTA_THREADS, DELTA_BYTES, exec, *call);
}

octavo_status octavo_attend_delta(const octavo_exec *exec, const stream_call *of, const octavo_decode_fused_params *p, bool *done)
{
    const octavo_kv_view *kv = p->in.kv;
    const bool e4m3 = kv->k_format == OCTAVO_K_E4M3X2 && kv->v_format == OCTAVO_V_E4M3, int8 = kv->k_format == OCTAVO_K_INT8X2 && kv->v_format == OCTAVO_V_INT8;
    const octavo_section *mean = &kv->v_mean;
    const int64_t bits = (int64_t)(uintptr_t)mean->data | mean->page_bytes | mean->sequence_bytes | mean->head_bytes | mean->token_bytes;
    const int units = kv->block_tokens / UNIT_TOKENS;
    *done = false;
    if (!(e4m3 || int8) || kv->head_dim != DELTA_DIM || kv->sub_block_tokens != UNIT_TOKENS || units < 1 || units > THRESHOLD_UNITS / 2) return OCTAVO_OK;
    if (p->compensate == OCTAVO_COMPENSATE_MEAN && (!mean->data || !kv->v_mean_scale.data || bits % PIECE)) return OCTAVO_OK;
    *done = true;
    delta_call call = {};
    call.of = *of, call.v_mean = kv->v_mean, call.v_mean_scale = kv->v_mean_scale, call.thresholds = p->thresholds, call.kept = p->kept;
    call.delta = p->delta * LOG2_E, call.residual = int8 ? 1.0f / 254.0f : kv->k_residual_exponent ? 0.0625f : 1.0f;
    call.units = (int)octavo_view_units(kv), call.unit_shift = units == 2 ? 1 : 0;
    call.keep_first_blocks = p->keep_first_blocks, call.keep_last_blocks = p->keep_last_blocks, call.compensate = p->compensate == OCTAVO_COMPENSATE_MEAN;
    return e4m3 ? launch_delta<KEY_E4M3, VALUE_E4M3>(exec, &call, kv) : launch_delta<KEY_INT8, VALUE_INT8>(exec, &call, kv);
}
