/* attend_state.cuh - one warp's running softmax over tiles of 16 tokens: maxima, sums and outputs of 8 COLS rows, and what it leaves. */
#ifndef OCTAVO_CUDA_TILE_ATTEND_STATE_CUH
#define OCTAVO_CUDA_TILE_ATTEND_STATE_CUH

#include "cuda/tile/decode_call.cuh"
#include "cuda/tile/tile_products.cuh"

static constexpr float SLACK = 4.0f;
static constexpr int F16_LIFT = 11; /* P is raised by 2^11 in f16; by 2^100 where V is 2^-120 of itself */

/* One warp's running state. */
template <int DIM, int COLS> struct attend_state {
    float out[COLS][DIM / 16][4];
    float max[COLS][2], sum[COLS][2];
    int lift; /* exponent of V's factors that P is divided by: VALUE_INT8 */
};

/* Raises the running maxima to those of x and everything relative to them. */
template <int DIM, int COLS, int TILES>
static __device__ __forceinline__ void raise_maxima(attend_state<DIM, COLS> &of, const float (&x)[TILES][COLS][4])
{
#pragma unroll
    for (int n = 0; n < COLS; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float max = NOTHING;
#pragma unroll
            for (int j = 0; j < TILES; j++) max = fmaxf(max, fmaxf(x[j][n][i], x[j][n][i + 2]));
#pragma unroll
            for (int step = 4; step < 32; step *= 2) max = fmaxf(max, __shfl_xor_sync(WHOLE_WARP, max, step));
            if (!(max > of.max[n][i])) continue; /* the same for all lanes of the column */
            const float down = of.max[n][i] == NOTHING ? 0.0f : exp2_fast(of.max[n][i] - max);
            of.max[n][i] = max, of.sum[n][i] *= down;
#pragma unroll
            for (int m = 0; m < DIM / 16; m++) of.out[n][m][i] *= down, of.out[n][m][i + 2] *= down;
        }
}

/* Weights exp2(x - max) in the place of scores x, added to the denominators. */
template <int DIM, int COLS, int TILES>
static __device__ __forceinline__ void weigh(attend_state<DIM, COLS> &of, float (&x)[TILES][COLS][4])
{
    bool higher = false;
#pragma unroll
    for (int j = 0; j < TILES; j++)
#pragma unroll
        for (int n = 0; n < COLS; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) higher |= x[j][n][i] > of.max[n][i % 2] + SLACK;
    if (__any_sync(WHOLE_WARP, higher)) raise_maxima<DIM, COLS, TILES>(of, x);
#pragma unroll
    for (int n = 0; n < COLS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const float from = of.max[n][i % 2] == NOTHING ? 0.0f : of.max[n][i % 2]; /* exp2(-inf) is 0 */
#pragma unroll
            for (int j = 0; j < TILES; j++) {
                x[j][n][i] = exp2_fast(x[j][n][i] - from);
                of.sum[n][i % 2] += x[j][n][i];
            }
        }
}

/* P is lifted where V is decoded to something else than itself, and takes in V's factors of tokens g and g + 8. */
template <int DIM, int VALUE, int COLS>
static __device__ __forceinline__ void fold_factors(attend_state<DIM, COLS> &of, float (&p)[COLS][4], float low, float high)
{
    float lift = VALUE == VALUE_E4M3 ? 0x1p100f : VALUE == VALUE_F16 ? 0x1p11f : 1.0f;
    if (VALUE == VALUE_BF16) return;
    if (VALUE == VALUE_INT8) {
        const int mine = (int)((__float_as_uint(fmaxf(low, high)) >> 23) & 255u) - 126; /* factors are below 2^this */
        const int most = __reduce_max_sync(WHOLE_WARP, mine);
        if (most > of.lift) {
            const int drop = of.lift - most < -250 ? -250 : of.lift - most;
            const float down = exp2_fast((float)drop);
            of.lift = most;
#pragma unroll
            for (int n = 0; n < COLS; n++)
#pragma unroll
                for (int m = 0; m < DIM / 16; m++)
#pragma unroll
                    for (int i = 0; i < 4; i++) of.out[n][m][i] *= down;
        }
        lift = __uint_as_float((uint32_t)(127 + F16_LIFT - 10) << 23); /* in two steps: 2^(11 - lift) may be no float */
        const float rest = exp2_fast((float)(10 - of.lift) * 0.5f);
        low = low * rest * rest, high = high * rest * rest;
    }
#pragma unroll
    for (int n = 0; n < COLS; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) p[n][i] = p[n][i] == 0.0f ? 0.0f : p[n][i] * (i < 2 ? low : high) * lift;
}

/* What the accumulated output is to be multiplied by, as two factors: their product may be no float. */
struct two_factors {
    float first, second;
};

template <int VALUE> static __device__ __forceinline__ two_factors unlift_of(int lift)
{
    if (VALUE == VALUE_E4M3) return { 0x1p20f, 1.0f };
    if (VALUE == VALUE_F16) return { 0x1p-11f, 1.0f };
    if (VALUE != VALUE_INT8) return { 1.0f, 1.0f };
    const int up = lift < -200 ? -200 : lift - F16_LIFT, half = up / 2;
    return { __uint_as_float((uint32_t)(127 + half) << 23), __uint_as_float((uint32_t)(127 + up - half) << 23) };
}

/* A warp's results in shared memory: [8 COLS] maxima, [8 COLS] sums, [DIM, 8 COLS] outputs. */
template <int DIM, int COLS> struct warp_result {
    float max[8 * COLS], sum[8 * COLS], out[DIM][8 * COLS];
};

/* Adds the state's output to what is there (relative to maxima that were no larger), and empties it. */
template <int DIM, int VALUE, int COLS>
static __device__ __forceinline__ void put_result(attend_state<DIM, COLS> &of, warp_result<DIM, COLS> *to, bool begin)
{
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    const two_factors up = unlift_of<VALUE>(of.lift);
#pragma unroll
    for (int n = 0; n < COLS; n++) {
        const int column = 8 * n + 2 * t;
        float down[2], sum[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float before = begin ? NOTHING : to->max[column + i];
            down[i] = before == NOTHING ? 0.0f : exp2_fast(before - of.max[n][i]), sum[i] = of.sum[n][i];
#pragma unroll
            for (int step = 4; step < 32; step *= 2) sum[i] += __shfl_xor_sync(WHOLE_WARP, sum[i], step);
        }
#pragma unroll
        for (int m = 0; m < DIM / 16; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float2 *out = (float2 *)&to->out[output_element<VALUE>(m, 2 * half, g)][column], x;
                x.x = of.out[n][m][2 * half] * up.first * up.second, x.y = of.out[n][m][2 * half + 1] * up.first * up.second;
                *out = begin ? x : make_float2(out->x * down[0] + x.x, out->y * down[1] + x.y);
                of.out[n][m][2 * half] = of.out[n][m][2 * half + 1] = 0.0f;
            }
        __syncwarp();
        if (g == 0) *(float2 *)&to->max[column] = make_float2(of.max[n][0], of.max[n][1]), *(float2 *)&to->sum[column] = make_float2(sum[0], sum[1]);
    }
    __syncwarp();
}

#endif
