/* ptx_tma.cuh - the copy engine of sm_90 and the barriers in shared memory that its copies report to: one instruction a function. */
#ifndef OCTAVO_CUDA_PTX_PTX_TMA_CUH
#define OCTAVO_CUDA_PTX_PTX_TMA_CUH

#include "cuda/ptx/ptx_copy.cuh"
#include <cuda.h>

static __device__ __forceinline__ void mbarrier_init(uint32_t barrier, uint32_t reports)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(reports) : "memory");
}

/* Barriers just initialised are there for the copy engine, too. */
static __device__ __forceinline__ void mbarrier_init_done() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }

static __device__ __forceinline__ void mbarrier_report(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Reports, and lets the phase last until `bytes` have been copied, too. */
static __device__ __forceinline__ void mbarrier_report_and_expect(uint32_t barrier, uint32_t bytes)
{
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes) : "memory");
}

/* Waits for the end of a phase: of the first one with parity 0, of the next with 1, and so on. */
static __device__ __forceinline__ void mbarrier_wait(uint32_t barrier, uint32_t parity)
{
    asm volatile("{.reg .pred p; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1; @p bra DONE; bra AGAIN; DONE:}"
                 ::"r"(barrier), "r"(parity) : "memory");
}

/* What this thread stored to shared memory is there for the copy engine and the matrix unit. */
static __device__ __forceinline__ void fence_for_engines() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

static __device__ __forceinline__ void store_shared(uint32_t to, int word) { asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(word) : "memory"); }

static __device__ __forceinline__ int load_shared(uint32_t from)
{
    int word;
    asm volatile("ld.shared.b32 %0, [%1];" : "=r"(word) : "r"(from) : "memory");
    return word;
}

/* A box of a tensor of four axes; what lies outside of the tensor arrives as zeros. */
static __device__ __forceinline__ void copy_box(uint32_t to, const CUtensorMap *map, uint32_t barrier, int x, int y, int z, int w)
{
    asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
                 ::"r"(to), "l"(map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
}

static __device__ __forceinline__ void prefetch_map(const CUtensorMap *map) { asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory"); }

#endif
