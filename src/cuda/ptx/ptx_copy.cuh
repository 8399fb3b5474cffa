/* ptx_copy.cuh - asynchronous copies into shared memory, and the order of kernels that follow each other. */
#ifndef OCTAVO_CUDA_PTX_PTX_COPY_CUH
#define OCTAVO_CUDA_PTX_PTX_COPY_CUH

#include <cstdint>

static __device__ __forceinline__ uint32_t shared_address(const void *at) { return (uint32_t)__cvta_generic_to_shared(at); }

/* 16 bytes past the first-level cache; `bytes` 0 writes zeros instead and reads nothing. */
static __device__ __forceinline__ void copy_16(uint32_t to, const void *from, uint32_t bytes)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

/* A word through the first-level cache. */
static __device__ __forceinline__ void copy_4(uint32_t to, const void *from)
{
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(to), "l"(from) : "memory");
}

static __device__ __forceinline__ uint32_t load_shared_word(uint32_t from)
{
    uint32_t word;
    asm volatile("ld.shared.u32 %0, [%1];" : "=r"(word) : "r"(from) : "memory");
    return word;
}

static __device__ __forceinline__ void store_shared_16(uint32_t to, const uint4 &x)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
}

/* Data that is read once; these loads are not put off until they are used. */
static __device__ __forceinline__ uint4 load_once_16(const void *from)
{
    uint4 out;
    asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];" : "=r"(out.x), "=r"(out.y), "=r"(out.z), "=r"(out.w) : "l"(from));
    return out;
}
static __device__ __forceinline__ float load_once(const float *from)
{
    float out;
    asm volatile("ld.global.L1::no_allocate.f32 %0, [%1];" : "=f"(out) : "l"(from));
    return out;
}

static __device__ __forceinline__ void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

/* Waits for all but the newest `LEFT` groups of this thread. */
template <int LEFT> static __device__ __forceinline__ void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }

/* What this thread wrote or knows of is there for all threads of the device before what it writes from now on, and what it reads from
 * now on is read after what it has read. */
static __device__ __forceinline__ void fence_for_device() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }

/* Adds, behind all that this thread wrote or knows of and before all that it reads from now on; what the word held. */
static __device__ __forceinline__ unsigned long long add_for_device(unsigned long long *word, unsigned long long x)
{
    unsigned long long before;
    asm volatile("atom.add.acq_rel.gpu.u64 %0, [%1], %2;" : "=l"(before) : "l"(word), "l"(x) : "memory");
    return before;
}

/* The next kernel of the stream may start its blocks; what this one writes is not yet to be read. */
static __device__ __forceinline__ void next_kernel_may_start()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

/* All that the kernels before this one wrote is there. */
static __device__ __forceinline__ void wait_for_kernel_before()
{
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

#endif
