/* install_avx512.c - what avx512 improves over the level below. */
#include "base/cpu_features.h"
#include "kernel/kernels.h"

#define X(op) octavo_status octavo_##op##_avx512(const octavo_exec *exec, const octavo_##op##_params *p);
#define OPERATIONS(X) \
    X(quantize) \
    X(dequantize) \
    X(kv_append) \
    X(block_metadata) \
    X(block_score) \
    X(block_select) \
    X(block_attend) \
    X(decode_fused) \
    X(partial_merge) \
    X(k_project)
OPERATIONS(X)
#undef X

void octavo_install_avx512(octavo_kernels *kernels)
{
    const octavo_cpu_features features = octavo_cpu_features_detect();
    if (!features.avx512) return;
#define X(op) kernels->op = octavo_##op##_avx512;
    OPERATIONS(X)
#undef X
}
