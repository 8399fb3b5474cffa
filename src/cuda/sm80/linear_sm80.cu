/* linear_sm80.cu - linear layers: x rounded once for all parts, then each part by the kernel that takes its weight.
 *
 * cuBLASLt has bf16 and float32 weights without scales and many tokens; the matrix unit's own kernel all weights whose rows are
 * aligned, and is exact in its products; a warp a row has the rest. */
#include "cuda/cuda_blas.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/linear_call.cuh"
#include "cuda/tile/layer_rows.cuh"
#include "cuda/tile/reduce.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP, TOKENS = 8, BLAS_TOKENS = 17 /* as few are still worth cuBLASLt */, ALIGN = 16 };
enum { EXACT_COLUMNS = 1024 * WARP /* 1024 products of int8 are exact in a lane's float32 sum */ };

/* ---- a warp a row ---- */

static __device__ __forceinline__ float operand_at(const linear_call &c, int64_t at)
{
    switch (c.p.precision) {
    case OCTAVO_LINEAR_F32:  return ((const float *)c.x)[at];
    case OCTAVO_LINEAR_BF16: return octavo_bf16_to_float(((const uint16_t *)c.x)[at]);
    case OCTAVO_LINEAR_FP8:  return octavo_e4m3_to_float(((const uint8_t *)c.x)[at]);
    default:                 return (float)((const int8_t *)c.x)[at];
    }
}

static __device__ __forceinline__ float weight_at(const linear_call &c, const octavo_tensor *codes, int64_t at)
{
    switch (codes->dtype) {
    case OCTAVO_E4M3: return octavo_e4m3_to_float(((const uint8_t *)codes->data)[at]);
    case OCTAVO_INT8: return (float)((const int8_t *)codes->data)[at];
    default:          return c.p.precision == OCTAVO_LINEAR_BF16 ? octavo_bf16_to_float(octavo_bf16_from_float(load_float(codes, at))) : load_float(codes, at);
    }
}

/* Tokens first ... first + TOKENS - 1, as far as `end`, times a row of W, by a warp: all[j] is the same for every lane. Sums of INT8
 * are exact: float32 as long as it is, int32 between. */
static __device__ __forceinline__ void multiply_row(const linear_call &c, const octavo_weight &weight, int64_t row, int64_t first, int64_t end,
                                                    float (&all)[TOKENS])
{
    const bool exact = c.p.precision == OCTAVO_LINEAR_INT8;
    const int64_t w = row * weight.codes.strides[0], lane = threadIdx.x % WARP;
    float sum[TOKENS] = {};
    int32_t whole[TOKENS] = {};
    for (int64_t begin = 0; begin < c.in; begin += EXACT_COLUMNS) {
        const int64_t most = begin + EXACT_COLUMNS < c.in ? begin + EXACT_COLUMNS : c.in;
        for (int64_t i = begin + lane; i < most; i += WARP) {
            const float code = weight_at(c, &weight.codes, w + i), value = exact ? code : code * octavo_weight_scale(&weight, row, i);
#pragma unroll
            for (int j = 0; j < TOKENS; j++)
                sum[j] = fmaf(value, operand_at(c, (first + j < end ? first + j : end - 1) * c.x_stride + i), sum[j]);
        }
#pragma unroll
        for (int j = 0; j < TOKENS && exact; j++) whole[j] += (int32_t)sum[j], sum[j] = 0.0f;
    }
#pragma unroll
    for (int j = 0; j < TOKENS; j++)
        all[j] = exact ? (float)warp_reduce(whole[j], add_up()) * octavo_weight_scale(&weight, row, 0) : warp_reduce(sum[j], add_up());
}

/* Grid (rows of all parts, tokens). */
static __global__ void __launch_bounds__(THREADS) linear_rows(const __grid_constant__ linear_call c)
{
    wait_for_kernel_before();
    const int index = linear_part_of(c, (int)blockIdx.x);
    const octavo_linear_part &part = c.p.parts[index];
    const int64_t row = ((int64_t)blockIdx.x - c.tiles[index]) * WARPS + threadIdx.x / WARP, first = (int64_t)blockIdx.y * TOKENS;
    float all[TOKENS];
    if (row >= part.weight.codes.shape[0]) return;
    multiply_row(c, part.weight, row, first, c.tokens, all);
#pragma unroll
    for (int j = 0; j < TOKENS; j++)
        if (threadIdx.x % WARP == 0 && first + j < c.tokens) linear_store(c, part, first + j, row, all[j], c.factors[first + j]);
}

struct expert_call {
    linear_call of;
    octavo_linear_experts_params p;
};

/* Grid (rows of all parts, experts): an expert's own tokens, TOKENS at a time. */
static __global__ void __launch_bounds__(THREADS) linear_expert_rows(const __grid_constant__ expert_call c)
{
    wait_for_kernel_before();
    const int index = linear_part_of(c.of, (int)blockIdx.x);
    const int64_t e = blockIdx.y, out = c.of.p.parts[index].weight.codes.shape[0];
    const int64_t row = ((int64_t)blockIdx.x - c.of.tiles[index]) * WARPS + threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const int64_t begin = c.p.offsets[e], end = c.p.offsets[e + 1];
    if (row >= out || begin < 0 || begin >= end || end > c.of.tokens) return;
    octavo_linear_part part = c.of.p.parts[index];
    octavo_weight *weight = &part.weight;
    weight->codes.data = (uint8_t *)weight->codes.data + e * c.p.codes_step[index];
    if (weight->scales) weight->scales = (const float *)((const uint8_t *)weight->scales + e * c.p.scales_step[index]);
    if (part.bias) part.bias = (const float *)((const uint8_t *)part.bias + e * c.p.bias_step[index]);
    for (int64_t first = begin; first < end; first += TOKENS) {
        float all[TOKENS];
        multiply_row(c.of, *weight, row, first, end, all);
#pragma unroll
        for (int j = 0; j < TOKENS; j++)
            if (lane == 0 && first + j < end) linear_store(c.of, part, first + j, row, all[j], c.of.factors[first + j]);
    }
}

static octavo_status launch_rows(const octavo_exec *exec, const linear_call &planned)
{
    linear_call call = planned;
    call.tiles[call.first] = 0;
    for (int i = call.first; i < call.end; i++) call.tiles[i + 1] = call.tiles[i] + (int)octavo_cuda_ceil(octavo_linear_out(&call.p, i), WARPS);
    const int64_t groups = octavo_cuda_ceil(call.tokens, TOKENS);
    if (groups > 65535) return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "x has %lld tokens, expected at most %d on a GPU", (long long)call.tokens, 65535 * TOKENS);
    return octavo_cuda_launch(linear_rows, "linear", dim3((unsigned)call.tiles[call.end], (unsigned)groups), THREADS, 0, exec, call);
}

/* ---- which kernel ---- */

static bool is_aligned(const octavo_tensor *x)
{
    const int64_t bytes = (int64_t)(x->dtype == OCTAVO_F32 ? 4 : x->dtype == OCTAVO_F16 || x->dtype == OCTAVO_BF16 ? 2 : 1);
    return (uintptr_t)x->data % ALIGN == 0 && x->strides[0] * bytes % ALIGN == 0 && x->shape[1] * bytes % ALIGN == 0;
}

static linear_kind kind_of(const octavo_linear_params *p, const octavo_weight *weight)
{
    const octavo_dtype dtype = weight->codes.dtype;
    const int64_t span = dtype == OCTAVO_BF16 ? 32 : 64;
    if (p->precision == OCTAVO_LINEAR_F32 || dtype == OCTAVO_F32 || dtype == OCTAVO_F16 || !is_aligned(&weight->codes)) return LINEAR_ROWS;
    if (octavo_weight_has_blocks(weight) && octavo_weight_scale_columns(weight) % span) return LINEAR_ROWS;
    if (p->precision == OCTAVO_LINEAR_FP8) return LINEAR_E4M3_E4M3;
    if (p->precision == OCTAVO_LINEAR_INT8) return LINEAR_INT8_INT8;
    return dtype == OCTAVO_BF16 ? LINEAR_BF16 : dtype == OCTAVO_E4M3 ? LINEAR_E4M3 : LINEAR_INT8;
}

static octavo_status by_blas(const octavo_exec *exec, const linear_call &call, const octavo_linear_part *part, void *workspace, size_t bytes, bool *done)
{
    const octavo_dtype dtype = call.p.precision == OCTAVO_LINEAR_F32 ? OCTAVO_F32 : OCTAVO_BF16;
    const octavo_tensor *w = &part->weight.codes;
    *done = false;
    if (call.tokens < BLAS_TOKENS || octavo_linear_quantises(&call.p) || w->dtype != dtype || part->weight.scales || !is_aligned(w) ||
        !is_aligned(&part->y) || ((part->bias || call.p.store == OCTAVO_STORE_ADD) && part->y.dtype != OCTAVO_F32)) /* or it rounds twice */
        return OCTAVO_OK;
    const octavo_cuda_product product = { call.x, w->data, part->y.data, part->bias, dtype, part->y.dtype, call.p.store, call.tokens, w->shape[0],
                                          call.in, call.x_stride, w->strides[0], part->y.strides[0], workspace, bytes };
    return octavo_cuda_blas_multiply(exec, &product, done);
}

/* x is what its rounding would give, and lies as the matrix unit's kernel reads it: in whole steps of 64 columns. */
static bool reads_x_in_place(const octavo_linear_params *p)
{
    enum { STEP = 64 };
    if (p->precision != OCTAVO_LINEAR_BF16 || p->x.dtype != OCTAVO_BF16 || p->x.ndim != 2 || p->x.shape[0] >= BLAS_TOKENS) return false;
    if (!is_aligned(&p->x) || p->x.shape[1] % STEP) return false;
    for (int i = 0; i < p->part_count; i++)
        if (kind_of(p, &p->parts[i].weight) == LINEAR_ROWS) return false;
    return true;
}

/* The call, once its x is rounded, or where it lies. */
static octavo_status round_x(const octavo_exec *exec, const octavo_linear_params *p, const octavo_linear_layout &at, bool in_place, linear_call *call)
{
    uint8_t *workspace = (uint8_t *)exec->workspace;
    *call = { *p, workspace + at.x, (float *)(workspace + at.factors), octavo_linear_tokens(p), octavo_linear_in(p),
              octavo_round_up(octavo_linear_in(p), OCTAVO_LINEAR_STEP), 0, 0, { 0 } };
    OCTAVO_CUDA_TRY(layer_check_rows("x", call->tokens));
    if (in_place) {
        call->x = p->x.data, call->x_stride = p->x.strides[0], call->factors = nullptr;
        return OCTAVO_OK;
    }
    return octavo_linear_round(exec, *call);
}

octavo_status octavo_linear_experts_cuda(const octavo_exec *exec, const octavo_linear_experts_params *p)
{
    expert_call call = {};
    call.p = *p;
    OCTAVO_CUDA_TRY(round_x(exec, &p->of, octavo_linear_layout_of(&p->of), false, &call.of));
    call.of.end = p->of.part_count;
    for (int i = 0; i < call.of.end; i++) call.of.tiles[i + 1] = call.of.tiles[i] + (int)octavo_cuda_ceil(octavo_linear_out(&p->of, i), WARPS);
    if (p->experts > 65535) return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "%lld experts, expected at most 65535 on a GPU", (long long)p->experts);
    const dim3 grid((unsigned)call.of.tiles[call.of.end], (unsigned)p->experts);
    return octavo_cuda_launch(linear_expert_rows, "linear_experts", grid, THREADS, 0, exec, call);
}

octavo_status octavo_linear_cuda(const octavo_exec *exec, const octavo_linear_params *p)
{
    const octavo_linear_layout at = octavo_linear_layout_of(p);
    uint8_t *workspace = (uint8_t *)exec->workspace;
    linear_call call;
    OCTAVO_CUDA_TRY(round_x(exec, p, at, reads_x_in_place(p), &call));
    while (call.first < p->part_count) {
        bool done;
        OCTAVO_CUDA_TRY(by_blas(exec, call, &p->parts[call.first], workspace + at.sums, at.bytes - at.sums, &done));
        call.end = call.first + 1;
        if (!done) { /* parts of one kind are one launch */
            const linear_kind kind = kind_of(p, &p->parts[call.first].weight);
            while (call.end < p->part_count && kind_of(p, &p->parts[call.end].weight) == kind) call.end++;
            OCTAVO_CUDA_TRY(kind == LINEAR_ROWS ? launch_rows(exec, call) : octavo_linear_tiles(exec, call, kind));
        }
        call.first = call.end;
    }
    return OCTAVO_OK;
}
