/* k_project_sm80.cu - h W^T + bias, rotated, then encoded like kv_append's keys.
 *
 * A warp has one row of W and TOKENS tokens: its lanes stride over hidden, W is read once for the tokens that fit. The products go to
 * the workspace as [tokens, rows] float32, are rotated there, and are appended. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/tile/reduce.cuh"
#include "cuda/tile/stored_rows.cuh"

enum { THREADS = 256, WARPS = THREADS / WARP, TOKENS = 8 };

struct project_call {
    octavo_k_project_params p;
    int64_t tokens, rows, hidden, dim, rotary; /* tokens: batch * tokens                         */
    int64_t scale_cols, scales_across;         /* columns that share a scale; scales beside each other */
    float *y;                                  /* [tokens, rows]                                 */
};

static __device__ __forceinline__ float weight_code(const octavo_tensor *w, int64_t element)
{
    switch (w->dtype) {
    case OCTAVO_E4M3: return octavo_e4m3_to_float(((const uint8_t *)w->data)[element]);
    case OCTAVO_INT8: return (float)((const int8_t *)w->data)[element];
    default:          return load_float(w, element);
    }
}

static __device__ __forceinline__ float weight_scale(const project_call &c, int64_t row, int64_t column)
{
    const octavo_weight *w = &c.p.weight;
    return w->scales ? w->scales[(w->block_rows > 0 ? row / w->block_rows : 0) * c.scales_across + column / c.scale_cols] : 1.0f;
}

static __device__ __forceinline__ int64_t h_row(const project_call &c, int64_t n)
{
    return n / c.p.h.shape[1] * c.p.h.strides[0] + n % c.p.h.shape[1] * c.p.h.strides[1];
}

/* Grid (rows / WARPS, tokens / TOKENS). */
static __global__ void __launch_bounds__(THREADS) project(const __grid_constant__ project_call c)
{
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, first = (int64_t)blockIdx.y * TOKENS;
    if (row >= c.rows) return;
    const int64_t w = row * c.p.weight.codes.strides[0];
    int64_t h[TOKENS];
    float sum[TOKENS];
#pragma unroll
    for (int j = 0; j < TOKENS; j++) sum[j] = 0.0f, h[j] = h_row(c, first + j < c.tokens ? first + j : c.tokens - 1);
    for (int64_t i = threadIdx.x % WARP; i < c.hidden; i += WARP) {
        const float weight = weight_code(&c.p.weight.codes, w + i) * weight_scale(c, row, i);
#pragma unroll
        for (int j = 0; j < TOKENS; j++) sum[j] = fmaf(weight, load_float(&c.p.h, h[j] + i), sum[j]);
    }
#pragma unroll
    for (int j = 0; j < TOKENS; j++) {
        const float whole = warp_reduce(sum[j], add_up());
        if (threadIdx.x % WARP == 0 && first + j < c.tokens) c.y[(first + j) * c.rows + row] = whole + (c.p.bias ? c.p.bias[row] : 0.0f);
    }
}

/* Grid: a thread a pair of elements. */
static __global__ void __launch_bounds__(THREADS) rotate(const __grid_constant__ project_call c)
{
    const int64_t pairs = c.rotary / 2, index = (int64_t)blockIdx.x * THREADS + threadIdx.x, pair = index % pairs, n = index / pairs / (c.rows / c.dim);
    if (n >= c.tokens) return;
    const bool halves = c.p.rope.style == OCTAVO_ROPE_ROTATE_HALF;
    float *head = c.y + n * c.rows + index / pairs % (c.rows / c.dim) * c.dim;
    float *low = head + (halves ? pair : 2 * pair), *high = head + (halves ? pair + pairs : 2 * pair + 1);
    const int32_t position = c.p.rope_positions ? c.p.rope_positions[n] : c.p.positions[n / c.p.h.shape[1]] + (int32_t)(n % c.p.h.shape[1]);
    const float angle = (float)position * c.p.rope.inv_freq[pair], scale = c.p.rope.scale == 0.0f ? 1.0f : c.p.rope.scale;
    const float cosine = cosf(angle) * scale, sine = sinf(angle) * scale, a = *low, b = *high;
    *low = a * cosine - b * sine;
    *high = b * cosine + a * sine;
}

octavo_status octavo_k_project_cuda(const octavo_exec *exec, const octavo_k_project_params *p)
{
    const octavo_weight *w = &p->weight;
    const int64_t tokens = p->h.shape[0] * p->h.shape[1], rows = w->codes.shape[0], hidden = p->h.shape[2], dim = p->kv->head_dim;
    const int64_t cols = w->block_cols > 0 && w->block_cols < hidden ? w->block_cols : hidden;
    const project_call call = { *p, tokens, rows, hidden, dim,
                                p->rope.style == OCTAVO_ROPE_NONE ? 0 : p->rope.rotary_dim > 0 ? p->rope.rotary_dim : dim,
                                cols, octavo_cuda_ceil(hidden, cols), (float *)exec->workspace };
    const cudaStream_t stream = octavo_cuda_stream(exec);
    if (octavo_cuda_ceil(tokens, TOKENS) > 65535)
        return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "h has %lld tokens, expected at most %d on a GPU", (long long)tokens, 65535 * TOKENS);
    project<<<dim3((unsigned)octavo_cuda_ceil(rows, WARPS), (unsigned)octavo_cuda_ceil(tokens, TOKENS)), THREADS, 0, stream>>>(call);
    if (call.rotary > 0)
        rotate<<<(unsigned)octavo_cuda_ceil(tokens * (rows / dim) * (call.rotary / 2), THREADS), THREADS, 0, stream>>>(call);
    OCTAVO_CUDA_TRY(octavo_cuda_launched("k_project"));
    octavo_kv_append_params append = {};
    append.kv = p->kv, append.positions = p->positions;
    append.k.data = call.y, append.k.dtype = OCTAVO_F32, append.k.ndim = 4;
    const int64_t shape[] = { p->h.shape[0], p->h.shape[1], p->kv->kv_heads, dim }, strides[] = { p->h.shape[1] * rows, rows, dim, 1 };
    for (int i = 0; i < 4; i++) append.k.shape[i] = shape[i], append.k.strides[i] = strides[i];
    return octavo_kv_append_cuda(exec, &append);
}
