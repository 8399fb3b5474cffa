/* prefill_finish.cuh - the end of a warpgroup's rows: sums over masses, in the output's type, and the logarithms of the masses. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_FINISH_CUH
#define OCTAVO_CUDA_TILE_PREFILL_FINISH_CUH

#include "cuda/tile/prefill_out.cuh"
#include "cuda/tile/prefill_softmax.cuh"

/* A lane's rows are first_row and first_row + 8 of the task; weights are 2^offset too large; P: see prefill_consume.cuh. Beside keys of 16 bits, whose
 * loops need every register, words are stored as they lie: handing them round gains nothing there, and takes registers off those loops. */
template <typename P, int COUNT>
static __device__ __forceinline__ void finish_rows(const prefill_tma_call &c, uint32_t task, int first_row, const softmax_rows &rows, float offset,
                                                const float (&sum)[COUNT])
{
    enum { TURNED = P::L::KEY_BYTES == 1 };
    static constexpr float LN_2 = 0.693147181f;
    const octavo_attention_prefill_params *p = &c.of.p;
    const int t = (int)threadIdx.x % 4, b = load_shared(task + 4 * TOLD_BATCH), q_head = load_shared(task + 4 * TOLD_HEAD);
    const int queries = load_shared(task + 4 * TOLD_QUERIES);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const float mass = softmax_mass(rows, half);
        const int token = first_row + 8 * half;
        const bool stores = token < queries;
        if (!TURNED && !stores) continue;
        const float shift = stores ? P::shift(c, b, q_head, token) : 0.0f;
        const prefill_end end = prefill_end_of(c.of, q_head, (rows.most[half] - offset) * LN_2, mass, shift);
        if (stores && t == 0 && p->lse) p->lse[(b * p->q.shape[2] + q_head) * p->q.shape[1] + token] = end.lse;
        const int64_t to = b * p->out.strides[0] + token * p->out.strides[1] + q_head * p->out.strides[2];
        float2 pair[COUNT / 4];
#pragma unroll
        for (int i = 0; i < COUNT / 4; i++)
            pair[i] = end.factor == 0.0f ? make_float2(0.0f, 0.0f) : make_float2(sum[4 * i + 2 * half] * end.factor, sum[4 * i + 2 * half + 1] * end.factor);
        if (TURNED) put_row(p->out, to, pair, stores);
        else put_pairs(p->out, to + 2 * t, pair);
    }
}

#endif
