/* prefill_plan.h - which keys a query of attention_prefill sees, which elements share a scale, and what is read as it is stored. */
#ifndef OCTAVO_KERNEL_PREFILL_PLAN_H
#define OCTAVO_KERNEL_PREFILL_PLAN_H

#include "kernel/visibility.h"
#include "octavo/prefill.h"

/* Tokens that FP8 and SAGE treat together; they are counted from the sequence's first key, and from the call's first query. */
enum { OCTAVO_PREFILL_BLOCK = 64 };

OCTAVO_KERNEL_INLINE int64_t octavo_prefill_length(const octavo_prefill_params *p, int64_t b)
{
    return p->kv->lengths[octavo_view_row(p->kv, b)];
}

OCTAVO_KERNEL_INLINE int64_t octavo_prefill_queries(const octavo_prefill_params *p, int64_t b)
{
    return p->q_lengths ? p->q_lengths[b] : p->q.shape[1];
}

/* What query i of `queries` sees of a sequence of `length` keys. */
OCTAVO_KERNEL_INLINE octavo_span octavo_prefill_span_of(const octavo_prefill_params *p, int64_t length, int64_t queries, int64_t i)
{
    const int64_t position = length - queries + i;
    const int64_t sinks = p->window > 0 ? p->sink_tokens : 0;
    octavo_span span = octavo_visible_span(length, queries, i, p->window, sinks);
    if (p->mask == OCTAVO_MASK_CAUSAL) return span;
    span.end = length;
    if (p->window > 0 && position < length - p->window) span.end = position + p->window > 0 ? position + p->window : 0;
    return span;
}

/* What query i of sequence b sees. */
OCTAVO_KERNEL_INLINE octavo_span octavo_prefill_span(const octavo_prefill_params *p, int64_t b, int64_t i)
{
    return octavo_prefill_span_of(p, octavo_prefill_length(p, b), octavo_prefill_queries(p, b), i);
}

/* What at least one query of sequence b sees; nothing else of it is read. */
OCTAVO_KERNEL_INLINE octavo_span octavo_prefill_seen(const octavo_prefill_params *p, int64_t b)
{
    const int64_t queries = octavo_prefill_queries(p, b);
    if (queries <= 0) return (octavo_span){ 0, 0, 0 };
    const octavo_span first = octavo_prefill_span(p, b, 0), last = octavo_prefill_span(p, b, queries - 1);
    const int64_t sink_end = last.sink_end < first.near_begin ? last.sink_end : first.near_begin;
    return (octavo_span){ sink_end, first.near_begin, last.end };
}

/* ---- elements that share a scale: groups are counted within a (sequence, head), whose whole is one or a part of one where they are 0 ---- */

OCTAVO_KERNEL_INLINE int64_t octavo_prefill_q_group(const octavo_prefill_params *p, int64_t i)
{
    switch (p->scales) {
    case OCTAVO_PREFILL_PER_TOKEN:  return i;
    case OCTAVO_PREFILL_PER_WARP:   return i / 16;
    case OCTAVO_PREFILL_PER_THREAD: return i / 16 * 8 + i % 8;
    case OCTAVO_PREFILL_PER_HEAD:
    case OCTAVO_PREFILL_PER_TENSOR: return 0;
    default:                        return i / OCTAVO_PREFILL_BLOCK;
    }
}

OCTAVO_KERNEL_INLINE int64_t octavo_prefill_k_group(const octavo_prefill_params *p, int64_t t)
{
    switch (p->scales) {
    case OCTAVO_PREFILL_PER_TOKEN:  return t;
    case OCTAVO_PREFILL_PER_THREAD: return t / OCTAVO_PREFILL_BLOCK * 4 + t % 8 / 2;
    case OCTAVO_PREFILL_PER_HEAD:
    case OCTAVO_PREFILL_PER_TENSOR: return 0;
    default:                        return t / OCTAVO_PREFILL_BLOCK;
    }
}

/* 1: all of a head shares a scale, or all heads do. */
OCTAVO_KERNEL_INLINE int octavo_prefill_scales_whole(const octavo_prefill_params *p)
{
    return p->precision != OCTAVO_ATTENTION_EXACT && p->scales >= OCTAVO_PREFILL_PER_HEAD;
}

/* 1: a query in FP8 has the better of two scales, where few queries share one. */
OCTAVO_KERNEL_INLINE int octavo_prefill_fits_q(const octavo_prefill_params *p)
{
    return p->precision == OCTAVO_ATTENTION_FP8 && !octavo_prefill_scales_whole(p);
}

/* ---- what is done to K and V ---- */

OCTAVO_KERNEL_INLINE int octavo_prefill_is_sage(const octavo_prefill_params *p)
{
    return p->precision == OCTAVO_ATTENTION_SAGE1 || p->precision == OCTAVO_ATTENTION_SAGE2;
}

OCTAVO_KERNEL_INLINE int octavo_prefill_smooths_k(const octavo_prefill_params *p)
{
    return octavo_prefill_is_sage(p) && !(p->flags & OCTAVO_PREFILL_NO_SMOOTH);
}

OCTAVO_KERNEL_INLINE int octavo_prefill_smooths_v(const octavo_prefill_params *p)
{
    return p->precision == OCTAVO_ATTENTION_SAGE2 && p->flags & OCTAVO_PREFILL_SMOOTH_V;
}

OCTAVO_KERNEL_INLINE int octavo_prefill_rotates(const octavo_prefill_params *p)
{
    return p->precision == OCTAVO_ATTENTION_FP8 && p->flags & OCTAVO_PREFILL_ROTATE;
}

/* 1: weights and V are f16, and 64 products with V are summed up in f16. */
OCTAVO_KERNEL_INLINE int octavo_prefill_sums_f16(const octavo_prefill_params *p)
{
    return p->precision == OCTAVO_ATTENTION_SAGE1 && p->flags & OCTAVO_PREFILL_F16_SUMS;
}

/* 1: the stored codes of K are the operand, with the scales that they are stored with: in FP8 where those of V are, too. */
OCTAVO_KERNEL_INLINE int octavo_prefill_takes_k_codes(const octavo_prefill_params *p)
{
    const octavo_k_format format = p->kv->k_format;
    if (p->precision == OCTAVO_ATTENTION_FP8)
        return !octavo_prefill_rotates(p) && p->kv->v_format == OCTAVO_V_E4M3 && (format == OCTAVO_K_E4M3 || format == OCTAVO_K_E4M3X2);
    return octavo_prefill_is_sage(p) && !octavo_prefill_smooths_k(p) && octavo_k_scale_bytes(format) == 2;
}

/* Planes of K that are read: the base alone where it is the operand; int4x2's code is both. */
OCTAVO_KERNEL_INLINE int32_t octavo_prefill_k_planes(const octavo_prefill_params *p)
{
    const int base = octavo_prefill_takes_k_codes(p) && p->kv->k_format != OCTAVO_K_INT4X2;
    return base ? 1 : octavo_k_plane_count(p->kv->k_format);
}

/* 1: V is rounded to E4M3. */
OCTAVO_KERNEL_INLINE int octavo_prefill_rounds_v(const octavo_prefill_params *p)
{
    if (p->precision != OCTAVO_ATTENTION_FP8 && p->precision != OCTAVO_ATTENTION_SAGE2) return 0;
    return p->kv->v_format != OCTAVO_V_E4M3 || octavo_prefill_smooths_v(p);
}

/* 1: the largest magnitude of whole heads of Q, K, V has to be found before one of their elements is encoded: nobody has given it. */
OCTAVO_KERNEL_INLINE int octavo_prefill_seeks_q(const octavo_prefill_params *p) { return octavo_prefill_scales_whole(p) && !p->q_amax; }

OCTAVO_KERNEL_INLINE int octavo_prefill_seeks_k(const octavo_prefill_params *p)
{
    return octavo_prefill_scales_whole(p) && !p->k_amax && !octavo_prefill_takes_k_codes(p);
}

OCTAVO_KERNEL_INLINE int octavo_prefill_seeks_v(const octavo_prefill_params *p)
{
    return octavo_prefill_scales_whole(p) && !p->v_amax && p->precision == OCTAVO_ATTENTION_FP8 && octavo_prefill_rounds_v(p);
}

/* The blocks of keys of which a row sees some, as a span in blocks: [0, sink_end) and [near_begin, end). */
OCTAVO_KERNEL_INLINE octavo_span octavo_prefill_blocks_of(octavo_span span)
{
    const int64_t sink = (span.sink_end + OCTAVO_PREFILL_BLOCK - 1) / OCTAVO_PREFILL_BLOCK, near_ = span.near_begin / OCTAVO_PREFILL_BLOCK;
    return (octavo_span){ sink, near_ > sink ? near_ : sink, (span.end + OCTAVO_PREFILL_BLOCK - 1) / OCTAVO_PREFILL_BLOCK };
}

/* Keys of these blocks that some query of the call sees: over them goes the mean of what V's codes leave out. */
OCTAVO_KERNEL_INLINE int64_t octavo_prefill_blocks_seen(const octavo_span *blocks, const octavo_span *seen)
{
    return octavo_span_count(seen, 0, blocks->sink_end * OCTAVO_PREFILL_BLOCK) +
           octavo_span_count(seen, blocks->near_begin * OCTAVO_PREFILL_BLOCK, blocks->end * OCTAVO_PREFILL_BLOCK);
}

/* Scale and its inverse for a group whose largest magnitude is amax. Below 2^-100 everything becomes 0. */
typedef struct octavo_prefill_scale {
    float scale, inverse;
} octavo_prefill_scale;
OCTAVO_KERNEL_INLINE octavo_prefill_scale octavo_prefill_scale_of(float amax, float code_max)
{
    if (!(amax >= 0x1p-100f)) return (octavo_prefill_scale){ 0.0f, 0.0f };
    return (octavo_prefill_scale){ amax / code_max, code_max / amax };
}

/* How far a code is from what it stands for, in eighths of the code's unit. Squares of these integers add up exactly in float32, in any
 * order, for 1024 elements and more. */
OCTAVO_KERNEL_INLINE float octavo_prefill_code_off(float scaled, float code)
{
    const float whole = 12582912.0f; /* 1.5 * 2^23: its unit in the last place is 1 */
    return (8.0f * (scaled - code) + whole) - whole;
}

/* The scale of a query in FP8: its group's power of two, or one of which the largest codes are a quarter smaller, if the sum of the squares
 * of how far its codes are off, `off` and `off_narrow`, says that they then lie closer to the row. */
OCTAVO_KERNEL_INLINE octavo_prefill_scale octavo_prefill_scale_fitted(octavo_prefill_scale scale, float off, float off_narrow)
{
    if (!(9.0f * off > 16.0f * off_narrow)) return scale;
    return (octavo_prefill_scale){ scale.scale * (4.0f / 3.0f), scale.inverse * 0.75f };
}

/* ---- what the reference keeps: one sequence and kv head at a time ---- */

/* Byte offsets in the workspace. */
typedef struct octavo_prefill_ref_layout {
    size_t k, k_scale;       /* [max_tokens, head_dim], [max_tokens] f32 */
    size_t v, v_scale;       /* [max_tokens, v_dim], [v_dim] f32         */
    size_t k_mean, v_mean;   /* [head_dim], [v_dim] f32                  */
    size_t v_rest;           /* [blocks, v_dim] f64                      */
    size_t q, q_scale;       /* [q_tokens, head_dim], [q_tokens] f32     */
    size_t score;            /* [max_tokens] f64                         */
    size_t bytes;            /* SIZE_MAX: it does not fit                */
} octavo_prefill_ref_layout;

/* Takes count * width elements from the end, which sticks at SIZE_MAX where that overflows. */
static inline size_t octavo_prefill_place(size_t *end, int64_t count, int64_t width, size_t element_bytes)
{
    const size_t begin = *end;
    size_t bytes, padded;
    const int too_big = __builtin_mul_overflow((size_t)count, (size_t)width, &bytes) ||
                        __builtin_mul_overflow(bytes, element_bytes, &bytes) || __builtin_add_overflow(bytes, (size_t)63, &padded) ||
                        __builtin_add_overflow(begin, padded & ~(size_t)63, end);
    if (too_big) *end = SIZE_MAX;
    return begin;
}

static inline octavo_prefill_ref_layout octavo_prefill_ref_layout_of(const octavo_prefill_params *p)
{
    const octavo_kv_view *kv = p->kv;
    octavo_prefill_ref_layout at = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
    at.k       = octavo_prefill_place(&at.bytes, kv->max_tokens, kv->head_dim, sizeof(float));
    at.k_scale = octavo_prefill_place(&at.bytes, kv->max_tokens, 1, sizeof(float));
    at.v       = octavo_prefill_place(&at.bytes, kv->max_tokens, kv->v_dim, sizeof(float));
    at.v_scale = octavo_prefill_place(&at.bytes, kv->v_dim, 1, sizeof(float));
    at.k_mean  = octavo_prefill_place(&at.bytes, kv->head_dim, 1, sizeof(float));
    at.v_mean  = octavo_prefill_place(&at.bytes, kv->v_dim, 1, sizeof(float));
    at.v_rest  = octavo_prefill_place(&at.bytes, kv->max_tokens / OCTAVO_PREFILL_BLOCK + 1, kv->v_dim, sizeof(double));
    at.q       = octavo_prefill_place(&at.bytes, p->q.shape[1], kv->head_dim, sizeof(float));
    at.q_scale = octavo_prefill_place(&at.bytes, p->q.shape[1], 1, sizeof(float));
    at.score   = octavo_prefill_place(&at.bytes, kv->max_tokens, 1, sizeof(double));
    return at;
}

#endif
