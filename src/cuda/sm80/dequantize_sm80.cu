/* dequantize_sm80.cu - codes times their scales. Grid: enough blocks of 256 for every element, at most 65536. Bound by memory. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/tile/scale_groups.cuh"

enum { THREADS = 256 };

static __global__ void __launch_bounds__(THREADS) dequantize(const __grid_constant__ octavo_dequantize_params p, const scale_groups groups)
{
    const int64_t rows = p.codes.shape[0], cols = p.codes.shape[1], step = (int64_t)gridDim.x * THREADS;
    for (int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x; i < rows * cols; i += step) {
        const int64_t r = i / cols, c = i % cols;
        const uint8_t code = ((const uint8_t *)p.codes.data)[r * p.codes.strides[0] + c];
        ((float *)p.x.data)[r * p.x.strides[0] + c] = code_value(code, p.codes.dtype) * p.scales[groups.of(r, c)];
    }
}

octavo_status octavo_dequantize_cuda(const octavo_exec *exec, const octavo_dequantize_params *p)
{
    const scale_groups groups = scale_groups_of(p->granularity, p->codes.shape[0], p->codes.shape[1], p->block_rows, p->block_cols);
    const int64_t blocks = octavo_cuda_ceil(p->codes.shape[0] * p->codes.shape[1], THREADS);
    dequantize<<<(unsigned)(blocks < 65536 ? blocks : 65536), THREADS, 0, octavo_cuda_stream(exec)>>>(*p, groups);
    return octavo_cuda_launched("dequantize");
}
