/* linear_avx512_bf16.c - linear layers with bf16 products by vdpbf16ps, of weights that are stored so. */
#include "cpu/simd/simd_avx512.h"
#include "cpu/body/float_rows_body.h"
#include "kernel/linear_plan.h"

octavo_status octavo_linear_avx512_vnni(const octavo_exec *exec, const octavo_linear_params *p);
octavo_status octavo_linear_avx512_bf16(const octavo_exec *exec, const octavo_linear_params *p);

enum { CODE_BYTES = 2, CODE_ZERO = 0 };

static inline float linear_scale(const octavo_linear_params *p, float amax)
{
    (void)p, (void)amax;
    return 1.0f;
}

static inline void linear_encode(uint8_t *restrict codes, const float *restrict x, int64_t count, float scale)
{
    uint16_t *restrict rounded = (uint16_t *)(void *)codes;
    (void)scale;
#pragma omp simd
    for (int64_t i = 0; i < count; i++) rounded[i] = octavo_bf16_from_float(x[i]);
}

/* A compiler left alone copies every sum in every step. */
static inline __attribute__((always_inline)) __m512i linear_add(__m512i sum, __m512i x, __m512i w)
{
    __m512 real = _mm512_dpbf16_ps(_mm512_castsi512_ps(sum), (__m512bh)x, (__m512bh)w);
    __asm__("" : "+v"(real));
    return _mm512_castps_si512(real);
}

/* Zeros are zeros. */
static inline __m512i linear_row_sum(__m512i sum, __m512i w)
{
    (void)w;
    return sum;
}
static inline __m512i linear_begin(__m512i sum, __m512i row_sum)
{
    (void)row_sum;
    return sum;
}
static inline __m512 linear_sum(__m512i sum) { return _mm512_castsi512_ps(sum); }

#include "cpu/avx512/linear_panels_avx512.h"

/* Fewer tokens than the registers take at a time wait for memory alone. */
static int takes(const octavo_linear_params *p)
{
    int bf16 = p->precision == OCTAVO_LINEAR_BF16 && octavo_linear_tokens(p) > BAND;
    for (int i = 0; i < p->part_count; i++) bf16 = bf16 && p->parts[i].weight.codes.dtype == OCTAVO_BF16 && !p->parts[i].weight.scales;
    return bf16;
}

octavo_status octavo_linear_avx512_bf16(const octavo_exec *exec, const octavo_linear_params *p)
{
    return takes(p) ? linear_run(exec, p) : octavo_linear_avx512_vnni(exec, p);
}
