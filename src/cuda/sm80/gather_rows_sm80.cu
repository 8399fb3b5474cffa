/* gather_rows_sm80.cu - rows by index, alone or as sums of two. A row whose index is out of range becomes zeros and sets the status
 * word. Bound by memory. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_rows.cuh"
#include "cuda/tile/reduce.cuh"

enum { THREADS = 128, EACH = 4, SPAN = THREADS * EACH };

struct gather_call {
    octavo_gather_rows_params p;
    int32_t *device_status;
};

/* Grid: spans of columns, row by row. */
static __global__ void __launch_bounds__(THREADS) gather_rows(const __grid_constant__ gather_call c)
{
    wait_for_kernel_before();
    const octavo_gather_rows_params &p = c.p;
    const int64_t width = p.y.shape[1], spans = (width + SPAN - 1) / SPAN, r = blockIdx.x / spans, begin = blockIdx.x % spans * SPAN;
    const int64_t from = p.rows[r], add = p.add.data ? p.add_rows[r] : 0;
    const bool valid = from >= 0 && from < p.table.shape[0] && (!p.add.data || (add >= 0 && add < p.add.shape[0]));
    const bool copies = !p.add.data && p.table.dtype == p.y.dtype; /* bits, those of a NaN, too */
    if (!valid && threadIdx.x == 0) report(c.device_status, OCTAVO_E_RANGE);
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const int64_t i = begin + j * THREADS + threadIdx.x, at = from * p.table.strides[0] + i, to = r * p.y.strides[0] + i;
        if (i >= width) return;
        if (!valid) store_float(&p.y, to, 0.0f);
        else if (copies && p.y.dtype == OCTAVO_F32) ((uint32_t *)p.y.data)[to] = ((const uint32_t *)p.table.data)[at];
        else if (copies) ((uint16_t *)p.y.data)[to] = ((const uint16_t *)p.table.data)[at];
        else store_float(&p.y, to, p.add.data ? load_float(&p.table, at) + load_float(&p.add, add * p.add.strides[0] + i) : load_float(&p.table, at));
    }
}

octavo_status octavo_gather_rows_cuda(const octavo_exec *exec, const octavo_gather_rows_params *p)
{
    const gather_call call = { *p, exec->device_status };
    const int64_t blocks = octavo_cuda_ceil(p->y.shape[1], SPAN) * p->y.shape[0];
    OCTAVO_CUDA_TRY(layer_check_rows("y", blocks));
    return octavo_cuda_launch(gather_rows, "gather_rows", dim3((unsigned)blocks), THREADS, 0, exec, call);
}
