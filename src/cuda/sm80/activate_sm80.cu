/* activate_sm80.cu - activations, alone or as a gate. A thread reads its elements, then writes them; y may be gate or up. Bound by
 * memory; rows that are few get a thread an element, aligned ones that are many eight. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/layer_eights.cuh"

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

/* Grid: eights of all rows. */
static __global__ void __launch_bounds__(THREADS) activate_eights(const __grid_constant__ octavo_activate_params p)
{
    wait_for_kernel_before();
    next_kernel_may_start();
    const unsigned a_row = (unsigned)(p.gate.shape[1] / EIGHT), index = blockIdx.x * THREADS + threadIdx.x, row = index / a_row;
    const int64_t i = (int64_t)(index - row * a_row) * EIGHT;
    float gate[EIGHT], up[EIGHT];
    if (row >= p.gate.shape[0]) return;
    load_eight(&p.gate, row * p.gate.strides[0] + i, gate);
    if (p.up.data) load_eight(&p.up, row * p.up.strides[0] + i, up);
#pragma unroll
    for (int j = 0; j < EIGHT; j++) gate[j] = activated(p.activation, gate[j]) * (p.up.data ? up[j] : 1.0f);
    store_eight(&p.y, row * p.y.strides[0] + i, gate);
}

template <int EACH> static octavo_status launch(const octavo_exec *exec, const octavo_activate_params *p)
{
    const int64_t blocks = octavo_cuda_ceil(p->gate.shape[1], THREADS * EACH) * p->gate.shape[0];
    OCTAVO_CUDA_TRY(layer_check_rows("gate", blocks));
    return octavo_cuda_launch(activate<EACH>, "activate", dim3((unsigned)blocks), THREADS, 0, exec, *p);
}

octavo_status octavo_activate_cuda(const octavo_exec *exec, const octavo_activate_params *p)
{
    const int64_t count = p->gate.shape[0] * p->gate.shape[1];
    if (count <= MANY) return launch<1>(exec, p);
    if (count > INT32_MAX || !layer_has_eights(&p->gate) || !layer_has_eights(&p->y) || (p->up.data && !layer_has_eights(&p->up)))
        return launch<EACH_OF_MANY>(exec, p);
    return octavo_cuda_launch(activate_eights, "activate", dim3((unsigned)octavo_cuda_ceil(count, EIGHT * THREADS)), THREADS, 0, exec, *p);
}
