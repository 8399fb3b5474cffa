/* plane_codec_body.h - a row of K or V into its stored planes, scale and norm.
 *
 * Included after a level's vocabulary. */
#ifndef OCTAVO_CPU_PLANE_CODEC_BODY_H
#define OCTAVO_CPU_PLANE_CODEC_BODY_H

#include "cpu/body/float_rows_body.h"
#include "format/ue4m4.h"
#include "kernel/planes.h"
#include <float.h>

/* A row before it is encoded: dim elements of a tensor from `offset` on. */
typedef struct codec_row {
    const octavo_tensor *tensor;
    int64_t offset, dim;
    const float *minus; /* [dim] subtracted first, or NULL                                */
    const float *over;  /* [dim] divided by, held within float32's finite values, or NULL */
} codec_row;

/* Where a token of one kv head is stored. */
typedef struct codec_place {
    int64_t row, page, head, in_block;
} codec_place;

static inline uint8_t *codec_at(const octavo_section *section, const codec_place *at)
{
    return octavo_section_at(section, at->row, at->page, at->head, at->in_block);
}

static inline int64_t codec_chunk(const codec_row *row, int64_t begin)
{
    return row->dim - begin < ROWS_CHUNK ? row->dim - begin : ROWS_CHUNK;
}

/* Elements [begin, begin + n) of a row as they are encoded; in `buffer` [ROWS_CHUNK] unless they need no conversion. */
static inline const float *codec_load(float *restrict buffer, const codec_row *row, int64_t begin, int64_t n)
{
    if (!row->minus && !row->over) return rows_at(buffer, row->tensor, row->offset + begin, n);
    rows_load(buffer, row->tensor, row->offset + begin, n);
    if (row->minus) {
        const float *restrict minus = row->minus + begin;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) buffer[i] -= minus[i];
    }
    if (row->over) {
        const float *restrict over = row->over + begin;
#pragma omp simd
        for (int64_t i = 0; i < n; i++) buffer[i] = rows_clamp(buffer[i] / over[i], FLT_MAX);
    }
    return buffer;
}

/* 1: the row holds NaN or Inf. */
static inline int codec_nonfinite(const codec_row *row)
{
    float buffer[ROWS_CHUNK];
    int found = 0;
    for (int64_t begin = 0; begin < row->dim; begin += ROWS_CHUNK) {
        const int64_t n = codec_chunk(row, begin);
        found |= rows_nonfinite(codec_load(buffer, row, begin, n), n);
    }
    return found;
}

static inline float codec_amax(const codec_row *row)
{
    float buffer[ROWS_CHUNK], amax = 0.0f;
    for (int64_t begin = 0; begin < row->dim; begin += ROWS_CHUNK) {
        const int64_t n = codec_chunk(row, begin);
        amax = rows_amax(amax, codec_load(buffer, row, begin, n), n);
    }
    return amax;
}

static inline float codec_exp2(int32_t p) { return octavo_float_from_bits((uint32_t)(p + 127) << 23); }

/* Finds and stores a row's scale: 2^p, by which FP8 rows are multiplied, or s, by which int8 rows are divided (0: a row so small
 * that all codes are 0); 1 where the format or the view has none. */
static inline float codec_put_scale(const octavo_section *section, int64_t scale_bytes, const codec_place *at,
                                    const codec_row *row)
{
    if (!section->data || scale_bytes == 0) return 1.0f;
    const float amax = codec_amax(row);
    uint8_t *out = codec_at(section, at);
    if (scale_bytes == 1) {
        const int32_t p = octavo_row_exponent(amax);
        *out = (uint8_t)(int8_t)p;
        return codec_exp2(p);
    }
    const uint16_t s = octavo_bf16_from_float_up(amax / 127.0f);
    memcpy(out, &s, sizeof s);
    return octavo_bf16_to_float(s);
}

/* ---- norms ---- */

/* Squares are summed in eight interleaved lanes of float64, whatever the width of a vector. */
typedef struct codec_norm {
    double lane[8];
} codec_norm;

/* rest[i] belongs to element begin + i, begin a multiple of eight. */
static inline void codec_norm_add(codec_norm *norm, const float *restrict rest, int64_t n)
{
    double lane[8];
    memcpy(lane, norm->lane, sizeof lane);
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
#pragma omp simd
        for (int64_t j = 0; j < 8; j++) lane[j] += (double)rest[i + j] * (double)rest[i + j];
    }
    for (; i < n; i++) lane[i % 8] += (double)rest[i] * (double)rest[i];
    memcpy(norm->lane, lane, sizeof lane);
}

/* The stored byte of a norm in units of `unit`; 1 + 1e-6 covers what float32 rounded. */
static inline uint8_t codec_norm_code(const codec_norm *norm, double unit)
{
    const double *lane = norm->lane;
    const double sum = ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
    return octavo_ue4m4_from_float_up((float)(sqrt(sum) / unit * 1.000001));
}

/* ---- one chunk of one format: x [n] to codes, and what the base leaves out to rest [n] unless that is NULL ---- */

static inline void codec_f32(float *restrict out, float *restrict rest, const float *restrict x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = rows_clamp(x[i], FLT_MAX);
    if (rest) memset(rest, 0, (size_t)n * sizeof *rest);
}

static inline void codec_bf16(uint16_t *restrict out, float *restrict rest, const float *restrict x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        out[i] = octavo_bf16_from_float(rows_clamp(x[i], 0x1.fep+127f)); /* the largest: Inf is no code */
    if (!rest) return;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) rest[i] = x[i] - octavo_bf16_to_float(out[i]);
}

static inline void codec_f16(uint16_t *restrict out, float *restrict rest, const float *restrict x, int64_t n)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = octavo_fp16_from_float(rows_clamp(x[i], OCTAVO_FP16_MAX));
    if (!rest) return;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) rest[i] = x[i] - octavo_fp16_to_float(out[i]);
}

static inline void codec_e4m3(uint8_t *restrict out, float *restrict rest, const float *restrict x, int64_t n, float factor)
{
    if (!rest) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = octavo_e4m3_from_float(x[i] * factor);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        float rounded;
        out[i] = octavo_e4m3_from_finite(x[i] * factor, &rounded);
        rest[i] = x[i] * factor - rounded;
    }
}

static inline void codec_e5m2(uint8_t *restrict out, float *restrict rest, const float *restrict x, int64_t n, float factor)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++) out[i] = octavo_e5m2_from_float(x[i] * factor);
    if (!rest) return;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) rest[i] = x[i] * factor - octavo_e5m2_round(x[i] * factor);
}

/* s = 0 belongs to a row so small that every quotient by 1 rounds to 0, too. */
static inline float codec_divisor(float s) { return s > 0.0f ? s : 1.0f; }

/* rest in the units of x, exact but for one rounding; `left` is x / s - code, as the residual plane takes it. */
static inline void codec_int8(int8_t *restrict out, float *restrict rest, float *restrict left, const float *restrict x,
                              int64_t n, float s)
{
    const float divisor = codec_divisor(s);
    if (!rest) {
#pragma omp simd
        for (int64_t i = 0; i < n; i++) out[i] = (int8_t)(int32_t)rows_round_int8(x[i] / divisor);
        return;
    }
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const float quotient = x[i] / divisor, code = rows_round_int8(quotient);
        out[i] = (int8_t)(int32_t)code;
        rest[i] = x[i] - code * s;
        left[i] = quotient - code;
    }
}

static inline void codec_residual(octavo_k_format format, uint8_t *restrict more, const float *restrict left, int64_t n,
                                  float factor)
{
    switch (format) {
    case OCTAVO_K_E4M3X2:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) more[i] = octavo_e4m3_from_float(left[i] * factor);
        break;
    case OCTAVO_K_E5M2X2:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) more[i] = octavo_e5m2_from_float(left[i]);
        break;
    default:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) more[i] = (uint8_t)(int8_t)(int32_t)rows_round_int8(left[i] * 254.0f);
        break;
    }
}

/* Nibbles of elements [begin, begin + n) into their bytes. The low half of a row comes first and starts each byte anew. */
static inline void codec_put_nibbles(uint8_t *restrict row, const uint8_t *restrict nibble, int64_t begin, int64_t n,
                                     int64_t half)
{
    const int64_t room = half - begin, low = room < 0 ? 0 : room > n ? n : room;
    if (low > 0) memcpy(row + begin, nibble, (size_t)low);
    if (low == n) return;
    uint8_t *restrict second = row + (begin + low - half);
#pragma omp simd
    for (int64_t i = 0; i < n - low; i++) second[i] = (uint8_t)(second[i] | nibble[low + i] << 4);
}

static inline void codec_int4x2(const octavo_kv_view *kv, uint8_t *base, uint8_t *more, float *restrict rest,
                                const float *restrict x, int64_t begin, int64_t n, float s)
{
    uint8_t high[ROWS_CHUNK], low[ROWS_CHUNK];
    const float divisor = codec_divisor(s);
#pragma omp simd
    for (int64_t i = 0; i < n; i++) {
        const int32_t code = (int32_t)rows_round_int8(x[i] / divisor), nibble = code >> 4;
        high[i] = (uint8_t)(nibble & 15);
        low[i] = (uint8_t)(code & 15);
        rest[i] = x[i] - (16.0f * (float)nibble + 7.5f) * s;
    }
    const int64_t half = ((int64_t)kv->head_dim + 1) / 2;
    codec_put_nibbles(base, high, begin, n, half);
    codec_put_nibbles(more, low, begin, n, half);
}

/* ---- rows ---- */

/* Chunk [begin, begin + n) of a row of K; `scale` is what codec_put_scale returned. rest: NULL where neither a norm nor a
 * residual plane asks for it. */
static inline void codec_k_chunk(const octavo_kv_view *kv, uint8_t *base, uint8_t *more, float *restrict rest,
                                 const float *restrict x, int64_t begin, int64_t n, float scale)
{
    float left[ROWS_CHUNK];
    switch (kv->k_format) {
    case OCTAVO_K_F32:  codec_f32((float *)(void *)base + begin, rest, x, n); break;
    case OCTAVO_K_BF16: codec_bf16((uint16_t *)(void *)base + begin, rest, x, n); break;
    case OCTAVO_K_F16:  codec_f16((uint16_t *)(void *)base + begin, rest, x, n); break;
    case OCTAVO_K_E4M3:
    case OCTAVO_K_E4M3X2:
        codec_e4m3(base + begin, rest, x, n, scale);
        if (more) codec_residual(OCTAVO_K_E4M3X2, more + begin, rest, n, codec_exp2(kv->k_residual_exponent));
        break;
    case OCTAVO_K_E5M2:
    case OCTAVO_K_E5M2X2:
        codec_e5m2(base + begin, rest, x, n, scale);
        if (more) codec_residual(OCTAVO_K_E5M2X2, more + begin, rest, n, 1.0f);
        break;
    case OCTAVO_K_INT8:
    case OCTAVO_K_INT8X2:
        codec_int8((int8_t *)base + begin, rest, left, x, n, scale);
        if (more) codec_residual(OCTAVO_K_INT8X2, more + begin, left, n, 1.0f);
        break;
    case OCTAVO_K_INT4X2: codec_int4x2(kv, base, more, rest, x, begin, n, scale); break;
    }
}

/* One token's row of K: scale, planes, and the norm of what the base leaves out where the view keeps it. */
static inline void codec_encode_k(const octavo_kv_view *kv, const codec_place *at, const codec_row *row)
{
    float buffer[ROWS_CHUNK], rest[ROWS_CHUNK];
    const int64_t scale_bytes = octavo_k_scale_bytes(kv->k_format);
    const float scale = codec_put_scale(&kv->k_scale, scale_bytes, at, row);
    uint8_t *base = codec_at(&kv->k[0], at);
    uint8_t *more = octavo_k_plane_count(kv->k_format) > 1 ? codec_at(&kv->k[1], at) : NULL;

    float *wanted = more || kv->k_norm.data ? rest : NULL;
    codec_norm norm = { { 0 } };
    for (int64_t begin = 0; begin < row->dim; begin += ROWS_CHUNK) {
        const int64_t n = codec_chunk(row, begin);
        codec_k_chunk(kv, base, more, wanted, codec_load(buffer, row, begin, n), begin, n, scale);
        if (kv->k_norm.data) codec_norm_add(&norm, rest, n);
    }
    if (kv->k_norm.data)
        *codec_at(&kv->k_norm, at) = codec_norm_code(&norm, scale_bytes == 2 && scale > 0.0f ? (double)scale : 1.0);
}

/* One token's row of V. */
static inline void codec_encode_v(const octavo_kv_view *kv, const codec_place *at, const codec_row *row)
{
    float buffer[ROWS_CHUNK];
    const float scale = codec_put_scale(&kv->v_scale, octavo_v_scale_bytes(kv->v_format), at, row);
    uint8_t *v = codec_at(&kv->v, at);
    for (int64_t begin = 0; begin < row->dim; begin += ROWS_CHUNK) {
        const int64_t n = codec_chunk(row, begin);
        const float *x = codec_load(buffer, row, begin, n);
        switch (kv->v_format) {
        case OCTAVO_V_F32:  codec_f32((float *)(void *)v + begin, NULL, x, n); break;
        case OCTAVO_V_BF16: codec_bf16((uint16_t *)(void *)v + begin, NULL, x, n); break;
        case OCTAVO_V_F16:  codec_f16((uint16_t *)(void *)v + begin, NULL, x, n); break;
        case OCTAVO_V_E4M3: codec_e4m3(v + begin, NULL, x, n, scale); break;
        case OCTAVO_V_INT8: codec_int8((int8_t *)v + begin, NULL, NULL, x, n, scale); break;
        }
    }
}

#endif
