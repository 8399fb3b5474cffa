/* kproj.h - the K projection, its rotation and its split into planes in one call, straight into a cache.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_KPROJ_H
#define OCTAVO_KPROJ_H

#include "octavo/kvcache.h"
#include "octavo/rope.h"
#include "octavo/weight.h"

OCTAVO_BEGIN_DECLS

typedef struct octavo_k_project_params {
    size_t struct_size;
    octavo_tensor h;            /* [batch, tokens, hidden] f32, f16 or bf16, last axis contiguous */
    octavo_weight weight;       /* [kv_heads * head_dim, hidden]                                 */
    const float *bias;          /* [kv_heads * head_dim] or NULL                                  */
    octavo_rope rope;
    const int32_t *positions;   /* [batch] cache position of each sequence's first new token      */
    const int32_t *rope_positions; /* [batch, tokens] angle positions; NULL: the cache positions  */
    const octavo_kv_view *kv;   /* planes, scales and norms of K are written; lengths are not touched */
} octavo_k_project_params;
#define OCTAVO_K_PROJECT_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_k_project_params)

OCTAVO_API octavo_status octavo_k_project_workspace(const octavo_exec *exec, const octavo_k_project_params *params, size_t *bytes);

/* k = rope(h W^T + bias), accumulated in float32, encoded like octavo_kv_append would. On a GPU the weight, its scales and
 * rope.inv_freq are taken for constants: they may be read while the call before on the stream still runs.
 * OCTAVO_E_NONFINITE: a NaN or Inf in the result; nothing was written. */
OCTAVO_API octavo_status octavo_k_project(const octavo_exec *exec, const octavo_k_project_params *params);

OCTAVO_END_DECLS

#endif
