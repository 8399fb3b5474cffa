/* combine_rows_sm80.cu - adds weighted rows to y, in order of the choices. A slot out of range adds nothing and sets the status word.
 * Bound by memory. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_rows.cuh"
#include "cuda/tile/reduce.cuh"

enum { THREADS = 128 };

struct combine_call {
    octavo_combine_rows_params p;
    int32_t *device_status;
};

/* Grid: spans of columns, token by token. */
static __global__ void __launch_bounds__(THREADS) combine_rows(const __grid_constant__ combine_call c)
{
    wait_for_kernel_before();
    const octavo_combine_rows_params &p = c.p;
    const int64_t width = p.y.shape[1], spans = (width + THREADS - 1) / THREADS, t = blockIdx.x / spans;
    const int64_t i = blockIdx.x % spans * THREADS + threadIdx.x;
    if (i >= width) return;
    float *y = (float *)p.y.data + t * p.y.strides[0] + i;
    float sum = *y;
    for (int64_t j = t * p.choices; j < (t + 1) * p.choices; j++) {
        const int64_t slot = p.slots[j];
        if (slot < -1 || slot >= p.x.shape[0]) {
            if (i == 0) report(c.device_status, OCTAVO_E_RANGE);
        } else if (slot >= 0) {
            sum = fmaf(p.weights[j], load_float(&p.x, slot * p.x.strides[0] + i), sum);
        }
    }
    *y = sum;
}

octavo_status octavo_combine_rows_cuda(const octavo_exec *exec, const octavo_combine_rows_params *p)
{
    const combine_call call = { *p, exec->device_status };
    const int64_t blocks = octavo_cuda_ceil(p->y.shape[1], THREADS) * p->y.shape[0];
    OCTAVO_CUDA_TRY(layer_check_rows("y", blocks));
    return octavo_cuda_launch(combine_rows, "combine_rows", dim3((unsigned)blocks), THREADS, 0, exec, call);
}
