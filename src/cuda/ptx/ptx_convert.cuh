/* ptx_convert.cuh - codes of 8 and 4 bits in registers to exact f16 or bf16 pairs; exponentials. */
#ifndef OCTAVO_CUDA_PTX_PTX_CONVERT_CUH
#define OCTAVO_CUDA_PTX_PTX_CONVERT_CUH

#include "format/fp8_e4m3.h"
#include <cstdint>

static __device__ __forceinline__ float exp2_fast(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ __forceinline__ float log2_fast(float x)
{
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* Off by a unit in the last place. */
static __device__ __forceinline__ float reciprocal_fast(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ __forceinline__ uint32_t permute(uint32_t a, uint32_t b, uint32_t selector) { return __byte_perm(a, b, selector); }

static __device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
    uint32_t out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

static __device__ __forceinline__ uint32_t pack_f16(float low, float high)
{
    uint32_t out;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(high), "f"(low));
    return out;
}

static __device__ __forceinline__ float bf16_low(uint32_t pair) { return __uint_as_float(pair << 16); }
static __device__ __forceinline__ float bf16_high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

static __device__ __forceinline__ float f16_low(uint32_t pair)
{
    float out;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, l;}" : "=f"(out) : "r"(pair));
    return out;
}
static __device__ __forceinline__ float f16_high(uint32_t pair)
{
    float out;
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %1; cvt.f32.f16 %0, h;}" : "=f"(out) : "r"(pair));
    return out;
}

static __device__ __forceinline__ uint32_t f16_subtract(uint32_t a, uint32_t b)
{
    uint32_t out;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
    return out;
}

static __device__ __forceinline__ uint32_t f16_multiply(uint32_t a, uint32_t b)
{
    uint32_t out;
    asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(out) : "r"(a), "r"(b));
    return out;
}

/* Four e4m3 codes as f16 pairs (0, 1) and (2, 3). */
static __device__ __forceinline__ void e4m3_to_f16(uint32_t codes, uint32_t *low, uint32_t *high)
{
#if __CUDA_ARCH__ >= 890
    asm("{.reg .b16 l, h; mov.b32 {l, h}, %2; cvt.rn.f16x2.e4m3x2 %0, l; cvt.rn.f16x2.e4m3x2 %1, h;}" : "=r"(*low), "=r"(*high) : "r"(codes));
#else
    /* the seven bits below the sign are an f16 of the same value times 2^-8 once they are 7 bits further up */
    const uint32_t a = permute(codes, 0, 0x1404), b = permute(codes, 0, 0x3424), up = 0x5c005c00u; /* 2^8 */
    *low = f16_multiply((a & 0x80008000u) | ((a >> 1) & 0x3f803f80u), up);
    *high = f16_multiply((b & 0x80008000u) | ((b >> 1) & 0x3f803f80u), up);
#endif
}

/* Four e5m2 codes: the upper bytes of f16. */
static __device__ __forceinline__ void e5m2_to_f16(uint32_t codes, uint32_t *low, uint32_t *high)
{
    *low = permute(codes, 0, 0x1404), *high = permute(codes, 0, 0x3424);
}

/* Four int8 codes: 1024 + (code + 128) has the code in its mantissa. */
static __device__ __forceinline__ void int8_to_f16(uint32_t codes, uint32_t *low, uint32_t *high)
{
    const uint32_t shifted = codes ^ 0x80808080u, magic = 0x64646464u, bias = 0x64806480u; /* 1152 */
    *low = f16_subtract(permute(shifted, magic, 0x4140), bias), *high = f16_subtract(permute(shifted, magic, 0x4342), bias);
}

/* Four e4m3 codes, rounded to even and saturated. */
static __device__ __forceinline__ uint32_t pack_e4m3(float a, float b, float c, float d)
{
#if __CUDA_ARCH__ >= 890
    uint32_t out;
    asm("{.reg .b16 l, h; cvt.rn.satfinite.e4m3x2.f32 l, %2, %1; cvt.rn.satfinite.e4m3x2.f32 h, %4, %3; mov.b32 %0, {l, h};}"
        : "=r"(out) : "f"(a), "f"(b), "f"(c), "f"(d));
    return out;
#else
    return (uint32_t)octavo_e4m3_from_float(a) | (uint32_t)octavo_e4m3_from_float(b) << 8 | (uint32_t)octavo_e4m3_from_float(c) << 16 |
           (uint32_t)octavo_e4m3_from_float(d) << 24;
#endif
}

/* Four int8 codes of numbers that are codes once they are rounded to even. */
static __device__ __forceinline__ uint32_t pack_int8(float a, float b, float c, float d)
{
    const uint32_t low = permute((uint32_t)__float2int_rn(a), (uint32_t)__float2int_rn(b), 0x0040);
    return permute(low, permute((uint32_t)__float2int_rn(c), (uint32_t)__float2int_rn(d), 0x0040), 0x5410);
}

/* Codes (0, 2) and (1, 3) of four e4m3 as bf16 pairs of their value times 2^-120, subnormals included. */
static constexpr int E4M3_BF16_EXPONENT = 120;
static __device__ __forceinline__ void e4m3_to_tiny_bf16(uint32_t codes, uint32_t *even, uint32_t *odd)
{
    *even = ((codes << 4) & 0x07f007f0u) | ((codes << 8) & 0x80008000u);
    *odd  = ((codes >> 4) & 0x07f007f0u) | (codes & 0x80008000u);
}

/* The same as what they are worth. */
static __device__ __forceinline__ void e4m3_to_bf16(uint32_t codes, uint32_t *even, uint32_t *odd)
{
    uint32_t a, b;
    e4m3_to_tiny_bf16(codes, &a, &b);
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(*even) : "r"(a), "r"(0x7b807b80u) /* 2^120 */, "r"(0x80008000u));
    asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(*odd) : "r"(b), "r"(0x7b807b80u), "r"(0x80008000u));
}

/* Four bytes of high nibbles h of int4x2 alone as 1024 + 16 (h + 8), that is INT4_BIAS more than 16 h + 7.5: of the elements in the low
 * nibbles, and of those in the high ones. */
static constexpr float INT4_BIAS = 1024.0f + 128.0f - 7.5f;
static __device__ __forceinline__ void int4_base_to_f16(uint32_t bytes, uint32_t (&low)[2], uint32_t (&high)[2])
{
    const uint32_t a = permute(bytes, 0, 0x4140), b = permute(bytes, 0, 0x4342); /* bytes (0, 1), (2, 3) in halves */
    low[0] = ((a << 4) & 0x00f000f0u) ^ 0x64806480u, low[1] = ((b << 4) & 0x00f000f0u) ^ 0x64806480u;
    high[0] = (a & 0x00f000f0u) ^ 0x64806480u, high[1] = (b & 0x00f000f0u) ^ 0x64806480u;
}

/* Bytes of high and of low nibbles to int8 codes, of the low and of the high elements. */
static __device__ __forceinline__ void int4_join(uint32_t high_plane, uint32_t low_plane, uint32_t *low, uint32_t *high)
{
    *low = ((high_plane << 4) & 0xf0f0f0f0u) | (low_plane & 0x0f0f0f0fu);
    *high = (high_plane & 0xf0f0f0f0u) | ((low_plane >> 4) & 0x0f0f0f0fu);
}

#endif
