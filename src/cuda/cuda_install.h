/* cuda_install.h - the operations that the CUDA backend has, and its other entry points, declared for the table. */
#ifndef OCTAVO_CUDA_CUDA_INSTALL_H
#define OCTAVO_CUDA_CUDA_INSTALL_H

#include "kernel/kernels.h"
#include <cuda_runtime.h>

#define OCTAVO_CUDA_OPERATIONS(X) \
    X(quantize)       \
    X(dequantize)     \
    X(kv_append)      \
    X(block_metadata) \
    X(kv_advance)     \
    X(step_end)       \
    X(block_score)    \
    X(block_select)   \
    X(block_attend)   \
    X(decode_fused)   \
    X(partial_merge)  \
    X(decode_stats)   \
    X(k_project)      \
    X(norm)           \
    X(rope_apply)     \
    X(activate)       \
    X(gather_rows)    \
    X(combine_rows)   \
    X(route)          \
    X(sample)         \
    X(token_logprob)  \
    X(linear)         \
    X(linear_experts) \
    X(attention_prefill)

#define X(op) octavo_status octavo_##op##_cuda(const octavo_exec *exec, const octavo_##op##_params *p);
OCTAVO_CUDA_OPERATIONS(X)
#undef X

static inline void octavo_install_sm80(octavo_kernels *kernels)
{
#define X(op) kernels->op = octavo_##op##_cuda;
    OCTAVO_CUDA_OPERATIONS(X)
#undef X
}

/* For compute capability 9.0, over what octavo_install_sm80 set; each hands down what it does not do faster. */
octavo_status octavo_block_score_sm90(const octavo_exec *exec, const octavo_block_score_params *p);
octavo_status octavo_block_select_sm90(const octavo_exec *exec, const octavo_block_select_params *p);
octavo_status octavo_block_attend_sm90(const octavo_exec *exec, const octavo_block_attend_params *p);
octavo_status octavo_decode_fused_sm90(const octavo_exec *exec, const octavo_decode_fused_params *p);
octavo_status octavo_attention_prefill_sm90(const octavo_exec *exec, const octavo_attention_prefill_params *p);
octavo_status octavo_k_project_sm90(const octavo_exec *exec, const octavo_k_project_params *p);

static inline void octavo_install_sm90(octavo_kernels *kernels)
{
    kernels->block_score = octavo_block_score_sm90;
    kernels->block_select = octavo_block_select_sm90;
    kernels->block_attend = octavo_block_attend_sm90;
    kernels->decode_fused = octavo_decode_fused_sm90;
    kernels->attention_prefill = octavo_attention_prefill_sm90;
    kernels->k_project = octavo_k_project_sm90;
}

/* *sum: the sum of the data's 64-bit words; `bytes` is a multiple of 16. */
octavo_status octavo_cuda_checksum(cudaStream_t stream, const void *data, size_t bytes, uint64_t *sum);

#endif
