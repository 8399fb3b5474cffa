/* prefill_finish.cuh - the end of a warpgroup's rows: sums over masses, in the output's type, and the logarithms of the masses. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_FINISH_CUH
#define OCTAVO_CUDA_TILE_PREFILL_FINISH_CUH

#include "cuda/tile/prefill_softmax.cuh"

/* A lane's rows are first_row and first_row + 8 of the task; weights are 2^offset too large; P: see prefill_consume.cuh. */
template <typename P, int COUNT>
static __device__ __forceinline__ void finish_rows(const prefill_tma_call &c, uint32_t task, int first_row, const softmax_rows &rows, float offset,
                                                const float (&sum)[COUNT])
{
    static constexpr float LN_2 = 0.693147181f;
    const octavo_attention_prefill_params *p = &c.of.p;
    const int t = (int)threadIdx.x % 4, b = load_shared(task + 4 * TOLD_BATCH), q_head = load_shared(task + 4 * TOLD_HEAD);
    const int queries = load_shared(task + 4 * TOLD_QUERIES);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float mass = softmax_mass(rows, half);
        const int token = first_row + 8 * half;
        if (token >= queries) continue;
        const prefill_end end = prefill_end_of(c.of, q_head, (rows.most[half] - offset) * LN_2, mass, P::shift(c, b, q_head, token));
        if (t == 0 && p->lse) p->lse[(b * p->q.shape[2] + q_head) * p->q.shape[1] + token] = end.lse;
        const int64_t to = b * p->out.strides[0] + token * p->out.strides[1] + q_head * p->out.strides[2] + 2 * t;
#pragma unroll
        for (int i = 0; i < COUNT / 4; i++) {
            const float low = end.factor == 0.0f ? 0.0f : sum[4 * i + 2 * half] * end.factor;
            const float high = end.factor == 0.0f ? 0.0f : sum[4 * i + 2 * half + 1] * end.factor;
            if (p->out.dtype == OCTAVO_F32) *(float2 *)((float *)p->out.data + to + 8 * i) = make_float2(low, high);
            else *(uint32_t *)((uint16_t *)p->out.data + to + 8 * i) = p->out.dtype == OCTAVO_F16 ? pack_f16(low, high) : pack_bf16(low, high);
        }
    }
}

#endif
