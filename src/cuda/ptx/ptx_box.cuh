/* ptx_box.cuh - copies of boxes of tensors with five axes and of runs of bytes by the copy engine of sm_90: one instruction a function. */
#ifndef OCTAVO_CUDA_PTX_PTX_BOX_CUH
#define OCTAVO_CUDA_PTX_PTX_BOX_CUH

#include "cuda/ptx/ptx_tma.cuh"

/* What lies outside of the tensor arrives as zeros. */
static __device__ __forceinline__ void copy_box_5(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y, int z, int w, int v)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];"
                 ::"r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v) : "memory");
}

/* For bytes that nobody reads again soon: what is small and read by many stays in the second-level cache, code not least. */
static __device__ __forceinline__ uint64_t policy_of_once()
{
    uint64_t policy;
    asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
    return policy;
}

static __device__ __forceinline__ void copy_box_5_once(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y, int z, int w, int v)
{
    asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%3, %4, %5, %6, %7}], [%2], %8;"
                 ::"r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w), "r"(v), "l"(policy_of_once()) : "memory");
}

/* `bytes`, a multiple of 16, that lie side by side. */
static __device__ __forceinline__ void copy_bytes(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory");
}

static __device__ __forceinline__ void copy_bytes_once(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, [%3], %4;"
                 ::"r"(to), "l"(from), "r"(bytes), "r"(barrier), "l"(policy_of_once()) : "memory");
}

static __device__ __forceinline__ void store_shared_u8(uint32_t to, uint32_t x) { asm volatile("st.shared.u8 [%0], %1;" ::"r"(to), "r"(x) : "memory"); }

static __device__ __forceinline__ void store_shared_u16(uint32_t to, uint16_t x) { asm volatile("st.shared.u16 [%0], %1;" ::"r"(to), "h"(x) : "memory"); }

/* Asks for a line to be brought into the second-level cache. */
static __device__ __forceinline__ void prefetch_line(const void *at) { asm volatile("prefetch.global.L2 [%0];" ::"l"(at) : "memory"); }

#endif
