/* ptx_wgmma_eight.cuh - products of codes of a byte on the warpgroup's matrix unit: one instruction a function; see ptx_wgmma.cuh.
 *
 * Both operands have rows along their columns. a in registers: a lane has columns 4 t to 4 t + 3 of rows g and g + 8, then columns 4 t + 16
 * and on. Sums of e4m3 keep 13 bits or so, those of int8 are exact. */
#ifndef OCTAVO_CUDA_PTX_PTX_WGMMA_EIGHT_CUH
#define OCTAVO_CUDA_PTX_PTX_WGMMA_EIGHT_CUH

#include "cuda/ptx/ptx_wgmma.cuh"

#define WGMMA_R8(c, i)  "+r"(c[i]), "+r"(c[i + 1]), "+r"(c[i + 2]), "+r"(c[i + 3]), "+r"(c[i + 4]), "+r"(c[i + 5]), "+r"(c[i + 6]), "+r"(c[i + 7])
#define WGMMA_R32(c, i) WGMMA_R8(c, i), WGMMA_R8(c, i + 8), WGMMA_R8(c, i + 16), WGMMA_R8(c, i + 24)
#define WGMMA_R64(c)    WGMMA_R32(c, 0), WGMMA_R32(c, 32)

/* c (+)= a b, a [64, 32], b [32, 64] or [32, 128], both in shared memory. */
#define WGMMA_EIGHT_SHARED(shape, types, registers, outputs, p, i, j, rest)                                                               \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " p ", 0; wgmma.mma_async.sync.aligned." shape "." types " " registers ", " i ", " j ", p" \
                 rest ";}" : outputs : "l"(a), "l"(b), "r"(add))
static __device__ __forceinline__ void wgmma_eight_shared(float (&c)[32], uint64_t a, uint64_t b, int add)
{
    WGMMA_EIGHT_SHARED("m64n64k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_32, WGMMA_F32(c, 0), "%34", "%32", "%33", ", 1, 1");
}
static __device__ __forceinline__ void wgmma_eight_shared(float (&c)[64], uint64_t a, uint64_t b, int add)
{
    WGMMA_EIGHT_SHARED("m64n128k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_64, WGMMA_F64(c), "%66", "%64", "%65", ", 1, 1");
}
static __device__ __forceinline__ void wgmma_eight_shared(int (&c)[32], uint64_t a, uint64_t b, int add)
{
    WGMMA_EIGHT_SHARED("m64n64k32", "s32.s8.s8", WGMMA_REGISTERS_32, WGMMA_R32(c, 0), "%34", "%32", "%33", "");
}
static __device__ __forceinline__ void wgmma_eight_shared(int (&c)[64], uint64_t a, uint64_t b, int add)
{
    WGMMA_EIGHT_SHARED("m64n128k32", "s32.s8.s8", WGMMA_REGISTERS_64, WGMMA_R64(c), "%66", "%64", "%65", "");
}

/* The same with a in registers, b [32, N]. */
#define WGMMA_EIGHT_REGISTERS(shape, types, registers, outputs, p, a0, a1, a2, a3, j, rest)                                                 \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " p ", 0; wgmma.mma_async.sync.aligned." shape "." types " " registers ", {" a0 ", " a1     \
                 ", " a2 ", " a3 "}, " j ", p" rest ";}" : outputs : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))
#define WGMMA_F4(c, i)    "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3])
#define WGMMA_F36(c)      WGMMA_F32(c, 0), WGMMA_F4(c, 32)
#define WGMMA_F52(c)      WGMMA_F48(c), WGMMA_F4(c, 48)
#define WGMMA_F68(c)      WGMMA_F64(c), WGMMA_F4(c, 64)
#define WGMMA_REGISTERS_36 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35}"
#define WGMMA_REGISTERS_52 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
    " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, %48, %49, %50, %51}"
#define WGMMA_REGISTERS_68 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
    " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47," \
    " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, %64, %65, %66, %67}"
static __device__ __forceinline__ void wgmma_eight_registers(float (&c)[32], const uint32_t (&a)[4], uint64_t b, int add)
{
    WGMMA_EIGHT_REGISTERS("m64n64k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_32, WGMMA_F32(c, 0), "%37", "%32", "%33", "%34", "%35", "%36", ", 1, 1");
}
static __device__ __forceinline__ void wgmma_eight_registers(float (&c)[36], const uint32_t (&a)[4], uint64_t b, int add)
{
    WGMMA_EIGHT_REGISTERS("m64n72k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_36, WGMMA_F36(c), "%41", "%36", "%37", "%38", "%39", "%40", ", 1, 1");
}
static __device__ __forceinline__ void wgmma_eight_registers(float (&c)[48], const uint32_t (&a)[4], uint64_t b, int add)
{
    WGMMA_EIGHT_REGISTERS("m64n96k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_48, WGMMA_F48(c), "%53", "%48", "%49", "%50", "%51", "%52", ", 1, 1");
}
static __device__ __forceinline__ void wgmma_eight_registers(float (&c)[52], const uint32_t (&a)[4], uint64_t b, int add)
{
    WGMMA_EIGHT_REGISTERS("m64n104k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_52, WGMMA_F52(c), "%57", "%52", "%53", "%54", "%55", "%56", ", 1, 1");
}
static __device__ __forceinline__ void wgmma_eight_registers(float (&c)[64], const uint32_t (&a)[4], uint64_t b, int add)
{
    WGMMA_EIGHT_REGISTERS("m64n128k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_64, WGMMA_F64(c), "%69", "%64", "%65", "%66", "%67", "%68", ", 1, 1");
}
static __device__ __forceinline__ void wgmma_eight_registers(float (&c)[68], const uint32_t (&a)[4], uint64_t b, int add)
{
    WGMMA_EIGHT_REGISTERS("m64n136k32", "f32.e4m3.e4m3", WGMMA_REGISTERS_68, WGMMA_F68(c), "%73", "%68", "%69", "%70", "%71", "%72", ", 1, 1");
}

static __device__ __forceinline__ void wgmma_eight_registers(int (&c)[32], const uint32_t (&a)[4], uint64_t b, int add)
{
    WGMMA_EIGHT_REGISTERS("m64n64k32", "s32.s8.s8", WGMMA_REGISTERS_32, WGMMA_R32(c, 0), "%37", "%32", "%33", "%34", "%35", "%36", "");
}
static __device__ __forceinline__ void wgmma_eight_registers(int (&c)[64], const uint32_t (&a)[4], uint64_t b, int add)
{
    WGMMA_EIGHT_REGISTERS("m64n128k32", "s32.s8.s8", WGMMA_REGISTERS_64, WGMMA_R64(c), "%69", "%64", "%65", "%66", "%67", "%68", "");
}

template <int COUNT> static __device__ __forceinline__ void wgmma_pin(int (&c)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+r"(c[i])::"memory");
}

#endif
