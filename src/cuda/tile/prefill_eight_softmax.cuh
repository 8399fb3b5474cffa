/* prefill_eight_softmax.cuh - weights of eight bits for a tile of keys, from the registers in which the matrix unit leaves its scores.
 *
 * Every tile has its own unit for its weights, for each row such that the largest is 448, so that a flat tail far below a sink keeps its bits; sums so far are brought to that unit, up or down. Logarithms are to base 2. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_EIGHT_SOFTMAX_CUH
#define OCTAVO_CUDA_TILE_PREFILL_EIGHT_SOFTMAX_CUH

#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/tile/prefill_eight_ring.cuh"

/* What a lane knows of its rows, g and g + 8 of its warp: the unit of its sums and the largest so far, its own part of the sum of weights,
 * and what scores are multiplied by, but for the keys' own factors. */
struct eight_rows {
    float unit[2], largest[2], mass[2], factor[2];
};

static constexpr float EIGHT_UP = 8.80735492f; /* logarithm of 448, the largest weight */
static constexpr float EIGHT_NONE = -1000.0f;  /* unit of no key */
static constexpr float EIGHT_BELOW = 60.0f;     /* what a unit may lie below the largest: float32 bears it, and what is less is lost in it */
static constexpr float FACTOR_LEAST = 0x1p-126f; /* zero times a masked score would be no number */

enum { PART_SCORES = PART_KEYS / 2, PART_HALVES = 2 };

/* Takes out what a lane's rows do not see of a part that begins at a key; spans: of its first row, eight rows apart. */
static __device__ __forceinline__ void eight_mask(float (&score)[PART_SCORES], uint32_t spans, int begin)
{
    const int first = begin + (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const int sink_end = load_shared(spans + 96 * row) - first, near_begin = load_shared(spans + 96 * row + 4) - first, end = load_shared(spans + 96 * row + 8) - first;
#pragma unroll
        for (int i = 2 * row; i < PART_SCORES; i += 4)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int key = i / 4 * 8 + j;
                if (!(key < end && (key >= near_begin || key < sink_end))) score[i + j] = -INFINITY;
            }
    }
}

/* What the scores of a half of a part are multiplied by. */
template <typename L> static __device__ __forceinline__ float eight_factor(const eight_rows &rows, int row, uint32_t facts, int half)
{
    if (L::PER_TOKEN) return 1.0f;
    return fmaxf(rows.factor[row] * load_shared_float(facts + 4 * (4 * half + (int)threadIdx.x % 4)), FACTOR_LEAST);
}

/* What is added to their logarithms. */
template <typename L> static __device__ __forceinline__ float eight_log(uint32_t facts, int half)
{
    return L::PER_TOKEN ? 0.0f : load_shared_float(facts + 4 * (L::V_LOGS + half));
}

/* cap tanh(x / cap). */
static __device__ __forceinline__ float eight_cap(float x, float cap, float steep)
{
    return cap - __fdividef(2.0f * cap, 1.0f + exp2_fast(x * steep));
}

/* Capped scores, in units of what they will be multiplied by. cap: in powers of two. */
template <typename L>
static __device__ __forceinline__ void eight_cap_scores(float (&score)[PART_SCORES], const eight_rows &rows, uint32_t facts, int part, float cap)
{
    enum { HALF_SCORES = PART_SCORES / PART_HALVES };
    const float steep = __fdividef(2.0f * LOG2_E, cap);
#pragma unroll
    for (int half = 0; half < PART_HALVES; half++) {
        const float factor[2] = { eight_factor<L>(rows, 0, facts, part * PART_HALVES + half), eight_factor<L>(rows, 1, facts, part * PART_HALVES + half) };
        const float back[2] = { __fdividef(1.0f, factor[0]), __fdividef(1.0f, factor[1]) };
#pragma unroll
        for (int i = half * HALF_SCORES; i < (half + 1) * HALF_SCORES; i++) {
            const int row = i / 2 % 2;
            score[i] = eight_cap(score[i] * factor[row], cap, steep) * back[row];
        }
    }
}

/* Scores to logarithms of weights where each key has factors of its own. */
template <typename L> static __device__ __forceinline__ void eight_scale_tokens(float (&score)[PART_SCORES], const eight_rows &rows, uint32_t facts, int part, float cap)
{
    const float steep = __fdividef(2.0f * LOG2_E, cap);
#pragma unroll
    for (int i = 0; i < PART_SCORES; i += 4) {
        const uint32_t key = facts + 4 * (part * PART_KEYS + 2 * i + (int)threadIdx.x % 4 * 2);
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float x = score[i + j] * (rows.factor[j / 2] * load_shared_float(key + j % 2 * 4));
            if (cap > 0.0f) x = eight_cap(x, cap, steep);
            score[i + j] = x + load_shared_float(key + 4 * L::V_LOGS + j % 2 * 4);
        }
    }
}

/* most: the largest logarithm of a weight so far in a lane's rows. */
template <typename L> static __device__ __forceinline__ void eight_most(float (&most)[2], const float (&score)[PART_SCORES], const eight_rows &rows, uint32_t facts, int part)
{
    enum { HALF_SCORES = PART_SCORES / PART_HALVES };
#pragma unroll
    for (int half = 0; half < PART_HALVES; half++) {
        const float log = eight_log<L>(facts, part * PART_HALVES + half);
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const int from = half * HALF_SCORES + 2 * row;
            float top[4] = { score[from], score[from + 1], score[from + 4], score[from + 5] };
#pragma unroll
            for (int i = 8; i < HALF_SCORES; i += 8) {
                top[0] = fmaxf(top[0], score[from + i]), top[1] = fmaxf(top[1], score[from + i + 1]);
                top[2] = fmaxf(top[2], score[from + i + 4]), top[3] = fmaxf(top[3], score[from + i + 5]);
            }
            const float largest = fmaxf(fmaxf(top[0], top[1]), fmaxf(top[2], top[3]));
            most[row] = fmaxf(most[row], fmaf(largest, eight_factor<L>(rows, row, facts, part * PART_HALVES + half), log));
        }
    }
}

/* The unit of the tile's weights. down: what all sums before are multiplied by. */
static __device__ __forceinline__ void eight_unit(eight_rows *rows, float (&most)[2], float (&down)[2])
{
#pragma unroll
    for (int row = 0; row < 2; row++) {
        most[row] = fmaxf(most[row], __shfl_xor_sync(WHOLE_WARP, most[row], 1));
        most[row] = fmaxf(most[row], __shfl_xor_sync(WHOLE_WARP, most[row], 2));
        rows->largest[row] = fmaxf(rows->largest[row], most[row]);
        const float unit = fmaxf(most[row], rows->largest[row] - EIGHT_BELOW);
        down[row] = exp2_fast(rows->unit[row] - unit);
        rows->unit[row] = unit, rows->mass[row] *= down[row];
    }
}

/* Scores of a part to weights, their codes in the order in which V's tokens lie, and their sum. The factors of values are read here, lest the
 * assembler takes exponentials before the warpgroup's turn; and `zero` lets each 16 wait for those before the last, lest it computes all their
 * arguments first, while the unit for exponentials has nothing to do. */
template <typename L>
static __device__ __forceinline__ void eight_weigh(uint32_t (&weight)[PART_KEYS / 32][4], float (&score)[PART_SCORES], eight_rows *rows, uint32_t facts, int part,
                                                   float zero)
{
    enum { CHUNK = 16, HALF_CHUNKS = PART_SCORES / PART_HALVES / CHUNK };
#pragma unroll
    for (int half = 0; half < PART_HALVES; half++) {
        const int at_half = part * PART_HALVES + half;
        const float log = load_shared_float(facts + 4 * (L::PER_TOKEN ? L::TILE_ZERO : L::V_LOGS + at_half));
        const float back = L::PER_TOKEN ? 1.0f : load_shared_float(facts + 4 * (L::V_BACK + at_half));
        float factor[2], up[2], mass[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
#pragma unroll
        for (int row = 0; row < 2; row++) factor[row] = eight_factor<L>(*rows, row, facts, at_half), up[row] = log + EIGHT_UP - rows->unit[row];
#pragma unroll
        for (int chunk = half * HALF_CHUNKS; chunk < (half + 1) * HALF_CHUNKS; chunk++) {
            float *x = score + chunk * CHUNK, its[2] = { up[0], up[1] };
            if (chunk > 1) its[0] = fmaf(x[-CHUNK - 4], zero, up[0]), its[1] = fmaf(x[-CHUNK - 2], zero, up[1]);
#pragma unroll
            for (int i = 0; i < CHUNK; i++) x[i] = exp2_fast(fmaf(x[i], factor[i / 2 % 2], its[i / 2 % 2]));
#pragma unroll
            for (int i = 0; i < CHUNK; i++) {
                const int key = part * PART_KEYS + (chunk * CHUNK + i) / 4 * 8 + i % 2;
                if (L::PER_TOKEN) mass[i % 4] = fmaf(x[i], load_shared_float(facts + 4 * (L::V_BACK + key) + (int)threadIdx.x % 4 * 8), mass[i % 4]);
                else mass[i % 4] += x[i];
            }
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int at = j / 2 * 8 + j % 2 * 2;
                weight[chunk][j] = pack_e4m3(x[at], x[at + 1], x[at + 4], x[at + 5]);
            }
        }
        rows->mass[0] = fmaf(mass[0] + mass[1], back, rows->mass[0]), rows->mass[1] = fmaf(mass[2] + mass[3], back, rows->mass[1]);
    }
}

#endif
