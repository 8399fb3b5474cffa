/* activate_sm80.cu - activations, alone or as a gate. A thread reads its elements, then writes them; y may be gate or up. Bound by
 * memory; rows that are few get a thread an element. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_rows.cuh"

enum { THREADS = 256, EACH_OF_MANY = 4, MANY = 1 << 18 };

static __device__ __forceinline__ float activated(octavo_activation activation, float x)
{
    switch (activation) {
    case OCTAVO_ACTIVATION_RELU: return x < 0.0f ? 0.0f : x; /* NaN stays NaN */
    case OCTAVO_ACTIVATION_SILU: return x / (1.0f + expf(-x));
    case OCTAVO_ACTIVATION_GELU: return 0.5f * x * erfcf(x * -0x1.6a09e6p-1f /* 1 / sqrt(2) */); /* what is missing of 1, by itself */
    default:                     return x / (1.0f + expf(-2.0f * (0x1.988454p-1f /* sqrt(2 / pi) */ * (x + 0.044715f * x * x * x))));
    }
}

/* Grid: spans of columns, row by row. */
template <int EACH> static __global__ void __launch_bounds__(THREADS) activate(const __grid_constant__ octavo_activate_params p)
{
    wait_for_kernel_before();
    next_kernel_may_start(); /* a product, to read W ahead */
    enum { SPAN = THREADS * EACH };
    const int64_t width = p.gate.shape[1], spans = (width + SPAN - 1) / SPAN, row = blockIdx.x / spans;
    const int64_t first = blockIdx.x % spans * SPAN + threadIdx.x;
    float gate[EACH], up[EACH];
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const int64_t i = first + j * THREADS;
        gate[j] = i < width ? load_float(&p.gate, row * p.gate.strides[0] + i) : 0.0f;
        up[j] = i < width && p.up.data ? load_float(&p.up, row * p.up.strides[0] + i) : 1.0f;
    }
#pragma unroll
    for (int j = 0; j < EACH; j++) {
        const int64_t i = first + j * THREADS;
        const float y = activated(p.activation, gate[j]);
        if (i < width) store_float(&p.y, row * p.y.strides[0] + i, p.up.data ? y * up[j] : y);
    }
}

template <int EACH> static octavo_status launch(const octavo_exec *exec, const octavo_activate_params *p)
{
    const int64_t blocks = octavo_cuda_ceil(p->gate.shape[1], THREADS * EACH) * p->gate.shape[0];
    OCTAVO_CUDA_TRY(layer_check_rows("gate", blocks));
    return octavo_cuda_launch(activate<EACH>, "activate", dim3((unsigned)blocks), THREADS, 0, exec, *p);
}

octavo_status octavo_activate_cuda(const octavo_exec *exec, const octavo_activate_params *p)
{
    return p->gate.shape[0] * p->gate.shape[1] > MANY ? launch<EACH_OF_MANY>(exec, p) : launch<1>(exec, p);
}
