/* ptx_cluster.cuh - blocks of sm_90 that run together and reach each other's shared memory: one instruction a function. */
#ifndef OCTAVO_CUDA_PTX_PTX_CLUSTER_CUH
#define OCTAVO_CUDA_PTX_PTX_CLUSTER_CUH

#include <cstdint>

static __device__ __forceinline__ uint32_t cluster_rank()
{
    uint32_t rank;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}

/* A barrier of all threads of the cluster. Of what came before the report only barriers whose initialisation is done are sure to be there
 * after the wait. */
static __device__ __forceinline__ void cluster_report() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
static __device__ __forceinline__ void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }

/* The report of what was stored, too. */
static __device__ __forceinline__ void cluster_report_written() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }

/* The same place in the shared memory of another block. */
static __device__ __forceinline__ uint32_t shared_of(uint32_t address, uint32_t rank)
{
    uint32_t mapped;
    asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(mapped) : "r"(address), "r"(rank));
    return mapped;
}

/* Stores to another block. */
static __device__ __forceinline__ void store_far(uint32_t to, float a, float b, float c, float d)
{
    asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};" ::"r"(to), "f"(a), "f"(b), "f"(c), "f"(d) : "memory");
}

/* Of this block's memory, as other blocks have stored it so far. */
static __device__ __forceinline__ float4 load_far_stored(uint32_t from)
{
    float4 x;
    asm volatile("ld.relaxed.cluster.shared::cta.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x.x), "=f"(x.y), "=f"(x.z), "=f"(x.w) : "r"(from) : "memory");
    return x;
}

/* Reports to the barrier of another block: what this thread has stored, or seen stored, is there for those that wait. */
static __device__ __forceinline__ void mbarrier_report_far(uint32_t barrier)
{
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}

/* Waits for the end of a phase that other blocks of the cluster reported to. */
static __device__ __forceinline__ void mbarrier_wait_cluster(uint32_t barrier, uint32_t parity)
{
    asm volatile("{.reg .pred p; AGAIN: mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%0], %1; @p bra DONE; bra AGAIN; DONE:}"
                 ::"r"(barrier), "r"(parity) : "memory");
}

/* A run of bytes; addresses and length are multiples of 16. */
static __device__ __forceinline__ void copy_run(uint32_t to, const void *from, uint32_t bytes, uint32_t barrier)
{
    asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
                 ::"r"(to), "l"(from), "r"(bytes), "r"(barrier) : "memory");
}

static __device__ __forceinline__ void load_shared_pair(uint32_t from, uint32_t &a, uint32_t &b)
{
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(a), "=r"(b) : "r"(from) : "memory");
}

#endif
