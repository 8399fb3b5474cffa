/* cuda_device_check.cu - our conversions as device code against the GPU's own, for all 2^32 floats.
 *
 * Without a GPU it says so and passes: that it compiles is checked wherever nvcc is. Grid: as many blocks as fill the device. */
#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include <cstdio>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

enum { FORMATS = 4 };
static const char *const NAMES[FORMATS] = { "e4m3", "e5m2", "bf16", "fp16" };

/* NaN payloads may differ: a NaN equals any NaN. */
static __device__ bool same16(unsigned ours, unsigned theirs, unsigned infinity)
{
    return ours == theirs || ((ours & 0x7fffu) > infinity && (theirs & 0x7fffu) > infinity);
}

static __global__ void compare(unsigned long long *wrong /* [FORMATS] */)
{
    const unsigned long long step = (unsigned long long)gridDim.x * blockDim.x;
    unsigned long long mine[FORMATS] = { 0 };
    for (unsigned long long i = (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x; i < 1ull << 32; i += step) {
        const float x = __uint_as_float((unsigned)i);
        const bool nan = x != x;
        mine[0] += !nan && octavo_e4m3_from_float(x) != __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
        mine[1] += !nan && octavo_e5m2_from_float(x) != __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2);
        mine[2] += !same16(octavo_bf16_from_float(x), __bfloat16_as_ushort(__float2bfloat16_rn(x)), 0x7f80u);
        mine[3] += !same16(octavo_fp16_from_float(x), __half_as_ushort(__float2half_rn(x)), 0x7c00u);
    }
    for (int format = 0; format < FORMATS; format++)
        if (mine[format]) atomicAdd(&wrong[format], mine[format]);
}

int main()
{
    int devices = 0, failed = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
        std::printf("skipped: there is no GPU here\n");
        return 0;
    }
    unsigned long long *wrong = nullptr;
    if (cudaMalloc(&wrong, FORMATS * sizeof *wrong) != cudaSuccess) return 2;
    unsigned long long found[FORMATS] = { 0 };
    cudaMemset(wrong, 0, FORMATS * sizeof *wrong);
    compare<<<1024, 256>>>(wrong);
    const cudaError_t status = cudaMemcpy(found, wrong, sizeof found, cudaMemcpyDeviceToHost);
    if (status != cudaSuccess) {
        std::printf("the device failed: %s\n", cudaGetErrorString(status));
        return 2;
    }
    for (int format = 0; format < FORMATS; format++) {
        std::printf("%s: 4294967296 floats, %llu differ\n", NAMES[format], found[format]);
        failed |= found[format] != 0;
    }
    cudaFree(wrong);
    return failed;
}
