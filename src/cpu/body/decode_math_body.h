/* decode_math_body.h - exp, log and tanh over vectors; included after a simd_<isa>.h. */
#ifndef OCTAVO_CPU_DECODE_MATH_BODY_H
#define OCTAVO_CPU_DECODE_MATH_BODY_H

#include <float.h>
#include <math.h>

/* Weights below 2^-100 are taken for 0: no sum of them can be seen in a float, and no product with one becomes subnormal, which
 * some processors handle a hundred times slower. */
#define DECODE_EXP_LOWEST -69.0f

/* exp(x) within 2 units in the last place for x <= 80; 0 below DECODE_EXP_LOWEST. */
static inline vf32 v_exp(vf32 x)
{
    const vf32 held = v_max(x, v_splat(DECODE_EXP_LOWEST));
    const vf32 n = v_round(v_mul(held, v_splat(0x1.715476p+0f)));
    vf32 r = v_fma(n, v_splat(-0x1.63p-1f), held); /* ln 2 in two parts: the first has few bits */
    r = v_fma(n, v_splat(0x1.bd0106p-13f), r);
    vf32 tail = v_fma(v_splat(0x1.6a2434p-10f), r, v_splat(0x1.1239e2p-7f));
    tail = v_fma(tail, r, v_splat(0x1.5558f2p-5f));
    tail = v_fma(tail, r, v_splat(0x1.555492p-3f));
    tail = v_fma(tail, r, v_splat(0x1.fffffcp-2f));
    const vf32 fraction = v_add(v_fma(v_mul(r, r), tail, r), v_splat(1.0f));
    return v_if_less(x, v_splat(DECODE_EXP_LOWEST), v_zero(), v_ldexp(fraction, n));
}

static inline float v_exp_one(float x)
{
    float lanes[SIMD_F32];
    v_store(lanes, v_exp(v_splat(x)));
    return lanes[0];
}

/* log(x) of a normal x > 0; -inf for smaller ones. */
static inline vf32 v_log(vf32 x)
{
    const vf32 held = v_max(x, v_splat(FLT_MIN));
    const vf32 mantissa = v_mantissa(held), exponent = v_exponent(held);
    const vf32 is_high = v_if_less(v_splat(0x1.6a09e6p+0f), mantissa, v_splat(1.0f), v_zero());
    const vf32 m = v_fma(v_mul(is_high, v_splat(-0.5f)), mantissa, mantissa), e = v_add(exponent, is_high);
    const vf32 f = v_sub(m, v_splat(1.0f)), s = v_div(f, v_add(m, v_splat(1.0f))), z = v_mul(s, s);
    vf32 q = v_fma(v_splat(0x1.31e678p-2f), z, v_splat(0x1.995e9cp-2f));
    q = v_fma(q, z, v_splat(0x1.55557ap-1f));
    const vf32 tail = v_fma(v_mul(s, z), q, v_fma(e, v_splat(-0x1.bd0106p-13f), v_zero()));
    const vf32 log = v_fma(e, v_splat(0x1.63p-1f), v_fma(s, v_splat(2.0f), tail));
    return v_if_less(x, v_splat(FLT_MIN), v_splat(-INFINITY), log);
}

static inline vf32 v_tanh(vf32 x)
{
    const vf32 magnitude = v_abs(x), z = v_mul(x, x);
    const vf32 e = v_exp(v_min(v_add(magnitude, magnitude), v_splat(40.0f)));
    const vf32 large = v_sub(v_splat(1.0f), v_div(v_splat(2.0f), v_add(e, v_splat(1.0f))));
    vf32 tail = v_fma(v_splat(-0x1.76ac1ap-8f), z, v_splat(0x1.5256d8p-6f));
    tail = v_fma(tail, z, v_splat(-0x1.b84448p-5f));
    tail = v_fma(tail, z, v_splat(0x1.110768p-3f));
    tail = v_fma(tail, z, v_splat(-0x1.555534p-2f));
    const vf32 small = v_fma(v_mul(x, z), tail, x);
    const vf32 signed_large = v_if_less(x, v_zero(), v_sub(v_zero(), large), large);
    return v_if_less(magnitude, v_splat(0.625f), small, signed_large);
}

#endif
