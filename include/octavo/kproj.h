/* kproj.h - the K projection, its rotation and its split into planes in one call, straight into a cache.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_KPROJ_H
#define OCTAVO_KPROJ_H

#include "octavo/kvcache.h"

OCTAVO_BEGIN_DECLS

typedef enum octavo_rope_style {
    OCTAVO_ROPE_NONE        = 0,
    OCTAVO_ROPE_ROTATE_HALF = 1, /* pairs (i, i + rotary_dim / 2): Hugging Face checkpoints */
    OCTAVO_ROPE_INTERLEAVED = 2  /* pairs (2i, 2i + 1): GGUF files, GPT-J                   */
} octavo_rope_style;

typedef struct octavo_rope {
    octavo_rope_style style;
    int32_t rotary_dim;        /* even, <= head_dim; 0: head_dim; the rest of a head is not rotated       */
    const float *inv_freq;     /* [rotary_dim / 2] radians a position; theta^(-2i / rotary_dim) in plain RoPE */
    float scale;               /* multiplies cos and sin (YaRN's factor); 0: 1                            */
} octavo_rope;

/* W as checkpoints store it: [kv_heads * head_dim, hidden], row-major. */
typedef struct octavo_weight {
    octavo_tensor codes;  /* f32, f16, bf16, e4m3 or int8, last axis contiguous            */
    const float *scales;  /* [ceil(rows / block_rows), ceil(hidden / block_cols)], multiply back; NULL: one  */
    int64_t block_rows, block_cols; /* elements that share a scale; 0: all rows / all columns. 0, 0: a tensor; 1, 0: a channel;
                                     * 128, 128: DeepSeek's blocks                                          */
} octavo_weight;

typedef struct octavo_k_project_params {
    size_t struct_size;
    octavo_tensor h;            /* [batch, tokens, hidden] f32, f16 or bf16, last axis contiguous */
    octavo_weight weight;
    const float *bias;          /* [kv_heads * head_dim] or NULL                                  */
    octavo_rope rope;
    const int32_t *positions;   /* [batch] cache position of each sequence's first new token      */
    const int32_t *rope_positions; /* [batch, tokens] angle positions; NULL: the cache positions  */
    const octavo_kv_view *kv;   /* planes, scales and norms of K are written; lengths are not touched */
} octavo_k_project_params;
#define OCTAVO_K_PROJECT_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_k_project_params)

OCTAVO_API octavo_status octavo_k_project_workspace(const octavo_exec *exec, const octavo_k_project_params *params, size_t *bytes);

/* k = rope(h W^T + bias), accumulated in float32, encoded like octavo_kv_append would.
 * OCTAVO_E_NONFINITE: a NaN or Inf in the result; nothing was written. */
OCTAVO_API octavo_status octavo_k_project(const octavo_exec *exec, const octavo_k_project_params *params);

OCTAVO_END_DECLS

#endif
