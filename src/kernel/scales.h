/* scales.h - what a scale is for a largest magnitude: the end of every recipe that finds amax, in this call or from history. */
#ifndef OCTAVO_KERNEL_SCALES_H
#define OCTAVO_KERNEL_SCALES_H

#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include "kernel/planes.h"
#include "octavo/quant.h"
#include <float.h>
#include <math.h>

/* Largest magnitude of a code; int8 is symmetric. */
OCTAVO_KERNEL_INLINE float octavo_code_max(octavo_dtype dtype)
{
    return dtype == OCTAVO_E4M3 ? OCTAVO_E4M3_MAX : dtype == OCTAVO_E5M2 ? OCTAVO_E5M2_MAX : 127.0f;
}

/* Smallest magnitude of x / scale that rounds past the largest code, so that it has to be clamped: the tie at 464 belongs to
 * 448 (even), the ties at 61440 and 127.5 to the next code up. */
OCTAVO_KERNEL_INLINE float octavo_code_clamp(octavo_dtype dtype)
{
    return dtype == OCTAVO_E4M3 ? 0x1.d00002p+8f : dtype == OCTAVO_E5M2 ? 61440.0f : 127.5f;
}

/* The scale of a group whose largest magnitude is amax, finite. Never below FLT_MIN: a subnormal scale would lose its precision,
 * and a zero one would make NaN. */
OCTAVO_KERNEL_INLINE float octavo_scale_of(float amax, octavo_dtype dtype, octavo_scale_kind kind)
{
    if (!(amax > 0.0f)) return 1.0f;
    const float nearest = amax / octavo_code_max(dtype), scale = nearest < FLT_MIN ? FLT_MIN : nearest;
    if (kind == OCTAVO_SCALE_F32) return scale;
    int exponent;
    const float mantissa = frexpf(scale, &exponent); /* scale = mantissa * 2^exponent, mantissa in [0.5, 1) */
    return ldexpf(1.0f, mantissa > 0.5f ? exponent : exponent - 1);
}

#endif
