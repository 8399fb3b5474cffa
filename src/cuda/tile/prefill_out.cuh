/* prefill_out.cuh - rows of the output from the registers in which the warpgroup's matrix unit leaves sums: a lane has two neighbours of every eight. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_OUT_CUH
#define OCTAVO_CUDA_TILE_PREFILL_OUT_CUH

#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/ptx/ptx_wgmma.cuh"
#include "cuda/tile/stored_rows.cuh"

/* Lane t of each four gets word i of lane s as word s, where i is t: rows to columns. By all lanes of a warp. */
static __device__ __forceinline__ void turn_words(uint32_t (&word)[4], int t)
{
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
        const bool upper = t & step;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            if (i & step) continue;
            const uint32_t other = __shfl_xor_sync(~0u, upper ? word[i] : word[i + step], step);
            word[i] = upper ? other : word[i], word[i + step] = upper ? word[i + step] : other;
        }
    }
}

/* COUNT pairs of a row, eight columns apart; at: the element of the first. */
template <int COUNT> static __device__ __forceinline__ void put_pairs(const octavo_tensor &out, int64_t at, const float2 (&pair)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) {
        if (out.dtype == OCTAVO_F32) *(float2 *)((float *)out.data + at + 8 * i) = pair[i];
        else *(uint32_t *)((uint16_t *)out.data + at + 8 * i) = out.dtype == OCTAVO_F16 ? pack_f16(pair[i].x, pair[i].y) : pack_bf16(pair[i].x, pair[i].y);
    }
}

/* The same of a row that begins at `at`, 16 bytes at a time where two neighbours are only four: stores of a few bytes to eight rows each take eight times
 * as long. By all lanes of a warp. */
template <int COUNT> static __device__ __forceinline__ void put_row(const octavo_tensor &out, int64_t at, const float2 (&pair)[COUNT], bool stores)
{
    static_assert(COUNT % 4 == 0, "four lanes have four times eight columns together");
    const int t = thread_anew() % 4;
    if (out.dtype == OCTAVO_F32) {
        if (stores) put_pairs(out, at + 2 * t, pair);
        return;
    }
#pragma unroll
    for (int first = 0; first < COUNT; first += 4) {
        uint32_t word[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float2 two = pair[first + i];
            word[i] = out.dtype == OCTAVO_F16 ? pack_f16(two.x, two.y) : pack_bf16(two.x, two.y);
        }
        turn_words(word, t);
        if (stores) *(uint4 *)((uint16_t *)out.data + at + 8 * (first + t)) = make_uint4(word[0], word[1], word[2], word[3]);
    }
}

#endif
