/* fp16.h - IEEE half precision (1 sign, 5 exponent, 10 mantissa bits; max 65504) to and from float. */
#ifndef OCTAVO_FORMAT_FP16_H
#define OCTAVO_FORMAT_FP16_H

#include "format/inline.h"

#define OCTAVO_FP16_MAX 65504.0f
enum { OCTAVO_FP16_INF_CODE = 0x7C00, OCTAVO_FP16_NAN_CODE = 0x7FFF };

/* Nearest, ties to even; 65520 and above become Inf. NaN becomes the positive quiet NaN code 0x7FFF. */
OCTAVO_INLINE uint16_t octavo_fp16_from_float(float x)
{
    const uint32_t bits = octavo_float_bits(x);
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    const uint32_t sign = (bits >> 16) & 0x8000u;

    const uint32_t nearest = magnitude + 0xFFFu + ((magnitude >> 13) & 1u);
    const uint32_t normal = (nearest >> 13) - ((127u - 15u) << 10);
    /* 2^-1: its unit in the last place is 2^-24, the smallest step */
    const uint32_t tiny = octavo_float_bits(octavo_float_from_bits(magnitude) + 0.5f) - 0x3F000000u;

    uint32_t code = magnitude < 0x38800000u /* 2^-14 */ ? tiny : normal;
    code = code > OCTAVO_FP16_INF_CODE ? (uint32_t)OCTAVO_FP16_INF_CODE : code;
    return (uint16_t)(magnitude > 0x7F800000u ? (uint32_t)OCTAVO_FP16_NAN_CODE : (code | sign));
}

/* Exact; the payload of a NaN is kept, and the NaN made quiet. */
OCTAVO_INLINE float octavo_fp16_to_float(uint16_t code)
{
    const uint32_t magnitude = code & 0x7FFFu;
    const uint32_t sign = (uint32_t)(code & 0x8000u) << 16;
    const uint32_t normal = (magnitude << 13) + ((127u - 15u) << 23);
    const uint32_t tiny = octavo_float_bits((float)(int32_t)magnitude * 0x1p-24f);
    const uint32_t finite = magnitude < 0x400u ? tiny : normal;
    const uint32_t quiet = magnitude > OCTAVO_FP16_INF_CODE ? 0x400000u : 0u;
    const uint32_t special = 0x7F800000u | (magnitude << 13) | quiet;
    return octavo_float_from_bits(sign | (magnitude < OCTAVO_FP16_INF_CODE ? finite : special));
}

#endif
