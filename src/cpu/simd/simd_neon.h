/* simd_neon.h - the SIMD vocabulary, spoken in AArch64's Advanced SIMD. The words are described in simd_generic.h. */
#ifndef OCTAVO_SIMD_NEON_H
#define OCTAVO_SIMD_NEON_H

#include <arm_neon.h>
#include <stdint.h>
#include <string.h>

#define SIMD_F32 4
#define SIMD_DOT_TOKENS 4
#define SIMD_AXPY_VECTORS 4
#define SIMD(op) octavo_##op##_neon

typedef float32x4_t vf32;

static inline vf32 v_zero(void) { return vdupq_n_f32(0.0f); }
static inline vf32 v_splat(float x) { return vdupq_n_f32(x); }
static inline vf32 v_load(const float *p) { return vld1q_f32(p); }
static inline void v_store(float *p, vf32 x) { vst1q_f32(p, x); }
static inline vf32 v_load_part(const float *p, int64_t count)
{
    float x[SIMD_F32] = { 0.0f };
    memcpy(x, p, (size_t)count * sizeof *p);
    return vld1q_f32(x);
}
static inline void v_store_part(float *p, vf32 x, int64_t count)
{
    float lanes[SIMD_F32];
    vst1q_f32(lanes, x);
    memcpy(p, lanes, (size_t)count * sizeof *p);
}
static inline vf32 v_add(vf32 a, vf32 b) { return vaddq_f32(a, b); }
static inline vf32 v_sub(vf32 a, vf32 b) { return vsubq_f32(a, b); }
static inline vf32 v_mul(vf32 a, vf32 b) { return vmulq_f32(a, b); }
static inline vf32 v_div(vf32 a, vf32 b) { return vdivq_f32(a, b); }
static inline vf32 v_fma(vf32 a, vf32 b, vf32 c) { return vfmaq_f32(c, a, b); }
static inline vf32 v_max(vf32 a, vf32 b) { return vmaxq_f32(a, b); }
static inline vf32 v_min(vf32 a, vf32 b) { return vminq_f32(a, b); }
static inline vf32 v_abs(vf32 a) { return vabsq_f32(a); }
static inline vf32 v_round(vf32 a) { return vrndnq_f32(a); }
static inline vf32 v_floor(vf32 a) { return vrndmq_f32(a); }
static inline vf32 v_if_less(vf32 a, vf32 b, vf32 then, vf32 otherwise) { return vbslq_f32(vcltq_f32(a, b), then, otherwise); }
static inline vf32 v_ldexp(vf32 x, vf32 n)
{
    const int32x4_t bits = vshlq_n_s32(vaddq_s32(vcvtq_s32_f32(n), vdupq_n_s32(127)), 23);
    return vmulq_f32(x, vreinterpretq_f32_s32(bits));
}
static inline vf32 v_exponent(vf32 x)
{
    return vcvtq_f32_s32(vsubq_s32(vshrq_n_s32(vreinterpretq_s32_f32(x), 23), vdupq_n_s32(127)));
}
static inline vf32 v_mantissa(vf32 x)
{
    const int32x4_t fraction = vandq_s32(vreinterpretq_s32_f32(x), vdupq_n_s32(0x7FFFFF));
    return vreinterpretq_f32_s32(vorrq_s32(fraction, vdupq_n_s32(0x3F800000)));
}
static inline float v_hmax(vf32 x) { return vmaxvq_f32(x); }
static inline float v_hsum(vf32 x) { return vaddvq_f32(x); }
static inline void v_store_sums4(float *p, vf32 a, vf32 b, vf32 c, vf32 d)
{
    vst1q_f32(p, vpaddq_f32(vpaddq_f32(a, b), vpaddq_f32(c, d)));
}
static inline void v_store_maxes4(float *p, vf32 a, vf32 b, vf32 c, vf32 d)
{
    vst1q_f32(p, vpmaxq_f32(vpmaxq_f32(a, b), vpmaxq_f32(c, d)));
}

static inline uint8x8_t v_four_bytes(const void *p)
{
    uint32_t word;
    memcpy(&word, p, sizeof word);
    return vcreate_u8(word);
}
static inline vf32 v_load_bf16(const void *p)
{
    return vreinterpretq_f32_u32(vshll_n_u16(vreinterpret_u16_u8(vld1_u8((const uint8_t *)p)), 16));
}
static inline vf32 v_load_f16(const void *p) { return vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8((const uint8_t *)p))); }
/* An e4m3 code is an f16 with its exponent 8 too small: sign to bit 15, the rest to bits 13..7. */
static inline vf32 v_load_e4m3(const void *p)
{
    const int16x4_t words = vget_low_s16(vmovl_s8(vreinterpret_s8_u8(v_four_bytes(p))));
    const uint16x4_t halves = vand_u16(vreinterpret_u16_s16(vshl_n_s16(words, 7)), vdup_n_u16(0xBF80));
    return vmulq_n_f32(vcvt_f32_f16(vreinterpret_f16_u16(halves)), 256.0f);
}
static inline vf32 v_load_e5m2(const void *p)
{
    return vcvt_f32_f16(vreinterpret_f16_u16(vget_low_u16(vshll_n_u8(v_four_bytes(p), 8))));
}
static inline int32x4_t v_signed_bytes(const void *p)
{
    return vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(v_four_bytes(p)))));
}
static inline uint32x4_t v_unsigned_bytes(const void *p) { return vmovl_u16(vget_low_u16(vmovl_u8(v_four_bytes(p)))); }
static inline vf32 v_load_int8(const void *p) { return vcvtq_f32_s32(v_signed_bytes(p)); }
static inline vf32 v_load_low_nibbles(const void *p) { return vcvtq_f32_u32(vandq_u32(v_unsigned_bytes(p), vdupq_n_u32(15))); }
static inline vf32 v_load_high_nibbles(const void *p) { return vcvtq_f32_u32(vshrq_n_u32(v_unsigned_bytes(p), 4)); }
static inline vf32 v_load_low_nibbles_signed(const void *p)
{
    return vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(v_signed_bytes(p), 28), 28));
}
static inline vf32 v_load_high_nibbles_signed(const void *p) { return vcvtq_f32_s32(vshrq_n_s32(v_signed_bytes(p), 4)); }

static inline vf32 v_load_exp2_minus(const void *p)
{
    return vreinterpretq_f32_s32(vshlq_n_s32(vsubq_s32(vdupq_n_s32(127), v_signed_bytes(p)), 23));
}

#endif
