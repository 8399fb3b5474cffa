/* prefill_cap.cuh - logarithms of weights from scores, with and without a soft cap.
 *
 * x = score / cap, scale in it, becomes cap * tanh(x), off by at most 2^-21 of the cap, as docs/NUMERICS.md has it (the unit's own tanh: 2^-11). Where all
 * scores of a warp's tile have |x| <= CAP_NARROW that is a polynomial, which leaves the unit for exponentials to the weights; elsewhere
 * 1 - 2 / (1 + e^(2 x)). Logarithms are to base 2. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_CAP_CUH
#define OCTAVO_CUDA_TILE_PREFILL_CAP_CUH

#include "cuda/ptx/ptx_convert.cuh"

enum prefill_cap { UNCAPPED, CAPPED };
enum prefill_map { MAP_PLAIN, MAP_NARROW, MAP_WIDE };
enum { CAP_TERMS = 5 };
static constexpr float CAP_NARROW = 0.75f;

/* What serves mostly, and always. */
template <prefill_cap CAP> struct prefill_maps {
    static constexpr prefill_map MOSTLY = CAP == CAPPED ? MAP_NARROW : MAP_PLAIN, ALWAYS = CAP == CAPPED ? MAP_WIDE : MAP_PLAIN;
};

/* The cap, and of tanh's odd powers what each counts, times the cap. */
struct prefill_cap_terms {
    float log2, term[CAP_TERMS];
};

static inline prefill_cap_terms prefill_cap_terms_of(float cap_log2)
{
    static const float tanh_terms[CAP_TERMS] = { 1.0f, -0.33328045f, 0.13253363f, -0.049866085f, 0.012750582f };
    prefill_cap_terms cap = {};
    cap.log2 = cap_log2;
    for (int i = 0; i < CAP_TERMS; i++) cap.term[i] = cap_log2 * tanh_terms[i];
    return cap;
}

/* scale * score + add, or what the cap makes of that product and add. */
template <prefill_map MAP> static __device__ __forceinline__ float prefill_logarithm(float score, float scale, const prefill_cap_terms &cap, float add)
{
    static constexpr float TWICE_LOG2_E = 2.88539008f;
    if (MAP == MAP_PLAIN) return fmaf(score, scale, add);
    const float x = score * scale;
    if (MAP == MAP_WIDE) return fmaf(-cap.log2, reciprocal_fast(fmaf(exp2_fast(x * TWICE_LOG2_E), 0.5f, 0.5f)), cap.log2 + add);
    const float square = x * x;
    float sum = cap.term[CAP_TERMS - 1];
#pragma unroll
    for (int i = CAP_TERMS - 2; i >= 0; i--) sum = fmaf(sum, square, cap.term[i]);
    return fmaf(x, sum, add);
}

/* The same for the whole warp: all of a lane's scores are narrow. */
template <int COUNT> static __device__ __forceinline__ bool prefill_all_narrow(const float (&score)[COUNT], float scale)
{
    float top[2] = { 0.0f, 0.0f };
#pragma unroll
    for (int i = 0; i < COUNT; i++) top[i % 2] = fmaxf(top[i % 2], fabsf(score[i]));
    return __all_sync(~0u, fmaxf(top[0], top[1]) * scale <= CAP_NARROW);
}

/* Logarithms of all scores. */
template <prefill_map MAP, int COUNT>
static __device__ __forceinline__ void prefill_logarithms(float (&out)[COUNT], const float (&score)[COUNT], float scale, const prefill_cap_terms &cap)
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) out[i] = prefill_logarithm<MAP>(score[i], scale, cap, 0.0f);
}

#endif
