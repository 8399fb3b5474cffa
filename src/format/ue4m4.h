/* ue4m4.h - an unsigned byte float (4 exponent, 4 mantissa bits) for residual norms: it only ever rounds up.
 *
 * A code e·16 + m is m·2^-8 for e = 0 and (16 + m)·2^(e - 9) for e = 1..15: 0, 2^-8, ..., 1984, growing with the code.
 * Above 2^-4 a rounded value is at most 1/16 too large. */
#ifndef OCTAVO_FORMAT_UE4M4_H
#define OCTAVO_FORMAT_UE4M4_H

#include "format/inline.h"

#define OCTAVO_UE4M4_MAX 1984.0f
enum { OCTAVO_UE4M4_MAX_CODE = 0xFF };

/* The smallest code whose value is not below x; 0 for x <= 0. Above 1984, Inf and NaN included, it saturates at 255:
 * there the value is no bound any more, so whoever needs one keeps x within 1984. */
OCTAVO_INLINE uint8_t octavo_ue4m4_from_float_up(float x)
{
    const uint32_t bits = octavo_float_bits(x);
    const uint32_t magnitude = bits & 0x7FFFFFFFu;

    const uint32_t normal = ((magnitude + 0x7FFFFu) >> 19) - ((127u - 5u) << 4);
    /* Everything in (0, 2^-8] has code 1, which also keeps denormals, and a flush of them, out of the product. The clamp from
     * above only keeps the conversion to an integer defined. */
    const uint32_t floor_bits = magnitude < 0x3B800000u /* 2^-8 */ ? 0x3B800000u : magnitude;
    const float steps = octavo_float_from_bits(floor_bits > 0x3D800000u ? 0x3D800000u : floor_bits) * 256.0f;
    const int32_t whole = (int32_t)steps;
    const uint32_t tiny = (uint32_t)whole + ((float)whole < steps ? 1u : 0u);

    uint32_t code = magnitude < 0x3D800000u /* 2^-4 */ ? tiny : normal;
    code = code > OCTAVO_UE4M4_MAX_CODE ? (uint32_t)OCTAVO_UE4M4_MAX_CODE : code;
    const uint32_t is_nan = magnitude > 0x7F800000u;
    const uint32_t is_positive = (bits >> 31) == 0u && magnitude != 0u;
    return (uint8_t)((is_positive | is_nan) != 0u ? code : 0u);
}

/* Exact. */
OCTAVO_INLINE float octavo_ue4m4_to_float(uint8_t code)
{
    const uint32_t normal = ((uint32_t)code << 19) + ((127u - 5u) << 23);
    const uint32_t tiny = octavo_float_bits((float)code * 0x1p-8f);
    return octavo_float_from_bits(code < 16u ? tiny : normal);
}

#endif
