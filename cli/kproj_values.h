/* kproj_values.h - the numbers that `octavo bench kproj` multiplies. */
#ifndef OCTAVO_CLI_KPROJ_VALUES_H
#define OCTAVO_CLI_KPROJ_VALUES_H

#include "bench_element.h"
#include <math.h>

/* Uniform in (-1, 1), a function of the index alone. */
static inline float kproj_value(uint64_t i)
{
    i = (i + 1) * UINT64_C(0x9E3779B97F4A7C15);
    i = (i ^ i >> 29) * UINT64_C(0xBF58476D1CE4E5B9);
    return ((float)(i >> 40) - 0x1p23f) * 0x1p-23f;
}

/* Element i of an array of f32 or bf16, or of codes: of e4m3 any but NaN. */
static inline void kproj_put(void *data, octavo_dtype dtype, int64_t i, float x)
{
    if (dtype == OCTAVO_F32) ((float *)data)[i] = x;
    else if (dtype == OCTAVO_BF16) ((uint16_t *)data)[i] = element_to_bf16(x);
    else ((uint8_t *)data)[i] = (uint8_t)((int)(x * 127.0f) & (dtype == OCTAVO_E4M3 ? 0xF7 : 0xFF));
}

static inline float kproj_inv_freq(int64_t pair, int64_t head_dim) { return powf(500000.0f, (float)(-2 * pair) / (float)head_dim); }

#endif
