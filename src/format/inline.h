/* inline.h - how the number formats are inlined for host and device, and a float seen as its bits. */
#ifndef OCTAVO_FORMAT_INLINE_H
#define OCTAVO_FORMAT_INLINE_H

#include <stdint.h>
#include <string.h>

#if defined(__CUDACC__)
#define OCTAVO_INLINE static __host__ __device__ __forceinline__
#else
#define OCTAVO_INLINE static inline
#endif

/* The sub-normal branches of the formats add a constant whose unit in the last place is the format's smallest step, so that
 * the addition itself rounds: they need the default rounding mode, and are right whether or not denormals are flushed. */

OCTAVO_INLINE uint32_t octavo_float_bits(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

OCTAVO_INLINE float octavo_float_from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

#endif
