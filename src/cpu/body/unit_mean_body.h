/* unit_mean_body.h - the mean row of a full unit from its stored V, the same bits whoever completes the unit. */
#ifndef OCTAVO_CPU_UNIT_MEAN_BODY_H
#define OCTAVO_CPU_UNIT_MEAN_BODY_H

#include "cpu/body/plane_codec_body.h"

/* 2^e for every e that an int8 can ask for. */
static inline double unit_mean_exp2(int32_t e)
{
    const uint64_t bits = (uint64_t)(e + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return power;
}

/* What a code of this token's row of V is worth, exactly. */
static inline double unit_mean_factor(const octavo_kv_view *kv, const codec_place *at)
{
    const int64_t scale_bytes = octavo_v_scale_bytes(kv->v_format);
    if (!kv->v_scale.data || scale_bytes == 0) return 1.0;
    const uint8_t *scale = codec_at(&kv->v_scale, at);
    if (scale_bytes == 1) return unit_mean_exp2(-(int8_t)*scale);
    uint16_t s;
    memcpy(&s, scale, sizeof s);
    return (double)octavo_bf16_to_float(s);
}

static inline void unit_mean_add(double *restrict sum, octavo_v_format format, const uint8_t *restrict v, int64_t n,
                                 double factor)
{
    const uint16_t *restrict half = (const uint16_t *)(const void *)v;
    const float *restrict whole = (const float *)(const void *)v;
    switch (format) {
    case OCTAVO_V_F32:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) sum[i] += (double)whole[i];
        break;
    case OCTAVO_V_BF16:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) sum[i] += (double)octavo_bf16_to_float(half[i]);
        break;
    case OCTAVO_V_F16:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) sum[i] += (double)octavo_fp16_to_float(half[i]);
        break;
    case OCTAVO_V_E4M3:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) sum[i] += (double)octavo_e4m3_to_float(v[i]) * factor;
        break;
    case OCTAVO_V_INT8:
#pragma omp simd
        for (int64_t i = 0; i < n; i++) sum[i] += (double)(int8_t)v[i] * factor;
        break;
    }
}

/* Elements [begin, begin + n) of the mean row, summed in token order. */
static inline void unit_mean_chunk(float *restrict mean, const octavo_kv_view *kv, const codec_place *first, int64_t begin,
                                   int64_t n)
{
    double sum[ROWS_CHUNK];
    memset(sum, 0, (size_t)n * sizeof *sum);
    const int64_t element = octavo_v_element_bytes(kv->v_format);
    codec_place at = *first;
    for (int32_t t = 0; t < kv->sub_block_tokens; t++, at.in_block++)
        unit_mean_add(sum, kv->v_format, codec_at(&kv->v, &at) + begin * element, n, unit_mean_factor(kv, &at));
    const double count = (double)kv->sub_block_tokens;
#pragma omp simd
    for (int64_t i = 0; i < n; i++) mean[i] = rows_clamp((float)(sum[i] / count), FLT_MAX);
}

/* Writes the mean row and its exponent of the unit that begins at `first`, where the view keeps means. */
static inline void unit_mean_write(const octavo_kv_view *kv, const codec_place *first)
{
    if (!kv->v_mean.data) return;
    float mean[ROWS_CHUNK];
    const int64_t dim = kv->v_dim;
    float amax = 0.0f;
    for (int64_t begin = 0; begin < dim; begin += ROWS_CHUNK) {
        const int64_t n = dim - begin < ROWS_CHUNK ? dim - begin : ROWS_CHUNK;
        unit_mean_chunk(mean, kv, first, begin, n);
        amax = rows_amax(amax, mean, n);
    }
    codec_place unit = *first;
    unit.in_block /= kv->sub_block_tokens;
    const int32_t p = octavo_row_exponent(amax);
    *codec_at(&kv->v_mean_scale, &unit) = (uint8_t)(int8_t)p;
    uint8_t *out = codec_at(&kv->v_mean, &unit);
    for (int64_t begin = 0; begin < dim; begin += ROWS_CHUNK) {
        const int64_t n = dim - begin < ROWS_CHUNK ? dim - begin : ROWS_CHUNK;
        if (dim > ROWS_CHUNK) unit_mean_chunk(mean, kv, first, begin, n);
        codec_e4m3(out + begin, NULL, mean, n, codec_exp2(p));
    }
}

#endif
