/* quantize_sm80.cu - symmetric quantisation: the largest magnitude of every group, its scale, then the codes.
 *
 * A magnitude is a non-negative float, whose bits order like integers: an integer maximum in the scale's own place gives the same
 * bits in whatever order. Elements that are NaN or Inf become 0 and set the status word. Bound by memory. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/tile/reduce.cuh"
#include "cuda/tile/scale_groups.cuh"
#include "cuda/tile/stored_rows.cuh"

enum { THREADS = 256, SPAN = 4096 /* elements of a row that a block takes */ };

static __device__ __forceinline__ float finite_at(const octavo_tensor *x, int64_t r, int64_t c, int *odd)
{
    const float value = load_float(x, r * x->strides[0] + c);
    const bool finite = fabsf(value) <= FLT_MAX;
    *odd |= !finite;
    return finite ? value : 0.0f;
}

/* Grid (spans of columns, rows). */
static __global__ void __launch_bounds__(THREADS) largest(const __grid_constant__ octavo_quantize_params p, const scale_groups groups)
{
    __shared__ float shared[WARPS_MAX];
    const int64_t cols = p.x.shape[1], begin = (int64_t)blockIdx.x * SPAN, r = blockIdx.y;
    const int64_t end = begin + SPAN < cols ? begin + SPAN : cols;
    int odd = 0;
    if (groups.cols == 1 || groups.of(r, begin) != groups.of(r, end - 1)) {
        for (int64_t c = begin + threadIdx.x; c < end; c += THREADS)
            atomicMax((unsigned *)&p.scales[groups.of(r, c)], __float_as_uint(fabsf(finite_at(&p.x, r, c, &odd))));
        return;
    }
    float amax = 0.0f;
    for (int64_t c = begin + threadIdx.x; c < end; c += THREADS) amax = fmaxf(amax, fabsf(finite_at(&p.x, r, c, &odd)));
    amax = block_reduce(amax, shared, take_larger());
    if (threadIdx.x == 0) atomicMax((unsigned *)&p.scales[groups.of(r, begin)], __float_as_uint(amax));
}

/* Grid: a thread a group. */
static __global__ void __launch_bounds__(THREADS) finish_scales(const __grid_constant__ octavo_quantize_params p, int64_t count)
{
    const int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i < count) p.scales[i] = octavo_scale_of(p.scales[i], p.codes.dtype, p.scale_kind);
}

/* Grid (spans of columns, rows). */
static __global__ void __launch_bounds__(THREADS) encode(const __grid_constant__ octavo_quantize_params p, const scale_groups groups,
                                                         int32_t *device_status)
{
    __shared__ unsigned long long shared[WARPS_MAX];
    const octavo_dtype dtype = p.codes.dtype;
    const int64_t cols = p.x.shape[1], begin = (int64_t)blockIdx.x * SPAN, r = blockIdx.y;
    const int64_t end = begin + SPAN < cols ? begin + SPAN : cols;
    unsigned long long saturated = 0, underflowed = 0;
    int odd = 0;
    for (int64_t c = begin + threadIdx.x; c < end; c += THREADS) {
        const float x = finite_at(&p.x, r, c, &odd), quotient = x / p.scales[groups.of(r, c)];
        const uint8_t code = code_of(quotient, dtype);
        ((uint8_t *)p.codes.data)[r * p.codes.strides[0] + c] = code;
        saturated += fabsf(quotient) >= octavo_code_clamp(dtype);
        underflowed += x != 0.0f && (dtype == OCTAVO_INT8 ? code : code & 0x7F) == 0;
    }
    if (odd) report(device_status, OCTAVO_E_NONFINITE);
    if (p.saturated) saturated = block_reduce(saturated, shared, add_up());
    if (p.underflowed) underflowed = block_reduce(underflowed, shared, add_up());
    if (threadIdx.x != 0) return;
    if (p.saturated) atomicAdd((unsigned long long *)p.saturated, saturated);
    if (p.underflowed) atomicAdd((unsigned long long *)p.underflowed, underflowed);
}

octavo_status octavo_quantize_cuda(const octavo_exec *exec, const octavo_quantize_params *p)
{
    const int64_t rows = p->x.shape[0], cols = p->x.shape[1];
    const scale_groups groups = scale_groups_of(p->granularity, rows, cols, p->block_rows, p->block_cols);
    const cudaStream_t stream = octavo_cuda_stream(exec);
    if (rows > 65535) return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "x has %lld rows, expected at most 65535 on a GPU", (long long)rows);
    const dim3 grid((unsigned)octavo_cuda_ceil(cols, SPAN), (unsigned)rows);
    if (p->saturated) OCTAVO_CUDA_TRY(octavo_cuda_check(cudaMemsetAsync(p->saturated, 0, sizeof(int64_t), stream), "quantize"));
    if (p->underflowed) OCTAVO_CUDA_TRY(octavo_cuda_check(cudaMemsetAsync(p->underflowed, 0, sizeof(int64_t), stream), "quantize"));
    if (p->scale_source == OCTAVO_SCALE_DYNAMIC) {
        OCTAVO_CUDA_TRY(octavo_cuda_check(cudaMemsetAsync(p->scales, 0, (size_t)groups.count * sizeof(float), stream), "quantize"));
        largest<<<grid, THREADS, 0, stream>>>(*p, groups);
        finish_scales<<<(unsigned)octavo_cuda_ceil(groups.count, THREADS), THREADS, 0, stream>>>(*p, groups.count);
    }
    encode<<<grid, THREADS, 0, stream>>>(*p, groups, exec->device_status);
    return octavo_cuda_launched("quantize");
}
