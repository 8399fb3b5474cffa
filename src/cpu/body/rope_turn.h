/* rope_turn.h - RoPE: cosines and sines of a position, and pairs turned by them, in plain loops that every instruction set's
 * compiler widens. What rotates anywhere is rotated by this, so that the bits agree. */
#ifndef OCTAVO_CPU_BODY_ROPE_TURN_H
#define OCTAVO_CPU_BODY_ROPE_TURN_H

#include <math.h>
#include <stdint.h>

/* cos and sin of a float32 angle of any size, in float64 to about 1e-15, so that rounding to float32 is as good as exact.
 * The quadrant is removed with pi/2 in two parts and fused steps; after that the angle is at most pi/4, where the series end
 * far below the last bit. */
static inline void rope_turn(float angle, float scale, float *cosine, float *sine)
{
    const double x = (double)angle, quadrant = rint(x * 0x1.45f306dc9c883p-1 /* 2 / pi */);
    const double r = fma(-quadrant, 0x1.1a62633145c07p-54, fma(-quadrant, 0x1.921fb54442d18p+0, x)), z = r * r;
    const double odd = fma(z, fma(z, fma(z, fma(z, fma(z, fma(z, -7.64716373181981641e-13, 1.60590438368216133e-10),
        -2.50521083854417202e-08), 2.75573192239858883e-06), -1.98412698412698413e-04), 8.33333333333333322e-03), -1.66666666666666657e-01);
    const double even = fma(z, fma(z, fma(z, fma(z, fma(z, fma(z, -1.14707455977297245e-11, 2.08767569878681002e-09),
        -2.75573192239858883e-07), 2.48015873015873016e-05), -1.38888888888888894e-03), 4.16666666666666644e-02), -0.5);
    const double s = fma(r * z, odd, r), c = fma(z, even, 1.0);
    const double turns = quadrant - 4.0 * floor(quadrant * 0.25); /* 0, 1, 2, 3 */
    const double swap_c = turns == 1.0 || turns == 3.0 ? s : c, swap_s = turns == 1.0 || turns == 3.0 ? c : s;
    *cosine = (float)(turns == 1.0 || turns == 2.0 ? -swap_c : swap_c) * scale;
    *sine   = (float)(turns >= 2.0 ? -swap_s : swap_s) * scale;
}

/* Of `pairs` frequencies at one position. The angle is a float32 product, as models compute it. */
static inline void rope_turns(float position, const float *inv_freq, float scale, int64_t pairs, float *cosines, float *sines)
{
#pragma omp simd
    for (int64_t i = 0; i < pairs; i++) rope_turn(position * inv_freq[i], scale, &cosines[i], &sines[i]);
}

/* The first elements of pairs lie together, and the second ones. */
static inline void rope_rotate_halves(float *lower, float *upper, const float *cosines, const float *sines, int64_t pairs)
{
#pragma omp simd
    for (int64_t i = 0; i < pairs; i++) {
        const float a = lower[i], b = upper[i];
        lower[i] = a * cosines[i] - b * sines[i];
        upper[i] = b * cosines[i] + a * sines[i];
    }
}

static inline void rope_rotate_pairs(float *x, const float *cosines, const float *sines, int64_t pairs)
{
#pragma omp simd
    for (int64_t i = 0; i < pairs; i++) {
        const float a = x[2 * i], b = x[2 * i + 1];
        x[2 * i]     = a * cosines[i] - b * sines[i];
        x[2 * i + 1] = b * cosines[i] + a * sines[i];
    }
}

#endif
