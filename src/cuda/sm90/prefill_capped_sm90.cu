/* prefill_capped_sm90.cu - exact attention of many queries in bf16 or f16 with a soft cap. */
#include "cuda/sm90/prefill_exact.cuh"

octavo_status octavo_prefill_capped_sm90(const octavo_exec *exec, const prefill_call &call)
{
    return call.kv.k_format == OCTAVO_K_BF16 ? launch_dim<WGMMA_BF16, CAPPED>(exec, call) : launch_dim<WGMMA_F16, CAPPED>(exec, call);
}
