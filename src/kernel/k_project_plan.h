/* k_project_plan.h - the workspace of the K projection on a CPU, and the small facts that every level of it shares. */
#ifndef OCTAVO_KERNEL_K_PROJECT_PLAN_H
#define OCTAVO_KERNEL_K_PROJECT_PLAN_H

#include "kernel/kernels.h"
#include "kernel/planes.h"

/* Tokens are taken a chunk at a time, so that their copy of h stays in the caches while W streams past it. */
enum { OCTAVO_PROJECT_CHUNK = 512, OCTAVO_PROJECT_GROUP = 16, OCTAVO_PROJECT_STEP = 32, OCTAVO_PROJECT_PANEL = 32 };

typedef struct octavo_project_sizes {
    int64_t tokens; /* batch * tokens, one after the other                             */
    int64_t rows, hidden;
    int64_t chunk;  /* tokens of the largest chunk, a multiple of OCTAVO_PROJECT_GROUP */
    int64_t rotary; /* elements of a head that are rotated                             */
} octavo_project_sizes;

/* Byte offsets in the workspace. */
typedef struct octavo_project_layout {
    size_t y;     /* [tokens, rows] f32, first: the reference uses nothing else                                   */
    size_t turns; /* [chunk, rotary] f32: rotary / 2 cosines, then as many sines                                  */
    size_t h;     /* [chunk, hidden] f32, or up to three bf16 terms whose sum is h, hidden padded to two steps  */
    size_t sums;  /* [rows padded to a panel, chunk] f32: partial sums in tiles                                  */
    size_t bytes; /* SIZE_MAX: it does not fit                                                                     */
} octavo_project_layout;

OCTAVO_KERNEL_INLINE int64_t octavo_project_round_up(int64_t count, int64_t to) { return (count + to - 1) / to * to; }

OCTAVO_KERNEL_INLINE octavo_project_sizes octavo_project_sizes_of(const octavo_k_project_params *p)
{
    const int64_t tokens = p->h.shape[0] * p->h.shape[1], padded = octavo_project_round_up(tokens, OCTAVO_PROJECT_GROUP);
    return (octavo_project_sizes){ .tokens = tokens, .rows = p->weight.codes.shape[0], .hidden = p->h.shape[2],
                                   .chunk = padded < OCTAVO_PROJECT_CHUNK ? padded : OCTAVO_PROJECT_CHUNK,
                                   .rotary = p->rope.style == OCTAVO_ROPE_NONE ? 0
                                             : p->rope.rotary_dim > 0 ? p->rope.rotary_dim : p->kv->head_dim };
}

OCTAVO_KERNEL_INLINE size_t octavo_project_place(size_t *end, int64_t count, int64_t width, size_t element_bytes)
{
    const size_t begin = *end;
    size_t bytes, padded;
    const int too_big = __builtin_mul_overflow((size_t)count, (size_t)width, &bytes) ||
                        __builtin_mul_overflow(bytes, element_bytes, &bytes) || __builtin_add_overflow(bytes, (size_t)63, &padded) ||
                        __builtin_add_overflow(begin, padded & ~(size_t)63, end);
    if (too_big) *end = SIZE_MAX;
    return begin;
}

OCTAVO_KERNEL_INLINE octavo_project_layout octavo_project_layout_of(const octavo_k_project_params *p)
{
    const octavo_project_sizes sizes = octavo_project_sizes_of(p);
    const size_t h_bytes = p->h.dtype == OCTAVO_F32 ? 6 : 4; /* three terms for float32; else float32 is the widest copy */
    octavo_project_layout at = { 0 };
    at.y     = octavo_project_place(&at.bytes, sizes.tokens, sizes.rows, sizeof(float));
    at.turns = octavo_project_place(&at.bytes, sizes.chunk, sizes.rotary, sizeof(float));
    at.h     = octavo_project_place(&at.bytes, sizes.chunk, octavo_project_round_up(sizes.hidden, 2 * OCTAVO_PROJECT_STEP), h_bytes);
    at.sums  = octavo_project_place(&at.bytes, sizes.chunk, octavo_project_round_up(sizes.rows, OCTAVO_PROJECT_PANEL), sizeof(float));
    return at;
}

/* First element of token n's row of h. */
OCTAVO_KERNEL_INLINE int64_t octavo_project_h_row(const octavo_k_project_params *p, int64_t n)
{
    return n / p->h.shape[1] * p->h.strides[0] + n % p->h.shape[1] * p->h.strides[1];
}

OCTAVO_KERNEL_INLINE int32_t octavo_project_angle_position(const octavo_k_project_params *p, int64_t n)
{
    return p->rope_positions ? p->rope_positions[n] : p->positions[n / p->h.shape[1]] + (int32_t)(n % p->h.shape[1]);
}

/* Columns that share a scale: never more than hidden. */
OCTAVO_KERNEL_INLINE int64_t octavo_project_scale_columns(const octavo_weight *weight)
{
    const int64_t hidden = weight->codes.shape[1];
    return weight->block_cols > 0 && weight->block_cols < hidden ? weight->block_cols : hidden;
}

/* What the codes of a row are multiplied by in the columns around `column`. */
OCTAVO_KERNEL_INLINE float octavo_project_scale(const octavo_weight *weight, int64_t row, int64_t column)
{
    if (!weight->scales) return 1.0f;
    const int64_t columns = octavo_project_scale_columns(weight), across = (weight->codes.shape[1] + columns - 1) / columns;
    return weight->scales[(weight->block_rows > 0 ? row / weight->block_rows : 0) * across + column / columns];
}

/* Where kv_append finds the keys that were computed: y as [batch, tokens, kv_heads, head_dim]. */
OCTAVO_KERNEL_INLINE octavo_kv_append_params octavo_project_append_params(const octavo_k_project_params *p, float *y)
{
    const int64_t rows = p->weight.codes.shape[0], tokens = p->h.shape[1], dim = p->kv->head_dim;
    return (octavo_kv_append_params){
        .kv = p->kv, .positions = p->positions,
        .k = { .data = y, .dtype = OCTAVO_F32, .ndim = 4, .shape = { p->h.shape[0], tokens, p->kv->kv_heads, dim },
               .strides = { tokens * rows, rows, dim, 1 } },
    };
}

#endif
