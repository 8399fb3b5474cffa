/* rope.h - rotary position embedding.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_ROPE_H
#define OCTAVO_ROPE_H

#include "octavo/context.h"

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

/* Rotates x in place by angles position * inv_freq, a float32 product; the rest of a head keeps its bits. */
typedef struct octavo_rope_apply_params {
    size_t struct_size;
    octavo_tensor x;           /* [batch, tokens, heads, head_dim] f32, f16 or bf16, last axis contiguous */
    octavo_rope rope;
    const int32_t *positions;  /* [batch, tokens], on the device */
} octavo_rope_apply_params;
#define OCTAVO_ROPE_APPLY_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_rope_apply_params)
OCTAVO_API octavo_status octavo_rope_apply(const octavo_exec *exec, const octavo_rope_apply_params *params);

OCTAVO_END_DECLS

#endif
