/* ptx_wgmma_narrow.cuh - products of E4M3 codes on the warpgroup's matrix unit with 8 to 64 columns: one instruction a function; see
 * ptx_wgmma_eight.cuh. */
#ifndef OCTAVO_CUDA_PTX_PTX_WGMMA_NARROW_CUH
#define OCTAVO_CUDA_PTX_PTX_WGMMA_NARROW_CUH

#include "cuda/ptx/ptx_wgmma_eight.cuh"

#define WGMMA_REGISTERS_4  "{%0, %1, %2, %3}"
#define WGMMA_REGISTERS_8  "{%0, %1, %2, %3, %4, %5, %6, %7}"
#define WGMMA_REGISTERS_16 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}"
#define WGMMA_F4(c)  "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
#define WGMMA_F16(c) WGMMA_F8(c, 0), WGMMA_F8(c, 8)

/* c (+)= a b, a [64, 32], b [32, N], both in shared memory. */
static __device__ __forceinline__ void wgmma_eight_shared(float (&c)[4], uint64_t a, uint64_t b, int add)
{
    WGMMA_EIGHT_SHARED("m64n8k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_4, WGMMA_F4(c), "%6", "%4", "%5", ", 1, 1");
}
static __device__ __forceinline__ void wgmma_eight_shared(float (&c)[8], uint64_t a, uint64_t b, int add)
{
    WGMMA_EIGHT_SHARED("m64n16k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_8, WGMMA_F8(c, 0), "%10", "%8", "%9", ", 1, 1");
}
static __device__ __forceinline__ void wgmma_eight_shared(float (&c)[16], uint64_t a, uint64_t b, int add)
{
    WGMMA_EIGHT_SHARED("m64n32k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_16, WGMMA_F16(c), "%18", "%16", "%17", ", 1, 1");
}
static __device__ __forceinline__ void wgmma_eight_shared(float (&c)[32], uint64_t a, uint64_t b, int add)
{
    WGMMA_EIGHT_SHARED("m64n64k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_32, WGMMA_F32(c, 0), "%34", "%32", "%33", ", 1, 1");
}

/* The same with a in registers. */
static __device__ __forceinline__ void wgmma_eight_registers(float (&c)[4], const uint32_t (&a)[4], uint64_t b, int add)
{
    WGMMA_EIGHT_REGISTERS("m64n8k32", WGMMA_REGISTERS_4, WGMMA_F4(c), "%9", "%4", "%5", "%6", "%7", "%8");
}
static __device__ __forceinline__ void wgmma_eight_registers(float (&c)[8], const uint32_t (&a)[4], uint64_t b, int add)
{
    WGMMA_EIGHT_REGISTERS("m64n16k32", WGMMA_REGISTERS_8, WGMMA_F8(c, 0), "%13", "%8", "%9", "%10", "%11", "%12");
}
static __device__ __forceinline__ void wgmma_eight_registers(float (&c)[16], const uint32_t (&a)[4], uint64_t b, int add)
{
    WGMMA_EIGHT_REGISTERS("m64n32k32", WGMMA_REGISTERS_16, WGMMA_F16(c), "%21", "%16", "%17", "%18", "%19", "%20");
}

#endif
