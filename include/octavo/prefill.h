/* prefill.h - attention of many new tokens at once: exact, in FP8, or with SageAttention's INT8.
 * SPDX-License-Identifier: Apache-2.0
 *
 * Keys and values come from a view, so from pages of any format or from a caller's tensors in place (octavo_kv_view_over_tensors;
 * head-major tensors by their strides). Eight-bit attention is independent of how the view stores them.
 *
 * Where V is rounded to E4M3 (FP8, SAGE2; not where E4M3 is read as it is stored), the mean of what its codes leave out is added to the output:
 * out = sum_t p_t V'_t + (sum_t p_t) * mean_t (V_t - V'_t), the mean over all keys that the call sees in the blocks of 64 tokens of which the row sees
 * some. docs/NUMERICS.md, PREFILL, defines every step. */
#ifndef OCTAVO_PREFILL_H
#define OCTAVO_PREFILL_H

#include "octavo/attention.h"

OCTAVO_BEGIN_DECLS

typedef enum octavo_mask {
    OCTAVO_MASK_CAUSAL = 0, /* aligned at the end: query i of n, over T keys, sees keys up to T - n + i */
    OCTAVO_MASK_FULL   = 1
} octavo_mask;

/* Which elements share a scale: of Q, K and V in FP8, where scales are powers of two; of INT8 Q and K in SAGE1 and SAGE2, whose E4M3 V has one a
 * channel. What is read as it is stored keeps the scales that it is stored with. */
typedef enum octavo_prefill_scales {
    OCTAVO_PREFILL_PER_BLOCK  = 0, /* 64 query rows, 64 keys (default)                      */
    OCTAVO_PREFILL_PER_TOKEN  = 1, /* SAGE                                                  */
    OCTAVO_PREFILL_PER_WARP   = 2, /* SAGE: 16 query rows, 64 keys                          */
    OCTAVO_PREFILL_PER_THREAD = 3, /* SAGE: rows {i, i + 8} of 16; keys {2j, 2j + 1} + 8n of 64 */
    OCTAVO_PREFILL_PER_HEAD   = 4, /* of a (sequence, head)                                 */
    OCTAVO_PREFILL_PER_TENSOR = 5  /* of all sequences and heads of the call                */
} octavo_prefill_scales;

/* "block", "token", "warp", "thread", "head", "tensor"; never NULL. */
OCTAVO_API const char *octavo_prefill_scales_name(octavo_prefill_scales scales);
OCTAVO_API octavo_status octavo_prefill_scales_parse(const char *name, octavo_prefill_scales *scales);

enum { /* flags */
    OCTAVO_PREFILL_NO_SMOOTH = 1, /* SAGE: leave K as it is                                             */
    OCTAVO_PREFILL_SMOOTH_V  = 2, /* SAGE2: subtract V's mean over tokens, add it to the output         */
    OCTAVO_PREFILL_ROTATE    = 4, /* FP8: an orthonormal Hadamard rotation of Q and K over head_dim (a power of two) */
    OCTAVO_PREFILL_F16_SUMS  = 8  /* SAGE1: P V may be summed in f16, 64 keys at a time, and these sums in float32: P and V are then f16, V times a
                                   * power of two of each channel, so that no value is too large. Of use on GPUs whose matrix unit is twice as fast
                                   * with sums of f16 (8.6, 8.9, 12.0). What is promised is the error: the kernels for every GPU do so, Hopper's
                                   * own and the CPU keep float32's sums */
};

typedef struct octavo_prefill_params {
    size_t struct_size;
    octavo_tensor q;           /* [batch, q_tokens, q_heads, head_dim] f32, f16, bf16, any strides but a contiguous last axis */
    const octavo_kv_view *kv;  /* keys and values of all tokens that are seen, the new ones included; kv->lengths tell how many */
    const int32_t *q_lengths;  /* [batch] new tokens of each sequence, <= q_tokens; its rows are the first q_lengths[b] of q[b];
                                * NULL: q_tokens                                                          */
    octavo_mask mask;
    float softmax_scale;       /* 0: 1 / sqrt(head_dim)                                                   */
    float soft_cap;            /* 0: none                                                                 */
    int64_t window;            /* a query at p sees t with p - t < window (FULL: also t - p < window); 0: all */
    int64_t sink_tokens;       /* with a window: the first tokens that stay visible                       */
    const float *sink_logits;  /* [q_heads] enter the denominator only; NULL: none                        */
    octavo_attention_precision precision;
    octavo_prefill_scales scales;
    uint32_t flags;            /* OCTAVO_PREFILL_*                                                        */
    octavo_tensor out;         /* [batch, q_tokens, q_heads, v_dim] f32, f16, bf16; no visible key: 0; rows past q_lengths are
                                * not written                                                             */
    float *lse;                /* [batch, q_heads, q_tokens] or NULL; no visible key: -inf                */
    const float *q_amax, *k_amax, *v_amax; /* FP8 with scales PER_HEAD: [q_heads], [kv_heads], [kv_heads], PER_TENSOR: [1] each: the largest
                                * magnitude that a scale is made for, of Q and K once rotated; what is larger becomes the largest code.
                                * NULL: the largest of what the call sees is found                        */
} octavo_prefill_params;
#define OCTAVO_PREFILL_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_prefill_params)

/* Depends on shapes and switches only: not on lengths, nor on any data. */
OCTAVO_API octavo_status octavo_attention_prefill_workspace(const octavo_exec *exec, const octavo_prefill_params *params, size_t *bytes);

/* OCTAVO_E_SHAPE: a causal mask with fewer keys than queries. On a GPU only kernels read lengths: it is an error there where max_tokens are
 * too few (and no q_lengths are given), else the first queries see nothing; more queries than q_tokens count as q_tokens.
 * OCTAVO_E_UNSUPPORTED: smoothing with soft_cap (the shift would not be constant), a rotation of a head_dim that is no power of two, scales
 * that the precision does not have. */
OCTAVO_API octavo_status octavo_attention_prefill(const octavo_exec *exec, const octavo_prefill_params *params);

OCTAVO_END_DECLS

#endif
