/* prefill_eight_softmax.cuh - weights of eight bits for a tile of keys, from the registers in which the matrix unit leaves its scores.
 *
 * Every tile has its own unit for its weights, for each row such that the largest is 448, so that a flat tail far below a sink keeps its bits;
 * sums so far are brought to that unit, up or down. Logarithms are to base 2. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_EIGHT_SOFTMAX_CUH
#define OCTAVO_CUDA_TILE_PREFILL_EIGHT_SOFTMAX_CUH

#include "cuda/tile/prefill_cap.cuh"
#include "cuda/tile/prefill_eight_ring.cuh"

/* What a lane knows of its rows, g and g + 8 of its warp: the unit of its sums and the largest so far, its own part of the sum of weights,
 * and what scores are multiplied by, but for the keys' own factors. */
struct eight_rows {
    float unit[2], largest[2], mass[2], factor[2];
};

static constexpr float EIGHT_UP = 8.80735492f; /* logarithm of 448, the largest weight */
static constexpr float EIGHT_NONE = -1e30f;     /* unit of no key */
static constexpr float EIGHT_BELOW = 60.0f;     /* what a unit may lie below the largest: float32 bears it, and what is less is lost in it */
static constexpr float FACTOR_LEAST = 0x1p-126f; /* zero times a masked score would be no number */

enum { PART_SCORES = PART_KEYS / 2, PART_HALVES = 2, HALF_SCORES = PART_SCORES / PART_HALVES };

/* Takes out what a lane's rows do not see of a part that begins at a key; spans: of its first row, eight rows apart. */
static __device__ __forceinline__ void eight_mask(float (&score)[PART_SCORES], uint32_t spans, int begin)
{
    const int first = begin + (int)threadIdx.x % 4 * 2;
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const uint32_t span = spans + 8 * SPAN_BYTES * row;
        const int sink_end = load_shared(span) - first, near_begin = load_shared(span + 4) - first, end = load_shared(span + 8) - first;
#pragma unroll
        for (int i = 2 * row; i < PART_SCORES; i += 4)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                const int key = i / 4 * 8 + j;
                if (!(key < end && (key >= near_begin || key < sink_end))) score[i + j] = -INFINITY;
            }
    }
}

/* What a lane has to know of a tile: factors of the scores of its halves' keys, logarithms of what their weights are multiplied by, and what a
 * sum of weights by the matrix unit is worth, 0 in a special tile. */
template <typename L> struct eight_tile {
    float factor[L::HALVES][2], log[L::HALVES], worth;
};
template <typename L> static __device__ __forceinline__ void eight_read(eight_tile<L> *tile, const eight_rows &rows, uint32_t facts)
{
#pragma unroll
    for (int half = 0; half < L::HALVES; half++) {
        const float keys = load_shared_float(facts + 4 * (4 * half + (int)threadIdx.x % 4));
        tile->log[half] = load_shared_float(facts + 4 * (L::V_LOGS + half));
#pragma unroll
        for (int row = 0; row < 2; row++) tile->factor[half][row] = fmaxf(rows.factor[row] * keys, FACTOR_LEAST);
    }
    tile->worth = load_shared_float(facts + 4 * L::TILE_WORTH);
}

/* The largest score of a row, of which a lane has two in four. Floats without a sign are in the order of their bits: a result below 0 says
 * nothing. */
template <int COUNT> static __device__ __forceinline__ int largest_bits(const int (&score)[COUNT], int from, int end)
{
    int top = max(score[from], score[from + 1]);
#pragma unroll
    for (int i = from + 4; i < end; i += 4) top = __vimax3_s32(top, score[i], score[i + 1]);
    return top;
}
template <int COUNT> static __device__ __forceinline__ int largest_bits(const float (&score)[COUNT], int from, int end)
{
    int top = max(__float_as_int(score[from]), __float_as_int(score[from + 1]));
#pragma unroll
    for (int i = from + 4; i < end; i += 4) top = __vimax3_s32(top, __float_as_int(score[i]), __float_as_int(score[i + 1]));
    return top;
}
template <int COUNT> static __device__ __forceinline__ float largest_float(const float (&score)[COUNT], int from, int end)
{
    float top[2] = { score[from], score[from + 1] };
#pragma unroll
    for (int i = from + 4; i < end; i += 4) top[0] = fmaxf(top[0], score[i]), top[1] = fmaxf(top[1], score[i + 1]);
    return fmaxf(top[0], top[1]);
}

/* The largest scores of a half of a part in a lane's rows, by their bits. */
template <typename T> static __device__ __forceinline__ void eight_tops(int (&top)[2], const T (&score)[PART_SCORES], int half)
{
#pragma unroll
    for (int row = 0; row < 2; row++) top[row] = largest_bits(score, half * HALF_SCORES + 2 * row, (half + 1) * HALF_SCORES);
}

/* The same as numbers, of both halves. */
static __device__ __forceinline__ void eight_largest(float (&largest)[PART_HALVES][2], const int (&)[PART_SCORES], const int (&top)[PART_HALVES][2])
{
#pragma unroll
    for (int i = 0; i < 2 * PART_HALVES; i++) largest[i / 2][i % 2] = (float)top[i / 2][i % 2];
}
static __device__ __forceinline__ void eight_largest(float (&largest)[PART_HALVES][2], const float (&score)[PART_SCORES], const int (&top)[PART_HALVES][2])
{
#pragma unroll
    for (int i = 0; i < 2 * PART_HALVES; i++) largest[i / 2][i % 2] = __int_as_float(top[i / 2][i % 2]);
    if (__builtin_expect(__any_sync(WHOLE_WARP, (top[0][0] | top[0][1] | top[1][0] | top[1][1]) < 0), 0))
#pragma unroll
        for (int i = 0; i < 2 * PART_HALVES; i++)
            largest[i / 2][i % 2] = largest_float(score, i / 2 * HALF_SCORES + i % 2 * 2, (i / 2 + 1) * HALF_SCORES);
}

/* most: the largest logarithm of a weight so far in a lane's rows. */
template <prefill_map MAP, typename L, typename T>
static __device__ __forceinline__ void eight_most(float (&most)[2], const T (&score)[PART_SCORES], const int (&top)[PART_HALVES][2], const eight_tile<L> &tile,
                                                  int part, const prefill_cap_terms &cap)
{
    float largest[PART_HALVES][2];
    eight_largest(largest, score, top);
#pragma unroll
    for (int half = 0; half < PART_HALVES; half++)
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const float its = prefill_logarithm<MAP>(largest[half][row], tile.factor[part * PART_HALVES + half][row], cap, tile.log[part * PART_HALVES + half]);
            most[row] = fmaxf(most[row], MAP != MAP_PLAIN && largest[half][row] == -INFINITY ? -INFINITY : its);
        }
}

/* The largest magnitude of a row's scores. Bits without regard to a sign put floats that have one behind the others. */
static __device__ __forceinline__ float largest_size(const float (&score)[PART_SCORES], int from, int end)
{
    unsigned last = 0;
#pragma unroll
    for (int i = from; i < end; i += 4) last = __vimax3_u32(last, __float_as_uint(score[i]), __float_as_uint(score[i + 1]));
    return fmaxf(fabsf(__uint_as_float(last)), __int_as_float(largest_bits(score, from, end)));
}
static __device__ __forceinline__ float largest_size(const int (&score)[PART_SCORES], int from, int end)
{
    int least = 0;
#pragma unroll
    for (int i = from; i < end; i += 4) least = __vimin3_s32(least, score[i], score[i + 1]);
    return (float)max(largest_bits(score, from, end), -least);
}

/* The same for the whole warp: all scores of a lane are narrow (prefill_cap.cuh). */
template <typename L, typename T>
static __device__ __forceinline__ bool eight_narrow(const T (&score)[L::PARTS][PART_SCORES], const eight_tile<L> &tile)
{
    float most = 0.0f;
#pragma unroll
    for (int half = 0; half < L::HALVES; half++)
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const int from = half % PART_HALVES * HALF_SCORES;
            most = fmaxf(most, largest_size(score[half / PART_HALVES], from + 2 * row, from + HALF_SCORES) * tile.factor[half][row]);
        }
    return __all_sync(WHOLE_WARP, most <= CAP_NARROW);
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

/* Scores of a part to weights, their codes in the order in which V's tokens lie, and their sum where the matrix unit does not find it. The
 * logarithms are read once more, lest the assembler takes exponentials before the warpgroup's turn; and `zero` lets each 16 wait for those before
 * the last, lest it computes all their arguments first, while the unit for exponentials has nothing to do. */
template <bool SUMS, prefill_map MAP, typename L, typename T>
static __device__ __forceinline__ void eight_weigh(uint32_t (&weight)[PART_KEYS / 32][4], const T (&score)[PART_SCORES], eight_rows *rows,
                                                   const eight_tile<L> &tile, uint32_t facts, int part, float zero, const prefill_cap_terms &cap)
{
    enum { CHUNK = 16, HALF_CHUNKS = HALF_SCORES / CHUNK };
    float last[2] = { 0.0f, 0.0f }, before[2] = { 0.0f, 0.0f };
#pragma unroll
    for (int half = 0; half < PART_HALVES; half++) {
        const float log = load_shared_float(facts + 4 * (L::V_LOGS + part * PART_HALVES + half));
        float up[2], mass[4] = { 0.0f, 0.0f, 0.0f, 0.0f };
#pragma unroll
        for (int row = 0; row < 2; row++) up[row] = log + EIGHT_UP - rows->unit[row];
#pragma unroll
        for (int chunk = half * HALF_CHUNKS; chunk < (half + 1) * HALF_CHUNKS; chunk++) {
            float x[CHUNK], its[2] = { up[0], up[1] };
            if (chunk > 1) its[0] = fmaf(before[0], zero, up[0]), its[1] = fmaf(before[1], zero, up[1]);
#pragma unroll
            for (int i = 0; i < CHUNK; i++) {
                const float score_of = (float)score[chunk * CHUNK + i];
                x[i] = exp2_fast(prefill_logarithm<MAP>(score_of, tile.factor[part * PART_HALVES + half][i / 2 % 2], cap, its[i / 2 % 2]));
                if (MAP != MAP_PLAIN && SUMS && score_of == -INFINITY) x[i] = 0.0f;
            }
            before[0] = last[0], before[1] = last[1], last[0] = x[CHUNK - 4], last[1] = x[CHUNK - 2];
            if constexpr (SUMS)
#pragma unroll
                for (int i = 0; i < CHUNK; i++) mass[i % 4] += x[i];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int at = j / 2 * 8 + j % 2 * 2;
                weight[chunk][j] = pack_e4m3(x[at], x[at + 1], x[at + 4], x[at + 5]);
            }
        }
        if constexpr (SUMS) {
            const float back = exp2_fast(-log);
            rows->mass[0] = fmaf(mass[0] + mass[1], back, rows->mass[0]), rows->mass[1] = fmaf(mass[2] + mass[3], back, rows->mass[1]);
        }
    }
}

#endif
