/* stream_launch.cuh - makes the copy engine's maps and launches the streams of one head size; each source that includes it instantiates
 * its own. */
#ifndef OCTAVO_CUDA_SM90_STREAM_LAUNCH_CUH
#define OCTAVO_CUDA_SM90_STREAM_LAUNCH_CUH

#include "cuda/cuda_call.h"
#include "cuda/sm90/attend_stream.cuh"

/* A section as bytes: in a row, tokens of a block or of a sequence, heads, pages, rows of the view. */
octavo_status octavo_stream_map(const octavo_kv_view *kv, const octavo_section *section, int row_bytes, int tokens, CUtensorMap *map);

template <int DIM, int KEY, int VALUE> static octavo_status launch_stream(const octavo_exec *exec, stream_call *call, const octavo_kv_view *kv)
{
    typedef stream_stage<DIM, KEY, VALUE> stage;
    constexpr size_t RING = (size_t)stage::SLOTS * stage::BYTES, RESULTS = sizeof(stream_results<DIM>);
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->k[0], stage::K_ROW, stage::TOKENS, &call->k));
    OCTAVO_CUDA_TRY(octavo_stream_map(kv, &kv->v, stage::V_ROW, stage::TOKENS, &call->v));
    const int64_t long_steps = (int64_t)call->early * (EARLY_BYTES / stage::BYTES) * ALL_SHARES / EARLY_SHARE;
    if (call->splits == call->early || long_steps > kv->max_tokens / stage::TOKENS) call->splits = call->early, call->late_from = INT32_MAX;
    else call->late_from = (int)long_steps;
    const dim3 grid((unsigned)kv->kv_heads, (unsigned)kv->batch, (unsigned)call->splits);
    return octavo_cuda_launch(attend_stream<DIM, KEY, VALUE>, "decode_fused", grid, STREAM_THREADS, RING > RESULTS ? RING : RESULTS, exec, *call);
}

/* The kernels of a head size: X(key, value). */
#define STREAM_CASE(key_name, value_name)                                                          \
    if (key == KEY_##key_name && value == VALUE_##value_name) {                                    \
        *done = true;                                                                              \
        return launch_stream<STREAM_DIM, KEY_##key_name, VALUE_##value_name>(exec, call, kv);      \
    }
#define STREAM_OF(name) \
    octavo_status name(const octavo_exec *exec, stream_call *call, const octavo_kv_view *kv, key_kind key, value_kind value, bool *done)

/* DELTA; *done says whether there was a kernel for it. */
octavo_status octavo_attend_delta(const octavo_exec *exec, const stream_call *of, const octavo_decode_fused_params *p, bool *done);

/* FP8 over E4M3 keys and values, in parts that are yet to be merged. */
octavo_status octavo_attend_eight(const octavo_exec *exec, const stream_call *of, const octavo_decode_fused_params *p);

STREAM_OF(octavo_attend_stream_64);
STREAM_OF(octavo_attend_stream_128);
STREAM_OF(octavo_attend_stream_256);

#endif
