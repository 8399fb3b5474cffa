/* prefill_softmax.cuh - softmax as tiles of scores come, in the registers in which the warpgroup's matrix unit leaves them. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_SOFTMAX_CUH
#define OCTAVO_CUDA_TILE_PREFILL_SOFTMAX_CUH

#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/tile/prefill_tasks.cuh"

/* What a lane knows of its rows, g and g + 8 of its warp: the largest score so far, and its own part of the sum of weights. Logarithms are to
 * base 2. */
struct softmax_rows {
    float most[2], mass[2];
};

/* Takes out what a lane's rows, first_row and first_row + 8, do not see of the tile that begins at a key. */
template <int COUNT>
static __device__ __forceinline__ void softmax_mask(float (&score)[COUNT], const prefill_call &c, const prefill_task &task, int first_row, int begin)
{
    const int first = begin + (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const octavo_span span = octavo_prefill_span_of(&c.p, task.length, task.queries, first_row + 8 * row);
        const int sink_end = (int)span.sink_end - first, near_begin = (int)span.near_begin - first, end = (int)span.end - first;
#pragma unroll
        for (int i = 2 * row; i < COUNT; i += 4)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int key = i / 4 * 8 + j;
                if (!(key < end && (key >= near_begin || key < sink_end))) score[i + j] = -INFINITY;
            }
    }
}

/* Scores to weights 2^(scale * score - most + OFFSET), and what all before is multiplied by. The largest may lag LAG behind, so that sums
 * are seldom rescaled; OFFSET + LAG is what the weights' format bears. */
template <int LAG, int OFFSET, int COUNT>
static __device__ __forceinline__ void softmax_weigh(float (&score)[COUNT], softmax_rows *rows, float scale, float (&down)[2])
{
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
        float mass[2] = { 0.0f, 0.0f };
#pragma unroll
        for (int i = 0; i < COUNT; i += 4)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                float *x = &score[i + 2 * row + j];
                *x = exp2_fast(fmaf(*x, scale, -base)), mass[j] += *x;
            }
        rows->mass[row] = fmaf(rows->mass[row], down[row], mass[0] + mass[1]);
    }
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
