/* install_avx512_vnni.c - what products of four int8 improve over the level below. */
#include "base/cpu_features.h"
#include "kernel/kernels.h"

octavo_status octavo_attention_prefill_avx512_vnni(const octavo_exec *exec, const octavo_attention_prefill_params *p);
octavo_status octavo_linear_avx512_vnni(const octavo_exec *exec, const octavo_linear_params *p);

void octavo_install_avx512_vnni(octavo_kernels *kernels)
{
    const octavo_cpu_features features = octavo_cpu_features_detect();
    if (!features.avx512_vnni) return;
    kernels->attention_prefill = octavo_attention_prefill_avx512_vnni;
    kernels->linear = octavo_linear_avx512_vnni;
}
