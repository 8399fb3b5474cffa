/* checksum.cu - reads memory as fast as the device can, and adds it up. */
#include "cuda/cuda_call.h"
#include "cuda/cuda_install.h"

enum { THREADS = 512, UNROLL = 8, BLOCKS_A_PROCESSOR = 4 };

/* Grid: BLOCKS_A_PROCESSOR blocks a multiprocessor, each taking every gridDim-th span of THREADS * UNROLL vectors. */
static __global__ void __launch_bounds__(THREADS) checksum(const ulonglong2 *data, int64_t count, unsigned long long *sum)
{
    unsigned long long mine = 0;
    const int64_t span = THREADS * UNROLL;
    for (int64_t first = (int64_t)blockIdx.x * span; first < count; first += (int64_t)gridDim.x * span) {
        ulonglong2 value[UNROLL];
#pragma unroll
        for (int i = 0; i < UNROLL; i++) {
            const int64_t at = first + i * THREADS + threadIdx.x;
            value[i] = at < count ? __ldcs(data + at) : make_ulonglong2(0, 0);
        }
#pragma unroll
        for (int i = 0; i < UNROLL; i++) mine += value[i].x + value[i].y;
    }
    for (int step = 16; step > 0; step /= 2) mine += __shfl_xor_sync(0xffffffffu, mine, step);
    if (threadIdx.x % 32 == 0) atomicAdd(sum, mine);
}

octavo_status octavo_cuda_checksum(cudaStream_t stream, const void *data, size_t bytes, uint64_t *sum)
{
    int device = 0, processors = 0;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaGetDevice(&device), "cudaGetDevice"));
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device), "cudaDeviceGetAttribute"));
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaMemsetAsync(sum, 0, sizeof *sum, stream), "cudaMemsetAsync"));
    checksum<<<(unsigned)(processors * BLOCKS_A_PROCESSOR), THREADS, 0, stream>>>((const ulonglong2 *)data, (int64_t)(bytes / 16),
                                                                                  (unsigned long long *)sum);
    return octavo_cuda_launched("checksum");
}
