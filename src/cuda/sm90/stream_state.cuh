/* stream_state.cuh - one warp's running softmax over stages of a stream: bases, sums and outputs of eight rows.
 *
 * A weight is 2^(score + e - base), where V's factor is mantissa * 2^e: what meets V's codes is then at most 2^(LIFT + SLACK) times a
 * mantissa below 2, so that f16 holds it, and what denominators add up is the weight times 2^-e. A base may lag by SLACK before
 * anything is rescaled. */
#ifndef OCTAVO_CUDA_SM90_STREAM_STATE_CUH
#define OCTAVO_CUDA_SM90_STREAM_STATE_CUH

#include "cuda/tile/decode_call.cuh"
#include "cuda/tile/tile_products.cuh"
#include "cuda/tile/tile_ring.cuh"

static constexpr float SLACK = 4.0f, LIFT = 10.0f;
static constexpr float UNSET = -1e30f; /* the base of a column that has met no score */

/* One warp's running state. */
template <int DIM> struct stream_state {
    float out[DIM / 16][4];
    float base[2], sum[2]; /* of columns 2t and 2t + 1 */
};

template <int DIM> static __device__ __forceinline__ void begin_state(stream_state<DIM> &of)
{
    of.base[0] = of.base[1] = UNSET, of.sum[0] = of.sum[1] = 0.0f;
#pragma unroll
    for (int m = 0; m < DIM / 16; m++) of.out[m][0] = of.out[m][1] = of.out[m][2] = of.out[m][3] = 0.0f;
}

/* V's factors of two tokens. */
template <int VALUE> struct value_factors {
    float exponent[2], inverse[2], mantissa[2]; /* e, 2^-e */
    bool plain;                                 /* mantissas are 1 */
};

/* e in a range in which sums of weights times 2^-e are floats; the mantissa takes the rest. */
enum { EXPONENT_LEAST = -80, EXPONENT_MOST = 120 };

static __device__ __forceinline__ int held_exponent(int exponent)
{
    return exponent < EXPONENT_LEAST ? EXPONENT_LEAST : exponent > EXPONENT_MOST ? EXPONENT_MOST : exponent;
}

/* V's factor of the lane's token i of two: 2^-p. */
template <int VALUE> static __device__ __forceinline__ void put_exponent(value_factors<VALUE> &of, int i, int p)
{
    const int held = held_exponent(-p);
    of.exponent[i] = (float)held, of.inverse[i] = __int_as_float((127 - held) << 23);
    of.mantissa[i] = __int_as_float((127 - p - held) << 23), of.plain &= held == -p;
}

/* Of a tile's tokens g and g + 8. */
template <int VALUE> static __device__ __forceinline__ value_factors<VALUE> value_factors_of(uint32_t scales, int g)
{
    value_factors<VALUE> of = { { 0.0f, 0.0f }, { 1.0f, 1.0f }, { 1.0f, 1.0f }, true };
#pragma unroll
    for (int i = 0; i < 2; i++) {
        if (VALUE == VALUE_E4M3) {
            int p;
            asm volatile("ld.shared.s8 %0, [%1];" : "=r"(p) : "r"(scales + g + 8 * i) : "memory");
            put_exponent(of, i, p);
        } else if (VALUE == VALUE_INT8) {
            const float scale = tile_factor<2>(scales, g + 8 * i);
            const int held = held_exponent((int)((__float_as_uint(scale) >> 23) & 255u) - 127);
            of.exponent[i] = (float)held, of.inverse[i] = __int_as_float((127 - held) << 23);
            of.mantissa[i] = scale * of.inverse[i], of.plain = false;
        }
    }
    return of;
}

/* Scores of tokens from a column's end on become -inf: of the lane's tokens g and g + 8 of tiles that begin with `token`. */
template <int TILES> static __device__ __forceinline__ void hide_beyond(int token, const int (&ends)[2], int g, float (&x)[TILES][4])
{
#pragma unroll
    for (int i = 0; i < TILES * 4; i++)
        if (token + i / 4 * TILE_TOKENS + g + i % 4 / 2 * 8 >= ends[i % 2]) x[i / 4][i % 4] = NOTHING;
}

/* Raises the bases to where x asks for and everything relative to them. */
template <int DIM, int TILES>
static __device__ __forceinline__ void raise_bases(stream_state<DIM> &of, const float (&x)[TILES][4])
{
#pragma unroll
    for (int i = 0; i < 2; i++) {
        float base = NOTHING;
#pragma unroll
        for (int j = 0; j < TILES; j++) base = fmaxf(base, fmaxf(x[j][i], x[j][i + 2]));
#pragma unroll
        for (int step = 4; step < 32; step *= 2) base = fmaxf(base, __shfl_xor_sync(WHOLE_WARP, base, step));
        base -= LIFT;
        if (!(base > of.base[i])) continue; /* the same for all lanes of the column */
        const float down = exp2_fast(of.base[i] - base);
        of.base[i] = base, of.sum[i] *= down;
#pragma unroll
        for (int m = 0; m < DIM / 16; m++) of.out[m][i] *= down, of.out[m][i + 2] *= down;
    }
}

/* Scores x + e become weights, which join the denominators and then are what V's codes are multiplied by. */
template <int DIM, int VALUE, int TILES>
static __device__ __forceinline__ void weigh_stage(stream_state<DIM> &of, float (&x)[TILES][4], const value_factors<VALUE> (&factors)[TILES])
{
    [[maybe_unused]] bool plain = true;
    bool higher = false;
#pragma unroll
    for (int j = 0; j < TILES; j++) plain &= factors[j].plain;
#pragma unroll
    for (int i = 0; i < TILES * 4; i++) higher |= x[i / 4][i % 4] > of.base[i % 2] + (LIFT + SLACK);
    if (__any_sync(WHOLE_WARP, higher)) raise_bases<DIM, TILES>(of, x);
#pragma unroll
    for (int i = 0; i < TILES * 4; i++) {
        float &weight = x[i / 4][i % 4];
        weight = exp2_fast(weight - of.base[i % 2]);
        of.sum[i % 2] = fmaf(weight, factors[i / 4].inverse[i % 4 / 2], of.sum[i % 2]);
    }
    if constexpr (value_width(VALUE) != 0) {
        if (value_width(VALUE) == 1 && plain) return;
#pragma unroll
        for (int i = 0; i < TILES * 4; i++) x[i / 4][i % 4] *= factors[i / 4].mantissa[i % 4 / 2];
    }
}

#endif
