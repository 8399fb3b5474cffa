/* install_generic.c - what generic improves over the level below. */
#include "kernel/kernels.h"

#define X(op) octavo_status octavo_##op##_generic(const octavo_exec *exec, const octavo_##op##_params *p);
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

void octavo_install_generic(octavo_kernels *kernels)
{
#define X(op) kernels->op = octavo_##op##_generic;
    OPERATIONS(X)
#undef X
}
