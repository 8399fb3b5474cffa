/* fp8_e4m3.h - OCP E4M3 (1 sign, 4 exponent, 3 mantissa bits; max 448, no Inf, NaN is S.1111.111) to and from float. */
#ifndef OCTAVO_FORMAT_FP8_E4M3_H
#define OCTAVO_FORMAT_FP8_E4M3_H

#include "format/inline.h"

#define OCTAVO_E4M3_MAX 448.0f
enum { OCTAVO_E4M3_MAX_CODE = 0x7E, OCTAVO_E4M3_NAN_CODE = 0x7F };

/* Nearest, ties to even; the rounded value saturates, so 464 (the tie), everything above it and Inf become 448.
 * NaN becomes the positive NaN code. */
OCTAVO_INLINE uint8_t octavo_e4m3_from_float(float x)
{
    const uint32_t bits = octavo_float_bits(x);
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    const uint32_t sign = (bits >> 24) & 0x80u;

    const uint32_t nearest = magnitude + 0x7FFFFu + ((magnitude >> 20) & 1u);
    const uint32_t normal = (nearest >> 20) - ((127u - 7u) << 3);
    /* 2^14: its unit in the last place is 2^-9, the smallest step */
    const uint32_t tiny = octavo_float_bits(octavo_float_from_bits(magnitude) + 16384.0f) - 0x46800000u;

    uint32_t code = magnitude < 0x3C800000u /* 2^-6 */ ? tiny : normal;
    code = code > OCTAVO_E4M3_MAX_CODE ? (uint32_t)OCTAVO_E4M3_MAX_CODE : code;
    return (uint8_t)(magnitude > 0x7F800000u ? (uint32_t)OCTAVO_E4M3_NAN_CODE : (code | sign));
}

/* Exact. */
OCTAVO_INLINE float octavo_e4m3_to_float(uint8_t code)
{
    const uint32_t magnitude = code & 0x7Fu;
    const uint32_t sign = (uint32_t)(code & 0x80u) << 24;
    const uint32_t normal = (magnitude << 20) + ((127u - 7u) << 23);
    const uint32_t tiny = octavo_float_bits((float)(int32_t)magnitude * 0x1p-9f);
    const uint32_t finite = magnitude < 8u ? tiny : normal;
    return octavo_float_from_bits(sign | (magnitude == OCTAVO_E4M3_NAN_CODE ? 0x7FC00000u : finite));
}


/* Both at once, of a finite x: the code is returned, the value that it stands for stored. */
OCTAVO_INLINE uint8_t octavo_e4m3_from_finite(float x, float *rounded)
{
    const uint32_t bits = octavo_float_bits(x), magnitude = bits & 0x7FFFFFFFu;
    const uint32_t nearest = magnitude + 0x7FFFFu + ((magnitude >> 20) & 1u);
    const float tiny = octavo_float_from_bits(magnitude) + 16384.0f;
    const int is_tiny = magnitude < 0x3C800000u; /* 2^-6 */
    const uint32_t code = is_tiny ? octavo_float_bits(tiny) - 0x46800000u : (nearest >> 20) - ((127u - 7u) << 3);
    const float value = is_tiny ? tiny - 16384.0f : octavo_float_from_bits(nearest & 0xFFF00000u);
    const float held = value < OCTAVO_E4M3_MAX ? value : OCTAVO_E4M3_MAX;
    *rounded = octavo_float_from_bits(octavo_float_bits(held) | (bits & 0x80000000u));
    return (uint8_t)((code > OCTAVO_E4M3_MAX_CODE ? (uint32_t)OCTAVO_E4M3_MAX_CODE : code) | (bits >> 24 & 0x80u));
}

#endif
