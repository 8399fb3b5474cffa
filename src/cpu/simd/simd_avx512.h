/* simd_avx512.h - the SIMD vocabulary, spoken in AVX-512 F, BW, VL and DQ. The words are described in simd_generic.h. */
#ifndef OCTAVO_SIMD_AVX512_H
#define OCTAVO_SIMD_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define SIMD_F32 16
#define SIMD_DOT_TOKENS 4
#define SIMD_AXPY_VECTORS 4
#define SIMD(op) octavo_##op##_avx512

typedef __m512 vf32;

static inline __mmask16 v_first_lanes(int64_t count) { return (__mmask16)((1u << count) - 1u); }

static inline vf32 v_zero(void) { return _mm512_setzero_ps(); }
static inline vf32 v_splat(float x) { return _mm512_set1_ps(x); }
static inline vf32 v_load(const float *p) { return _mm512_loadu_ps(p); }
static inline void v_store(float *p, vf32 x) { _mm512_storeu_ps(p, x); }
static inline vf32 v_load_part(const float *p, int64_t count) { return _mm512_maskz_loadu_ps(v_first_lanes(count), p); }
static inline void v_store_part(float *p, vf32 x, int64_t count) { _mm512_mask_storeu_ps(p, v_first_lanes(count), x); }
static inline vf32 v_add(vf32 a, vf32 b) { return _mm512_add_ps(a, b); }
static inline vf32 v_sub(vf32 a, vf32 b) { return _mm512_sub_ps(a, b); }
static inline vf32 v_mul(vf32 a, vf32 b) { return _mm512_mul_ps(a, b); }
static inline vf32 v_div(vf32 a, vf32 b) { return _mm512_div_ps(a, b); }
static inline vf32 v_fma(vf32 a, vf32 b, vf32 c) { return _mm512_fmadd_ps(a, b, c); }
static inline vf32 v_max(vf32 a, vf32 b) { return _mm512_max_ps(a, b); }
static inline vf32 v_min(vf32 a, vf32 b) { return _mm512_min_ps(a, b); }
static inline vf32 v_abs(vf32 a) { return _mm512_abs_ps(a); }
static inline vf32 v_round(vf32 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf32 v_floor(vf32 a) { return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
static inline vf32 v_if_less(vf32 a, vf32 b, vf32 then, vf32 otherwise)
{
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), otherwise, then);
}
static inline vf32 v_ldexp(vf32 x, vf32 n) { return _mm512_scalef_ps(x, n); }
static inline vf32 v_exponent(vf32 x) { return _mm512_getexp_ps(x); }
static inline vf32 v_mantissa(vf32 x) { return _mm512_getmant_ps(x, _MM_MANT_NORM_1_2, _MM_MANT_SIGN_zero); }
static inline float v_hmax(vf32 x) { return _mm512_reduce_max_ps(x); }
static inline float v_hsum(vf32 x) { return _mm512_reduce_add_ps(x); }

static inline void v_store_sums4(float *p, vf32 a, vf32 b, vf32 c, vf32 d)
{
    const __m512 ab = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_add_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 abcd = _mm512_add_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    const __m256 half = _mm256_add_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    _mm_storeu_ps(p, _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

static inline void v_store_maxes4(float *p, vf32 a, vf32 b, vf32 c, vf32 d)
{
    const __m512 ab = _mm512_max_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
    const __m512 cd = _mm512_max_ps(_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
    const __m512 abcd = _mm512_max_ps(_mm512_shuffle_ps(ab, cd, 0x44), _mm512_shuffle_ps(ab, cd, 0xEE));
    const __m256 half = _mm256_max_ps(_mm512_castps512_ps256(abcd), _mm512_extractf32x8_ps(abcd, 1));
    _mm_storeu_ps(p, _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1)));
}

static inline vf32 v_load_bf16(const void *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
static inline vf32 v_load_f16(const void *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
/* An e4m3 code is an f16 with its exponent 8 too small: sign to bit 15, the rest to bits 13..7. */
static inline vf32 v_load_e4m3(const void *p)
{
    const __m256i words = _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p));
    const __m256i halves = _mm256_and_si256(_mm256_slli_epi16(words, 7), _mm256_set1_epi16((short)0xBF80));
    return _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(256.0f));
}
static inline vf32 v_load_e5m2(const void *p)
{
    return _mm512_cvtph_ps(_mm256_slli_epi16(_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)p)), 8));
}
static inline vf32 v_load_int8(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline vf32 v_load_low_nibbles(const void *p)
{
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm512_cvtepi32_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(15)));
}
static inline vf32 v_load_high_nibbles(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_srli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)), 4));
}
static inline vf32 v_load_low_nibbles_signed(const void *p)
{
    const __m512i bytes = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_slli_epi32(bytes, 28), 28));
}
static inline vf32 v_load_high_nibbles_signed(const void *p)
{
    return _mm512_cvtepi32_ps(_mm512_srai_epi32(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)), 4));
}

static inline vf32 v_load_exp2_minus(const void *p)
{
    const __m512i exponents = _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_sub_epi32(_mm512_set1_epi32(127), exponents), 23));
}

#endif
