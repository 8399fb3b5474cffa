/* decode_ref.h - what a stored K or V element is worth, and what a score is: the definitions that decode stands on. */
#ifndef OCTAVO_REF_DECODE_REF_H
#define OCTAVO_REF_DECODE_REF_H

#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include "format/ue4m4.h"
#include "kernel/kernels.h"
#include "kernel/visibility.h"
#include <string.h>

/* One token of one kv head, found. */
typedef struct octavo_ref_token {
    int64_t row, page, head, in_block;
} octavo_ref_token;

static inline octavo_ref_token octavo_ref_find(const octavo_kv_view *kv, int64_t b, int64_t head, int64_t token)
{
    const int64_t row = octavo_view_row(kv, b), block = token / kv->block_tokens;
    return (octavo_ref_token){ row, octavo_view_page(kv, row, block), head, token % kv->block_tokens };
}

static inline const uint8_t *octavo_ref_at(const octavo_section *section, const octavo_ref_token *at)
{
    return octavo_section_at(section, at->row, at->page, at->head, at->in_block);
}

static inline uint16_t octavo_ref_u16(const uint8_t *bytes) { return (uint16_t)(bytes[0] | bytes[1] << 8); }
static inline float octavo_ref_f32(const uint8_t *bytes)
{
    float x;
    memcpy(&x, bytes, sizeof x);
    return x;
}

/* 2^p, s or 1: what a code of this token's row is multiplied by. A scale section that is absent means 1. */
static inline double octavo_ref_factor(const octavo_section *section, int64_t scale_bytes, const octavo_ref_token *at)
{
    if (!section->data || scale_bytes == 0) return 1.0;
    const uint8_t *scale = octavo_ref_at(section, at);
    return scale_bytes == 1 ? ldexp(1.0, -(int8_t)*scale) : (double)octavo_bf16_to_float(octavo_ref_u16(scale));
}

static inline double octavo_ref_k_factor(const octavo_kv_view *kv, const octavo_ref_token *at)
{
    return octavo_ref_factor(&kv->k_scale, octavo_k_scale_bytes(kv->k_format), at);
}

/* The nibble of element i of a row of dim elements, 0..15. */
static inline int octavo_ref_nibble(const uint8_t *row, int64_t i, int64_t dim)
{
    const int64_t half = (dim + 1) / 2;
    return i < half ? row[i] & 15 : row[i - half] >> 4;
}

/* Element i of K in units of 2^-p or s, from the first `planes` planes. */
static inline double octavo_ref_k_code(const octavo_kv_view *kv, const octavo_ref_token *at, int32_t planes, int64_t i)
{
    const uint8_t *base = octavo_ref_at(&kv->k[0], at);
    const uint8_t *more = planes > 1 ? octavo_ref_at(&kv->k[1], at) : NULL;
    switch (kv->k_format) {
    case OCTAVO_K_F32:  return (double)octavo_ref_f32(base + 4 * i);
    case OCTAVO_K_BF16: return (double)octavo_bf16_to_float(octavo_ref_u16(base + 2 * i));
    case OCTAVO_K_F16:  return (double)octavo_fp16_to_float(octavo_ref_u16(base + 2 * i));
    case OCTAVO_K_E4M3: return (double)octavo_e4m3_to_float(base[i]);
    case OCTAVO_K_E5M2: return (double)octavo_e5m2_to_float(base[i]);
    case OCTAVO_K_INT8: return (double)(int8_t)base[i];
    case OCTAVO_K_E4M3X2:
        return (double)octavo_e4m3_to_float(base[i]) +
               (more ? ldexp((double)octavo_e4m3_to_float(more[i]), -kv->k_residual_exponent) : 0.0);
    case OCTAVO_K_E5M2X2: return (double)octavo_e5m2_to_float(base[i]) + (more ? (double)octavo_e5m2_to_float(more[i]) : 0.0);
    case OCTAVO_K_INT8X2: return (double)(int8_t)base[i] + (more ? (double)(int8_t)more[i] / 254.0 : 0.0);
    case OCTAVO_K_INT4X2: {
        const int high = (octavo_ref_nibble(base, i, kv->head_dim) ^ 8) - 8; /* sign of the nibble */
        return 16.0 * high + (more ? (double)octavo_ref_nibble(more, i, kv->head_dim) : 7.5);
    }
    }
    return 0.0;
}

/* Element i of V as stored, its token's scale included, a channel's factor not. */
static inline double octavo_ref_v_stored(const octavo_kv_view *kv, const octavo_ref_token *at, int64_t i)
{
    const uint8_t *v = octavo_ref_at(&kv->v, at);
    const double factor = octavo_ref_factor(&kv->v_scale, octavo_v_scale_bytes(kv->v_format), at);
    switch (kv->v_format) {
    case OCTAVO_V_F32:  return (double)octavo_ref_f32(v + 4 * i);
    case OCTAVO_V_BF16: return (double)octavo_bf16_to_float(octavo_ref_u16(v + 2 * i));
    case OCTAVO_V_F16:  return (double)octavo_fp16_to_float(octavo_ref_u16(v + 2 * i));
    case OCTAVO_V_E4M3: return (double)octavo_e4m3_to_float(v[i]) * factor;
    case OCTAVO_V_INT8: return (double)(int8_t)v[i] * factor;
    }
    return 0.0;
}

static inline double octavo_ref_v_channel(const octavo_kv_view *kv, int64_t head, int64_t i)
{
    return kv->v_channel_scale ? (double)kv->v_channel_scale[head * kv->v_dim + i] : 1.0;
}

/* Element i of the mean row of a unit. */
static inline double octavo_ref_v_mean(const octavo_kv_view *kv, int64_t b, int64_t head, int64_t unit, int64_t i)
{
    const int64_t per_block = kv->block_tokens / kv->sub_block_tokens, row = octavo_view_row(kv, b);
    const int64_t page = octavo_view_page(kv, row, unit / per_block);
    const uint8_t *mean = octavo_section_at(&kv->v_mean, row, page, head, unit % per_block);
    const int8_t p = (int8_t)*octavo_section_at(&kv->v_mean_scale, row, page, head, unit % per_block);
    return ldexp((double)octavo_e4m3_to_float(mean[i]), -p) * octavo_ref_v_channel(kv, head, i);
}

static inline double octavo_ref_float(const octavo_tensor *tensor, int64_t element)
{
    switch (tensor->dtype) {
    case OCTAVO_F32:  return (double)((const float *)tensor->data)[element];
    case OCTAVO_F16:  return (double)octavo_fp16_to_float(((const uint16_t *)tensor->data)[element]);
    default:          return (double)octavo_bf16_to_float(((const uint16_t *)tensor->data)[element]);
    }
}

static inline int64_t octavo_ref_group(const octavo_decode_input *in) { return in->q.shape[2] / in->kv->kv_heads; }
static inline int64_t octavo_ref_rows(const octavo_decode_input *in) { return octavo_ref_group(in) * in->q.shape[1]; }

/* Offset of q's row: query head head * group + row / q_tokens, query token row % q_tokens. */
static inline int64_t octavo_ref_q_row(const octavo_decode_input *in, int64_t b, int64_t head, int64_t row)
{
    const int64_t q_tokens = in->q.shape[1], q_head = head * octavo_ref_group(in) + row / q_tokens;
    return b * in->q.strides[0] + row % q_tokens * in->q.strides[1] + q_head * in->q.strides[2];
}

static inline double octavo_ref_cap(const octavo_decode_input *in, double score)
{
    return in->soft_cap > 0.0f ? (double)in->soft_cap * tanh(score / (double)in->soft_cap) : score;
}

/* ---- rows as FP8 takes them: what E4M3 with the row's own power of two makes of them ---- */

enum { OCTAVO_REF_AS_IT_IS = INT32_MAX }; /* the exponent of a row that is not rounded */

static inline double octavo_ref_rounded(double x, int32_t p)
{
    return p == OCTAVO_REF_AS_IT_IS ? x : (double)octavo_e4m3_of_row((float)x, p);
}

static inline int32_t octavo_ref_q_exponent(const octavo_decode_input *in, int64_t q)
{
    double most = 0.0;
    if (in->precision != OCTAVO_ATTENTION_FP8) return OCTAVO_REF_AS_IT_IS;
    for (int64_t i = 0; i < in->kv->head_dim; i++) most = fmax(most, fabs(octavo_ref_float(&in->q, q + i * in->q.strides[3])));
    return octavo_row_exponent((float)most);
}

static inline int32_t octavo_ref_k_exponent(const octavo_decode_input *in, const octavo_ref_token *at)
{
    double most = 0.0;
    if (!octavo_decode_rounds_k(in->precision, in->kv->k_format)) return OCTAVO_REF_AS_IT_IS;
    for (int64_t i = 0; i < in->kv->head_dim; i++) most = fmax(most, fabs(octavo_ref_k_code(in->kv, at, 1, i)));
    return octavo_row_exponent((float)most);
}

static inline int32_t octavo_ref_v_exponent(const octavo_decode_input *in, const octavo_ref_token *at)
{
    double most = 0.0;
    if (!octavo_decode_rounds_v(in->precision, in->kv->v_format)) return OCTAVO_REF_AS_IT_IS;
    for (int64_t i = 0; i < in->kv->v_dim; i++) most = fmax(most, fabs(octavo_ref_v_stored(in->kv, at, i)));
    return octavo_row_exponent((float)most);
}

/* softmax_scale * q . k before the cap. */
static inline double octavo_ref_score(const octavo_decode_input *in, int32_t planes, int64_t b, int64_t head, int64_t row, int64_t token)
{
    const octavo_ref_token at = octavo_ref_find(in->kv, b, head, token);
    const int64_t q = octavo_ref_q_row(in, b, head, row);
    const int32_t q_exponent = octavo_ref_q_exponent(in, q), k_exponent = octavo_ref_k_exponent(in, &at);
    double sum = 0.0;
    for (int64_t i = 0; i < in->kv->head_dim; i++)
        sum += octavo_ref_rounded(octavo_ref_float(&in->q, q + i * in->q.strides[3]), q_exponent) *
               octavo_ref_rounded(octavo_ref_k_code(in->kv, &at, planes, i), k_exponent);
    return sum * octavo_ref_k_factor(in->kv, &at) * (double)in->softmax_scale;
}

/* What row `row` of a call sees. */
static inline octavo_span octavo_ref_span(const octavo_decode_input *in, int64_t b, int64_t row)
{
    const int64_t length = in->kv->lengths[octavo_view_row(in->kv, b)], q_tokens = in->q.shape[1];
    return octavo_visible_span(length, q_tokens, row % q_tokens, in->window, in->sink_tokens);
}

/* log(exp(a) + exp(b)) without overflow. */
static inline double octavo_ref_log_add(double a, double b)
{
    if (a < b) return octavo_ref_log_add(b, a);
    return isinf(a) && a < 0.0 ? a : a + log1p(exp(b - a));
}

#endif
