/* random.h - seeded random numbers for sampling, for host and device: SplitMix64, the same on every machine. */
#ifndef OCTAVO_KERNEL_RANDOM_H
#define OCTAVO_KERNEL_RANDOM_H

#include "format/inline.h"

#define OCTAVO_RANDOM_STEP UINT64_C(0x9e3779b97f4a7c15) /* 2^64 divided by the golden ratio, made odd */

/* The generator's output function: every bit of the result depends on every bit of `x`. */
OCTAVO_INLINE uint64_t octavo_random_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* Number `index` of the generator with this state: a multiple of 2^-24 in [0, 1). */
OCTAVO_INLINE float octavo_random_number(uint64_t state, uint64_t index)
{
    return (float)(octavo_random_mix(state + (index + 1) * OCTAVO_RANDOM_STEP) >> 40) * 0x1p-24f;
}

/* The state whose number 0 is this one's number `count`. */
OCTAVO_INLINE uint64_t octavo_random_skip(uint64_t state, uint64_t count) { return state + count * OCTAVO_RANDOM_STEP; }

#endif
