/* stream_stage.cuh - what a stage of a stream of keys and values holds, and how boxes that the copy engine swizzled are multiplied. */
#ifndef OCTAVO_CUDA_SM90_STREAM_STAGE_CUH
#define OCTAVO_CUDA_SM90_STREAM_STAGE_CUH

#include "cuda/tile/tile_products.cuh"

static __host__ __device__ constexpr bool key_is_half(int kind) { return kind == KEY_BF16 || kind == KEY_F16; }
static __host__ __device__ constexpr bool value_is_half(int kind) { return kind == VALUE_BF16 || kind == VALUE_F16; }

enum { STREAM_WARPS = 8, STREAM_THREADS = 32 * STREAM_WARPS, BOX_BYTES = 128 /* of a row, at most */ };

/* A stage: K's boxes, V's boxes; scales apart. */
template <int DIM, int KEY, int VALUE> struct stream_stage {
    static constexpr int K_ROW = DIM * (key_is_half(KEY) ? 2 : 1), V_ROW = DIM * (value_is_half(VALUE) ? 2 : 1);
    static constexpr int TILES = K_ROW + V_ROW > 256 ? 1 : 2, TOKENS = TILES * TILE_TOKENS;
    static constexpr int V_AT = TOKENS * K_ROW, BYTES = V_AT + TOKENS * V_ROW;
    static constexpr int K_SCALES = TOKENS * key_width(KEY), V_SCALES = TOKENS * value_width(VALUE), V_SCALES_AT = 64, SCALES = 128;
    static constexpr int EACH = 2, SLOTS = EACH * STREAM_WARPS; /* a warp's own slots are every STREAM_WARPS-th */
};

/* Byte of piece c of row r in boxes of ROW bytes a row, 128 at most a box, `tokens` rows each. */
template <int ROW> static __device__ __forceinline__ int box_piece(int r, int c, int tokens)
{
    if (ROW < BOX_BYTES) return PIECE * tile_piece<ROW / PIECE>(r, c);
    return c / 8 * tokens * BOX_BYTES + PIECE * tile_piece<8>(r, c % 8);
}

/* Bytes from one tile of a stage to the next. */
template <int ROW> static __host__ __device__ constexpr int tile_stride() { return TILE_TOKENS * (ROW < BOX_BYTES ? ROW : BOX_BYTES); }

/* sums = codes times q. */
template <int DIM, int KEY, int TILES>
static __device__ __forceinline__ void stream_scores(float (&sums)[TILES][4], const uint32_t (&q)[DIM / 16][2], uint32_t keys)
{
    constexpr int ROW = DIM * (key_is_half(KEY) ? 2 : 1), PIECES = ROW / PIECE;
    const int lane = threadIdx.x % 32, row = lane % 16, side = lane / 16;
    float odd[TILES][4] = {}; /* every second step: half the length of the chain */
#pragma unroll
    for (int i = 0; i < TILES; i++) sums[i][0] = sums[i][1] = sums[i][2] = sums[i][3] = 0.0f;
#pragma unroll
    for (int c = 0; c < PIECES; c += 2)
#pragma unroll
        for (int i = 0; i < TILES; i++) {
            uint32_t r[4];
            ldmatrix(r, keys + i * tile_stride<ROW>() + box_piece<ROW>(row, c + side, TILES * TILE_TOKENS));
            if constexpr (key_is_half(KEY)) {
                mma<KEY == KEY_BF16>(c / 2 % 2 ? odd[i] : sums[i], r, q[c / 2][0], q[c / 2][1]);
            } else {
#pragma unroll
                for (int j = 0; j < 2; j++) {
                    uint32_t a[4];
                    key_pairs<KEY>(r[2 * j], &a[0], &a[2]), key_pairs<KEY>(r[2 * j + 1], &a[1], &a[3]);
                    mma_f16(j ? odd[i] : sums[i], a, q[c + j][0], q[c + j][1]);
                }
            }
        }
#pragma unroll
    for (int i = 0; i < TILES * 4; i++) sums[i / 4][i % 4] += odd[i / 4][i % 4];
}

/* A tile's weights as operands, of tokens 2t.. and 2t + 8..; two terms where V has 16 bits. */
struct stream_weights {
    uint32_t first[2], second[2];
};

template <int VALUE> static __device__ __forceinline__ stream_weights stream_weights_of(const float (&p)[4])
{
    constexpr bool BF16 = VALUE == VALUE_BF16;
    stream_weights w = {};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const float low = p[2 * i], high = p[2 * i + 1];
        const uint32_t pair = BF16 ? pack_bf16(low, high) : pack_f16(low, high);
        w.first[i] = transpose(pair);
        if (!value_is_half(VALUE)) continue;
        const float low_rest = low - (BF16 ? bf16_low(pair) : f16_low(pair)), high_rest = high - (BF16 ? bf16_high(pair) : f16_high(pair));
        w.second[i] = transpose(BF16 ? pack_bf16(low_rest, high_rest) : pack_f16(low_rest, high_rest));
    }
    return w;
}

/* Bytes of two elements each of tokens 2t and 2t + 1, as f16 pairs of tokens. */
template <int VALUE> static __device__ __forceinline__ void value_pairs(uint32_t codes, uint32_t *first, uint32_t *second)
{
    if (VALUE == VALUE_E4M3) {
        e4m3_to_f16(permute(codes, 0, 0x3120), first, second);
    } else { /* as int8_to_f16, the bytes in their new order at once */
        const uint32_t shifted = codes ^ 0x80808080u, magic = 0x64646464u, bias = 0x64806480u;
        *first = f16_subtract(permute(shifted, magic, 0x4240), bias), *second = f16_subtract(permute(shifted, magic, 0x4341), bias);
    }
}

/* out += V^T P^T of a tile. */
template <int DIM, int VALUE, int TILES>
static __device__ __forceinline__ void stream_outputs(float (&out)[DIM / 16][4], const float (&p)[4], uint32_t tile)
{
    constexpr int ROW = DIM * (value_is_half(VALUE) ? 2 : 1);
    const stream_weights w = stream_weights_of<VALUE>(p);
    const int lane = threadIdx.x % 32;
    if constexpr (value_is_half(VALUE)) {
        const int row = lane % 8 + lane / 16 * 8, side = lane / 8 % 2;
#pragma unroll
        for (int m = 0; m < DIM / 16; m++) {
            uint32_t a[4];
            ldmatrix_transposed(a, tile + box_piece<ROW>(row, 2 * m + side, TILES * TILE_TOKENS));
            mma<VALUE == VALUE_BF16>(out[m], a, w.first[0], w.first[1]);
            mma<VALUE == VALUE_BF16>(out[m], a, w.second[0], w.second[1]);
        }
    } else {
        const int row = lane % 16, side = lane / 16;
#pragma unroll
        for (int c = 0; c < DIM / 16; c += 2) {
            uint32_t r[4];
            ldmatrix_transposed(r, tile + box_piece<ROW>(row, c + side, TILES * TILE_TOKENS));
#pragma unroll
            for (int j = 0; j < 2; j++) {
                uint32_t a[4];
#pragma unroll
                for (int i = 0; i < 2; i++) value_pairs<VALUE>(r[2 * j + i], &a[2 * i], &a[2 * i + 1]);
                mma_f16(out[c + j], a, w.first[0], w.first[1]);
            }
        }
    }
}

#endif
