/* install_level.h - the operations that every level makes from the shared bodies, declared and put into a table. */
#ifndef OCTAVO_CPU_INSTALL_LEVEL_H
#define OCTAVO_CPU_INSTALL_LEVEL_H

#include "base/cpu_features.h"
#include "kernel/kernels.h"

#define OCTAVO_BODY_OPERATIONS(X, level) \
    X(quantize, level)       \
    X(dequantize, level)     \
    X(kv_append, level)      \
    X(block_metadata, level) \
    X(block_score, level)    \
    X(block_select, level)   \
    X(block_attend, level)   \
    X(decode_fused, level)   \
    X(partial_merge, level)  \
    X(norm, level)           \
    X(rope_apply, level)     \
    X(activate, level)       \
    X(gather_rows, level)    \
    X(combine_rows, level)   \
    X(route, level)          \
    X(sample, level)         \
    X(token_logprob, level)  \
    X(attention_prefill, level) \
    X(k_project, level)     \
    X(linear, level)

#define OCTAVO_OPERATION_DECLARE(op, level) \
    octavo_status octavo_##op##_##level(const octavo_exec *exec, const octavo_##op##_params *p);
#define OCTAVO_OPERATION_INSTALL(op, level) kernels->op = octavo_##op##_##level;

#endif
