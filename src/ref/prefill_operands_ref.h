/* prefill_operands_ref.h - the operands of attention_prefill: what smoothing, rotation and eight-bit codes make of Q, K and V.
 *
 * Codes are results of single float32 operations in a fixed order, so that every level finds the same ones. */
#ifndef OCTAVO_REF_PREFILL_OPERANDS_REF_H
#define OCTAVO_REF_PREFILL_OPERANDS_REF_H

#include "kernel/prefill_plan.h"
#include "ref/decode_ref.h"

/* One sequence and kv head. An element is worth code * scale of its token (q, k) or channel (v). */
typedef struct octavo_ref_prefill {
    const octavo_prefill_params *p;
    int64_t b, head, queries;
    octavo_span seen;
    float *k, *k_scale;      /* [max_tokens, head_dim], [max_tokens] */
    float *v, *v_scale;      /* [max_tokens, v_dim], [v_dim]         */
    float *k_mean, *v_mean;  /* [head_dim], [v_dim] taken off: 0 without smoothing */
    double *v_rest;          /* [blocks, v_dim] what codes leave out of a block's values, summed up, in units of v_scale */
    float *q, *q_scale;      /* [queries, head_dim], [queries] of one query head   */
    double *score;           /* [max_tokens] */
    float q_most, k_most, v_most; /* PER_TENSOR: largest magnitudes of the call */
} octavo_ref_prefill;

/* Element i of K as float32: one rounding at most. */
static inline float octavo_ref_k_float(const octavo_kv_view *kv, const octavo_ref_token *at, int32_t planes, int64_t i)
{
    const double factor = octavo_ref_k_factor(kv, at);
    if (kv->k_format != OCTAVO_K_INT8X2 || planes < 2) return (float)(octavo_ref_k_code(kv, at, planes, i) * factor);
    const int base = (int8_t)octavo_ref_at(&kv->k[0], at)[i], more = (int8_t)octavo_ref_at(&kv->k[1], at)[i];
    return (float)(254 * base + more) * (float)factor / 254.0f; /* the product is exact */
}

static inline float octavo_ref_held(float x, float limit) { return fmaxf(-limit, fminf(x, limit)); }

/* ---- rows ---- */

/* Walsh and Hadamard's butterflies from the nearest pairs to the farthest; dim is a power of two. */
static inline void octavo_ref_rotate(float *x, int64_t dim)
{
    for (int64_t half = 1; half < dim; half *= 2)
        for (int64_t i = 0; i < dim; i++) {
            if (i & half) continue;
            const float a = x[i], b = x[i + half];
            x[i] = a + b, x[i + half] = a - b;
        }
    for (int64_t i = 0; i < dim; i++) x[i] *= (float)(1.0 / sqrt((double)dim));
}

/* ---- means over the tokens that are seen: float32 within a block, float64 over blocks ---- */

static inline float octavo_ref_prefill_mean(const octavo_ref_prefill *of, const float *x, int64_t dim, int64_t i)
{
    double sum = 0.0;
    int64_t count = 0;
    for (int64_t block = 0; block * OCTAVO_PREFILL_BLOCK < of->seen.end; block++) {
        float part = 0.0f;
        for (int64_t t = block * OCTAVO_PREFILL_BLOCK; t < (block + 1) * OCTAVO_PREFILL_BLOCK; t++)
            if (octavo_span_sees(&of->seen, t)) part += x[t * dim + i], count++;
        sum += (double)part;
    }
    return count > 0 ? (float)(sum / (double)count) : 0.0f;
}

static inline void octavo_ref_prefill_smooth(const octavo_ref_prefill *of, float *x, float *mean, int64_t dim)
{
    for (int64_t i = 0; i < dim; i++) mean[i] = octavo_ref_prefill_mean(of, x, dim, i);
    for (int64_t t = 0; t < of->seen.end; t++)
        for (int64_t i = 0; i < dim && octavo_span_sees(&of->seen, t); i++) x[t * dim + i] -= mean[i];
}

/* ---- codes ---- */

typedef enum octavo_ref_codes {
    OCTAVO_REF_CODES_NONE,
    OCTAVO_REF_CODES_E4M3,
    OCTAVO_REF_CODES_FITTED, /* E4M3 with the better of two scales */
    OCTAVO_REF_CODES_INT8
} octavo_ref_codes;

static inline octavo_ref_codes octavo_ref_prefill_codes(const octavo_prefill_params *p)
{
    return p->precision == OCTAVO_ATTENTION_FP8 ? OCTAVO_REF_CODES_E4M3
           : octavo_prefill_is_sage(p)          ? OCTAVO_REF_CODES_INT8
                                                : OCTAVO_REF_CODES_NONE;
}

static inline float octavo_ref_e4m3(float scaled) { return octavo_e4m3_to_float(octavo_e4m3_from_float(scaled)); }

static inline float octavo_ref_off(const float *x, int64_t dim, float factor)
{
    float sum = 0.0f;
    for (int64_t i = 0; i < dim; i++) {
        const float scaled = x[i] * factor, off = octavo_prefill_code_off(scaled, octavo_ref_e4m3(scaled));
        sum += off * off;
    }
    return sum;
}

/* Row of codes with a scale for its group's largest magnitude: a power of two for e4m3. Returns the scale. */
static inline float octavo_ref_encode(float *x, int64_t dim, float amax, octavo_ref_codes codes)
{
    if (codes == OCTAVO_REF_CODES_NONE) return 1.0f;
    const int32_t p = octavo_row_exponent(amax);
    octavo_prefill_scale scale = codes == OCTAVO_REF_CODES_INT8 ? octavo_prefill_scale_of(amax, 127.0f)
                                                                : (octavo_prefill_scale){ ldexpf(1.0f, -p), ldexpf(1.0f, p) };
    if (codes == OCTAVO_REF_CODES_FITTED)
        scale = octavo_prefill_scale_fitted(scale, octavo_ref_off(x, dim, scale.inverse), octavo_ref_off(x, dim, scale.inverse * 0.75f));
    for (int64_t i = 0; i < dim; i++) {
        const float scaled = x[i] * scale.inverse;
        x[i] = codes == OCTAVO_REF_CODES_INT8 ? rintf(octavo_ref_held(scaled, 127.0f)) : octavo_ref_e4m3(scaled);
    }
    return scale.scale;
}

static inline float octavo_ref_row_most(const float *x, int64_t dim)
{
    float amax = 0.0f;
    for (int64_t i = 0; i < dim; i++) amax = fmaxf(amax, fabsf(x[i]));
    return amax;
}

/* scale[t] is the row's amax on entry, its scale on return; rows of a group lie within `reach` tokens of each other. */
static inline void octavo_ref_encode_rows(const octavo_ref_prefill *of, float *x, float *scale, int64_t dim, int64_t count,
                                          int64_t (*group)(const octavo_prefill_params *, int64_t), const octavo_span *seen,
                                          octavo_ref_codes codes)
{
    const int64_t block = group(of->p, OCTAVO_PREFILL_BLOCK) == group(of->p, 0) ? count : OCTAVO_PREFILL_BLOCK;
    for (int64_t begin = 0; begin < count; begin += block) {
        const int64_t end = begin + block < count ? begin + block : count;
        for (int64_t t = begin; t < end; t++) { /* the largest of the group first, for all its rows */
            if (!octavo_span_sees(seen, t)) continue;
            for (int64_t u = begin; u < end; u++)
                if (octavo_span_sees(seen, u) && group(of->p, u) == group(of->p, t)) scale[t] = fmaxf(scale[t], scale[u]);
        }
        for (int64_t t = begin; t < end; t++)
            if (octavo_span_sees(seen, t)) scale[t] = octavo_ref_encode(x + t * dim, dim, scale[t], codes);
    }
}

/* ---- K, V, Q ---- */

/* What scales of whole heads are made for, if that is known before a head's own rows are looked at; else -1. given: by the caller. */
static inline float octavo_ref_known_most(const octavo_prefill_params *p, const float *given, int64_t head, float of_call)
{
    if (!octavo_prefill_scales_whole(p)) return -1.0f;
    const int tensor = p->scales == OCTAVO_PREFILL_PER_TENSOR;
    if (given) return given[tensor ? 0 : head];
    return tensor ? of_call : -1.0f;
}

/* K as float32, less its mean; stored codes with their scales where these are the operand, else a scale of 1. */
static inline void octavo_ref_prefill_load_k(octavo_ref_prefill *of)
{
    const octavo_prefill_params *p = of->p;
    const octavo_kv_view *kv = p->kv;
    const int64_t dim = kv->head_dim;
    const int32_t planes = octavo_prefill_k_planes(p);
    const int takes_codes = octavo_prefill_takes_k_codes(p);
    for (int64_t t = 0; t < of->seen.end; t++) {
        if (!octavo_span_sees(&of->seen, t)) continue;
        const octavo_ref_token at = octavo_ref_find(kv, of->b, of->head, t);
        float *k = of->k + t * dim;
        for (int64_t i = 0; i < dim; i++)
            k[i] = takes_codes ? (float)octavo_ref_k_code(kv, &at, planes, i) : octavo_ref_k_float(kv, &at, planes, i);
        of->k_scale[t] = takes_codes ? (float)octavo_ref_k_factor(kv, &at) : 1.0f;
        if (octavo_prefill_rotates(p)) octavo_ref_rotate(k, dim);
    }
    for (int64_t i = 0; i < dim; i++) of->k_mean[i] = 0.0f;
    if (octavo_prefill_smooths_k(p)) octavo_ref_prefill_smooth(of, of->k, of->k_mean, dim);
}

static inline void octavo_ref_prefill_k(octavo_ref_prefill *of)
{
    const octavo_prefill_params *p = of->p;
    const int64_t dim = p->kv->head_dim;
    const float known = octavo_ref_known_most(p, p->k_amax, of->head, of->k_most);
    octavo_ref_prefill_load_k(of);
    if (octavo_prefill_takes_k_codes(p) || p->precision == OCTAVO_ATTENTION_EXACT) return;
    for (int64_t t = 0; t < of->seen.end; t++)
        if (octavo_span_sees(&of->seen, t)) of->k_scale[t] = known >= 0.0f ? known : octavo_ref_row_most(of->k + t * dim, dim);
    octavo_ref_encode_rows(of, of->k, of->k_scale, dim, of->seen.end, octavo_prefill_k_group, &of->seen, octavo_ref_prefill_codes(p));
}

/* Largest magnitude of rows [begin, end) of x that are seen. */
static inline float octavo_ref_rows_most(const octavo_span *seen, const float *x, int64_t dim, int64_t begin, int64_t end)
{
    float amax = 0.0f;
    for (int64_t t = begin; t < end; t++)
        if (octavo_span_sees(seen, t)) amax = fmaxf(amax, octavo_ref_row_most(x + t * dim, dim));
    return amax;
}

/* E4M3 with a power of two a block of tokens, a head or the call. */
static inline void octavo_ref_prefill_v_tokens(octavo_ref_prefill *of)
{
    const octavo_prefill_params *p = of->p;
    const int64_t dim = p->kv->v_dim, tokens = octavo_prefill_scales_whole(p) ? of->seen.end : OCTAVO_PREFILL_BLOCK;
    const float known = octavo_ref_known_most(p, p->v_amax, of->head, of->v_most);
    for (int64_t begin = 0; begin < of->seen.end; begin += tokens) {
        const int64_t end = begin + tokens < of->seen.end ? begin + tokens : of->seen.end;
        const float amax = known >= 0.0f ? known : octavo_ref_rows_most(&of->seen, of->v, dim, begin, end);
        for (int64_t t = begin; t < end; t++) {
            if (!octavo_span_sees(&of->seen, t)) continue;
            float *v = of->v + t * dim;
            double *rest = of->v_rest + t / OCTAVO_PREFILL_BLOCK * dim;
            for (int64_t i = 0; i < dim; i++) rest[i] += (double)v[i];
            const float scale = octavo_ref_encode(v, dim, amax, OCTAVO_REF_CODES_E4M3);
            for (int64_t i = 0; i < dim; i++) v[i] *= scale, rest[i] -= (double)v[i];
        }
    }
}

/* E4M3 with a scale a channel. */
static inline void octavo_ref_prefill_v_channels(octavo_ref_prefill *of)
{
    const int64_t dim = of->p->kv->v_dim;
    for (int64_t i = 0; i < dim; i++) {
        float amax = 0.0f;
        for (int64_t t = 0; t < of->seen.end; t++)
            if (octavo_span_sees(&of->seen, t)) amax = fmaxf(amax, fabsf(of->v[t * dim + i]));
        const octavo_prefill_scale scale = octavo_prefill_scale_of(amax, 448.0f);
        of->v_scale[i] = scale.scale;
        for (int64_t t = 0; t < of->seen.end; t++) {
            if (!octavo_span_sees(&of->seen, t)) continue;
            const float scaled = of->v[t * dim + i] * scale.inverse;
            of->v[t * dim + i] = octavo_ref_e4m3(scaled);
            of->v_rest[t / OCTAVO_PREFILL_BLOCK * dim + i] += (double)scaled - (double)of->v[t * dim + i];
        }
    }
}

/* V as float32, less its mean, or as it is stored where that is the operand. */
static inline void octavo_ref_prefill_load_v(octavo_ref_prefill *of)
{
    const octavo_prefill_params *p = of->p;
    const octavo_kv_view *kv = p->kv;
    const int64_t dim = kv->v_dim;
    const int rounds = octavo_prefill_rounds_v(p);
    for (int64_t i = 0; i < dim; i++) {
        of->v_mean[i] = 0.0f;
        of->v_scale[i] = rounds ? 1.0f : (float)octavo_ref_v_channel(kv, of->head, i);
    }
    for (int64_t t = 0; t < of->seen.end; t++) {
        if (!octavo_span_sees(&of->seen, t)) continue;
        const octavo_ref_token at = octavo_ref_find(kv, of->b, of->head, t);
        for (int64_t i = 0; i < dim; i++)
            of->v[t * dim + i] = (float)(octavo_ref_v_stored(kv, &at, i) * (rounds ? octavo_ref_v_channel(kv, of->head, i) : 1.0));
    }
    if (octavo_prefill_smooths_v(p)) octavo_ref_prefill_smooth(of, of->v, of->v_mean, dim);
}

static inline void octavo_ref_prefill_v(octavo_ref_prefill *of)
{
    const octavo_prefill_params *p = of->p;
    const int rounds = octavo_prefill_rounds_v(p);
    octavo_ref_prefill_load_v(of);
    for (int64_t i = 0; i < (of->seen.end + OCTAVO_PREFILL_BLOCK - 1) / OCTAVO_PREFILL_BLOCK * p->kv->v_dim; i++) of->v_rest[i] = 0.0;
    if (rounds && p->precision == OCTAVO_ATTENTION_FP8) octavo_ref_prefill_v_tokens(of);
    if (rounds && p->precision == OCTAVO_ATTENTION_SAGE2) octavo_ref_prefill_v_channels(of);
}

/* The mean of what codes leave out of the values in the blocks that a row sees some of; 0 where V is read as it is. */
static inline double octavo_ref_prefill_rest(const octavo_ref_prefill *of, const octavo_span *blocks, int64_t d)
{
    const int64_t dim = of->p->kv->v_dim, count = octavo_prefill_blocks_seen(blocks, &of->seen);
    double sum = 0.0;
    for (int64_t block = 0; block < blocks->end; block++)
        if (octavo_span_sees(blocks, block)) sum += of->v_rest[block * dim + d];
    return count > 0 ? sum / (double)count : 0.0;
}

/* Offset of query i of a query head. */
static inline int64_t octavo_ref_prefill_q_at(const octavo_ref_prefill *of, int64_t q_head, int64_t i)
{
    return of->b * of->p->q.strides[0] + i * of->p->q.strides[1] + q_head * of->p->q.strides[2];
}

static inline void octavo_ref_prefill_load_q(octavo_ref_prefill *of, int64_t q_head)
{
    const int64_t dim = of->p->kv->head_dim;
    for (int64_t i = 0; i < of->queries; i++) {
        float *q = of->q + i * dim;
        for (int64_t d = 0; d < dim; d++) q[d] = (float)octavo_ref_float(&of->p->q, octavo_ref_prefill_q_at(of, q_head, i) + d);
        if (octavo_prefill_rotates(of->p)) octavo_ref_rotate(q, dim);
    }
}

static inline void octavo_ref_prefill_q(octavo_ref_prefill *of, int64_t q_head)
{
    const octavo_span all = { 0, 0, of->queries };
    const int64_t dim = of->p->kv->head_dim;
    const float known = octavo_ref_known_most(of->p, of->p->q_amax, q_head, of->q_most);
    octavo_ref_prefill_load_q(of, q_head);
    for (int64_t i = 0; i < of->queries; i++) of->q_scale[i] = known >= 0.0f ? known : octavo_ref_row_most(of->q + i * dim, dim);
    octavo_ref_encode_rows(of, of->q, of->q_scale, dim, of->queries, octavo_prefill_q_group, &all,
                           octavo_prefill_fits_q(of->p) ? OCTAVO_REF_CODES_FITTED : octavo_ref_prefill_codes(of->p));
}

/* ---- one kv head after the other ---- */

static inline void octavo_ref_prefill_enter(octavo_ref_prefill *of, int64_t b, int64_t head)
{
    of->b = b, of->head = head;
    of->queries = octavo_prefill_queries(of->p, b), of->seen = octavo_prefill_seen(of->p, b);
}

/* PER_TENSOR: largest magnitudes of all heads, before one of them is encoded. */
static inline void octavo_ref_prefill_find_most(octavo_ref_prefill *of)
{
    const octavo_prefill_params *p = of->p;
    const octavo_kv_view *kv = p->kv;
    const int64_t group = p->q.shape[2] / kv->kv_heads;
    of->q_most = of->k_most = of->v_most = 0.0f;
    if (!octavo_prefill_scales_whole(p) || p->scales != OCTAVO_PREFILL_PER_TENSOR) return;
    for (int64_t flat = 0; flat < kv->batch * kv->kv_heads; flat++) {
        octavo_ref_prefill_enter(of, flat / kv->kv_heads, flat % kv->kv_heads);
        octavo_ref_prefill_load_k(of), octavo_ref_prefill_load_v(of);
        of->k_most = fmaxf(of->k_most, octavo_ref_rows_most(&of->seen, of->k, kv->head_dim, 0, of->seen.end));
        of->v_most = fmaxf(of->v_most, octavo_ref_rows_most(&of->seen, of->v, kv->v_dim, 0, of->seen.end));
        for (int64_t q_head = of->head * group; q_head < (of->head + 1) * group; q_head++) {
            octavo_ref_prefill_load_q(of, q_head);
            for (int64_t i = 0; i < of->queries; i++) of->q_most = fmaxf(of->q_most, octavo_ref_row_most(of->q + i * kv->head_dim, kv->head_dim));
        }
    }
}

#endif
