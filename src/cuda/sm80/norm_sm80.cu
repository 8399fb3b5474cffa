/* norm_sm80.cu - RMSNorm and LayerNorm. A block a row; sums in float64, so that no square leaves the range. Bound by memory. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_rows.cuh"
#include "cuda/tile/reduce.cuh"

enum { THREADS_MOST = 512, EACH = 4 /* elements of a thread that are worth one more warp */ };

/* Grid: rows. A thread reads and writes the same elements, so that y may be x. */
static __global__ void __launch_bounds__(THREADS_MOST) norm(const __grid_constant__ octavo_norm_params p)
{
    __shared__ double shared[WARPS_MAX];
    wait_for_kernel_before();
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
    const double factor = 1.0 / sqrt(block_reduce(squares, shared, add_up()) / (double)width + (double)p.eps);
    for (int64_t i = threadIdx.x; i < width; i += blockDim.x) {
        const double d = (double)load_float(&p.x, x + i) - mean;
        const double scaled = d * factor * (p.weight ? (double)p.weight[i] : 1.0) + (p.bias ? (double)p.bias[i] : 0.0);
        store_float(&p.y, y + i, (float)scaled);
    }
}

octavo_status octavo_norm_cuda(const octavo_exec *exec, const octavo_norm_params *p)
{
    const int64_t rows = layer_row_count(&p->x);
    OCTAVO_CUDA_TRY(layer_check_rows("x", rows));
    return octavo_cuda_launch(norm, "norm", dim3((unsigned)rows), layer_threads(p->x.shape[p->x.ndim - 1], EACH, THREADS_MOST), 0, exec, *p);
}
