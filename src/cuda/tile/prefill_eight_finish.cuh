/* prefill_eight_finish.cuh - the end of a warpgroup's rows of eight-bit attention: sums over masses, what K and V were freed of, the type
 * of the output. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_EIGHT_FINISH_CUH
#define OCTAVO_CUDA_TILE_PREFILL_EIGHT_FINISH_CUH

#include "cuda/tile/prefill_eight_softmax.cuh"

/* The sums of a warpgroup: PARTS of COUNT registers. Where there are several, one is multiplied while another is added. */
template <int DIM> struct eight_sums {
    enum { PARTS = DIM > 128 ? 4 : 1, COUNT = DIM / PARTS / 2 };
};

/* A lane's pairs of channels, all asked for before anything is stored, which loads would wait for. */
template <int COUNT> static __device__ __forceinline__ void channel_pairs(const float *from, float none, float2 (&pair)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) pair[i] = from ? *(const float2 *)(from + 8 * i) : make_float2(none, none);
}

/* Two neighbours of the output. */
static __device__ __forceinline__ void put_two(const octavo_tensor &out, int64_t at, float low, float high)
{
    if (out.dtype == OCTAVO_F32) *(float2 *)((float *)out.data + at) = make_float2(low, high);
    else *(uint32_t *)((uint16_t *)out.data + at) = out.dtype == OCTAVO_F16 ? pack_f16(low, high) : pack_bf16(low, high);
}

/* A lane's rows are first_row and first_row + 8. v_unit: logarithm of what V's codes are worth. */
template <typename S>
static __device__ __forceinline__ void eight_finish(const prefill_codes_call &c, const prefill_task &task, int first_row, const eight_rows &rows,
                                                    float v_unit, const float (&sum)[S::PARTS][S::COUNT])
{
    static constexpr float LN_2 = 0.693147181f;
    const int t = (int)threadIdx.x % 4;
    const octavo_attention_prefill_params *p = &c.of.p;
    const int64_t values = (int64_t)task.b * c.of.kv.kv_heads + task.kv_head, line = (int64_t)task.b * p->q.shape[2] + task.q_head;
    const float *channel = c.v_scale ? c.v_scale + values * (S::PARTS * S::COUNT * 2) + 2 * t : nullptr;
    const float *mean = c.v_mean ? c.v_mean + values * (S::PARTS * S::COUNT * 2) + 2 * t : nullptr;
    const float worth = exp2f(v_unit);
    const float *sums = c.v_rest ? c.v_rest + values * (c.kv_tokens / OCTAVO_PREFILL_BLOCK + 1) * (S::PARTS * S::COUNT * 2) + 2 * t : nullptr;
    const prefill_place place = { task.b, task.kv_head, task.length, task.queries };
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float mass = rows.mass[half];
        mass += __shfl_xor_sync(WHOLE_WARP, mass, 1);
        mass += __shfl_xor_sync(WHOLE_WARP, mass, 2);
        const int token = first_row + 8 * half;
        if (token >= task.queries) continue;
        const float shift = c.q_shift ? c.q_shift[line * c.q_tokens + token] : 0.0f;
        const prefill_end end = prefill_end_of(c.of, task.q_head, (rows.unit[half] - EIGHT_UP) * LN_2, mass, shift);
        if (t == 0 && p->lse) p->lse[line * p->q.shape[1] + token] = end.lse;
        const int64_t to = task.b * p->out.strides[0] + token * p->out.strides[1] + task.q_head * p->out.strides[2];
        const float share = end.factor * mass;
        prefill_rest rest = sums && share > 0.0f ? prefill_rest_of(c.of, place, sums, token) : prefill_rest{ nullptr, nullptr, nullptr, 0.0f };
#pragma unroll
        for (int part = 0; part < S::PARTS; part++) {
            float2 left[S::COUNT / 4], scale[S::COUNT / 4], average[S::COUNT / 4];
            prefill_rest_pairs(rest, left);
            channel_pairs(channel ? channel + part * S::COUNT * 2 : nullptr, 1.0f, scale);
            channel_pairs(mean ? mean + part * S::COUNT * 2 : nullptr, 0.0f, average);
            if (rest.end) rest.end += S::COUNT * 2;
            if (rest.begin) rest.begin += S::COUNT * 2, rest.sink += S::COUNT * 2;
#pragma unroll
            for (int i = 0; i < S::COUNT / 4; i++) {
                const int column = part * S::COUNT * 2 + 8 * i;
                float low = 0.0f, high = 0.0f;
                if (end.factor > 0.0f) low = sum[part][4 * i + 2 * half] * end.factor * worth, high = sum[part][4 * i + 2 * half + 1] * end.factor * worth;
                low = fmaf(share, left[i].x, low) * scale[i].x, high = fmaf(share, left[i].y, high) * scale[i].y;
                low = fmaf(share, average[i].x, low), high = fmaf(share, average[i].y, high);
                put_two(p->out, to + column + 2 * t, low, high);
            }
        }
    }
}

#endif
