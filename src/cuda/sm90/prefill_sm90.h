/* prefill_sm90.h - what the sources of attention_prefill on sm_90 share on the host. */
#ifndef OCTAVO_CUDA_SM90_PREFILL_SM90_H
#define OCTAVO_CUDA_SM90_PREFILL_SM90_H

#include "cuda/tile/prefill_eight_ring.cuh"
#include "kernel/prefill_terms.h"

/* Describes Q, K and V to the copy engine and orders the tasks of `rows` rows each. *blocks: a grid that has one for each processor. */
octavo_status octavo_prefill_tma_plan(const octavo_exec *exec, const prefill_call &of, bool halves, int rows, int keys, prefill_tma_call *call, int *blocks);

/* For calls that octavo_attention_prefill_sm90 has found to fit; with a soft cap octavo_prefill_capped_sm90 takes them. */
octavo_status octavo_prefill_exact_sm90(const octavo_exec *exec, const prefill_call &call);
octavo_status octavo_prefill_capped_sm90(const octavo_exec *exec, const prefill_call &call);

/* The call over bf16 numbers in the workspace that stands for `of`, and whose p.kv the caller sets; and the whole. */
prefill_call octavo_prefill_terms_call(const octavo_exec *exec, const prefill_call &of, const octavo_prefill_terms_layout &at);
octavo_status octavo_prefill_terms_sm90(const octavo_exec *exec, const prefill_call &of, const octavo_prefill_terms_layout &at, const prefill_call &plain);

/* The same with Q and K of eight bits in the workspace. */
octavo_status octavo_prefill_sage1_plan(const octavo_exec *exec, const prefill_call &of, bool halves, int rows, int keys, prefill_tma_call *call, int *blocks);

/* For calls that octavo_attention_prefill_sm90 has found to fit, and whose Q and K have been encoded. */
octavo_status octavo_prefill_sage1_sm90(const octavo_exec *exec, const prefill_call &call);

/* The same for operands of eight bits in the workspace, laid out by octavo_prefill_eight_layout_of(). */
octavo_status octavo_prefill_eight_plan(const octavo_exec *exec, const prefill_call &of, int rows, int keys, prefill_codes_call *call, int *blocks);

/* For calls that octavo_attention_prefill_sm90 has found to fit, and whose Q, K and V have been encoded; likewise. */
octavo_status octavo_prefill_eight_sm90(const octavo_exec *exec, const prefill_call &call);
octavo_status octavo_prefill_eight_capped_sm90(const octavo_exec *exec, const prefill_call &call);

#endif
