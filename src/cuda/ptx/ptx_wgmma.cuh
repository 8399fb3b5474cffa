/* ptx_wgmma.cuh - the warpgroup's matrix unit of sm_90a: one instruction a function.
 *
 * Four warps multiply together and go on while the unit works: between wgmma_fence() and the wgmma_wait() that covers an instruction its
 * registers are not to be touched. c [64, N] lies in registers as warp w's rows 16 w + g and 16 w + g + 8, g = lane / 4, t = lane % 4:
 * c[4 n + i] is column 8 n + 2 t + i % 2 of row g + i / 2 * 8. */
#ifndef OCTAVO_CUDA_PTX_PTX_WGMMA_CUH
#define OCTAVO_CUDA_PTX_PTX_WGMMA_CUH

#include <cstdint>

static __device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
static __device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }

/* Waits for all but the newest `LEFT` groups. */
template <int LEFT> static __device__ __forceinline__ void wgmma_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory"); }

/* Keeps the compiler from moving a use of the registers across. */
template <int COUNT> static __device__ __forceinline__ void wgmma_pin(float (&c)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) asm volatile("" : "+f"(c[i])::"memory");
}

/* The thread's number, read each time: what is made of it in a branch that is seldom taken needs no registers elsewhere. */
static __device__ __forceinline__ int thread_anew()
{
    int thread;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(thread));
    return thread;
}

/* Registers a thread of the warpgroup that calls it. */
template <int COUNT> static __device__ __forceinline__ void registers_take() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT)); }
template <int COUNT> static __device__ __forceinline__ void registers_give() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT)); }

/* A barrier of the block, 1 to 15, of `threads` threads: those that wait and those that only report. */
static __device__ __forceinline__ void barrier_wait_named(int which, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(which), "r"(threads) : "memory");
}
static __device__ __forceinline__ void barrier_report_named(int which, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(which), "r"(threads) : "memory");
}

/* A matrix in shared memory whose rows are ROW bytes (64 or 128), swizzled by as much, in groups of eight rows that follow each other. begin:
 * wgmma_begin() of its address, to which bytes / 16 may be added. What lies further along the row begins leading_bytes later (only where rows
 * run along the columns of b: else an instruction never goes beyond one). */
static __device__ __forceinline__ uint32_t wgmma_begin(uint32_t address, uint32_t leading_bytes = 16)
{
    return (address & 0x3ffff) >> 4 | leading_bytes >> 4 << 16;
}
template <int ROW> static __device__ __forceinline__ uint64_t wgmma_matrix_at(uint32_t begin)
{
    static_assert(ROW == 64 || ROW == 128, "rows that the copy engine swizzles");
    uint64_t matrix;
    asm("mov.b64 %0, {%1, %2};" : "=l"(matrix) : "r"(begin), "n"((8 * ROW >> 4) | (ROW == 128 ? 1 : 2) << 30));
    return matrix;
}

enum wgmma_type { WGMMA_BF16, WGMMA_F16 };

#define WGMMA_REGISTERS_32 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}"
#define WGMMA_REGISTERS_40 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
    " %32, %33, %34, %35, %36, %37, %38, %39}"
#define WGMMA_REGISTERS_48 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
    " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}"
#define WGMMA_REGISTERS_64 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
    " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47," \
    " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}"
#define WGMMA_REGISTERS_96 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
    " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47," \
    " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63," \
    " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79," \
    " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95}"
#define WGMMA_REGISTERS_128 \
    "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15," \
    " %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31," \
    " %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47," \
    " %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63," \
    " %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79," \
    " %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95," \
    " %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111," \
    " %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}"
#define WGMMA_F8(c, i) "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), "+f"(c[i + 6]), "+f"(c[i + 7])
#define WGMMA_F32(c, i) WGMMA_F8(c, i), WGMMA_F8(c, i + 8), WGMMA_F8(c, i + 16), WGMMA_F8(c, i + 24)
#define WGMMA_F40(c)    WGMMA_F32(c, 0), WGMMA_F8(c, 32)
#define WGMMA_F48(c)    WGMMA_F40(c), WGMMA_F8(c, 40)
#define WGMMA_F64(c)    WGMMA_F32(c, 0), WGMMA_F32(c, 32)
#define WGMMA_F96(c)    WGMMA_F32(c, 0), WGMMA_F32(c, 32), WGMMA_F32(c, 64)
#define WGMMA_F128(c)   WGMMA_F32(c, 0), WGMMA_F32(c, 32), WGMMA_F32(c, 64), WGMMA_F32(c, 96)

/* c (+)= a b with a [64, 16] in shared memory, rows along its columns, and b [16, N] there, its columns as rows. */
#define WGMMA_SHARED(shape, types, registers, outputs, p, i, j)                                                                       \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " p ", 0; wgmma.mma_async.sync.aligned." shape ".f32." types " " registers ", " i ", " j \
                 ", p, 1, 1, 0, 0;}" : outputs : "l"(a), "l"(b), "r"(add))
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_shared(float (&c)[40], uint64_t a, uint64_t b, int add)
{
    if (TYPE == WGMMA_BF16) WGMMA_SHARED("m64n80k16", "bf16.bf16", WGMMA_REGISTERS_40, WGMMA_F40(c), "%42", "%40", "%41");
    else WGMMA_SHARED("m64n80k16", "f16.f16", WGMMA_REGISTERS_40, WGMMA_F40(c), "%42", "%40", "%41");
}
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_shared(float (&c)[48], uint64_t a, uint64_t b, int add)
{
    if (TYPE == WGMMA_BF16) WGMMA_SHARED("m64n96k16", "bf16.bf16", WGMMA_REGISTERS_48, WGMMA_F48(c), "%50", "%48", "%49");
    else WGMMA_SHARED("m64n96k16", "f16.f16", WGMMA_REGISTERS_48, WGMMA_F48(c), "%50", "%48", "%49");
}
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_shared(float (&c)[64], uint64_t a, uint64_t b, int add)
{
    if (TYPE == WGMMA_BF16) WGMMA_SHARED("m64n128k16", "bf16.bf16", WGMMA_REGISTERS_64, WGMMA_F64(c), "%66", "%64", "%65");
    else WGMMA_SHARED("m64n128k16", "f16.f16", WGMMA_REGISTERS_64, WGMMA_F64(c), "%66", "%64", "%65");
}

/* The same with a in registers, where a lane has columns 2 t, 2 t + 1 of rows g and g + 8, then columns 2 t + 8 and on. */
#define WGMMA_REGISTERS(shape, types, registers, outputs, p, a0, a1, a2, a3, j)                                                             \
    asm volatile("{.reg .pred p; setp.ne.b32 p, " p ", 0; wgmma.mma_async.sync.aligned." shape ".f32." types " " registers ", {" a0 ", " a1 \
                 ", " a2 ", " a3 "}, " j ", p, 1, 1, 0;}" : outputs : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(add))
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_registers(float (&c)[40], const uint32_t (&a)[4], uint64_t b, int add)
{
    if (TYPE == WGMMA_BF16) WGMMA_REGISTERS("m64n80k16", "bf16.bf16", WGMMA_REGISTERS_40, WGMMA_F40(c), "%45", "%40", "%41", "%42", "%43", "%44");
    else WGMMA_REGISTERS("m64n80k16", "f16.f16", WGMMA_REGISTERS_40, WGMMA_F40(c), "%45", "%40", "%41", "%42", "%43", "%44");
}
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_registers(float (&c)[48], const uint32_t (&a)[4], uint64_t b, int add)
{
    if (TYPE == WGMMA_BF16) WGMMA_REGISTERS("m64n96k16", "bf16.bf16", WGMMA_REGISTERS_48, WGMMA_F48(c), "%53", "%48", "%49", "%50", "%51", "%52");
    else WGMMA_REGISTERS("m64n96k16", "f16.f16", WGMMA_REGISTERS_48, WGMMA_F48(c), "%53", "%48", "%49", "%50", "%51", "%52");
}
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_registers(float (&c)[64], const uint32_t (&a)[4], uint64_t b, int add)
{
    if (TYPE == WGMMA_BF16) WGMMA_REGISTERS("m64n128k16", "bf16.bf16", WGMMA_REGISTERS_64, WGMMA_F64(c), "%69", "%64", "%65", "%66", "%67", "%68");
    else WGMMA_REGISTERS("m64n128k16", "f16.f16", WGMMA_REGISTERS_64, WGMMA_F64(c), "%69", "%64", "%65", "%66", "%67", "%68");
}

/* c += a b with a in registers and the rows of b as rows. rows_as: "1" for that, "0" for the columns of b as rows. */
#define WGMMA_ADD(shape, types, registers, outputs, a0, a1, a2, a3, j, rows_as)                                                  \
    asm volatile("wgmma.mma_async.sync.aligned." shape ".f32." types " " registers ", {" a0 ", " a1 ", " a2 ", " a3 "}, " j       \
                 ", 1, 1, 1, " rows_as ";" : outputs : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b))
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_registers_rows(float (&c)[32], const uint32_t (&a)[4], uint64_t b)
{
    if (TYPE == WGMMA_BF16) WGMMA_ADD("m64n64k16", "bf16.bf16", WGMMA_REGISTERS_32, WGMMA_F32(c, 0), "%32", "%33", "%34", "%35", "%36", "1");
    else WGMMA_ADD("m64n64k16", "f16.f16", WGMMA_REGISTERS_32, WGMMA_F32(c, 0), "%32", "%33", "%34", "%35", "%36", "1");
}
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_registers_rows(float (&c)[48], const uint32_t (&a)[4], uint64_t b)
{
    if (TYPE == WGMMA_BF16) WGMMA_ADD("m64n96k16", "bf16.bf16", WGMMA_REGISTERS_48, WGMMA_F48(c), "%48", "%49", "%50", "%51", "%52", "1");
    else WGMMA_ADD("m64n96k16", "f16.f16", WGMMA_REGISTERS_48, WGMMA_F48(c), "%48", "%49", "%50", "%51", "%52", "1");
}
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_registers_rows(float (&c)[64], const uint32_t (&a)[4], uint64_t b)
{
    if (TYPE == WGMMA_BF16) WGMMA_ADD("m64n128k16", "bf16.bf16", WGMMA_REGISTERS_64, WGMMA_F64(c), "%64", "%65", "%66", "%67", "%68", "1");
    else WGMMA_ADD("m64n128k16", "f16.f16", WGMMA_REGISTERS_64, WGMMA_F64(c), "%64", "%65", "%66", "%67", "%68", "1");
}
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_registers_rows(float (&c)[96], const uint32_t (&a)[4], uint64_t b)
{
    if (TYPE == WGMMA_BF16) WGMMA_ADD("m64n192k16", "bf16.bf16", WGMMA_REGISTERS_96, WGMMA_F96(c), "%96", "%97", "%98", "%99", "%100", "1");
    else WGMMA_ADD("m64n192k16", "f16.f16", WGMMA_REGISTERS_96, WGMMA_F96(c), "%96", "%97", "%98", "%99", "%100", "1");
}
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_registers_rows(float (&c)[128], const uint32_t (&a)[4], uint64_t b)
{
    if (TYPE == WGMMA_BF16) WGMMA_ADD("m64n256k16", "bf16.bf16", WGMMA_REGISTERS_128, WGMMA_F128(c), "%128", "%129", "%130", "%131", "%132", "1");
    else WGMMA_ADD("m64n256k16", "f16.f16", WGMMA_REGISTERS_128, WGMMA_F128(c), "%128", "%129", "%130", "%131", "%132", "1");
}

/* c += a b with a in registers, likewise, and b [16, N] in shared memory with its columns as rows. */
#define WGMMA_SUMS_16(c, i) WGMMA_F8(c, i), WGMMA_F8(c, i + 8)
#define WGMMA_REGISTERS_8  "{%0, %1, %2, %3, %4, %5, %6, %7}"
#define WGMMA_REGISTERS_16 "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}"
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_shared(float (&c)[8], uint64_t a, uint64_t b, int add)
{
    if (TYPE == WGMMA_BF16) WGMMA_SHARED("m64n16k16", "bf16.bf16", WGMMA_REGISTERS_8, WGMMA_F8(c, 0), "%10", "%8", "%9");
    else WGMMA_SHARED("m64n16k16", "f16.f16", WGMMA_REGISTERS_8, WGMMA_F8(c, 0), "%10", "%8", "%9");
}
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_rows(float (&c)[8], const uint32_t (&a)[4], uint64_t b)
{
    if (TYPE == WGMMA_BF16) WGMMA_ADD("m64n16k16", "bf16.bf16", WGMMA_REGISTERS_8, WGMMA_F8(c, 0), "%8", "%9", "%10", "%11", "%12", "0");
    else WGMMA_ADD("m64n16k16", "f16.f16", WGMMA_REGISTERS_8, WGMMA_F8(c, 0), "%8", "%9", "%10", "%11", "%12", "0");
}
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_rows(float (&c)[16], const uint32_t (&a)[4], uint64_t b)
{
    if (TYPE == WGMMA_BF16) WGMMA_ADD("m64n32k16", "bf16.bf16", WGMMA_REGISTERS_16, WGMMA_SUMS_16(c, 0), "%16", "%17", "%18", "%19", "%20", "0");
    else WGMMA_ADD("m64n32k16", "f16.f16", WGMMA_REGISTERS_16, WGMMA_SUMS_16(c, 0), "%16", "%17", "%18", "%19", "%20", "0");
}
template <wgmma_type TYPE> static __device__ __forceinline__ void wgmma_rows(float (&c)[32], const uint32_t (&a)[4], uint64_t b)
{
    if (TYPE == WGMMA_BF16) WGMMA_ADD("m64n64k16", "bf16.bf16", WGMMA_REGISTERS_32, WGMMA_F32(c, 0), "%32", "%33", "%34", "%35", "%36", "0");
    else WGMMA_ADD("m64n64k16", "f16.f16", WGMMA_REGISTERS_32, WGMMA_F32(c, 0), "%32", "%33", "%34", "%35", "%36", "0");
}

#endif
