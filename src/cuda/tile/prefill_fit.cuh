/* prefill_fit.cuh - the better of two scales for a query in FP8, of which a lane has eight elements.
 *
 * The sums that decide are integers: every way to them gives the same. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_FIT_CUH
#define OCTAVO_CUDA_TILE_PREFILL_FIT_CUH

#include "cuda/tile/prefill_stored.cuh"
#include <cuda_fp16.h>

/* The eight values of codes. */
static __device__ __forceinline__ void decode_eight(uint32_t low, uint32_t high, float (&code)[8])
{
    uint32_t pairs[4];
    e4m3_to_f16(low, &pairs[0], &pairs[1]), e4m3_to_f16(high, &pairs[2], &pairs[3]);
#pragma unroll
    for (int i = 0; i < 4; i++) code[2 * i] = f16_low(pairs[i]), code[2 * i + 1] = f16_high(pairs[i]);
}

/* How far codes of bf16 elements times a power of two, or three quarters of that, are off: octavo_prefill_code_off(), squared and added up. f16
 * holds these products, and rounds them to four bits if a multiple of 2^7 is added and taken off; below 2^-6 all are off by nothing. */
static __device__ __forceinline__ int bf16_off(const float (&scaled)[8])
{
    uint32_t whole[4];
    int sum = 0;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const __half2 x = __floats2half2_rn(scaled[2 * i], scaled[2 * i + 1]), up = __hmul2_rn(x, __float2half2_rn(129.0f));
        const __half2 off = __hsub2_rn(x, __hsub2_rn(up, __hsub2_rn(up, x))), eighths = __hfma2(off, __float2half2_rn(8.0f), __float2half2_rn(1536.0f));
        whole[i] = *(const uint32_t *)&eighths; /* 1536 has a unit of 1: the last byte is the integer, of which 128 may be -128 */
    }
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const int four = (int)permute(whole[i], whole[i + 1], 0x6420);
        sum = __dp4a(four, four, sum);
    }
    return sum;
}

/* The better of the two scales of a query in FP8, of which a lane has eight elements. PLAIN: they are bf16 as they were stored. */
template <int LANES, bool PLAIN> static __device__ __forceinline__ octavo_prefill_scale fit_query(const float (&x)[8], const octavo_prefill_scale &wide)
{
    float off[2];
#pragma unroll
    for (int narrow = 0; narrow < 2; narrow++) {
        float scaled[8];
#pragma unroll
        for (int j = 0; j < 8; j++) scaled[j] = x[j] * (narrow ? wide.inverse * 0.75f : wide.inverse);
        if constexpr (PLAIN) {
            int its = bf16_off(scaled);
#pragma unroll
            for (int step = 1; step < LANES; step *= 2) its += __shfl_xor_sync(WHOLE_WARP, its, step);
            off[narrow] = (float)its;
        } else {
            float code[8];
            decode_eight(pack_e4m3(scaled[0], scaled[1], scaled[2], scaled[3]), pack_e4m3(scaled[4], scaled[5], scaled[6], scaled[7]), code);
            off[narrow] = 0.0f;
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const float its = octavo_prefill_code_off(scaled[j], code[j]);
                off[narrow] = fmaf(its, its, off[narrow]);
            }
#pragma unroll
            for (int step = 1; step < LANES; step *= 2) off[narrow] += __shfl_xor_sync(WHOLE_WARP, off[narrow], step);
        }
    }
    return octavo_prefill_scale_fitted(wide, off[0], off[1]);
}

#endif
