/* linear_plan.h - the workspace of a linear layer on a CPU, and the small facts that every level of it shares. */
#ifndef OCTAVO_KERNEL_LINEAR_PLAN_H
#define OCTAVO_KERNEL_LINEAR_PLAN_H

#include "kernel/kernels.h"
#include "kernel/planes.h"
#include "kernel/scales.h"

enum {
    OCTAVO_LINEAR_GROUP = 16,  /* tokens of a tile                                                                    */
    OCTAVO_LINEAR_STEP = 64,   /* columns to whose multiple a packed row of x is padded with zeros                    */
    OCTAVO_LINEAR_CHUNK = 512, /* tokens whose sums with a strip of rows stay in a core's second-level cache          */
    OCTAVO_LINEAR_STRIP = 256, /* rows of W of such a strip at most                                                   */
    OCTAVO_LINEAR_STRIP_LEAST = 64, /* and at least                                                                   */
    OCTAVO_LINEAR_SLOTS = 64,  /* that many of them at once at most                                                   */
    OCTAVO_LINEAR_FEW = 64,    /* tokens up to which sums are on a task's stack                                       */
    OCTAVO_LINEAR_CHUNK_WORDS = 8 /* of a chunk's state: a cache line                                                 */
};

/* Tokens of a call. x may have a third, leading axis inside the library: [batch, tokens, in]. */
OCTAVO_KERNEL_INLINE int64_t octavo_linear_tokens(const octavo_linear_params *p)
{
    return p->x.ndim == 3 ? p->x.shape[0] * p->x.shape[1] : p->x.shape[0];
}
OCTAVO_KERNEL_INLINE int64_t octavo_linear_in(const octavo_linear_params *p) { return p->x.shape[p->x.ndim - 1]; }

/* First element of token n's row of x. */
OCTAVO_KERNEL_INLINE int64_t octavo_linear_x_row(const octavo_linear_params *p, int64_t n)
{
    return p->x.ndim == 3 ? n / p->x.shape[1] * p->x.strides[0] + n % p->x.shape[1] * p->x.strides[1] : n * p->x.strides[0];
}

OCTAVO_KERNEL_INLINE int64_t octavo_linear_out(const octavo_linear_params *p, int64_t part) { return p->parts[part].weight.codes.shape[0]; }

/* Quantised x: what its codes are. */
OCTAVO_KERNEL_INLINE int octavo_linear_quantises(const octavo_linear_params *p)
{
    return p->precision == OCTAVO_LINEAR_FP8 || p->precision == OCTAVO_LINEAR_INT8;
}
OCTAVO_KERNEL_INLINE octavo_dtype octavo_linear_code(const octavo_linear_params *p)
{
    return p->precision == OCTAVO_LINEAR_FP8 ? OCTAVO_E4M3 : OCTAVO_INT8;
}

/* The scale of a token whose largest magnitude is amax. */
OCTAVO_KERNEL_INLINE float octavo_linear_x_scale(const octavo_linear_params *p, float amax)
{
    return p->x_scale ? *p->x_scale : octavo_scale_of(amax, octavo_linear_code(p), OCTAVO_SCALE_F32);
}

/* Columns that share a scale: never more than there are. */
OCTAVO_KERNEL_INLINE int64_t octavo_weight_scale_columns(const octavo_weight *weight)
{
    const int64_t in = weight->codes.shape[1];
    return weight->block_cols > 0 && weight->block_cols < in ? weight->block_cols : in;
}

/* A row has more scales than one. */
OCTAVO_KERNEL_INLINE int octavo_weight_has_blocks(const octavo_weight *weight)
{
    return weight->scales && octavo_weight_scale_columns(weight) < weight->codes.shape[1];
}

/* What the codes of a row are multiplied by in the columns around `column`. */
OCTAVO_KERNEL_INLINE float octavo_weight_scale(const octavo_weight *weight, int64_t row, int64_t column)
{
    if (!weight->scales) return 1.0f;
    const int64_t columns = octavo_weight_scale_columns(weight), across = (weight->codes.shape[1] + columns - 1) / columns;
    return weight->scales[(weight->block_rows > 0 ? row / weight->block_rows : 0) * across + column / columns];
}

/* Byte offsets in the workspace. */
typedef struct octavo_linear_layout {
    size_t x;       /* [tokens, in padded] f32, or up to three bf16 terms whose sum is x, or codes; the reference: one row as f32 */
    size_t factors; /* [tokens] f32: scale of the codes or 1, NaN where a token is not finite                          */
    size_t sums;    /* [slots, strip, chunk] f32 or int32, where tokens are many                                       */
    size_t slots;   /* how many                                                                                         */
    size_t chunks;  /* [chunks, OCTAVO_LINEAR_CHUNK_WORDS] int64: how far the work on each is                              */
    size_t bytes;   /* SIZE_MAX: it does not fit                                                                        */
} octavo_linear_layout;

static inline size_t octavo_workspace_place(size_t *end, int64_t count, int64_t width, size_t element_bytes)
{
    const size_t begin = *end;
    size_t bytes, padded;
    const int too_big = __builtin_mul_overflow((size_t)count, (size_t)width, &bytes) ||
                        __builtin_mul_overflow(bytes, element_bytes, &bytes) || __builtin_add_overflow(bytes, (size_t)63, &padded) ||
                        __builtin_add_overflow(begin, padded & ~(size_t)63, end);
    if (too_big) *end = SIZE_MAX;
    return begin;
}

/* The shortest strips of all parts times chunks of tokens. */
static inline int64_t octavo_linear_blocks(const octavo_linear_params *p)
{
    int64_t strips = 0;
    for (int i = 0; i < p->part_count; i++) strips += (octavo_linear_out(p, i) + OCTAVO_LINEAR_STRIP_LEAST - 1) / OCTAVO_LINEAR_STRIP_LEAST;
    return strips * ((octavo_linear_tokens(p) + OCTAVO_LINEAR_CHUNK - 1) / OCTAVO_LINEAR_CHUNK);
}

static inline octavo_linear_layout octavo_linear_layout_of(const octavo_linear_params *p)
{
    if (octavo_linear_tokens(p) > INT64_MAX >> 24 || octavo_linear_in(p) > INT64_MAX >> 24) {
        const octavo_linear_layout none = { 0, 0, 0, 0, 0, SIZE_MAX };
        return none;
    }
    const int64_t tokens = octavo_round_up(octavo_linear_tokens(p), OCTAVO_LINEAR_GROUP), blocks = octavo_linear_blocks(p);
    const size_t x_bytes = p->precision == OCTAVO_LINEAR_F32 && p->x.dtype == OCTAVO_F32 ? 6 : 4; /* three terms; else float32 is the widest copy */
    const int64_t chunk = tokens < OCTAVO_LINEAR_CHUNK ? tokens : (int64_t)OCTAVO_LINEAR_CHUNK;
    octavo_linear_layout at = { 0, 0, 0, 0, 0, 0 };
    if (tokens > OCTAVO_LINEAR_FEW) at.slots = (size_t)(blocks < OCTAVO_LINEAR_SLOTS ? blocks : (int64_t)OCTAVO_LINEAR_SLOTS);
    at.x       = octavo_workspace_place(&at.bytes, tokens, octavo_round_up(octavo_linear_in(p), OCTAVO_LINEAR_STEP), x_bytes);
    at.factors = octavo_workspace_place(&at.bytes, tokens, 1, sizeof(float));
    at.sums    = octavo_workspace_place(&at.bytes, (int64_t)at.slots * OCTAVO_LINEAR_STRIP, octavo_round_up(chunk, 2 * OCTAVO_LINEAR_GROUP), sizeof(float));
    at.chunks  = octavo_workspace_place(&at.bytes, (tokens + OCTAVO_LINEAR_CHUNK - 1) / OCTAVO_LINEAR_CHUNK, OCTAVO_LINEAR_CHUNK_WORDS, sizeof(int64_t));
    return at;
}

#endif
