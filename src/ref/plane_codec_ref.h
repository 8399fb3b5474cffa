/* plane_codec_ref.h - how a row of K or V becomes codes, scales and its residual norm: the definitions that the cache stands on.
 */
#ifndef OCTAVO_REF_PLANE_CODEC_REF_H
#define OCTAVO_REF_PLANE_CODEC_REF_H

#include "ref/decode_ref.h"
#include <float.h>
#include <math.h>

/* A row of values before it is encoded: element i is at `offset + i` of a tensor with a contiguous last axis. */
typedef struct octavo_ref_row {
    const octavo_tensor *tensor;
    int64_t offset, dim;
    const float *minus; /* [dim] subtracted first, or NULL                                  */
    const float *over;  /* [dim] divided by, held within float32's finite values, or NULL   */
} octavo_ref_row;

static inline float octavo_ref_row_at(const octavo_ref_row *row, int64_t i)
{
    float x = (float)octavo_ref_float(row->tensor, row->offset + i);
    if (row->minus) x -= row->minus[i];
    return row->over ? fmaxf(-FLT_MAX, fminf(x / row->over[i], FLT_MAX)) : x;
}

static inline float octavo_ref_row_amax(const octavo_ref_row *row)
{
    float amax = 0.0f;
    for (int64_t i = 0; i < row->dim; i++) amax = fmaxf(amax, fabsf(octavo_ref_row_at(row, i)));
    return amax;
}

static inline int octavo_ref_row_finite(const octavo_ref_row *row)
{
    for (int64_t i = 0; i < row->dim; i++)
        if (!isfinite(octavo_ref_row_at(row, i))) return 0;
    return 1;
}

/* A norm is summed in eight interleaved lanes of float64 and these in pairs, so that every level gets the same bits. */
enum { OCTAVO_REF_NORM_LANES = 8 };

static inline double octavo_ref_norm(const double lane[OCTAVO_REF_NORM_LANES])
{
    return sqrt(((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7])));
}

/* The stored byte; 1 + 1e-6 covers the float32 rounding of each difference and of the norm. */
static inline uint8_t octavo_ref_norm_code(double norm) { return octavo_ue4m4_from_float_up((float)(norm * 1.000001)); }

static inline float octavo_ref_clamp(float x, float limit) { return fmaxf(-limit, fminf(x, limit)); }

/* Floating-point rows saturate, too: Inf is no code. */
static inline uint16_t octavo_ref_bf16(float x) { return octavo_bf16_from_float(octavo_ref_clamp(x, 0x1.fep+127f)); }
static inline uint16_t octavo_ref_f16(float x) { return octavo_fp16_from_float(octavo_ref_clamp(x, OCTAVO_FP16_MAX)); }

static inline float octavo_ref_int8(float x) { return rintf(octavo_ref_clamp(x, 127.0f)); }

static inline void octavo_ref_put_u16(uint8_t *bytes, uint16_t value)
{
    bytes[0] = (uint8_t)(value & 255u);
    bytes[1] = (uint8_t)(value >> 8);
}

static inline void octavo_ref_put_f32(uint8_t *bytes, float value)
{
    value = octavo_ref_clamp(value, FLT_MAX);
    memcpy(bytes, &value, sizeof value);
}

/* Nibble i of a row of dim elements; the low half of a row comes first, so that its writes start each byte anew. */
static inline void octavo_ref_put_nibble(uint8_t *row, int64_t i, int64_t dim, int nibble)
{
    const int64_t half = (dim + 1) / 2;
    if (i < half) row[i] = (uint8_t)(nibble & 15);
    else row[i - half] = (uint8_t)(row[i - half] | (nibble & 15) << 4);
}

/* Finds and stores a row's scale. Returns 2^p, by which FP8 rows are multiplied, or s, by which int8 rows are divided (0: a row
 * so small that all codes are 0); 1 where the format or the view has none. */
static inline float octavo_ref_put_scale(const octavo_section *section, int64_t scale_bytes, const octavo_ref_token *at,
                                         float amax)
{
    if (!section->data || scale_bytes == 0) return 1.0f;
    uint8_t *out = octavo_section_at(section, at->row, at->page, at->head, at->in_block);
    if (scale_bytes == 1) {
        const int32_t p = octavo_row_exponent(amax);
        *out = (uint8_t)(int8_t)p;
        return ldexpf(1.0f, p);
    }
    const uint16_t s = octavo_bf16_from_float_up(amax / 127.0f);
    octavo_ref_put_u16(out, s);
    return octavo_bf16_to_float(s);
}

/* Writes element i of K to its planes; returns k - base in units of 2^-p, or in the units of k for int8 (the caller divides by
 * s). */
static inline float octavo_ref_put_k(const octavo_kv_view *kv, uint8_t *base, uint8_t *more, int64_t i, float x, float factor)
{
    switch (kv->k_format) {
    case OCTAVO_K_F32:
        octavo_ref_put_f32(base + 4 * i, x);
        return 0.0f;
    case OCTAVO_K_BF16: {
        const uint16_t code = octavo_ref_bf16(x);
        octavo_ref_put_u16(base + 2 * i, code);
        return x - octavo_bf16_to_float(code);
    }
    case OCTAVO_K_F16: {
        const uint16_t code = octavo_ref_f16(x);
        octavo_ref_put_u16(base + 2 * i, code);
        return x - octavo_fp16_to_float(code);
    }
    case OCTAVO_K_E4M3:
    case OCTAVO_K_E4M3X2: {
        base[i] = octavo_e4m3_from_float(x * factor);
        const float rest = x * factor - octavo_e4m3_to_float(base[i]);
        if (more) more[i] = octavo_e4m3_from_float(ldexpf(rest, kv->k_residual_exponent));
        return rest;
    }
    case OCTAVO_K_E5M2:
    case OCTAVO_K_E5M2X2: {
        base[i] = octavo_e5m2_from_float(x * factor);
        const float rest = x * factor - octavo_e5m2_to_float(base[i]);
        if (more) more[i] = octavo_e5m2_from_float(rest);
        return rest;
    }
    case OCTAVO_K_INT8:
    case OCTAVO_K_INT8X2: {
        const float quotient = factor > 0.0f ? x / factor : 0.0f, code = octavo_ref_int8(quotient);
        base[i] = (uint8_t)(int8_t)code;
        if (more) more[i] = (uint8_t)(int8_t)octavo_ref_int8((quotient - code) * 254.0f);
        return x - code * factor;
    }
    case OCTAVO_K_INT4X2: {
        const int code = factor > 0.0f ? (int)octavo_ref_int8(x / factor) : 0, high = (code & ~15) / 16;
        octavo_ref_put_nibble(base, i, kv->head_dim, high);
        octavo_ref_put_nibble(more, i, kv->head_dim, code);
        return x - (16.0f * (float)high + 7.5f) * factor;
    }
    }
    return 0.0f;
}

/* One token's row of K: scale, planes, and the norm of what the base leaves out where the view keeps it. */
static inline void octavo_ref_encode_k(const octavo_kv_view *kv, const octavo_ref_token *at, const octavo_ref_row *row)
{
    const int64_t scale_bytes = octavo_k_scale_bytes(kv->k_format);
    const float factor = octavo_ref_put_scale(&kv->k_scale, scale_bytes, at, octavo_ref_row_amax(row));
    uint8_t *base = octavo_section_at(&kv->k[0], at->row, at->page, at->head, at->in_block);
    uint8_t *more =
        octavo_k_plane_count(kv->k_format) > 1 ? octavo_section_at(&kv->k[1], at->row, at->page, at->head, at->in_block) : NULL;
    double lane[OCTAVO_REF_NORM_LANES] = { 0 };
    for (int64_t i = 0; i < row->dim; i++) {
        const double rest = (double)octavo_ref_put_k(kv, base, more, i, octavo_ref_row_at(row, i), factor);
        lane[i % OCTAVO_REF_NORM_LANES] += rest * rest;
    }
    if (!kv->k_norm.data) return;
    const double unit = scale_bytes == 2 && factor > 0.0f ? (double)factor : 1.0;
    *octavo_section_at(&kv->k_norm, at->row, at->page, at->head, at->in_block) =
        octavo_ref_norm_code(octavo_ref_norm(lane) / unit);
}

/* One token's row of V. */
static inline void octavo_ref_encode_v(const octavo_kv_view *kv, const octavo_ref_token *at, const octavo_ref_row *row)
{
    const float factor = octavo_ref_put_scale(&kv->v_scale, octavo_v_scale_bytes(kv->v_format), at, octavo_ref_row_amax(row));
    uint8_t *v = octavo_section_at(&kv->v, at->row, at->page, at->head, at->in_block);
    for (int64_t i = 0; i < row->dim; i++) {
        const float x = octavo_ref_row_at(row, i);
        switch (kv->v_format) {
        case OCTAVO_V_F32:  octavo_ref_put_f32(v + 4 * i, x); break;
        case OCTAVO_V_BF16: octavo_ref_put_u16(v + 2 * i, octavo_ref_bf16(x)); break;
        case OCTAVO_V_F16:  octavo_ref_put_u16(v + 2 * i, octavo_ref_f16(x)); break;
        case OCTAVO_V_E4M3: v[i] = octavo_e4m3_from_float(x * factor); break;
        case OCTAVO_V_INT8: v[i] = (uint8_t)(int8_t)(factor > 0.0f ? octavo_ref_int8(x / factor) : 0.0f); break;
        }
    }
}

/* Element i of the mean of a full unit's stored rows, in token order; a unit lies within one block. */
static inline float octavo_ref_unit_mean_at(const octavo_kv_view *kv, const octavo_ref_token *first, int64_t i)
{
    double sum = 0.0;
    for (int64_t t = 0; t < kv->sub_block_tokens; t++) {
        const octavo_ref_token at = { first->row, first->page, first->head, first->in_block + t };
        sum += octavo_ref_v_stored(kv, &at, i);
    }
    return octavo_ref_clamp((float)(sum / (double)kv->sub_block_tokens), FLT_MAX);
}

/* Writes the mean row of the unit that begins at `first`, where the view keeps means. */
static inline void octavo_ref_unit_mean(const octavo_kv_view *kv, const octavo_ref_token *first)
{
    if (!kv->v_mean.data) return;
    const int64_t unit = first->in_block / kv->sub_block_tokens;
    float amax = 0.0f;
    for (int64_t i = 0; i < kv->v_dim; i++) amax = fmaxf(amax, fabsf(octavo_ref_unit_mean_at(kv, first, i)));
    const int32_t p = octavo_row_exponent(amax);
    *octavo_section_at(&kv->v_mean_scale, first->row, first->page, first->head, unit) = (uint8_t)(int8_t)p;
    uint8_t *mean = octavo_section_at(&kv->v_mean, first->row, first->page, first->head, unit);
    for (int64_t i = 0; i < kv->v_dim; i++)
        mean[i] = octavo_e4m3_from_float(octavo_ref_unit_mean_at(kv, first, i) * ldexpf(1.0f, p));
}

#endif
