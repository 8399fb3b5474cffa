/* install_avx512_bf16.c - what products of two bf16 improve over the level below, where they are not slower than float32's. */
#include "base/cpu_features.h"
#include "kernel/kernels.h"

octavo_status octavo_attention_prefill_avx512_bf16(const octavo_exec *exec, const octavo_attention_prefill_params *p);
octavo_status octavo_linear_avx512_bf16(const octavo_exec *exec, const octavo_linear_params *p);

void octavo_install_avx512_bf16(octavo_kernels *kernels)
{
    const octavo_cpu_features features = octavo_cpu_features_detect();
    if (!features.avx512_vnni || !features.avx512_bf16) return;
    kernels->attention_prefill = octavo_attention_prefill_avx512_bf16;
    kernels->linear = octavo_linear_avx512_bf16;
}
