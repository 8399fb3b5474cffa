/* norm_sm80.cu - RMSNorm and LayerNorm. A block a row, or of many aligned rows a warp a short one; sums in float64, so that no square leaves
 * the range. Bound by memory. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_eights.cuh"
#include "cuda/tile/reduce.cuh"

enum { THREADS_MOST = 512, EACH = 4 /* elements of a thread, which then keeps them */ };
enum { THREADS = 256, EIGHTS = 4 /* likewise */, MANY_ROWS = 512 };

static __device__ __forceinline__ void put_normed(const octavo_norm_params &p, int64_t y, int64_t i, double d, double factor)
{
    const double scaled = d * factor * (p.weight ? (double)p.weight[i] : 1.0) + (p.bias ? (double)p.bias[i] : 0.0);
    store_float(&p.y, y + i, (float)scaled);
}

static __device__ __forceinline__ double factor_of(const octavo_norm_params &p, double squares, int64_t width)
{
    return 1.0 / sqrt(squares / (double)width + (double)p.eps);
}

/* Rows of at most EACH elements a thread. Grid: rows. */
static __global__ void __launch_bounds__(THREADS_MOST) norm_held(const __grid_constant__ octavo_norm_params p)
{
    __shared__ double shared[WARPS_MAX];
    wait_for_kernel_before();
    next_kernel_may_start(); /* a product, to read W ahead */
    const int64_t width = p.x.shape[p.x.ndim - 1], x = layer_row(&p.x, blockIdx.x), y = layer_row(&p.y, blockIdx.x);
    double held[EACH], mean = 0.0, squares = 0.0;
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const int64_t i = threadIdx.x + j * (int64_t)blockDim.x;
        held[j] = i < width ? (double)load_float(&p.x, x + i) : 0.0;
    }
    if (p.kind == OCTAVO_NORM_LAYER) {
#pragma unroll
        for (int j = 0; j < EACH; j++) mean += held[j];
        mean = block_reduce(mean, shared, add_up()) / (double)width;
    }
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const bool there = threadIdx.x + j * (int64_t)blockDim.x < width;
        held[j] -= mean;
        squares += there ? held[j] * held[j] : 0.0;
    }
    const double factor = factor_of(p, block_reduce(squares, shared, add_up()), width);
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const int64_t i = threadIdx.x + j * (int64_t)blockDim.x;
        if (i < width) put_normed(p, y, i, held[j], factor);
    }
}

/* The sum of all threads of a row: a warp's or the block's. */
template <int ROW_THREADS> static __device__ __forceinline__ double row_sum(double x, double *shared)
{
    return ROW_THREADS == WARP ? warp_reduce(x, add_up()) : block_reduce(x, shared, add_up());
}

/* Rows of at most EIGHTS eights a thread. Grid: rows, THREADS / ROW_THREADS a block. */
template <int ROW_THREADS> static __global__ void __launch_bounds__(THREADS) norm_eights(const __grid_constant__ octavo_norm_params p)
{
    enum { STEP = EIGHT * ROW_THREADS };
    __shared__ double shared[WARPS_MAX];
    wait_for_kernel_before();
    next_kernel_may_start();
    const int64_t row = (int64_t)blockIdx.x * (THREADS / ROW_THREADS) + threadIdx.x / ROW_THREADS, width = p.x.shape[p.x.ndim - 1];
    if (row >= layer_row_count(&p.x)) return; /* a whole warp, or nobody */
    const int64_t x = layer_row(&p.x, row), y = layer_row(&p.y, row), first = threadIdx.x % ROW_THREADS * EIGHT;
    float held[EIGHTS][EIGHT];
    double mean = 0.0, squares = 0.0;
#pragma unroll
    for (int j = 0; j < EIGHTS; j++)
        if (first + j * STEP < width) load_eight(&p.x, x + first + j * STEP, held[j]);
    if (p.kind == OCTAVO_NORM_LAYER) {
#pragma unroll
        for (int j = 0; j < EIGHTS; j++)
#pragma unroll
            for (int i = 0; i < EIGHT; i++) mean += first + j * STEP < width ? (double)held[j][i] : 0.0;
        mean = row_sum<ROW_THREADS>(mean, shared) / (double)width;
    }
#pragma unroll
    for (int j = 0; j < EIGHTS; j++)
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            const double d = (double)held[j][i] - mean;
            squares += first + j * STEP < width ? d * d : 0.0;
        }
    const double factor = factor_of(p, row_sum<ROW_THREADS>(squares, shared), width);
#pragma unroll
    for (int j = 0; j < EIGHTS; j++) {
        const int64_t at = first + j * STEP;
        float weight[EIGHT], bias[EIGHT];
        if (at >= width) break;
        if (p.weight) load_eight(p.weight + at, weight);
        if (p.bias) load_eight(p.bias + at, bias);
#pragma unroll
        for (int i = 0; i < EIGHT; i++)
            held[j][i] = (float)(((double)held[j][i] - mean) * factor * (p.weight ? (double)weight[i] : 1.0) + (p.bias ? (double)bias[i] : 0.0));
        store_eight(&p.y, y + at, held[j]);
    }
}

/* Grid: rows. A thread reads and writes the same elements, so that y may be x. */
static __global__ void __launch_bounds__(THREADS_MOST) norm_rows(const __grid_constant__ octavo_norm_params p)
{
    __shared__ double shared[WARPS_MAX];
    wait_for_kernel_before();
    next_kernel_may_start();
    const int64_t width = p.x.shape[p.x.ndim - 1], x = layer_row(&p.x, blockIdx.x), y = layer_row(&p.y, blockIdx.x);
    double mean = 0.0, squares = 0.0;
    if (p.kind == OCTAVO_NORM_LAYER) {
        for (int64_t i = threadIdx.x; i < width; i += blockDim.x) mean += (double)load_float(&p.x, x + i);
        mean = block_reduce(mean, shared, add_up()) / (double)width;
    }
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
        const double d = (double)load_float(&p.x, x + i) - mean;
        squares += d * d;
    }
    const double factor = factor_of(p, block_reduce(squares, shared, add_up()), width);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) put_normed(p, y, i, (double)load_float(&p.x, x + i) - mean, factor);
}

octavo_status octavo_norm_cuda(const octavo_exec *exec, const octavo_norm_params *p)
{
    const int64_t rows = layer_row_count(&p->x);
    OCTAVO_CUDA_TRY(layer_check_rows("x", rows));
    const int64_t width = p->x.shape[p->x.ndim - 1];
    if (rows >= MANY_ROWS && width <= THREADS * EIGHTS * EIGHT && layer_has_eights(&p->x) && layer_has_eights(&p->y) && layer_has_eights(p->weight) &&
        layer_has_eights(p->bias)) {
        if (width > WARP * EIGHTS * EIGHT) return octavo_cuda_launch(norm_eights<THREADS>, "norm", dim3((unsigned)rows), THREADS, 0, exec, *p);
        return octavo_cuda_launch(norm_eights<WARP>, "norm", dim3((unsigned)octavo_cuda_ceil(rows, THREADS / WARP)), THREADS, 0, exec, *p);
    }
    return octavo_cuda_launch(width <= THREADS_MOST * EACH ? norm_held : norm_rows, "norm", dim3((unsigned)rows), layer_threads(width, EACH, THREADS_MOST), 0,
                              exec, *p);
}
