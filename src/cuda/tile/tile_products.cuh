/* tile_products.cuh - sixteen tokens against a group's rows: scores from K's codes, outputs from V's, exactly decoded in registers.
 *
 * Tokens are the 16 rows of a product S^T = K Q^T, query rows its columns, eight at a time; the output is O^T += V^T P^T. With g =
 * lane / 4 and t = lane % 4, a lane holds the scores of tokens g and g + 8 and columns 2t and 2t + 1. Rows of 8-bit codes come with
 * four neighbours in a register where 16-bit ones have two: the products' inner index is permuted alike for K and Q, and the
 * output's rows are, too. */
#ifndef OCTAVO_CUDA_TILE_TILE_PRODUCTS_CUH
#define OCTAVO_CUDA_TILE_TILE_PRODUCTS_CUH

#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/ptx/ptx_mma.cuh"
#include "cuda/tile/tile_kinds.cuh"

template <bool BF16> static __device__ __forceinline__ void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    if (BF16) mma_bf16(c, a, b0, b1);
    else mma_f16(c, a, b0, b1);
}

/* Element of the query that pair `half` of step `step` begins with, for lane % 4 == t. */
template <int KIND> static __device__ __forceinline__ int query_element(int step, int half, int t)
{
    return KIND == KEY_BF16 || KIND == KEY_F16 ? 16 * step + 8 * half + 2 * t : 16 * step + 4 * t + 2 * half;
}

/* Four 8-bit codes of one token to the operands of tokens g (or g + 8): the inner pairs 2t and 2t + 8. */
template <int KIND> static __device__ __forceinline__ void key_pairs(uint32_t codes, uint32_t *low, uint32_t *high)
{
    if (KIND == KEY_E4M3 || KIND == KEY_E4M3X2) e4m3_to_f16(codes, low, high);
    else if (KIND == KEY_E5M2 || KIND == KEY_E5M2X2) e5m2_to_f16(codes, low, high);
    else int8_to_f16(codes, low, high);
}

/* sums[.][.] += codes of one plane of 8 bits times q. Tiles are `stride` bytes apart; their products take turns. */
template <int DIM, int KIND, int COLS, int TILES>
static __device__ __forceinline__ void dot_bytes(float (&sums)[TILES][COLS][4], const uint32_t (&q)[COLS][DIM / 16][2], uint32_t tile, int stride)
{
    constexpr int PIECES = DIM / 16;
    const int lane = threadIdx.x % 32, row = lane % 16, side = lane / 16;
#pragma unroll
    for (int c = 0; c < PIECES; c += 2) {
        const uint32_t piece = tile + PIECE * tile_piece<PIECES>(row, c + side);
        uint32_t r[TILES][4];
#pragma unroll
        for (int i = 0; i < TILES; i++) ldmatrix(r[i], piece + i * stride);
#pragma unroll
        for (int j = 0; j < 2; j++)
#pragma unroll
            for (int i = 0; i < TILES; i++) {
                uint32_t a[4];
                key_pairs<KIND>(r[i][2 * j], &a[0], &a[2]), key_pairs<KIND>(r[i][2 * j + 1], &a[1], &a[3]);
#pragma unroll
                for (int n = 0; n < COLS; n++) mma_f16(sums[i][n], a, q[n][c + j][0], q[n][c + j][1]);
            }
    }
}

template <int DIM, bool BF16, int COLS, int TILES>
static __device__ __forceinline__ void dot_halves(float (&sums)[TILES][COLS][4], const uint32_t (&q)[COLS][DIM / 16][2], uint32_t tile, int stride)
{
    constexpr int PIECES = DIM / 8;
    const int lane = threadIdx.x % 32, row = lane % 16, side = lane / 16;
    float odd[TILES][COLS][4] = {}; /* every second step: half the length of the chain */
#pragma unroll
    for (int step = 0; step < DIM / 16; step++) {
        const uint32_t piece = tile + PIECE * tile_piece<PIECES>(row, 2 * step + side);
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            uint32_t a[4];
            ldmatrix(a, piece + i * stride);
#pragma unroll
            for (int n = 0; n < COLS; n++) mma<BF16>(step % 2 ? odd[i][n] : sums[i][n], a, q[n][step][0], q[n][step][1]);
        }
    }
#pragma unroll
    for (int i = 0; i < TILES * COLS * 4; i++) (&sums[0][0][0])[i] += (&odd[0][0][0])[i];
}

/* int4x2: bytes hold elements j and j + DIM / 2; with `more` 0 the base alone. */
template <int DIM, bool JOINED, int COLS>
static __device__ __forceinline__ void dot_nibbles(float (&sums)[COLS][4], const uint32_t (&q)[COLS][DIM / 16][2], uint32_t base, uint32_t more)
{
    constexpr int PIECES = DIM / 32;
    const int lane = threadIdx.x % 32, row = lane % 16, side = lane / 16;
#pragma unroll
    for (int c = 0; c + 1 < PIECES; c += 2) {
        uint32_t r[4], m[4];
        ldmatrix(r, base + PIECE * tile_piece<PIECES>(row, c + side));
        if (JOINED) ldmatrix(m, more + PIECE * tile_piece<PIECES>(row, c + side));
#pragma unroll
        for (int j = 0; j < 2; j++) {
            uint32_t a[2][4]; /* of the low and of the high elements */
#pragma unroll
            for (int i = 0; i < 2; i++) {
                if (JOINED) {
                    uint32_t low, high;
                    int4_join(r[2 * j + i], m[2 * j + i], &low, &high);
                    int8_to_f16(low, &a[0][i], &a[0][i + 2]), int8_to_f16(high, &a[1][i], &a[1][i + 2]);
                } else {
                    uint32_t low[2], high[2];
                    int4_base_to_f16(r[2 * j + i], low, high);
                    a[0][i] = low[0], a[0][i + 2] = low[1], a[1][i] = high[0], a[1][i + 2] = high[1];
                }
            }
#pragma unroll
            for (int n = 0; n < COLS; n++) {
                mma_f16(sums[n], a[0], q[n][c + j][0], q[n][c + j][1]);
                mma_f16(sums[n], a[1], q[n][c + j + PIECES][0], q[n][c + j + PIECES][1]);
            }
        }
    }
}

/* Scores of tiles in units of the codes. residual: what a code of the second plane, `more` bytes on, counts in codes of the first. */
template <int DIM, int KIND, int COLS, int TILES>
static __device__ __forceinline__ void tile_scores(float (&sums)[TILES][COLS][4], const uint32_t (&q)[COLS][DIM / 16][2], uint32_t tile, int more,
                                                   int stride, float residual)
{
#pragma unroll
    for (int i = 0; i < TILES * COLS * 4; i++) (&sums[0][0][0])[i] = 0.0f;
    if (KIND == KEY_BF16 || KIND == KEY_F16) dot_halves<DIM, KIND == KEY_BF16, COLS, TILES>(sums, q, tile, stride);
    else if (KIND == KEY_INT4_BASE || KIND == KEY_INT4X2)
#pragma unroll
        for (int i = 0; i < TILES; i++) dot_nibbles<DIM, KIND == KEY_INT4X2, COLS>(sums[i], q, tile + i * stride, tile + i * stride + more);
    else dot_bytes<DIM, KIND, COLS, TILES>(sums, q, tile, stride);
    if (KIND != KEY_E4M3X2 && KIND != KEY_E5M2X2 && KIND != KEY_INT8X2) return;
    float rest[TILES][COLS][4] = {};
    dot_bytes<DIM, KIND, COLS, TILES>(rest, q, tile + more, stride);
#pragma unroll
    for (int i = 0; i < TILES * COLS * 4; i++) (&sums[0][0][0])[i] = fmaf((&rest[0][0][0])[i], residual, (&sums[0][0][0])[i]);
}

/* ---- outputs ---- */

/* Weights of a tile as operands: of tokens 2t.. and 2t + 8.., in one or two terms. */
template <int COLS> struct tile_weights {
    uint32_t first[COLS][2], second[COLS][2];
};

/* P in the layout of scores; two terms hold the weight to 16 (bf16) or 22 (f16) bits. */
template <int KIND, int COLS> static __device__ __forceinline__ tile_weights<COLS> weights_of(const float (&p)[COLS][4])
{
    constexpr bool BF16 = KIND == VALUE_BF16 || KIND == VALUE_E4M3, TWICE = KIND == VALUE_BF16 || KIND == VALUE_F16;
    tile_weights<COLS> w;
#pragma unroll
    for (int n = 0; n < COLS; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float low = p[n][2 * i], high = p[n][2 * i + 1];
            const uint32_t pair = BF16 ? pack_bf16(low, high) : pack_f16(low, high);
            w.first[n][i] = transpose(pair);
            w.second[n][i] = 0;
            if (!TWICE) continue;
            const float low_rest = low - (BF16 ? bf16_low(pair) : f16_low(pair)), high_rest = high - (BF16 ? bf16_high(pair) : f16_high(pair));
            w.second[n][i] = transpose(BF16 ? pack_bf16(low_rest, high_rest) : pack_f16(low_rest, high_rest));
        }
    return w;
}

/* out[m] [16 elements, 8 columns] += V^T P^T. */
template <int DIM, bool BF16, int COLS>
static __device__ __forceinline__ void add_halves(float (&out)[COLS][DIM / 16][4], const tile_weights<COLS> &w, uint32_t tile)
{
    constexpr int PIECES = DIM / 8;
    const int lane = threadIdx.x % 32, row = lane % 8 + lane / 16 * 8, side = lane / 8 % 2;
#pragma unroll
    for (int m = 0; m < DIM / 16; m++) {
        uint32_t a[4];
        ldmatrix_transposed(a, tile + PIECE * tile_piece<PIECES>(row, 2 * m + side));
#pragma unroll
        for (int n = 0; n < COLS; n++) {
            mma<BF16>(out[n][m], a, w.first[n][0], w.first[n][1]);
            mma<BF16>(out[n][m], a, w.second[n][0], w.second[n][1]);
        }
    }
}

/* The same of 8-bit rows: row g of out[m] is element 16 m + 2 g, row g + 8 the one after it. */
template <int DIM, int KIND, int COLS>
static __device__ __forceinline__ void add_bytes(float (&out)[COLS][DIM / 16][4], const tile_weights<COLS> &w, uint32_t tile)
{
    constexpr int PIECES = DIM / 16;
    const int lane = threadIdx.x % 32, row = lane % 16, side = lane / 16;
#pragma unroll
    for (int c = 0; c < PIECES; c += 2) {
        uint32_t r[4];
        ldmatrix_transposed(r, tile + PIECE * tile_piece<PIECES>(row, c + side));
#pragma unroll
        for (int j = 0; j < 2; j++) {
            uint32_t a[4];
#pragma unroll
            for (int i = 0; i < 2; i++) { /* bytes: tokens 2t and 2t + 1 of two elements each */
                if (KIND == VALUE_E4M3) e4m3_to_tiny_bf16(r[2 * j + i], &a[2 * i], &a[2 * i + 1]);
                else int8_to_f16(permute(r[2 * j + i], 0, 0x3120), &a[2 * i], &a[2 * i + 1]);
            }
#pragma unroll
            for (int n = 0; n < COLS; n++) mma<KIND == VALUE_E4M3>(out[n][c + j], a, w.first[n][0], w.first[n][1]);
        }
    }
}

template <int DIM, int KIND, int COLS>
static __device__ __forceinline__ void tile_outputs(float (&out)[COLS][DIM / 16][4], const float (&p)[COLS][4], uint32_t tile)
{
    const tile_weights<COLS> w = weights_of<KIND, COLS>(p);
    if (KIND == VALUE_BF16 || KIND == VALUE_F16) add_halves<DIM, KIND == VALUE_BF16, COLS>(out, w, tile);
    else add_bytes<DIM, KIND, COLS>(out, w, tile);
}

/* Element of the output in register i of out[m]. */
template <int KIND> static __device__ __forceinline__ int output_element(int m, int i, int g)
{
    return KIND == VALUE_BF16 || KIND == VALUE_F16 ? 16 * m + g + (i >= 2 ? 8 : 0) : 16 * m + 2 * g + (i >= 2 ? 1 : 0);
}

#endif
