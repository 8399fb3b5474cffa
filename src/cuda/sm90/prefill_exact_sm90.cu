/* prefill_exact_sm90.cu - exact attention of many queries in bf16 or f16 without a soft cap. */
#include "cuda/sm90/prefill_exact.cuh"

octavo_status octavo_prefill_exact_sm90(const octavo_exec *exec, const prefill_call &call)
{
    if (call.p.soft_cap > 0.0f) return octavo_prefill_capped_sm90(exec, call);
    return call.kv.k_format == OCTAVO_K_BF16 ? launch_dim<WGMMA_BF16, UNCAPPED>(exec, call) : launch_dim<WGMMA_F16, UNCAPPED>(exec, call);
}
