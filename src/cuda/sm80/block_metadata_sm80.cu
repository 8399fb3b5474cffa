/* block_metadata_sm80.cu - residual norms and mean rows from planes as they are stored. A warp a token's norm, a warp a unit's mean. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"
#include "cuda/tile/plane_codec.cuh"

enum { THREADS = 128, WARPS = THREADS / WARP };

/* What the residual adds to the base, in the residual's own steps. */
static __device__ __forceinline__ double residual_at(const octavo_kv_view *kv, const uint8_t *more, int64_t i)
{
    switch (kv->k_format) {
    case OCTAVO_K_E4M3X2: return (double)octavo_e4m3_to_float(more[i]);
    case OCTAVO_K_E5M2X2: return (double)octavo_e5m2_to_float(more[i]);
    case OCTAVO_K_INT8X2: return (double)(int8_t)more[i];
    default:              return (double)row_nibble(more, i, kv->head_dim) - 7.5;
    }
}

/* Grid (tokens, kv heads, batch). */
static __global__ void __launch_bounds__(THREADS) stored_norms(const __grid_constant__ octavo_kv_view kv)
{
    const int lane = threadIdx.x % WARP;
    const int64_t token = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, b = blockIdx.z;
    if (token >= sequence_length(&kv, b)) return;
    const stored_token at = find_token(&kv, b, blockIdx.y, token);
    const uint8_t *more = stored_at(&kv.k[1], at);
    const double step = kv.k_format == OCTAVO_K_E4M3X2 ? ldexp(1.0, kv.k_residual_exponent) : kv.k_format == OCTAVO_K_INT8X2 ? 254.0 : 1.0;
    double sum = 0.0;
    for (int64_t i = lane; i < kv.head_dim && lane < NORM_LANES; i += NORM_LANES) sum += residual_at(&kv, more, i) * residual_at(&kv, more, i);
#pragma unroll
    for (int by = 1; by < NORM_LANES; by *= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, by);
    if (lane == 0) *stored_at(&kv.k_norm, at) = octavo_ue4m4_from_float_up((float)(sqrt(sum) / step * 1.000001));
}

/* Grid (units, kv heads, batch). */
static __global__ void __launch_bounds__(THREADS) stored_means(const __grid_constant__ octavo_kv_view kv)
{
    const int64_t unit = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, b = blockIdx.z;
    if ((unit + 1) * kv.sub_block_tokens > sequence_length(&kv, b)) return;
    put_unit_mean_warp(&kv, find_token(&kv, b, blockIdx.y, unit * kv.sub_block_tokens));
}

octavo_status octavo_block_metadata_cuda(const octavo_exec *exec, const octavo_block_metadata_params *p)
{
    const octavo_kv_view *kv = p->kv;
    const cudaStream_t stream = octavo_cuda_stream(exec);
    if (kv->batch > 65535 || kv->kv_heads > 65535)
        return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "kv.batch is %lld and kv_heads %d, expected at most 65535 on a GPU", (long long)kv->batch,
                                kv->kv_heads);
    if (kv->k_norm.data && octavo_k_plane_count(kv->k_format) > 1) {
        const dim3 grid((unsigned)octavo_cuda_ceil(kv->max_tokens, WARPS), (unsigned)kv->kv_heads, (unsigned)kv->batch);
        stored_norms<<<grid, THREADS, 0, stream>>>(*kv);
    }
    if (kv->v_mean.data) {
        const dim3 grid((unsigned)octavo_cuda_ceil(octavo_view_units(kv), WARPS), (unsigned)kv->kv_heads, (unsigned)kv->batch);
        stored_means<<<grid, THREADS, 0, stream>>>(*kv);
    }
    return octavo_cuda_launched("block_metadata");
}
