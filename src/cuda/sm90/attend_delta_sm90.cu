/* attend_delta_sm90.cu - delta in one pass over heads of 128 elements. */
#include "cuda/sm90/stream_fit.h"
#include "cuda/sm90/stream_launch.cuh"
#include "cuda/sm90/attend_delta.cuh"

/* So many units of a team, on average, before the end it asks for one base at a time, so that what is kept then has less to wait for; in a
 * short call of warps that decide alone one (attend_delta.cuh). Teams that share a unit always do where few blocks share a head: the less is
 * on its way, the more equal are their shares of the memory's speed. */
enum { LAST_ROUNDS = 4, LAST_ROUNDS_SHARED = 8, ALL_ROUNDS = 1 << 20, FEW_SPLITS = 2 };

/* Whether one copy brings what lies beside a unit's base. */
static bool sides_lie_together(const octavo_kv_view *kv)
{
    const octavo_section *scale = &kv->k_scale, *mean = &kv->v_mean, *exponent = &kv->v_mean_scale;
    if (!kv->page_table || kv->block_tokens != STEP_TOKENS || !scale->data || !mean->data || !exponent->data) return false;
    if ((const uint8_t *)mean->data != (const uint8_t *)scale->data + STEP_TOKENS * scale->token_bytes) return false;
    if ((const uint8_t *)exponent->data != (const uint8_t *)mean->data + DELTA_DIM) return false;
    return scale->page_bytes == mean->page_bytes && scale->page_bytes == exponent->page_bytes && scale->head_bytes == mean->head_bytes &&
           scale->head_bytes == exponent->head_bytes;
}

template <class KIND> static octavo_status launch_delta(const octavo_exec *exec, delta_call *call, const octavo_kv_view *kv)
{
    constexpr int VALUE_TOKENS = STEP_TOKENS / value_parts(KIND::VALUE);
    const int shared = call->of.splits <= FEW_SPLITS ? ALL_ROUNDS : LAST_ROUNDS_SHARED;
    call->last_units = (KIND::TEAM > 1 ? shared : LAST_ROUNDS) * call->of.splits * KIND::TEAMS;
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->k[0], DELTA_DIM, STEP_TOKENS, &call->of.k));
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->k[1], DELTA_DIM, STEP_TOKENS, &call->more));
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->v, SLOT_BYTES / VALUE_TOKENS, VALUE_TOKENS, &call->of.v));
    const dim3 grid((unsigned)kv->kv_heads, (unsigned)kv->batch, (unsigned)call->of.splits);
    return octavo_cuda_launch(attend_delta<KIND>, "decode_fused", grid, DELTA_THREADS, KIND::BYTES, exec, *call);
}

octavo_status octavo_attend_delta(const octavo_exec *exec, const stream_call *of, const octavo_decode_fused_params *p, bool *done)
{
    const octavo_kv_view *kv = p->in.kv;
    const bool means = p->compensate == OCTAVO_COMPENSATE_MEAN, narrow = kv->sub_block_tokens == STEP_TOKENS;
    const bool e4m3 = kv->k_format == OCTAVO_K_E4M3X2 && kv->v_format == OCTAVO_V_E4M3 && narrow;
    const bool int8 = kv->k_format == OCTAVO_K_INT8X2 && kv->v_format == OCTAVO_V_INT8 && narrow;
    const bool e5m2 = kv->k_format == OCTAVO_K_E5M2X2 && kv->v_format == OCTAVO_V_F16 && (narrow || (kv->sub_block_tokens == 4 * STEP_TOKENS && !means));
    const int steps = kv->block_tokens / STEP_TOKENS;
    *done = (e4m3 || int8 || e5m2) && kv->head_dim == DELTA_DIM && steps <= STEPS_MOST && (!means || means_stream(kv));
    if (!*done) return OCTAVO_OK;
    delta_call call = {};
    call.of = *of, call.of.splits = of->early, call.v_mean = kv->v_mean, call.v_mean_scale = kv->v_mean_scale, call.thresholds = p->thresholds, call.kept = p->kept;
    call.delta = p->delta * LOG2_E, call.residual = int8 ? 1.0f / 254.0f : e4m3 && kv->k_residual_exponent ? 0.0625f : 1.0f;
    call.units = (int)octavo_view_units(kv), call.block_steps_shift = 31 - __builtin_clz((unsigned)steps);
    call.keep_first_blocks = p->keep_first_blocks, call.keep_last_blocks = p->keep_last_blocks, call.compensate = means;
    call.together = means && sides_lie_together(kv);
    if (e4m3) return launch_delta<delta_kind<KEY_E4M3, VALUE_E4M3, 1>>(exec, &call, kv);
    if (int8) return launch_delta<delta_kind<KEY_INT8, VALUE_INT8, 1>>(exec, &call, kv);
    return narrow ? launch_delta<delta_kind<KEY_E5M2, VALUE_F16, 1>>(exec, &call, kv) : launch_delta<delta_kind<KEY_E5M2, VALUE_F16, 4>>(exec, &call, kv);
}
