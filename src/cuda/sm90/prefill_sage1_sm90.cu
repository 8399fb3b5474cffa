/* prefill_sage1_sm90.cu - SageAttention 1: INT8 scores, weights and values of 16 bits, with the copy engine and the warpgroups' matrix unit.
 *
 * Queries and keys are codes in the workspace (kernel/prefill_eight.h), values are read where they are stored. A lane's keys of 64 share a
 * scale. What copies and weighs is that of exact attention. Bound by the matrix unit and by exponentials. */
#include "cuda/ptx/ptx_mma.cuh"
#include "cuda/ptx/ptx_wgmma_eight.cuh"
#include "cuda/sm90/prefill_sm90.h"
#include "cuda/tile/prefill_consume.cuh"

/* Queries and keys of INT8. */
template <typename L_, wgmma_type TYPE_> struct sage1_products {
    typedef L_ L;
    typedef int score_type;
    static constexpr wgmma_type TYPE = TYPE_;
    static constexpr prefill_cap CAP = UNCAPPED;
    enum { SCALES = L::SCALES, SCALED = 0, STEPS = L::DIM / 32, ROW_STEPS = L::KEY_ROW / 32 };
    uint32_t q;
    float factor[2]; /* of the lane's rows */

    __device__ __forceinline__ sage1_products(const prefill_tma_call &, uint32_t base, int group) : q(base + group * L::Q_GROUP_BYTES) {}

    __device__ __forceinline__ void begin(const prefill_tma_call &c, uint32_t, uint32_t task, int my_row)
    {
        const int64_t line = (int64_t)load_shared(task + 4 * TOLD_BATCH) * c.of.p.q.shape[2] + load_shared(task + 4 * TOLD_HEAD);
        const int first = load_shared(task + 4 * TOLD_ROW) + my_row, queries = load_shared(task + 4 * TOLD_QUERIES);
#pragma unroll
        for (int row = 0; row < 2; row++) factor[row] = first + 8 * row < queries ? c.q_scale[line * c.q_tokens + first + 8 * row] * c.scale_log2 : 0.0f;
    }

    __device__ __forceinline__ void end(uint32_t base) const { ring_report(base + L::Q_EMPTY); }

    __device__ __forceinline__ void ask(int (&score)[L::KEYS / 2], uint32_t k) const
    {
        const uint32_t rows = wgmma_begin(q), keys = wgmma_begin(k);
        wgmma_fence();
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const int column = i / ROW_STEPS, within = i % ROW_STEPS * 32;
            wgmma_eight_shared(score, wgmma_matrix_at<L::KEY_ROW>(rows + (column * GROUP_ROWS * L::KEY_ROW + within) / 16),
                               wgmma_matrix_at<L::KEY_ROW>(keys + (column * L::KEYS * L::KEY_ROW + within) / 16), i > 0);
        }
        wgmma_commit();
    }

    __device__ __forceinline__ void multiply(int (&score)[L::KEYS / 2], uint32_t k) const
    {
        const int thread = thread_anew(), lane = thread % WARP, row = thread % GROUP_THREADS / WARP * 16 + lane % 16, key = lane % 8 + lane / 16 * 8;
#pragma unroll
        for (int n = 0; n < L::KEYS / 2; n++) score[n] = 0;
#pragma unroll
        for (int i = 0; i < STEPS; i++) {
            const int column = i / ROW_STEPS, piece = i % ROW_STEPS * 2;
            uint32_t a[4], b[4];
            const uint32_t keys = swizzled_piece<L::KEY_ROW>(k + column * L::KEYS * L::KEY_ROW, key, piece + lane / 8 % 2);
            ldmatrix(a, swizzled_piece<L::KEY_ROW>(q + column * GROUP_ROWS * L::KEY_ROW, row, piece + lane / 16));
#pragma unroll
            for (int n = 0; n < L::KEYS / 8; n++) {
                if (n % 2 == 0) ldmatrix(b, keys + 8 * n * L::KEY_ROW); /* rows are swizzled eight at a time at most */
                mma_int8(*(int32_t(*)[4])&score[4 * n], a, b[n % 2 * 2], b[n % 2 * 2 + 1]);
            }
        }
    }

    __device__ __forceinline__ void scale(float (&scales)[2][SCALES], uint32_t facts) const
    {
#pragma unroll
        for (int i = 0; i < SCALES; i++) {
            const float keys = __int_as_float(load_shared(facts + 8 + 4 * (4 * i + (int)threadIdx.x % 4)));
            scales[0][i] = factor[0] * keys, scales[1][i] = factor[1] * keys;
        }
    }

    static __device__ __forceinline__ float shift(const prefill_tma_call &c, int b, int q_head, int token)
    {
        return c.q_shift ? c.q_shift[(b * c.of.p.q.shape[2] + q_head) * c.q_tokens + token] : 0.0f;
    }
};

/* Grid: a block a processor, or one a task. */
template <typename L, wgmma_type TYPE> static __global__ void __launch_bounds__(L::THREADS, 1) prefill_sage1(const __grid_constant__ prefill_tma_call c)
{
    extern __shared__ uint8_t shared[];
    prefill_block<sage1_products<L, TYPE>>(c, shared);
}

template <typename L, wgmma_type TYPE> static octavo_status launch(const octavo_exec *exec, const prefill_call &of)
{
    prefill_tma_call call = {};
    int blocks;
    OCTAVO_CUDA_TRY(octavo_prefill_sage1_plan(exec, of, TYPE == WGMMA_F16, L::ROWS, L::KEYS, &call, &blocks));
    return octavo_cuda_launch(prefill_sage1<L, TYPE>, "attention_prefill", dim3((unsigned)blocks), L::THREADS, L::BYTES, exec, call);
}

template <wgmma_type TYPE> static octavo_status launch_dim(const octavo_exec *exec, const prefill_call &call)
{
    switch (call.kv.head_dim) {
    case 64:  return launch<prefill_layout<64, 1, 128, 3, 4>, TYPE>(exec, call);
    case 96:  return launch<prefill_layout<96, 1, 128, 2, 4>, TYPE>(exec, call);
    case 128: return launch<prefill_layout<128, 1, 128, 2, 4>, TYPE>(exec, call);
    default:  return launch<prefill_layout<256, 1, 64, 2, 3>, TYPE>(exec, call);
    }
}

octavo_status octavo_prefill_sage1_sm90(const octavo_exec *exec, const prefill_call &call)
{
    return call.kv.v_format == OCTAVO_V_BF16 ? launch_dim<WGMMA_BF16>(exec, call) : launch_dim<WGMMA_F16>(exec, call);
}
