/* bf16.h - bfloat16 (the upper half of a float) to and from float. */
#ifndef OCTAVO_FORMAT_BF16_H
#define OCTAVO_FORMAT_BF16_H

#include "format/inline.h"

enum { OCTAVO_BF16_NAN_CODE = 0x7FFF };

/* Nearest, ties to even; past the largest is Inf. NaN becomes the positive quiet NaN code 0x7FFF. */
OCTAVO_INLINE uint16_t octavo_bf16_from_float(float x)
{
    const uint32_t bits = octavo_float_bits(x);
    const uint32_t nearest = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    return (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? (uint32_t)OCTAVO_BF16_NAN_CODE : nearest);
}

/* The smallest bf16 that is not below x: scales and bounds stay bounds. Past the largest is Inf; NaN as above. */
OCTAVO_INLINE uint16_t octavo_bf16_from_float_up(float x)
{
    const uint32_t bits = octavo_float_bits(x);
    /* The bit pattern grows with a positive value and with the magnitude of a negative one, whose cut is already upward. */
    const uint32_t upward = (bits + ((bits >> 31) != 0u ? 0u : 0xFFFFu)) >> 16;
    return (uint16_t)((bits & 0x7FFFFFFFu) > 0x7F800000u ? (uint32_t)OCTAVO_BF16_NAN_CODE : upward);
}

/* Exact; the payload of a NaN is kept. */
OCTAVO_INLINE float octavo_bf16_to_float(uint16_t code)
{
    return octavo_float_from_bits((uint32_t)code << 16);
}

#endif
