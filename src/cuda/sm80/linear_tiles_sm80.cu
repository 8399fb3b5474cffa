/* linear_tiles_sm80.cu - W times a few tokens through the matrix unit. Bound by reading W.
 *
 * A block has 16 MT rows of W and 8 NT tokens; its warps take turns over the columns and add up in shared memory. A lane's 16 bytes
 * of a row are several steps' operands: the products' inner index is permuted alike for W and x. Codes are decoded exactly. */
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/ptx/ptx_mma.cuh"
#include "cuda/tile/linear_call.cuh"
#include "cuda/tile/reduce.cuh"

enum { PIECE_BYTES = 16, LANES_A_ROW = 4 };

/* MT tiles of 16 rows, NT of 8 tokens; AHEAD steps of W are on their way at a time. */
template <int KIND_, int MT_, int NT_, int WARPS_, int AHEAD_> struct linear_config {
    enum { KIND = KIND_, MT = MT_, NT = NT_, WARPS = WARPS_, AHEAD = AHEAD_, THREADS = 32 * WARPS_ };
    enum { W_BYTES = KIND_ == LINEAR_BF16 ? 2 : 1, X_BYTES = KIND_ == LINEAR_E4M3_E4M3 || KIND_ == LINEAR_INT8_INT8 ? 1 : 2 };
    enum { EACH = PIECE_BYTES / W_BYTES, SPAN = LANES_A_ROW * EACH /* columns of a step */, X_PIECES = X_BYTES / W_BYTES > 0 ? X_BYTES / W_BYTES : 1 };
};

template <int KIND> struct linear_sum { typedef float type; };
template <> struct linear_sum<LINEAR_INT8_INT8> { typedef int32_t type; };

static __device__ __forceinline__ void e4m3_pairs(uint32_t codes, uint32_t *low, uint32_t *high)
{
    e4m3_to_f16(codes, low, high);
#if __CUDA_ARCH__ < 890
    const uint32_t odd = __vcmpeq4(codes & 0x7f7f7f7fu, 0x7f7f7f7fu); /* the shift does not know NaN */
    *low |= permute(odd, 0, 0x1404), *high |= permute(odd, 0, 0x3424);
#endif
}

static __device__ __forceinline__ uint32_t bf16_of_f16(uint32_t pair) { return pack_bf16(f16_low(pair), f16_high(pair)); }

/* Four codes of W to the two operands that a step takes of a row. */
template <int KIND> static __device__ __forceinline__ void weight_pairs(uint32_t codes, uint32_t *low, uint32_t *high)
{
    if (KIND == LINEAR_E4M3 || KIND == LINEAR_E4M3_E4M3) e4m3_pairs(codes, low, high);
    else int8_to_f16(codes, low, high);
    if (KIND != LINEAR_E4M3_E4M3) *low = bf16_of_f16(*low), *high = bf16_of_f16(*high);
}

/* A lane's pieces of two rows of W, and of one token of x. */
struct weight_piece {
    uint32_t top[4], bottom[4];
};

/* sum += the step's products. */
template <int KIND>
static __device__ __forceinline__ void multiply_step(typename linear_sum<KIND>::type (&sum)[4], const weight_piece &w, const uint32_t *x)
{
    if constexpr (KIND == LINEAR_INT8_INT8) {
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            const uint32_t a[4] = { w.top[i], w.bottom[i], w.top[i + 1], w.bottom[i + 1] };
            mma_int8(sum, a, x[i], x[i + 1]);
        }
    } else if constexpr (KIND == LINEAR_BF16) {
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            const uint32_t a[4] = { w.top[i], w.bottom[i], w.top[i + 1], w.bottom[i + 1] };
            mma_bf16(sum, a, x[i], x[i + 1]);
        }
    } else {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t a[4], low, high;
            weight_pairs<KIND>(w.top[i], &a[0], &a[2]);
            weight_pairs<KIND>(w.bottom[i], &a[1], &a[3]);
            if constexpr (KIND == LINEAR_E4M3_E4M3) {
                e4m3_pairs(x[i], &low, &high);
                mma_f16(sum, a, low, high);
            } else {
                mma_bf16(sum, a, x[2 * i], x[2 * i + 1]);
            }
        }
    }
}

static __device__ __forceinline__ void load_piece(uint32_t (&to)[4], const uint8_t *from, bool there)
{
    const uint4 piece = there ? *(const uint4 *)from : make_uint4(0, 0, 0, 0);
    to[0] = piece.x, to[1] = piece.y, to[2] = piece.z, to[3] = piece.w;
}

/* Halves whose bf16 is not finite have all bits set. */
static __device__ __forceinline__ uint32_t odd_halves(uint32_t pair) { return __vcmpeq2(pair & 0x7f807f80u, 0x7f807f80u); }

/* The warp's share of the columns: sums of 16 MT rows and 8 NT tokens. odd[n]: not 0 where what this lane read of its token is not
 * finite, as far as x is the caller's. */
template <typename C>
static __device__ __forceinline__ void multiply_share(const linear_call &c, const octavo_weight &weight, int64_t first_row, int64_t first_token,
                                                      typename linear_sum<C::KIND>::type (&sum)[C::MT][C::NT][4], uint32_t (&odd)[C::NT])
{
    const int warp = (int)threadIdx.x / 32, g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    const int64_t rows = weight.codes.shape[0], steps = (c.in + C::SPAN - 1) / C::SPAN;
    const bool has_blocks = octavo_weight_has_blocks(&weight);
    const uint8_t *w[C::MT][2], *x[C::NT];
#pragma unroll
    for (int m = 0; m < C::MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const int64_t row = first_row + 16 * m + 8 * half + g;
            w[m][half] = (const uint8_t *)weight.codes.data + (row < rows ? row : rows - 1) * weight.codes.strides[0] * C::W_BYTES + PIECE_BYTES * t;
        }
#pragma unroll
    for (int n = 0; n < C::NT; n++) {
        const int64_t token = first_token + 8 * n + g;
        x[n] = (const uint8_t *)c.x + ((token < c.tokens ? token : c.tokens - 1) * c.x_stride + C::EACH * t) * C::X_BYTES;
    }
    weight_piece piece[C::AHEAD][C::MT];
    auto fetch = [&](weight_piece (&to)[C::MT], int64_t at) {
        const bool there = at * C::SPAN + C::EACH * t < c.in;
#pragma unroll
        for (int m = 0; m < C::MT; m++) {
            load_piece(to[m].top, w[m][0] + at * C::SPAN * C::W_BYTES, there);
            load_piece(to[m].bottom, w[m][1] + at * C::SPAN * C::W_BYTES, there);
        }
    };
#pragma unroll
    for (int ahead = 0; ahead < C::AHEAD; ahead++) fetch(piece[ahead], warp + ahead * C::WARPS);
    wait_for_kernel_before(); /* which rounds x; W was there before that began */
    for (int64_t step = warp; step < steps; step += C::WARPS * C::AHEAD)
#pragma unroll
        for (int ahead = 0; ahead < C::AHEAD; ahead++) {
            const int64_t at = step + ahead * C::WARPS;
            if (at >= steps) break;
            weight_piece now[C::MT];
#pragma unroll
            for (int m = 0; m < C::MT; m++) now[m] = piece[ahead][m];
            fetch(piece[ahead], at + C::AHEAD * C::WARPS);
            float scale[C::MT][2];
#pragma unroll
            for (int m = 0; m < C::MT && has_blocks; m++)
#pragma unroll
                for (int half = 0; half < 2; half++) {
                    const int64_t row = first_row + 16 * m + 8 * half + g;
                    scale[m][half] = octavo_weight_scale(&weight, row < rows ? row : rows - 1, at * C::SPAN);
                }
#pragma unroll
            for (int n = 0; n < C::NT; n++) {
                uint32_t code[C::X_PIECES][4];
#pragma unroll
                for (int i = 0; i < C::X_PIECES; i++) {
                    load_piece(code[i], x[n] + at * C::SPAN * C::X_BYTES + PIECE_BYTES * i, true);
                    if (C::X_BYTES == 2) odd[n] |= odd_halves(code[i][0]) | odd_halves(code[i][1]) | odd_halves(code[i][2]) | odd_halves(code[i][3]);
                }
#pragma unroll
                for (int m = 0; m < C::MT; m++) {
                    if (C::KIND == LINEAR_INT8_INT8 || !has_blocks) {
                        multiply_step<C::KIND>(sum[m][n], now[m], &code[0][0]);
                    } else {
                        typename linear_sum<C::KIND>::type part[4] = {};
                        multiply_step<C::KIND>(part, now[m], &code[0][0]);
#pragma unroll
                        for (int i = 0; i < 4; i++) sum[m][n][i] += part[i] * scale[m][i / 2];
                    }
                }
            }
        }
}

/* Grid (row tiles of all parts, groups of 8 NT tokens). */
template <typename C> static __global__ void __launch_bounds__(C::THREADS) linear_tiles(const __grid_constant__ linear_call c)
{
    typedef typename linear_sum<C::KIND>::type sum_type;
    enum { ROWS = 16 * C::MT, TOKENS = 8 * C::NT, PAD = 1 };
    __shared__ sum_type sums[C::WARPS][TOKENS][ROWS + PAD];
    __shared__ uint32_t odd_tokens[C::WARPS][TOKENS];
    const int index = linear_part_of(c, (int)blockIdx.x), warp = (int)threadIdx.x / 32, g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    const octavo_linear_part &part = c.p.parts[index];
    const octavo_weight &weight = part.weight;
    const int64_t first_row = ((int64_t)blockIdx.x - c.tiles[index]) * ROWS, first_token = (int64_t)blockIdx.y * TOKENS;
    sum_type sum[C::MT][C::NT][4] = {};
    uint32_t odd[C::NT] = {};
    multiply_share<C>(c, weight, first_row, first_token, sum, odd);
#pragma unroll
    for (int n = 0; n < C::NT; n++) {
        odd[n] |= __shfl_xor_sync(WHOLE_WARP, odd[n], 1);
        odd[n] |= __shfl_xor_sync(WHOLE_WARP, odd[n], 2);
        if (t == 0) odd_tokens[warp][8 * n + g] = odd[n];
    }
#pragma unroll
    for (int m = 0; m < C::MT; m++)
#pragma unroll
        for (int n = 0; n < C::NT; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) sums[warp][8 * n + 2 * t + i % 2][16 * m + g + (i < 2 ? 0 : 8)] = sum[m][n][i];
    __syncthreads();
    for (int i = (int)threadIdx.x; i < ROWS * TOKENS; i += C::THREADS) {
        const int64_t row = first_row + i % ROWS, token = first_token + i / ROWS;
        if (row >= weight.codes.shape[0] || token >= c.tokens) continue;
        sum_type whole = 0;
        uint32_t any = 0;
        for (int from = 0; from < C::WARPS; from++) whole += sums[from][i / ROWS][i % ROWS], any |= odd_tokens[from][i / ROWS];
        linear_store(c, part, token, row, (float)whole * (octavo_weight_has_blocks(&weight) ? 1.0f : octavo_weight_scale(&weight, row, 0)),
                     c.factors ? c.factors[token] : any ? NAN : 1.0f);
    }
}

template <typename C> static octavo_status launch(const octavo_exec *exec, const linear_call &planned)
{
    linear_call call = planned;
    call.tiles[call.first] = 0;
    for (int i = call.first; i < call.end; i++) call.tiles[i + 1] = call.tiles[i] + (int)octavo_cuda_ceil(octavo_linear_out(&call.p, i), 16 * C::MT);
    const int64_t groups = octavo_cuda_ceil(call.tokens, 8 * C::NT);
    if (groups > 65535) return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "x has %lld tokens, expected at most %d on a GPU", (long long)call.tokens, 65535 * 8);
    return octavo_cuda_launch(linear_tiles<C>, "linear", dim3((unsigned)call.tiles[call.end], (unsigned)groups), C::THREADS, 0, exec, call);
}

template <int KIND> static octavo_status launch_kind(const octavo_exec *exec, const linear_call &call)
{
    if (call.tokens <= 8) return launch<linear_config<KIND, 1, 1, 8, 4>>(exec, call);
    if (call.tokens <= 16) return launch<linear_config<KIND, 1, 2, 8, 2>>(exec, call);
    return launch<linear_config<KIND, 2, 8, 4, 1>>(exec, call);
}

octavo_status octavo_linear_tiles(const octavo_exec *exec, const linear_call &call, linear_kind kind)
{
    switch (kind) {
    case LINEAR_BF16: return launch_kind<LINEAR_BF16>(exec, call);
    case LINEAR_E4M3: return launch_kind<LINEAR_E4M3>(exec, call);
    case LINEAR_INT8: return launch_kind<LINEAR_INT8>(exec, call);
    case LINEAR_E4M3_E4M3: return launch_kind<LINEAR_E4M3_E4M3>(exec, call);
    default: return launch_kind<LINEAR_INT8_INT8>(exec, call);
    }
}
