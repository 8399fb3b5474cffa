/* stored_rows.cuh - where a token's rows lie, and what their elements are worth in float32, for any format and size. */
#ifndef OCTAVO_CUDA_TILE_STORED_ROWS_CUH
#define OCTAVO_CUDA_TILE_STORED_ROWS_CUH

#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include "kernel/kernels.h"
#include "kernel/visibility.h"

/* One token of one kv head, found. */
struct stored_token {
    int64_t row, page, head, in_block;
};

static __device__ __forceinline__ stored_token find_token(const octavo_kv_view *kv, int64_t b, int64_t head, int64_t token)
{
    const int64_t row = octavo_view_row(kv, b), block = token / kv->block_tokens;
    return { row, octavo_view_page(kv, row, block), head, token - block * kv->block_tokens };
}

static __device__ __forceinline__ uint8_t *stored_at(const octavo_section *section, const stored_token &at)
{
    return octavo_section_at(section, at.row, at.page, at.head, at.in_block);
}

static __device__ __forceinline__ int64_t sequence_length(const octavo_kv_view *kv, int64_t b)
{
    const int64_t length = kv->lengths[octavo_view_row(kv, b)];
    return length < 0 ? 0 : length < kv->max_tokens ? length : kv->max_tokens; /* nothing on the host has looked at it */
}

static __device__ __forceinline__ uint16_t load_u16(const uint8_t *bytes) { return *(const uint16_t *)bytes; }

/* 2^-p; p is an int8, so the result is a normal float but for p = 127, a subnormal one. */
static __device__ __forceinline__ float power_of_minus(int8_t p) { return ldexpf(1.0f, -(int)p); }

/* What a code of the row is multiplied by: 2^-p, s or 1. */
static __device__ __forceinline__ float row_factor(const octavo_section *section, int64_t scale_bytes, const stored_token &at)
{
    if (!section->data || scale_bytes == 0) return 1.0f;
    const uint8_t *scale = stored_at(section, at);
    return scale_bytes == 1 ? power_of_minus((int8_t)*scale) : octavo_bf16_to_float(load_u16(scale));
}

/* Nibble of element i of a row of dim elements. */
static __device__ __forceinline__ int row_nibble(const uint8_t *row, int64_t i, int64_t dim)
{
    const int64_t half = (dim + 1) / 2;
    return i < half ? row[i] & 15 : row[i - half] >> 4;
}

/* A row of K: its planes' addresses. */
struct key_row {
    const uint8_t *base, *more; /* more: NULL where only the base is read */
};

static __device__ __forceinline__ key_row find_key(const octavo_kv_view *kv, const stored_token &at, int planes)
{
    return { stored_at(&kv->k[0], at), planes > 1 ? stored_at(&kv->k[1], at) : nullptr };
}

/* Element i in units of 2^-p or s. */
static __device__ __forceinline__ float key_code(const octavo_kv_view *kv, const key_row &row, int64_t i)
{
    switch (kv->k_format) {
    case OCTAVO_K_F32:  return ((const float *)row.base)[i];
    case OCTAVO_K_BF16: return octavo_bf16_to_float(load_u16(row.base + 2 * i));
    case OCTAVO_K_F16:  return octavo_fp16_to_float(load_u16(row.base + 2 * i));
    case OCTAVO_K_E4M3: return octavo_e4m3_to_float(row.base[i]);
    case OCTAVO_K_E5M2: return octavo_e5m2_to_float(row.base[i]);
    case OCTAVO_K_INT8: return (float)(int8_t)row.base[i];
    case OCTAVO_K_E4M3X2: {
        const float base = octavo_e4m3_to_float(row.base[i]);
        return row.more ? fmaf(octavo_e4m3_to_float(row.more[i]), kv->k_residual_exponent ? 0.0625f : 1.0f, base) : base;
    }
    case OCTAVO_K_E5M2X2: return octavo_e5m2_to_float(row.base[i]) + (row.more ? octavo_e5m2_to_float(row.more[i]) : 0.0f);
    case OCTAVO_K_INT8X2: return (float)(int8_t)row.base[i] + (row.more ? (float)(int8_t)row.more[i] / 254.0f : 0.0f);
    case OCTAVO_K_INT4X2: {
        const int high = (row_nibble(row.base, i, kv->head_dim) ^ 8) - 8;
        return 16.0f * (float)high + (row.more ? (float)row_nibble(row.more, i, kv->head_dim) : 7.5f);
    }
    }
    return 0.0f;
}

/* Element i of V as a code: the row's factor is not in it. */
static __device__ __forceinline__ float value_code(const octavo_kv_view *kv, const uint8_t *v, int64_t i)
{
    switch (kv->v_format) {
    case OCTAVO_V_F32:  return ((const float *)v)[i];
    case OCTAVO_V_BF16: return octavo_bf16_to_float(load_u16(v + 2 * i));
    case OCTAVO_V_F16:  return octavo_fp16_to_float(load_u16(v + 2 * i));
    case OCTAVO_V_E4M3: return octavo_e4m3_to_float(v[i]);
    case OCTAVO_V_INT8: return (float)(int8_t)v[i];
    }
    return 0.0f;
}

/* The same of one that has been read. */
static __device__ __forceinline__ float value_of_code(octavo_v_format format, uint32_t code)
{
    switch (format) {
    case OCTAVO_V_F32:  return __uint_as_float(code);
    case OCTAVO_V_BF16: return octavo_bf16_to_float((uint16_t)code);
    case OCTAVO_V_F16:  return octavo_fp16_to_float((uint16_t)code);
    case OCTAVO_V_E4M3: return octavo_e4m3_to_float((uint8_t)code);
    case OCTAVO_V_INT8: return (float)(int8_t)code;
    }
    return 0.0f;
}

static __device__ __forceinline__ float channel_factor(const octavo_kv_view *kv, int64_t head, int64_t i)
{
    return kv->v_channel_scale ? kv->v_channel_scale[head * kv->v_dim + i] : 1.0f;
}

/* The mean row of a unit. */
static __device__ __forceinline__ stored_token find_mean(const octavo_kv_view *kv, int64_t b, int64_t head, int64_t unit)
{
    const int64_t per_block = kv->block_tokens / kv->sub_block_tokens, row = octavo_view_row(kv, b);
    return { row, octavo_view_page(kv, row, unit / per_block), head, unit % per_block };
}

static __device__ __forceinline__ float load_float(const octavo_tensor *tensor, int64_t element)
{
    switch (tensor->dtype) {
    case OCTAVO_F32: return ((const float *)tensor->data)[element];
    case OCTAVO_F16: return octavo_fp16_to_float(((const uint16_t *)tensor->data)[element]);
    default:         return octavo_bf16_to_float(((const uint16_t *)tensor->data)[element]);
    }
}

static __device__ __forceinline__ void store_float(const octavo_tensor *tensor, int64_t element, float x)
{
    switch (tensor->dtype) {
    case OCTAVO_F32: ((float *)tensor->data)[element] = x; break;
    case OCTAVO_F16: ((uint16_t *)tensor->data)[element] = octavo_fp16_from_float(x); break;
    default:         ((uint16_t *)tensor->data)[element] = octavo_bf16_from_float(x); break;
    }
}

/* First element of a query row; the group's rows are query head major. */
static __device__ __forceinline__ int64_t query_row(const octavo_tensor *q, int64_t kv_heads, int64_t b, int64_t head, int64_t row)
{
    const int64_t q_tokens = q->shape[1], q_head = head * (q->shape[2] / kv_heads) + row / q_tokens;
    return b * q->strides[0] + row % q_tokens * q->strides[1] + q_head * q->strides[2];
}

static __device__ __forceinline__ float soft_cap(float score, float cap) { return cap > 0.0f ? cap * tanhf(score / cap) : score; }

/* What row `row` of a decode call sees. */
static __device__ __forceinline__ octavo_span row_span(const octavo_decode_input *in, int64_t length, int64_t row)
{
    const int64_t q_tokens = in->q.shape[1];
    return octavo_visible_span(length, q_tokens, row % q_tokens, in->window, in->sink_tokens);
}

/* Of a row of V that FP8 rounds: its exponent. */
static __device__ __forceinline__ int32_t value_exponent(const octavo_kv_view *kv, const uint8_t *v)
{
    float amax = 0.0f;
    for (int64_t i = 0; i < kv->v_dim; i++) amax = fmaxf(amax, fabsf(value_code(kv, v, i)));
    return octavo_row_exponent(amax);
}

/* q . k, the key as E4M3 makes it of a row of more bits. */
static __device__ float rounded_dot(const octavo_kv_view *kv, const float *q, const key_row &key)
{
    float amax = 0.0f, sum = 0.0f;
    for (int64_t i = 0; i < kv->head_dim; i++) amax = fmaxf(amax, fabsf(key_code(kv, key, i)));
    const int32_t p = octavo_row_exponent(amax);
    for (int64_t i = 0; i < kv->head_dim; i++) sum = fmaf(q[i], octavo_e4m3_of_row(key_code(kv, key, i), p), sum);
    return sum;
}

/* softmax_scale * q . k of one token before the cap; q: [head_dim] float32. */
static __device__ __forceinline__ float raw_score(const octavo_decode_input *in, const octavo_kv_view *kv, const float *q, const stored_token &at)
{
    const key_row key = find_key(kv, at, in->planes);
    if (octavo_decode_rounds_k(in->precision, kv->k_format)) return rounded_dot(kv, q, key) * in->softmax_scale;
    float sum = 0.0f;
    for (int64_t i = 0; i < kv->head_dim; i++) sum = fmaf(q[i], key_code(kv, key, i), sum);
    return sum * row_factor(&kv->k_scale, octavo_k_scale_bytes(kv->k_format), at) * in->softmax_scale;
}

#endif
