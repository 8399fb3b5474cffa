/* fp8_e5m2.h - E5M2 (1 sign, 5 exponent, 2 mantissa bits; max 57344, Inf and NaN as in IEEE) to and from float. */
#ifndef OCTAVO_FORMAT_FP8_E5M2_H
#define OCTAVO_FORMAT_FP8_E5M2_H

#include "format/inline.h"

#define OCTAVO_E5M2_MAX 57344.0f
enum { OCTAVO_E5M2_MAX_CODE = 0x7B, OCTAVO_E5M2_INF_CODE = 0x7C, OCTAVO_E5M2_NAN_CODE = 0x7F };

/* Nearest, ties to even; 61440 and above, which would round past the largest, and Inf become 57344.
 * NaN becomes the positive NaN code. The Inf code is never produced. */
OCTAVO_INLINE uint8_t octavo_e5m2_from_float(float x)
{
    const uint32_t bits = octavo_float_bits(x);
    const uint32_t magnitude = bits & 0x7FFFFFFFu;
    const uint32_t sign = (bits >> 24) & 0x80u;

    const uint32_t nearest = magnitude + 0xFFFFFu + ((magnitude >> 21) & 1u);
    const uint32_t normal = (nearest >> 21) - ((127u - 15u) << 2);
    /* 2^7: its unit in the last place is 2^-16, the smallest step */
    const uint32_t tiny = octavo_float_bits(octavo_float_from_bits(magnitude) + 128.0f) - 0x43000000u;

    uint32_t code = magnitude < 0x38800000u /* 2^-14 */ ? tiny : normal;
    code = code > OCTAVO_E5M2_MAX_CODE ? (uint32_t)OCTAVO_E5M2_MAX_CODE : code;
    return (uint8_t)(magnitude > 0x7F800000u ? (uint32_t)OCTAVO_E5M2_NAN_CODE : (code | sign));
}

/* Exact; the Inf codes give Inf. */
OCTAVO_INLINE float octavo_e5m2_to_float(uint8_t code)
{
    const uint32_t magnitude = code & 0x7Fu;
    const uint32_t sign = (uint32_t)(code & 0x80u) << 24;
    const uint32_t normal = (magnitude << 21) + ((127u - 15u) << 23);
    const uint32_t tiny = octavo_float_bits((float)(int32_t)magnitude * 0x1p-16f);
    const uint32_t finite = magnitude < 4u ? tiny : normal;
    const uint32_t special = magnitude == OCTAVO_E5M2_INF_CODE ? 0x7F800000u : 0x7FC00000u;
    return octavo_float_from_bits(sign | (magnitude < OCTAVO_E5M2_INF_CODE ? finite : special));
}

/* octavo_e5m2_to_float(octavo_e5m2_from_float(x)) of a finite x, without the detour through a code. */
OCTAVO_INLINE float octavo_e5m2_round(float x)
{
    const uint32_t bits = octavo_float_bits(x);
    const float magnitude = octavo_float_from_bits(bits & 0x7FFFFFFFu);
    const uint32_t nearest = (bits & 0x7FFFFFFFu) + 0xFFFFFu + ((bits >> 21) & 1u);
    const float normal = octavo_float_from_bits(nearest & 0xFFE00000u);
    const float tiny = (magnitude + 128.0f) - 128.0f;
    const float rounded = magnitude < 0x1p-14f ? tiny : normal;
    const float held = rounded < OCTAVO_E5M2_MAX ? rounded : OCTAVO_E5M2_MAX;
    return octavo_float_from_bits(octavo_float_bits(held) | (bits & 0x80000000u));
}

#endif
