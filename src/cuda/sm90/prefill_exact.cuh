/* prefill_exact.cuh - exact attention of many queries in bf16 or f16: a producer warp copies, warpgroups multiply.
 *
 * A task is 64 rows a warpgroup, tokens of one query head, over the tiles of keys that they see; of the queries registers hold what fits, which
 * saves shared memory's bandwidth and power. Bound by the matrix unit, and by the power that a GPU may take; with a soft cap by exponentials. */
#ifndef OCTAVO_CUDA_SM90_PREFILL_EXACT_CUH
#define OCTAVO_CUDA_SM90_PREFILL_EXACT_CUH

#include "cuda/ptx/ptx_mma.cuh"
#include "cuda/sm90/prefill_sm90.h"
#include "cuda/tile/prefill_consume.cuh"

/* Queries and keys of 16 bits. */
template <typename L_, wgmma_type TYPE_, prefill_cap CAP_> struct exact_products {
    typedef L_ L;
    typedef float score_type;
    static constexpr wgmma_type TYPE = TYPE_;
    static constexpr prefill_cap CAP = CAP_;
    enum { SCALES = 1, SCALED = 1, STEPS = L::DIM / 16, HELD = L::DIM == 128 ? (CAP == CAPPED ? 4 : 8) : 0 /* steps of 16 columns in registers */ };
    uint32_t q, held[HELD + 1][4];
    float scale_log2;

    __device__ __forceinline__ exact_products(const prefill_tma_call &c, uint32_t base, int group)
        : q(base + group * L::Q_GROUP_BYTES), scale_log2(c.scale_log2) {}

    /* Columns [16 i, 16 i + 16) of the warp's rows. */
    __device__ __forceinline__ void load(uint32_t (&rows)[4], int thread, int i) const
    {
        const int row = thread % GROUP_THREADS / WARP * 16 + thread % 16;
        ldmatrix(rows, q + (i / 4 * GROUP_ROWS + row) * ROW_BYTES + ((i % 4 * 2 + thread % WARP / 16) ^ row % 8) * 16);
    }

    __device__ __forceinline__ void begin(const prefill_tma_call &, uint32_t base, uint32_t, int)
    {
#pragma unroll
        for (int i = 0; i < HELD; i++) load(held[i], (int)threadIdx.x, i);
        if (HELD == STEPS) ring_report(base + L::Q_EMPTY);
    }

    __device__ __forceinline__ void end(uint32_t base) const
    {
        if (HELD < STEPS) ring_report(base + L::Q_EMPTY);
    }

    __device__ __forceinline__ void ask(float (&score)[L::KEYS / 2], uint32_t k) const
    {
        const uint32_t rows = wgmma_begin(q), keys = wgmma_begin(k);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const int column = i / 4, within = i % 4 * 32;
            const uint64_t b = wgmma_matrix_at<ROW_BYTES>(keys + (column * L::KEYS * ROW_BYTES + within) / 16);
            if (i < HELD) wgmma_registers<TYPE>(score, held[i], b, i > 0);
            else wgmma_shared<TYPE>(score, wgmma_matrix_at<ROW_BYTES>(rows + (column * GROUP_ROWS * ROW_BYTES + within) / 16), b, i > 0);
        }
        wgmma_commit();
    }

    __device__ __forceinline__ void multiply(float (&score)[L::KEYS / 2], uint32_t k) const
    {
        const int thread = thread_anew(), lane = thread % WARP, key = lane % 8 + lane / 16 * 8;
#pragma unroll
        for (int n = 0; n < L::KEYS / 2; n++) score[n] = 0.0f;
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            uint32_t a[4], b[4];
            if (i < HELD) a[0] = held[i][0], a[1] = held[i][1], a[2] = held[i][2], a[3] = held[i][3];
            else load(a, thread, i);
#pragma unroll
            for (int n = 0; n < L::KEYS / 8; n++) {
                if (n % 2 == 0) ldmatrix(b, k + (i / 4 * L::KEYS + 8 * n + key) * ROW_BYTES + ((i % 4 * 2 + lane / 8 % 2) ^ key % 8) * 16);
                float(&part)[4] = *(float(*)[4])&score[4 * n];
                if (TYPE == WGMMA_BF16) mma_bf16(part, a, b[n % 2 * 2], b[n % 2 * 2 + 1]);
                else mma_f16(part, a, b[n % 2 * 2], b[n % 2 * 2 + 1]);
            }
        }
    }

    __device__ __forceinline__ void scale(float (&scales)[2][SCALES], uint32_t) const { scales[0][0] = scales[1][0] = scale_log2; }
    static __device__ __forceinline__ float shift(const prefill_tma_call &, int, int, int) { return 0.0f; }
};

/* Grid: a block a processor, or one a task. */
template <typename L, wgmma_type TYPE, prefill_cap CAP>
static __global__ void __launch_bounds__(L::THREADS, 1) prefill_exact(const __grid_constant__ prefill_tma_call c)
{
    extern __shared__ uint8_t shared[];
    prefill_block<exact_products<L, TYPE, CAP>>(c, shared);
}

template <typename L, wgmma_type TYPE, prefill_cap CAP> static octavo_status launch(const octavo_exec *exec, const prefill_call &of)
{
    prefill_tma_call call = {};
    int blocks;
    OCTAVO_CUDA_TRY(octavo_prefill_tma_plan(exec, of, TYPE == WGMMA_F16, L::ROWS, L::KEYS, &call, &blocks));
    return octavo_cuda_launch(prefill_exact<L, TYPE, CAP>, "attention_prefill", dim3((unsigned)blocks), L::THREADS, L::BYTES, exec, call);
}

template <wgmma_type TYPE, prefill_cap CAP> static octavo_status launch_dim(const octavo_exec *exec, const prefill_call &call)
{
    switch (call.kv.head_dim) {
    case 64:  return launch<prefill_layout<64, 2, CAP == CAPPED ? 96 : 128, 3, 4>, TYPE, CAP>(exec, call);
    case 96:  return launch<prefill_layout<96, 2, 96, 3, 3>, TYPE, CAP>(exec, call);
    case 128: return launch<prefill_layout<128, 2, 128, 2, 3>, TYPE, CAP>(exec, call);
    case 192: return launch<prefill_layout<192, 2, 96, 2, 2>, WGMMA_BF16, CAP>(exec, call); /* not of f16: octavo_prefill_fits_dim() */
    default:  return launch<prefill_layout<256, 2, 80, 2, 2>, TYPE, CAP>(exec, call);
    }
}

#endif
