/* prefill_softmax.cuh - softmax as tiles of scores come, in the registers in which the warpgroup's matrix unit leaves them. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_SOFTMAX_CUH
#define OCTAVO_CUDA_TILE_PREFILL_SOFTMAX_CUH

#include "cuda/tile/prefill_cap.cuh"
#include "cuda/tile/prefill_ring.cuh"

/* What a lane knows of its rows, g and g + 8 of its warp: what weights are relative to, and its own part of their sum. Logarithms are to
 * base 2. */
struct softmax_rows {
    float most[2], mass[2];
};

/* Takes out what a lane's rows do not see of the tile that begins at a key; spans: of its first row, eight rows apart. */
template <int COUNT> static __device__ __forceinline__ void softmax_mask(float (&score)[COUNT], uint32_t spans, int begin)
{
    const int first = begin + (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const uint32_t span = spans + 8 * SPAN_BYTES * row;
        const int sink_end = load_shared(span) - first, near_begin = load_shared(span + 4) - first, end = load_shared(span + 8) - first;
#pragma unroll
        for (int i = 2 * row; i < COUNT; i += 4)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int key = i / 4 * 8 + j;
                if (!(key < end && (key >= near_begin || key < sink_end))) score[i + j] = -INFINITY;
            }
    }
}

/* A row's scores to weights 2^(scale * score - base), a scale for each 64 keys, or of what a cap makes of scale * score; their sum. */
template <prefill_map MAP, int SCALES, int COUNT, typename T>
static __device__ __forceinline__ float softmax_powers(float (&weight)[COUNT], const T (&score)[COUNT], int row, const float (&scale)[SCALES], float base,
                                                       const prefill_cap_terms &cap)
{
    float mass[2] = { 0.0f, 0.0f };
#pragma unroll
    for (int i = 2 * row; i < COUNT; i += 4)
#pragma unroll
        for (int j = 0; j < 2; j++)
            weight[i + j] = exp2_fast(prefill_logarithm<MAP>((float)score[i + j], scale[i * SCALES / COUNT], cap, -base)), mass[j] += weight[i + j];
    return mass[0] + mass[1];
}

/* Scores to weights 2^(scale * score - most + OFFSET), and what all before is multiplied by. The largest may lie LAG above what weights are
 * relative to, so that sums are seldom rescaled; OFFSET + LAG is what the weights' format bears. */
template <int LAG, int OFFSET, int COUNT>
static __device__ __forceinline__ void softmax_weigh(float (&score)[COUNT], softmax_rows *rows, float scale, float (&down)[2])
{
    const float scales[1] = { scale };
#pragma unroll
    for (int row = 0; row < 2; row++) {
        float top[2] = { score[2 * row], score[2 * row + 1] };
#pragma unroll
        for (int i = 4; i < COUNT; i += 4) top[0] = fmaxf(top[0], score[i + 2 * row]), top[1] = fmaxf(top[1], score[i + 2 * row + 1]);
        top[0] = fmaxf(top[0], top[1]);
        top[0] = fmaxf(top[0], __shfl_xor_sync(WHOLE_WARP, top[0], 1));
        top[0] = fmaxf(top[0], __shfl_xor_sync(WHOLE_WARP, top[0], 2));
        const float now = top[0] * scale, before = rows->most[row], most = now > before + (float)LAG ? now : before;
        const float base = most == -INFINITY ? 0.0f : most - (float)OFFSET;
        down[row] = most == before ? 1.0f : exp2_fast(before - most);
        rows->most[row] = most;
        rows->mass[row] = fmaf(rows->mass[row], down[row], softmax_powers<MAP_PLAIN>(score, score, row, scales, base, {}));
    }
}

/* The same without a look for the largest: what weights were relative to before mostly serves. False: in some row of the warp it does not,
 * and nothing has been added. */
template <int LAG, prefill_cap CAP, int SCALES, int COUNT, typename T>
static __device__ __forceinline__ bool softmax_guess(float (&weight)[COUNT], const T (&score)[COUNT], softmax_rows *rows, const float (&scale)[2][SCALES],
                                                     const prefill_cap_terms &cap)
{
    static constexpr float BEARS = (float)(1 << LAG);
    float mass[2];
    if constexpr (CAP == CAPPED) {
        if (__builtin_expect(prefill_all_narrow(score, scale[0][0]), 1)) {
#pragma unroll
            for (int row = 0; row < 2; row++) mass[row] = softmax_powers<MAP_NARROW>(weight, score, row, scale[row], rows->most[row], cap);
        } else {
#pragma unroll
            for (int row = 0; row < 2; row++) mass[row] = softmax_powers<MAP_WIDE>(weight, score, row, scale[row], rows->most[row], cap);
        }
    } else {
#pragma unroll
        for (int row = 0; row < 2; row++) mass[row] = softmax_powers<MAP_PLAIN>(weight, score, row, scale[row], rows->most[row], cap);
    }
    if (!__all_sync(WHOLE_WARP, mass[0] <= BEARS && mass[1] <= BEARS)) return false; /* where nothing was seen yet they are infinite */
    rows->mass[0] += mass[0], rows->mass[1] += mass[1];
    return true;
}

template <int COUNT> static __device__ __forceinline__ void softmax_rescale(float (&sum)[COUNT], const float (&down)[2])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) sum[i] *= down[i / 2 % 2];
}

/* Sum of the four lanes of a row. */
static __device__ __forceinline__ float softmax_mass(const softmax_rows &rows, int row)
{
    float mass = rows.mass[row];
    mass += __shfl_xor_sync(WHOLE_WARP, mass, 1);
    return mass + __shfl_xor_sync(WHOLE_WARP, mass, 2);
}

#endif
