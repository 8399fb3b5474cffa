/* prefill_terms.h - where a GPU keeps what is stored in eight bits or in two planes as bf16 numbers, in the workspace of attention_prefill, so that the
 * kernels for plain floats take the call.
 *
 * Exact: an element of up to 16 significant bits is the sum of two bf16 terms. With k = k' + k" and v = v' + v" a call is one of twice the head_dim, in which
 * queries are [q, q], keys [k', k"] and values [v', v"], and a row of outputs the sum of its halves; where K and V have 8 bits, one term holds them. FP8: a
 * code times its scale is a bf16 number. SageAttention over stored values in E4M3: these are, too, and meet weights of bf16, as in Sage 1. */
#ifndef OCTAVO_KERNEL_PREFILL_TERMS_H
#define OCTAVO_KERNEL_PREFILL_TERMS_H

#include "kernel/prefill_eight.h"

/* Offsets in bytes; 0: there is no such array. */
typedef struct octavo_prefill_terms_layout {
    int terms;         /* of an element, 1 or 2; 0: the call is none of these                 */
    int64_t kv_tokens; /* of each sequence                                                    */
    size_t lengths;    /* [batch] i32                                                         */
    size_t k, v;       /* [batch, kv_heads, kv_tokens, terms * head_dim] bf16                 */
    size_t q, out;     /* [batch, q_tokens, q_heads, terms * head_dim] bf16, f32              */
    size_t bytes;      /* SIZE_MAX: more than memory holds; begins with what the codes of the
                        * precision take (kernel/prefill_eight.h), of Sage 2 those of Sage 1  */
} octavo_prefill_terms_layout;

/* 1: there are kernels of sm_90 for heads of that size, or in bf16 and exact only. */
OCTAVO_KERNEL_INLINE int octavo_prefill_fits_dim(int32_t dim, int exact_bf16)
{
    return dim == 64 || dim == 96 || dim == 128 || dim == 256 || (dim == 192 && exact_bf16);
}

/* 1: a bf16 number holds an element, its factor included. */
OCTAVO_KERNEL_INLINE int octavo_prefill_k_is_short(octavo_k_format format)
{
    return format == OCTAVO_K_BF16 || format == OCTAVO_K_E4M3 || format == OCTAVO_K_E5M2;
}

OCTAVO_KERNEL_INLINE int octavo_prefill_v_is_short(const octavo_kv_view *kv)
{
    return kv->v_format == OCTAVO_V_BF16 || (kv->v_format == OCTAVO_V_E4M3 && !kv->v_channel_scale);
}

/* bf16 numbers an element becomes; 0: none of the kernels for plain floats is made for the call, or it needs no other. */
OCTAVO_KERNEL_INLINE int octavo_prefill_terms_of(const octavo_prefill_params *p)
{
    const octavo_kv_view *kv = p->kv;
    const int stored_v = kv->v_format == OCTAVO_V_E4M3 && !kv->v_channel_scale && !octavo_prefill_smooths_v(p);
    if (kv->head_dim != kv->v_dim || kv->head_dim % 8) return 0;
    if (octavo_prefill_is_sage(p)) return p->soft_cap == 0.0f && stored_v && !octavo_prefill_takes_k_codes(p) && p->scales != OCTAVO_PREFILL_PER_TOKEN;
    if (kv->k_mean) return 0;
    if (p->precision == OCTAVO_ATTENTION_FP8) return stored_v;
    const int plain = kv->k_format == OCTAVO_K_BF16 && kv->v_format == OCTAVO_V_BF16, wide = kv->k_format == OCTAVO_K_F32 || kv->v_format == OCTAVO_V_F32;
    if (p->q.dtype != OCTAVO_BF16 || plain || wide) return 0;
    return octavo_prefill_k_is_short(kv->k_format) && octavo_prefill_v_is_short(kv) ? 1 : 2;
}

static inline octavo_prefill_terms_layout octavo_prefill_terms_layout_of(const octavo_prefill_params *p)
{
    enum { FIRST_BYTES = 64, BLOCK = OCTAVO_PREFILL_BLOCK, FLOAT = sizeof(float), HALF = sizeof(uint16_t) };
    const octavo_kv_view *kv = p->kv;
    octavo_prefill_terms_layout at = { 0, 0, 0, 0, 0, 0, 0, 0 };
    const int terms = octavo_prefill_terms_of(p), dim = terms * kv->head_dim, exact = p->precision == OCTAVO_ATTENTION_EXACT;
    const int64_t batch = p->q.shape[0], rows = p->q.shape[1] * p->q.shape[2], heads = batch * kv->kv_heads;
    octavo_prefill_params codes = *p;
    if (!octavo_prefill_fits_dim(dim, !octavo_prefill_is_sage(p))) return at;
    if (octavo_prefill_is_sage(p)) codes.precision = OCTAVO_ATTENTION_SAGE1;
    at.terms = terms, at.kv_tokens = (kv->max_tokens + BLOCK - 1) / BLOCK * BLOCK;
    at.bytes = exact ? 0 : octavo_prefill_eight_layout_of(&codes).bytes;
    if (exact) octavo_prefill_place(&at.bytes, FIRST_BYTES, 1, 1); /* the next task */
    at.lengths = octavo_prefill_place(&at.bytes, batch, 1, sizeof(int32_t));
    at.v = octavo_prefill_place(&at.bytes, heads, at.kv_tokens, (size_t)dim * HALF);
    if (!octavo_prefill_is_sage(p)) at.k = octavo_prefill_place(&at.bytes, heads, at.kv_tokens, (size_t)dim * HALF);
    if (p->precision == OCTAVO_ATTENTION_FP8 || terms > 1) at.q = octavo_prefill_place(&at.bytes, batch, rows, (size_t)dim * HALF);
    if (terms > 1) at.out = octavo_prefill_place(&at.bytes, batch, rows, (size_t)dim * FLOAT);
    return at;
}

/* What a call on a GPU may need. */
static inline size_t octavo_prefill_gpu_workspace(const octavo_prefill_params *p)
{
    const size_t terms = octavo_prefill_terms_layout_of(p).bytes, eight = p->precision == OCTAVO_ATTENTION_EXACT ? 0 : octavo_prefill_eight_layout_of(p).bytes;
    return terms > eight ? terms : eight;
}

#endif
