/* linear_avx512_vnni.c - linear layers with INT8 products by vpdpbusd.
 *
 * It takes one operand unsigned. That is x, whose codes lie 128 higher; a sum begins at -128 times that of its row's codes. */
#include "cpu/simd/simd_avx512.h"
#include "cpu/body/float_rows_body.h"
#include "kernel/linear_plan.h"

octavo_status octavo_linear_avx512(const octavo_exec *exec, const octavo_linear_params *p);
octavo_status octavo_linear_avx512_vnni(const octavo_exec *exec, const octavo_linear_params *p);

enum { CODE_BYTES = 1, CODE_ZERO = 128 };

static inline float linear_scale(const octavo_linear_params *p, float amax) { return octavo_linear_x_scale(p, p->x_scale ? 0.0f : amax); }

static inline void linear_encode(uint8_t *restrict codes, const float *restrict x, int64_t count, float scale)
{
#pragma omp simd
    for (int64_t i = 0; i < count; i++) codes[i] = (uint8_t)(CODE_ZERO + (int32_t)rows_round_int8(x[i] / scale));
}

/* A compiler left alone copies every sum in every step. */
static inline __attribute__((always_inline)) __m512i linear_add(__m512i sum, __m512i x, __m512i w)
{
    sum = _mm512_dpbusd_epi32(sum, x, w);
    __asm__("" : "+v"(sum));
    return sum;
}

static inline __m512i linear_row_sum(__m512i sum, __m512i w) { return _mm512_dpbusd_epi32(sum, _mm512_set1_epi8(1), w); }
static inline __m512i linear_begin(__m512i sum, __m512i row_sum) { return _mm512_sub_epi32(sum, _mm512_slli_epi32(row_sum, 7)); }
static inline __m512 linear_sum(__m512i sum) { return _mm512_cvtepi32_ps(sum); }

#include "cpu/avx512/linear_panels_avx512.h"

octavo_status octavo_linear_avx512_vnni(const octavo_exec *exec, const octavo_linear_params *p)
{
    return p->precision == OCTAVO_LINEAR_INT8 ? linear_run(exec, p) : octavo_linear_avx512(exec, p);
}
