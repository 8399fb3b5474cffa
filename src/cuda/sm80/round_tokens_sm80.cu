/* round_tokens_sm80.cu - x of a linear layer as its precision rounds it. A block a token, or of many short aligned ones a warp, eight elements
 * at a time. Bound by memory. */
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_eights.cuh"
#include "cuda/tile/linear_call.cuh"
#include "cuda/tile/reduce.cuh"

enum { THREADS = 256, MANY_TOKENS = 512, SHORT = 4096 /* elements */ };

/* What the threads of a token find in it: its largest magnitude, and whether anything is not finite once it is rounded. */
struct token_facts {
    float amax;
    bool odd;
};

static __device__ __forceinline__ void look_at(const linear_call &c, float x, token_facts *facts)
{
    const float rounded = c.p.precision == OCTAVO_LINEAR_BF16 ? octavo_bf16_to_float(octavo_bf16_from_float(x)) : x;
    facts->amax = fmaxf(facts->amax, fabsf(x)), facts->odd |= !(fabsf(rounded) <= FLT_MAX);
}

static __device__ __forceinline__ int8_t int8_operand(float x) { return (int8_t)rintf(fmaxf(-127.0f, fminf(x, 127.0f))); }

static __device__ __forceinline__ void put_operand(void *to, octavo_linear_precision precision, int64_t at, float x)
{
    switch (precision) {
    case OCTAVO_LINEAR_F32:  ((float *)to)[at] = x; break;
    case OCTAVO_LINEAR_BF16: ((uint16_t *)to)[at] = octavo_bf16_from_float(x); break;
    case OCTAVO_LINEAR_FP8:  ((uint8_t *)to)[at] = octavo_e4m3_from_float(x); break;
    default:                 ((int8_t *)to)[at] = int8_operand(x); break;
    }
}

static __device__ __forceinline__ void put_operands(void *to, octavo_linear_precision precision, int64_t at, const float (&x)[EIGHT])
{
    uint32_t codes[2];
    switch (precision) {
    case OCTAVO_LINEAR_F32:  store_eight((float *)to + at, x); return;
    case OCTAVO_LINEAR_BF16: *(uint4 *)((uint16_t *)to + at) = pack_eight(false, x); return;
    case OCTAVO_LINEAR_FP8:  codes[0] = pack_e4m3(x[0], x[1], x[2], x[3]), codes[1] = pack_e4m3(x[4], x[5], x[6], x[7]); break;
    default:
#pragma unroll
        for (int i = 0; i < 2; i++) {
            codes[i] = 0;
#pragma unroll
            for (int j = 0; j < 4; j++) codes[i] |= (uint32_t)(uint8_t)int8_operand(x[4 * i + j]) << 8 * j;
        }
    }
    *(uint2 *)((uint8_t *)to + at) = make_uint2(codes[0], codes[1]);
}

/* Grid: tokens. A token that is not finite becomes NaN where that is a number of x's, else zeros with the factor NaN. */
static __global__ void __launch_bounds__(THREADS) round_tokens(const __grid_constant__ linear_call c)
{
    __shared__ float shared[WARPS_MAX];
    wait_for_kernel_before();
    next_kernel_may_start(); /* to read W ahead */
    const int64_t n = blockIdx.x, from = octavo_linear_x_row(&c.p, n), to = n * c.x_stride;
    const bool codes = octavo_linear_quantises(&c.p);
    token_facts facts = { 0.0f, false };
    for (int64_t i = threadIdx.x; i < c.in; i += THREADS) look_at(c, load_float(&c.p.x, from + i), &facts);
    facts.odd = __syncthreads_or(facts.odd);
    facts.amax = block_reduce(facts.amax, shared, take_larger());
    const float scale = codes ? octavo_linear_x_scale(&c.p, facts.amax) : 1.0f, nothing = codes ? 0.0f : NAN;
    for (int64_t i = threadIdx.x; i < c.x_stride; i += THREADS) {
        const float x = i >= c.in ? 0.0f : facts.odd ? nothing : load_float(&c.p.x, from + i);
        put_operand((void *)c.x, c.p.precision, to + i, codes ? x / scale : x);
    }
    if (threadIdx.x == 0) ((float *)c.factors)[n] = facts.odd ? NAN : scale;
}

/* The same of aligned rows. Grid: tokens, THREADS / TOKEN_THREADS a block. */
template <int TOKEN_THREADS> static __global__ void __launch_bounds__(THREADS) round_eights(const __grid_constant__ linear_call c)
{
    enum { STEP = EIGHT * TOKEN_THREADS };
    __shared__ float shared[WARPS_MAX];
    wait_for_kernel_before();
    next_kernel_may_start();
    const int64_t n = (int64_t)blockIdx.x * (THREADS / TOKEN_THREADS) + threadIdx.x / TOKEN_THREADS, first = threadIdx.x % TOKEN_THREADS * EIGHT;
    if (n >= c.tokens) return; /* a whole warp, or nobody */
    const int64_t from = octavo_linear_x_row(&c.p, n), to = n * c.x_stride;
    const bool codes = octavo_linear_quantises(&c.p);
    token_facts facts = { 0.0f, false };
    float x[EIGHT];
#pragma unroll 4
    for (int64_t i = first; i < c.in; i += STEP) {
        load_eight(&c.p.x, from + i, x);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) look_at(c, x[j], &facts);
    }
    facts.odd = TOKEN_THREADS == WARP ? __any_sync(WHOLE_WARP, facts.odd) : __syncthreads_or(facts.odd);
    facts.amax = TOKEN_THREADS == WARP ? warp_reduce(facts.amax, take_larger()) : block_reduce(facts.amax, shared, take_larger());
    const float scale = codes ? octavo_linear_x_scale(&c.p, facts.amax) : 1.0f, nothing = codes ? 0.0f : NAN;
#pragma unroll 4
    for (int64_t i = first; i < c.x_stride; i += STEP) {
        if (i < c.in && !facts.odd) load_eight(&c.p.x, from + i, x);
#pragma unroll
        for (int j = 0; j < EIGHT; j++) {
            x[j] = i >= c.in ? 0.0f : facts.odd ? nothing : x[j];
            if (codes) x[j] /= scale;
        }
        put_operands((void *)c.x, c.p.precision, to + i, x);
    }
    if (first == 0) ((float *)c.factors)[n] = facts.odd ? NAN : scale;
}

octavo_status octavo_linear_round(const octavo_exec *exec, const linear_call &call)
{
    if (!layer_has_eights(&call.p.x)) return octavo_cuda_launch(round_tokens, "linear", dim3((unsigned)call.tokens), THREADS, 0, exec, call);
    if (call.tokens < MANY_TOKENS || call.in > SHORT) return octavo_cuda_launch(round_eights<THREADS>, "linear", dim3((unsigned)call.tokens), THREADS, 0, exec, call);
    return octavo_cuda_launch(round_eights<WARP>, "linear", dim3((unsigned)octavo_cuda_ceil(call.tokens, THREADS / WARP)), THREADS, 0, exec, call);
}
