/* bench_element.h - elements of the floating-point types that inputs come in, as float and back. */
#ifndef OCTAVO_CLI_BENCH_ELEMENT_H
#define OCTAVO_CLI_BENCH_ELEMENT_H

#include "octavo/tensor.h"
#include <string.h>

static inline float element_from_bf16(uint16_t bits)
{
    const uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* Rounds to nearest even; `value` is finite. */
static inline uint16_t element_to_bf16(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

static inline float element_from_f16(uint16_t bits)
{
    const uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
    uint32_t wide = sign | (magnitude >= 0x7c00u ? 0x7f800000u | magnitude << 13 : (magnitude << 13) + (112u << 23));
    float value;
    if (magnitude < 0x0400u) {
        const float subnormal = (float)magnitude * 0x1p-24f;
        memcpy(&wide, &subnormal, sizeof wide);
        wide |= sign;
    }
    memcpy(&value, &wide, sizeof value);
    return value;
}

/* Element `index` of `data`, whose dtype is bf16, f16 or f32. */
static inline float element_read(const void *data, octavo_dtype dtype, int64_t index)
{
    if (dtype == OCTAVO_F32) return ((const float *)data)[index];
    const uint16_t bits = ((const uint16_t *)data)[index];
    return dtype == OCTAVO_BF16 ? element_from_bf16(bits) : element_from_f16(bits);
}

#endif
