/* k_project_sm90.h - the K projections of sm_90 among which a call is placed. */
#ifndef OCTAVO_CUDA_SM90_K_PROJECT_SM90_H
#define OCTAVO_CUDA_SM90_K_PROJECT_SM90_H

#include "cuda/cuda_call.h"
#include "kernel/kernels.h"

/* Few tokens, heads of 128 elements, h and W of one type of 16 bits; the deep one takes up to 16 tokens. *done: false where the call is another. */
octavo_status octavo_k_project_deep_sm90(const octavo_exec *exec, const octavo_k_project_params *p, bool *done);
octavo_status octavo_k_project_wide_sm90(const octavo_exec *exec, const octavo_k_project_params *p, bool *done);

#endif
