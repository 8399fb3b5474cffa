/* prefill_eight_sm90.cu - attention of many queries in FP8, or with INT8 scores and E4M3 sums (SageAttention 2), without a soft cap. */
#include "cuda/sm90/prefill_eight.cuh"

octavo_status octavo_prefill_eight_sm90(const octavo_exec *exec, const prefill_call &call)
{
    if (call.p.soft_cap > 0.0f) return octavo_prefill_eight_capped_sm90(exec, call);
    return call.p.precision == OCTAVO_ATTENTION_FP8 ? launch_dim<CODES_E4M3, UNCAPPED>(exec, call) : launch_dim<CODES_INT8, UNCAPPED>(exec, call);
}
