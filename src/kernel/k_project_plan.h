/* k_project_plan.h - the workspace of the K projection on a CPU, and the small facts that every level of it shares. */
#ifndef OCTAVO_KERNEL_K_PROJECT_PLAN_H
#define OCTAVO_KERNEL_K_PROJECT_PLAN_H

#include "kernel/linear_plan.h"
#include <string.h>

typedef struct octavo_project_sizes {
    int64_t tokens; /* batch * tokens, one after the other */
    int64_t rows, hidden;
    int64_t rotary; /* elements of a head that are rotated */
} octavo_project_sizes;

/* Byte offsets in the workspace. */
typedef struct octavo_project_layout {
    size_t y;      /* [tokens, rows] f32, first: the reference uses nothing else      */
    size_t turns;  /* [tokens, rotary] f32: rotary / 2 cosines, then as many sines    */
    size_t linear; /* workspace of the product                                        */
    size_t bytes;  /* SIZE_MAX: it does not fit                                       */
} octavo_project_layout;

OCTAVO_KERNEL_INLINE octavo_project_sizes octavo_project_sizes_of(const octavo_k_project_params *p)
{
    return (octavo_project_sizes){ .tokens = p->h.shape[0] * p->h.shape[1], .rows = p->weight.codes.shape[0], .hidden = p->h.shape[2],
                                   .rotary = p->rope.style == OCTAVO_ROPE_NONE ? 0
                                             : p->rope.rotary_dim > 0 ? p->rope.rotary_dim : p->kv->head_dim };
}

/* The product, into y [tokens, rows]: h as it is. */
static inline octavo_linear_params octavo_project_linear_params(const octavo_k_project_params *p, float *y)
{
    const octavo_project_sizes sizes = octavo_project_sizes_of(p);
    octavo_linear_params product = OCTAVO_LINEAR_PARAMS_INIT;
    product.x = p->h;
    product.precision = OCTAVO_LINEAR_F32;
    product.part_count = 1;
    octavo_linear_part *part = &product.parts[0];
    part->weight = p->weight, part->bias = p->bias;
    part->y.data = y, part->y.dtype = OCTAVO_F32, part->y.ndim = 2;
    part->y.shape[0] = sizes.tokens, part->y.shape[1] = part->y.strides[0] = sizes.rows, part->y.strides[1] = 1;
    return product;
}

static inline octavo_project_layout octavo_project_layout_of(const octavo_k_project_params *p)
{
    const octavo_project_sizes sizes = octavo_project_sizes_of(p);
    const octavo_linear_params product = octavo_project_linear_params(p, NULL);
    octavo_project_layout at = { 0, 0, 0, 0 };
    at.y      = octavo_workspace_place(&at.bytes, sizes.tokens, sizes.rows, sizeof(float));
    at.turns  = octavo_workspace_place(&at.bytes, sizes.tokens, sizes.rotary, sizeof(float));
    at.linear = octavo_workspace_place(&at.bytes, 1, 1, octavo_linear_layout_of(&product).bytes);
    return at;
}

OCTAVO_KERNEL_INLINE int32_t octavo_project_angle_position(const octavo_k_project_params *p, int64_t n)
{
    return p->rope_positions ? p->rope_positions[n] : p->positions[n / p->h.shape[1]] + (int32_t)(n % p->h.shape[1]);
}

/* Where kv_append finds the keys that were computed: y as [batch, tokens, kv_heads, head_dim]. */
static inline octavo_kv_append_params octavo_project_append_params(const octavo_k_project_params *p, float *y)
{
    const int64_t rows = p->weight.codes.shape[0], tokens = p->h.shape[1], dim = p->kv->head_dim;
    octavo_kv_append_params append;
    memset(&append, 0, sizeof append);
    append.kv = p->kv, append.positions = p->positions;
    append.k.data = y, append.k.dtype = OCTAVO_F32, append.k.ndim = 4;
    append.k.shape[0] = p->h.shape[0], append.k.shape[1] = tokens, append.k.shape[2] = p->kv->kv_heads, append.k.shape[3] = dim;
    append.k.strides[0] = tokens * rows, append.k.strides[1] = rows, append.k.strides[2] = dim, append.k.strides[3] = 1;
    return append;
}

#endif
