/* tile_query.cuh - a group's query rows as operands, and what their columns of scores are multiplied by. */
#ifndef OCTAVO_CUDA_TILE_TILE_QUERY_CUH
#define OCTAVO_CUDA_TILE_TILE_QUERY_CUH

#include "cuda/tile/decode_call.cuh"
#include "cuda/tile/tile_products.cuh"

/* Exponent by which a row is lifted so that its largest element lies in [2^13, 2^14): f16 then holds all that matters of it. */
static __device__ __forceinline__ int lift_of(float amax)
{
    if (!(amax > 0.0f)) return 0;
    int exponent;
    frexpf(amax, &exponent);
    const int lift = 14 - exponent;
    return lift > 140 ? 140 : lift;
}

static __device__ __forceinline__ float lifted(float x, int lift)
{
    return x * (lift > 120 ? 0x1p120f : 1.0f) * octavo_power_of_two(lift > 120 ? lift - 120 : lift); /* two factors, since 2^lift may be no float */
}

/* Codes of a lane's part of the query rows: a warp takes every WARPS-th row, a lane every 32nd element. */
template <int DIM, int COLS> static __host__ __device__ constexpr int query_codes(int warps) { return (8 * COLS + warps - 1) / warps * (DIM / 32); }

/* Asks for rows first + 0 .. 8 COLS - 1 of the kv head, without waiting; those from c.rows on are zeros. */
template <int DIM, int COLS, int WARPS>
static __device__ __forceinline__ void ask_for_queries(const decode_call &c, int64_t b, int64_t head, int64_t first,
                                                       uint16_t (&codes)[query_codes<DIM, COLS>(WARPS)])
{
    const octavo_tensor *q = &c.in.q;
    const int q_tokens = (int)q->shape[1], group = (int)c.rows / q_tokens;
#pragma unroll
    for (int k = 0; k < query_codes<DIM, COLS>(WARPS) / (DIM / 32); k++) {
        const int row = (int)(threadIdx.x / 32) + k * WARPS, of_group = (int)first + row, of_head = q_tokens == 1 ? of_group : of_group / q_tokens;
        const bool there = row < 8 * COLS && of_group < (int)c.rows;
        const int64_t at = b * q->strides[0] + (of_group - of_head * q_tokens) * q->strides[1] + ((int)head * group + of_head) * q->strides[2];
        const uint16_t *from = (const uint16_t *)q->data + (there ? at : 0);
#pragma unroll
        for (int i = 0; i < DIM / 32; i++) codes[k * (DIM / 32) + i] = there ? from[(threadIdx.x % 32 + 32 * i) * q->strides[3]] : (uint16_t)0;
    }
}

/* A warp's rows become what E4M3 with a power of two of their own makes of them, in their place. */
template <int DIM, int COLS, int WARPS> static __device__ __forceinline__ void round_queries(float (&rows)[8 * COLS][DIM + 2])
{
#pragma unroll 1
    for (int row = (int)(threadIdx.x / 32); row < 8 * COLS; row += WARPS) {
        float amax = 0.0f;
#pragma unroll
        for (int i = 0; i < DIM / 32; i++) amax = fmaxf(amax, fabsf(rows[row][threadIdx.x % 32 + 32 * i]));
        const int32_t p = octavo_row_exponent(warp_reduce(amax, take_larger()));
#pragma unroll 1
        for (int e = threadIdx.x % 32; e < DIM; e += 32) rows[row][e] = octavo_e4m3_of_row(rows[row][e], p);
    }
}

/* What was asked for as float32 in shared memory, by the whole block. */
template <int DIM, int COLS, int WARPS>
static __device__ __forceinline__ void stage_queries(const decode_call &c, const uint16_t (&codes)[query_codes<DIM, COLS>(WARPS)],
                                                     float (&rows)[8 * COLS][DIM + 2])
{
#pragma unroll
    for (int k = 0; k < query_codes<DIM, COLS>(WARPS) / (DIM / 32); k++) {
        const int row = (int)(threadIdx.x / 32) + k * WARPS;
        if (row >= 8 * COLS) break;
#pragma unroll
        for (int i = 0; i < DIM / 32; i++) {
            const uint16_t code = codes[k * (DIM / 32) + i];
            rows[row][threadIdx.x % 32 + 32 * i] = c.in.q.dtype == OCTAVO_BF16 ? __uint_as_float((uint32_t)code << 16) : f16_low(code);
        }
    }
    if (c.in.precision == OCTAVO_ATTENTION_FP8) round_queries<DIM, COLS, WARPS>(rows);
    __syncthreads();
}

/* The warp's operands from them. int4's base: the f16 of a nibble u is 1024 + 16 u, and bias takes what is too much of it off.
 * lift: of this lane's row of each column tile. */
template <int DIM, int KIND, int COLS>
static __device__ __forceinline__ void load_queries(const float (&rows)[8 * COLS][DIM + 2], uint32_t (&q)[COLS][DIM / 16][2], int (&lift)[COLS],
                                                    float (&bias)[COLS])
{
    constexpr bool BF16 = key_is_bf16(KIND);
    const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < COLS; n++) {
        const float *row = rows[8 * n + g];
        lift[n] = 0, bias[n] = 0.0f;
        if (!BF16) {
            float amax = 0.0f;
#pragma unroll 8
            for (int e = t; e < DIM; e += 4) amax = fmaxf(amax, fabsf(row[e]));
            amax = fmaxf(amax, __shfl_xor_sync(WHOLE_WARP, amax, 1));
            amax = fmaxf(amax, __shfl_xor_sync(WHOLE_WARP, amax, 2));
            lift[n] = lift_of(amax);
        }
#pragma unroll
        for (int step = 0; step < DIM / 16; step++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                const int e = query_element<KIND>(step, half, t);
                const float x = row[e], y = row[e + 1];
                q[n][step][half] = BF16 ? pack_bf16(x, y) : pack_f16(lifted(x, lift[n]), lifted(y, lift[n]));
                if (KIND == KEY_INT4_BASE) bias[n] += f16_low(q[n][step][half]) + f16_high(q[n][step][half]);
            }
        bias[n] += __shfl_xor_sync(WHOLE_WARP, bias[n], 1);
        bias[n] += __shfl_xor_sync(WHOLE_WARP, bias[n], 2);
        bias[n] *= INT4_BIAS;
    }
}

/* What the lane's two columns of scores are multiplied by to be in units of ln 2, after `off` is taken off: columns 2t and 2t + 1 of
 * each column tile. */
template <int COLS>
static __device__ __forceinline__ void column_scales(const decode_call &c, const int (&lift)[COLS], const float (&bias)[COLS], float (&scale)[COLS][2],
                                                     float (&off)[COLS][2])
{
    const int t = threadIdx.x % 4;
    const float whole = c.in.softmax_scale * LOG2_E;
#pragma unroll
    for (int n = 0; n < COLS; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            scale[n][i] = ldexpf(whole, -__shfl_sync(WHOLE_WARP, lift[n], 4 * (2 * t + i)));
            off[n][i] = __shfl_sync(WHOLE_WARP, bias[n], 4 * (2 * t + i));
        }
}

/* Where part `i` of `parts` equal ones of `all` begins. */
static __device__ __forceinline__ int part_begin(int all, int i, int parts)
{
    const int each = all / parts, more = all - each * parts;
    return each * i + (i < more ? i : more);
}

/* What the lane's columns see. */
struct column_span {
    int sink_end, near_begin, end;
};

static __device__ __forceinline__ column_span column_span_of(const decode_call &c, int64_t length, int64_t row)
{
    if (row >= c.rows) return { 0, 0, 0 };
    const int q_tokens = (int)c.in.q.shape[1];
    const octavo_span span = octavo_visible_span(length, q_tokens, (int)row % q_tokens, c.in.window, c.in.sink_tokens);
    return { (int)span.sink_end, (int)span.near_begin, (int)span.end };
}

static __device__ __forceinline__ bool column_sees(const column_span &span, int token)
{
    return token < span.end && (token >= span.near_begin || token < span.sink_end);
}

/* Whether every row of the call sees 16 tokens from `token` on. */
struct whole_range {
    int sink_end, near_begin, end; /* the least, the largest, the least of all rows */
};

static __device__ __forceinline__ whole_range whole_range_of(const octavo_decode_input *in, int64_t length)
{
    const octavo_span oldest = octavo_visible_span(length, in->q.shape[1], 0, in->window, in->sink_tokens);
    const octavo_span newest = octavo_visible_span(length, in->q.shape[1], in->q.shape[1] - 1, in->window, in->sink_tokens);
    return { (int)oldest.sink_end, (int)newest.near_begin, (int)oldest.end };
}

static __device__ __forceinline__ bool all_see(const whole_range &range, int token)
{
    return token + TILE_TOKENS <= range.end && (token >= range.near_begin || token + TILE_TOKENS <= range.sink_end);
}

/* cap tanh(score / cap), both in units of ln 2, with an error that is small beside the cap. */
static __device__ __forceinline__ float capped(float score, float cap)
{
    const float e = exp2_fast(score * (2.0f * LOG2_E / cap));
    return cap - 2.0f * cap / (e + 1.0f);
}

#endif
