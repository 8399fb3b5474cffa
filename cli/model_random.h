/* model_random.h - states of the generators that octavo_random_uniform draws from, all from one seed. */
#ifndef OCTAVO_CLI_MODEL_RANDOM_H
#define OCTAVO_CLI_MODEL_RANDOM_H

#include <stdint.h>

#define RANDOM_STEP UINT64_C(0x9e3779b97f4a7c15) /* 2^64 divided by the golden ratio, made odd */

/* SplitMix64's output function: every bit of the result depends on every bit of `x`. */
static inline uint64_t random_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

/* The state of a generator that belongs to `part` of what `seed` stands for. */
static inline uint64_t random_derive(uint64_t seed, uint64_t part) { return random_mix(random_mix(seed + RANDOM_STEP) ^ (part + 1) * RANDOM_STEP); }

#endif
