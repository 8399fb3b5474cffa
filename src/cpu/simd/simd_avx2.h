/* simd_avx2.h - the SIMD vocabulary, spoken in AVX2, FMA and F16C. The words are described in simd_generic.h. */
#ifndef OCTAVO_SIMD_AVX2_H
#define OCTAVO_SIMD_AVX2_H

#include <immintrin.h>
#include <stdint.h>

#define SIMD_F32 8
#define SIMD_DOT_TOKENS 2
#define SIMD_AXPY_VECTORS 2
#define SIMD(op) octavo_##op##_avx2

typedef __m256 vf32;

static inline __m256i v_first_lanes(int64_t count)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

static inline vf32 v_zero(void) { return _mm256_setzero_ps(); }
static inline vf32 v_splat(float x) { return _mm256_set1_ps(x); }
static inline vf32 v_load(const float *p) { return _mm256_loadu_ps(p); }
static inline void v_store(float *p, vf32 x) { _mm256_storeu_ps(p, x); }
static inline vf32 v_load_part(const float *p, int64_t count) { return _mm256_maskload_ps(p, v_first_lanes(count)); }
static inline void v_store_part(float *p, vf32 x, int64_t count) { _mm256_maskstore_ps(p, v_first_lanes(count), x); }
static inline vf32 v_add(vf32 a, vf32 b) { return _mm256_add_ps(a, b); }
static inline vf32 v_sub(vf32 a, vf32 b) { return _mm256_sub_ps(a, b); }
static inline vf32 v_mul(vf32 a, vf32 b) { return _mm256_mul_ps(a, b); }
static inline vf32 v_div(vf32 a, vf32 b) { return _mm256_div_ps(a, b); }
static inline vf32 v_fma(vf32 a, vf32 b, vf32 c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf32 v_max(vf32 a, vf32 b) { return _mm256_max_ps(a, b); }
static inline vf32 v_min(vf32 a, vf32 b) { return _mm256_min_ps(a, b); }
static inline vf32 v_abs(vf32 a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vf32 v_round(vf32 a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vf32 v_floor(vf32 a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC); }
static inline vf32 v_if_less(vf32 a, vf32 b, vf32 then, vf32 otherwise)
{
    return _mm256_blendv_ps(otherwise, then, _mm256_cmp_ps(a, b, _CMP_LT_OQ));
}
static inline vf32 v_ldexp(vf32 x, vf32 n)
{
    const __m256i bits = _mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23);
    return _mm256_mul_ps(x, _mm256_castsi256_ps(bits));
}
static inline vf32 v_exponent(vf32 x)
{
    const __m256i biased = _mm256_srli_epi32(_mm256_castps_si256(x), 23);
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(biased, _mm256_set1_epi32(127)));
}
static inline vf32 v_mantissa(vf32 x)
{
    const __m256i fraction = _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(0x7FFFFF));
    return _mm256_castsi256_ps(_mm256_or_si256(fraction, _mm256_set1_epi32(0x3F800000)));
}
static inline float v_hmax(vf32 x)
{
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    return _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
}
static inline float v_hsum(vf32 x)
{
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}
static inline void v_store_sums2(float *p, vf32 a, vf32 b)
{
    const __m256 ab = _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128(ab), _mm256_extractf128_ps(ab, 1));
    _mm_storel_pi((__m64 *)(void *)p, _mm_add_ps(half, _mm_movehl_ps(half, half)));
}
static inline void v_store_sums4(float *p, vf32 a, vf32 b, vf32 c, vf32 d)
{
    v_store_sums2(p, a, b);
    v_store_sums2(p + 2, c, d);
}
static inline void v_store_maxes4(float *p, vf32 a, vf32 b, vf32 c, vf32 d)
{
    const __m256 ab = _mm256_max_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    const __m256 cd = _mm256_max_ps(_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    const __m256 abcd = _mm256_max_ps(_mm256_shuffle_ps(ab, cd, 0x44), _mm256_shuffle_ps(ab, cd, 0xEE));
    _mm_storeu_ps(p, _mm_max_ps(_mm256_castps256_ps128(abcd), _mm256_extractf128_ps(abcd, 1)));
}

static inline vf32 v_load_bf16(const void *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
static inline vf32 v_load_f16(const void *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
/* An e4m3 code is an f16 with its exponent 8 too small: sign to bit 15, the rest to bits 13..7. */
static inline vf32 v_load_e4m3(const void *p)
{
    const __m128i words = _mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)p));
    const __m128i halves = _mm_and_si128(_mm_slli_epi16(words, 7), _mm_set1_epi16((short)0xBF80));
    return _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_set1_ps(256.0f));
}
static inline vf32 v_load_e5m2(const void *p)
{
    return _mm256_cvtph_ps(_mm_unpacklo_epi8(_mm_setzero_si128(), _mm_loadl_epi64((const __m128i *)p)));
}
static inline vf32 v_load_int8(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline vf32 v_load_low_nibbles(const void *p)
{
    const __m256i bytes = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p));
    return _mm256_cvtepi32_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(15)));
}
static inline vf32 v_load_high_nibbles(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_srli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)), 4));
}
static inline vf32 v_load_low_nibbles_signed(const void *p)
{
    const __m256i bytes = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_slli_epi32(bytes, 28), 28));
}
static inline vf32 v_load_high_nibbles_signed(const void *p)
{
    return _mm256_cvtepi32_ps(_mm256_srai_epi32(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)), 4));
}

static inline vf32 v_load_exp2_minus(const void *p)
{
    const __m256i exponents = _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p));
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_sub_epi32(_mm256_set1_epi32(127), exponents), 23));
}

#endif
