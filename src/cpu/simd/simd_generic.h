/* simd_generic.h - the SIMD vocabulary in the compiler's own vectors, for any processor; and what each word means.
 *
 * vf32 holds SIMD_F32 floats. A tile of dot products takes SIMD_DOT_TOKENS tokens by four rows, a tile of weighted sums
 * SIMD_AXPY_VECTORS vectors by four rows: as many as the registers hold. v_load_FORMAT decodes SIMD_F32 codes exactly; memory
 * need not be aligned. */
#ifndef OCTAVO_SIMD_GENERIC_H
#define OCTAVO_SIMD_GENERIC_H

#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include <stdint.h>
#include <string.h>

#define SIMD_F32 4
#define SIMD_DOT_TOKENS 2
#define SIMD_AXPY_VECTORS 2
#define SIMD(op) octavo_##op##_generic

typedef float vf32 __attribute__((vector_size(16)));
typedef int32_t vi32 __attribute__((vector_size(16)));

static inline vf32 v_zero(void) { return (vf32){ 0.0f, 0.0f, 0.0f, 0.0f }; }
static inline vf32 v_splat(float x) { return (vf32){ x, x, x, x }; }
static inline vf32 v_load(const float *p)
{
    vf32 x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void v_store(float *p, vf32 x) { memcpy(p, &x, sizeof x); }
/* The first `count` floats, 0 <= count <= SIMD_F32, and zeros; nothing beyond them is touched. */
static inline vf32 v_load_part(const float *p, int64_t count)
{
    vf32 x = v_zero();
    memcpy(&x, p, (size_t)count * sizeof *p);
    return x;
}
static inline void v_store_part(float *p, vf32 x, int64_t count) { memcpy(p, &x, (size_t)count * sizeof *p); }
static inline vf32 v_add(vf32 a, vf32 b) { return a + b; }
static inline vf32 v_sub(vf32 a, vf32 b) { return a - b; }
static inline vf32 v_mul(vf32 a, vf32 b) { return a * b; }
static inline vf32 v_div(vf32 a, vf32 b) { return a / b; }
/* a * b + c, fused where the processor can. */
static inline vf32 v_fma(vf32 a, vf32 b, vf32 c) { return a * b + c; }
static inline vf32 v_if_less(vf32 a, vf32 b, vf32 then, vf32 otherwise)
{
    const vi32 mask = a < b;
    return (vf32)(((vi32)then & mask) | ((vi32)otherwise & ~mask));
}
static inline vf32 v_max(vf32 a, vf32 b) { return v_if_less(a, b, b, a); }
static inline vf32 v_min(vf32 a, vf32 b) { return v_if_less(a, b, a, b); }
static inline vf32 v_abs(vf32 a) { return (vf32)((vi32)a & 0x7FFFFFFF); }
/* To the nearest integer, ties to even; |a| < 2^22. */
static inline vf32 v_round(vf32 a) { return a + 0x1.8p23f - 0x1.8p23f; }
static inline vf32 v_floor(vf32 a)
{
    const vf32 nearest = v_round(a);
    return v_if_less(a, nearest, nearest - 1.0f, nearest);
}
/* x * 2^n for an integral n in [-126, 127]. */
static inline vf32 v_ldexp(vf32 x, vf32 n)
{
    const vi32 biased = (vi32)(n + (0x1.8p23f + 127.0f)); /* the integer is in the low bits */
    return x * (vf32)(biased << 23);
}
/* x = v_mantissa(x) * 2^v_exponent(x), 1 <= v_mantissa(x) < 2, for a normal x > 0. */
static inline vf32 v_exponent(vf32 x)
{
    const vi32 magic = (((vi32)x >> 23) - 127) + 0x4B400000;
    return (vf32)magic - 0x1.8p23f;
}
static inline vf32 v_mantissa(vf32 x) { return (vf32)(((vi32)x & 0x7FFFFF) | 0x3F800000); }
static inline float v_hmax(vf32 x)
{
    const float a = x[0] > x[1] ? x[0] : x[1], b = x[2] > x[3] ? x[2] : x[3];
    return a > b ? a : b;
}
static inline float v_hsum(vf32 x) { return (x[0] + x[2]) + (x[1] + x[3]); }
/* p[i] = the sum of the i-th argument, or its largest lane. */
static inline void v_store_sums2(float *p, vf32 a, vf32 b)
{
    p[0] = v_hsum(a);
    p[1] = v_hsum(b);
}
static inline void v_store_sums4(float *p, vf32 a, vf32 b, vf32 c, vf32 d)
{
    v_store_sums2(p, a, b);
    v_store_sums2(p + 2, c, d);
}
static inline void v_store_maxes4(float *p, vf32 a, vf32 b, vf32 c, vf32 d)
{
    p[0] = v_hmax(a);
    p[1] = v_hmax(b);
    p[2] = v_hmax(c);
    p[3] = v_hmax(d);
}

#define V_LOAD_BY(name, type, convert)                                                  \
    static inline vf32 v_load_##name(const void *p)                                     \
    {                                                                                   \
        type x[SIMD_F32];                                                               \
        memcpy(x, p, sizeof x);                                                         \
        return (vf32){ convert(x[0]), convert(x[1]), convert(x[2]), convert(x[3]) };    \
    }
static inline float v_low_nibble(uint8_t x) { return (float)(x & 15); }
static inline float v_high_nibble(uint8_t x) { return (float)(x >> 4); }
static inline float v_low_nibble_signed(uint8_t x) { return (float)(((x & 15) ^ 8) - 8); }
static inline float v_high_nibble_signed(uint8_t x) { return (float)(((x >> 4) ^ 8) - 8); }
static inline float v_exp2_minus(int8_t p) { return octavo_float_from_bits((uint32_t)(127 - p) << 23); }
V_LOAD_BY(bf16, uint16_t, octavo_bf16_to_float)
V_LOAD_BY(f16, uint16_t, octavo_fp16_to_float)
V_LOAD_BY(e4m3, uint8_t, octavo_e4m3_to_float)
V_LOAD_BY(e5m2, uint8_t, octavo_e5m2_to_float)
V_LOAD_BY(int8, int8_t, (float))
/* The nibbles of SIMD_F32 bytes, 0..15 or -8..7. */
V_LOAD_BY(low_nibbles, uint8_t, v_low_nibble)
V_LOAD_BY(high_nibbles, uint8_t, v_high_nibble)
V_LOAD_BY(low_nibbles_signed, uint8_t, v_low_nibble_signed)
V_LOAD_BY(high_nibbles_signed, uint8_t, v_high_nibble_signed)
/* 2^-p of int8 exponents p in [-126, 126]. */
V_LOAD_BY(exp2_minus, int8_t, v_exp2_minus)
#undef V_LOAD_BY

#endif
