/* prefill_eight.h - where a GPU keeps Q, K and V of eight bits in the workspace of attention_prefill. */
#ifndef OCTAVO_KERNEL_PREFILL_EIGHT_H
#define OCTAVO_KERNEL_PREFILL_EIGHT_H

#include "kernel/prefill_plan.h"

enum { OCTAVO_PREFILL_EIGHT_TOKENS = 256 /* tokens are counted up to a multiple of it, the most keys of a tile */ };

/* Offsets in bytes; 0: there is no such array. Within every 16 tokens v has tokens 2 t, 2 t + 1, 8 + 2 t, 9 + 2 t at 4 t and on, the order
 * in which the matrix unit leaves the scores of four keys to a lane. */
typedef struct octavo_prefill_eight_layout {
    int64_t q_tokens, kv_tokens; /* of each sequence, padding included                                             */
    int64_t width;               /* bytes of a row of q and k: head_dim, and zeros up to a multiple of 16          */
    int per_token;               /* scales of K and of V are a token's                                             */
    size_t q, q_scale, q_shift;  /* [batch, q_heads, q_tokens, width], [batch, q_heads, q_tokens] f32 each; shift:
                                  * softmax_scale * q . (means of K)                                               */
    size_t k, k_scale;           /* [batch, kv_heads, kv_tokens, width], [batch, kv_heads, kv_tokens] or
                                  * [.., kv_tokens / 64, 4] f32: keys 2 t, 2 t + 1 of each 8                       */
    size_t v, v_log2;            /* [batch, kv_heads, v_dim, kv_tokens], [batch, kv_heads, kv_tokens] or
                                  * [.., kv_tokens / 64] f32; not in Sage 1                                        */
    size_t v_f16;                /* [batch, kv_heads, kv_tokens, v_dim, counted up to a multiple of 8] f16, V over v_scale: Sage 1 with sums in
                                  * f16                                                                            */
    size_t v_scale, v_mean;      /* [batch, kv_heads, v_dim] f32 each                                              */
    size_t v_rest;               /* [batch, kv_heads, kv_tokens / 64 + 1, v_dim] f32: what codes leave out of V in all blocks before one, in
                                  * units of v_scale                                                               */
    size_t k_mean;               /* [batch, kv_heads, head_dim] f32                                                */
    size_t k_part, v_part;       /* [batch, kv_heads, kv_tokens / 64, 3, dim] f32: sum, largest and smallest of a channel */
    size_t most;                 /* [batch * (q_heads + 2 * kv_heads)] f32: largest magnitudes of heads of Q, of K, of V, where all of a head
                                  * share a scale, or of the call in the first of each                             */
    size_t bytes;                /* SIZE_MAX: more than memory holds                                               */
} octavo_prefill_eight_layout;

/* 1: V's stored codes are the operand, with the scales that they are stored with. */
OCTAVO_KERNEL_INLINE int octavo_prefill_takes_v_codes(const octavo_prefill_params *p)
{
    return (p->precision == OCTAVO_ATTENTION_FP8 || p->precision == OCTAVO_ATTENTION_SAGE2) && !octavo_prefill_rounds_v(p);
}

static inline void octavo_prefill_eight_place_values(octavo_prefill_eight_layout *at, const octavo_prefill_params *p, int64_t heads)
{
    const octavo_kv_view *kv = p->kv;
    const int64_t blocks = at->kv_tokens / OCTAVO_PREFILL_BLOCK;
    const int fp8 = p->precision == OCTAVO_ATTENTION_FP8, channels = !fp8 && octavo_prefill_rounds_v(p);
    at->v = octavo_prefill_place(&at->bytes, heads, at->kv_tokens, (size_t)kv->v_dim);
    if (fp8 || at->per_token) at->v_log2 = octavo_prefill_place(&at->bytes, heads, at->per_token ? at->kv_tokens : blocks, sizeof(float));
    if (!fp8 || kv->v_channel_scale) at->v_scale = octavo_prefill_place(&at->bytes, heads, kv->v_dim, sizeof(float));
    if (octavo_prefill_smooths_v(p)) at->v_mean = octavo_prefill_place(&at->bytes, heads, kv->v_dim, sizeof(float));
    if (octavo_prefill_rounds_v(p)) at->v_rest = octavo_prefill_place(&at->bytes, heads, blocks + 1, sizeof(float) * (size_t)kv->v_dim);
    if (channels) at->v_part = octavo_prefill_place(&at->bytes, heads, 3 * blocks, sizeof(float) * (size_t)kv->v_dim);
}

/* Bytes of a row of v_f16. */
OCTAVO_KERNEL_INLINE int64_t octavo_prefill_f16_row(const octavo_kv_view *kv) { return ((int64_t)kv->v_dim + 7) / 8 * 16; }

static inline void octavo_prefill_eight_place_f16(octavo_prefill_eight_layout *at, const octavo_kv_view *kv, int64_t heads)
{
    at->v_f16 = octavo_prefill_place(&at->bytes, heads, at->kv_tokens, (size_t)octavo_prefill_f16_row(kv));
    at->v_scale = octavo_prefill_place(&at->bytes, heads, kv->v_dim, sizeof(float));
    at->v_part = octavo_prefill_place(&at->bytes, heads, 3 * (at->kv_tokens / OCTAVO_PREFILL_BLOCK), sizeof(float) * (size_t)kv->v_dim);
}

static inline octavo_prefill_eight_layout octavo_prefill_eight_layout_of(const octavo_prefill_params *p)
{
    enum { FIRST_BYTES = 64, TOKENS = OCTAVO_PREFILL_EIGHT_TOKENS, BLOCK = OCTAVO_PREFILL_BLOCK };
    const octavo_kv_view *kv = p->kv;
    const int smooth = octavo_prefill_smooths_k(p), seeks = octavo_prefill_seeks_q(p) || octavo_prefill_seeks_k(p) || octavo_prefill_seeks_v(p);
    octavo_prefill_eight_layout at = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0 };
    at.q_tokens = (p->q.shape[1] + TOKENS - 1) / TOKENS * TOKENS, at.kv_tokens = (kv->max_tokens + TOKENS - 1) / TOKENS * TOKENS;
    at.width = ((int64_t)kv->head_dim + 15) / 16 * 16;
    at.per_token = octavo_prefill_takes_k_codes(p) || octavo_prefill_takes_v_codes(p) ||
                   (octavo_prefill_is_sage(p) && p->scales == OCTAVO_PREFILL_PER_TOKEN);
    const int64_t q_heads = p->q.shape[0] * p->q.shape[2], heads = p->q.shape[0] * kv->kv_heads, blocks = at.kv_tokens / BLOCK;
    octavo_prefill_place(&at.bytes, FIRST_BYTES, 1, 1); /* the next task, which the encoding sets to 0 */
    at.q = octavo_prefill_place(&at.bytes, q_heads, at.q_tokens, (size_t)at.width);
    at.q_scale = octavo_prefill_place(&at.bytes, q_heads, at.q_tokens, sizeof(float));
    if (kv->k_mean || smooth) at.q_shift = octavo_prefill_place(&at.bytes, q_heads, at.q_tokens, sizeof(float));
    at.k = octavo_prefill_place(&at.bytes, heads, at.kv_tokens, (size_t)at.width);
    at.k_scale = octavo_prefill_place(&at.bytes, heads, at.per_token ? at.kv_tokens : 4 * blocks, sizeof(float));
    if (p->precision != OCTAVO_ATTENTION_SAGE1) octavo_prefill_eight_place_values(&at, p, heads);
    if (octavo_prefill_sums_f16(p)) octavo_prefill_eight_place_f16(&at, kv, heads);
    if (smooth) at.k_mean = octavo_prefill_place(&at.bytes, heads, kv->head_dim, sizeof(float));
    if (smooth) at.k_part = octavo_prefill_place(&at.bytes, heads, 3 * blocks, sizeof(float) * (size_t)kv->head_dim);
    if (seeks) at.most = octavo_prefill_place(&at.bytes, q_heads + 2 * heads, 1, sizeof(float));
    return at;
}

#endif
