/* prefill_eight_finish.cuh - the end of a warpgroup's rows of eight-bit attention: sums over masses, what K and V were freed of, the type
 * of the output. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_EIGHT_FINISH_CUH
#define OCTAVO_CUDA_TILE_PREFILL_EIGHT_FINISH_CUH

#include "cuda/tile/prefill_eight_softmax.cuh"
#include "cuda/tile/prefill_out.cuh"

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

/* The next part of what codes leave out of V. */
template <int COUNT> static __device__ __forceinline__ void take_rest(prefill_rest *rest, float2 (&pair)[COUNT])
{
    prefill_rest_pairs(*rest, pair);
    if (rest->end) rest->end += 8 * COUNT;
    if (rest->begin) rest->begin += 8 * COUNT, rest->sink += 8 * COUNT;
}

/* What a row's sums are multiplied by, and where they go. */
struct eight_row_end {
    float factor, share; /* share: of what was taken off V */
    prefill_rest rest;
    int64_t to;
    bool stores;
};

/* A row of a task; mass: that of its four lanes. */
static __device__ __forceinline__ eight_row_end eight_row_end_of(const prefill_codes_call &c, const prefill_task &task, int token, float unit, float mass,
                                                                 const float *sums, int t)
{
    static constexpr float LN_2 = 0.693147181f;
    const octavo_attention_prefill_params *p = &c.of.p;
    const int64_t line = (int64_t)task.b * p->q.shape[2] + task.q_head;
    const prefill_place place = { task.b, task.kv_head, task.length, task.queries };
    const bool stores = token < task.queries;
    const float shift = stores && c.q_shift ? c.q_shift[line * c.q_tokens + token] : 0.0f;
    const prefill_end end = prefill_end_of(c.of, task.q_head, (unit - EIGHT_UP) * LN_2, mass, shift);
    if (stores && t == 0 && p->lse) p->lse[line * p->q.shape[1] + token] = end.lse;
    eight_row_end row = { end.factor, end.factor * mass, { nullptr, nullptr, nullptr, 0.0f },
                          task.b * p->out.strides[0] + token * p->out.strides[1] + task.q_head * p->out.strides[2], stores };
    if (sums && stores && row.share > 0.0f) row.rest = prefill_rest_of(c.of, place, sums, token);
    return row;
}

/* A lane's rows are first_row and first_row + 8. v_unit: logarithm of what V's codes are worth. Where registers do, what has to be loaded for both
 * is asked for before anything is stored, which loads would wait for. */
template <typename S>
static __device__ __forceinline__ void eight_finish(const prefill_codes_call &c, const prefill_task &task, int first_row, const eight_rows &rows,
                                                    float v_unit, const float (&sum)[S::PARTS][S::COUNT])
{
    enum { PAIRS = S::COUNT / 4, PART_DIM = S::COUNT * 2, DIM = S::PARTS * PART_DIM, TOGETHER = S::PARTS == 1 };
    const int t = thread_anew() % 4;
    const int64_t values = (int64_t)task.b * c.of.kv.kv_heads + task.kv_head;
    const float *channel = c.v_scale ? c.v_scale + values * DIM + 2 * t : nullptr, *mean = c.v_mean ? c.v_mean + values * DIM + 2 * t : nullptr;
    const float *sums = c.v_rest ? c.v_rest + values * (c.kv_tokens / OCTAVO_PREFILL_BLOCK + 1) * DIM + 2 * t : nullptr;
    const float worth = exp2f(v_unit);
    eight_row_end row[2];
    float2 left[2][PAIRS], scale[PAIRS], average[PAIRS], pair[PAIRS];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float mass = rows.mass[half];
        mass += __shfl_xor_sync(WHOLE_WARP, mass, 1);
        mass += __shfl_xor_sync(WHOLE_WARP, mass, 2);
        row[half] = eight_row_end_of(c, task, first_row + 8 * half, rows.unit[half], mass, sums, t);
        if (TOGETHER) take_rest(&row[half].rest, left[half]);
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        eight_row_end &its = row[half];
#pragma unroll
        for (int part = 0; part < S::PARTS; part++) {
            if (!TOGETHER) take_rest(&its.rest, left[half]);
            if (!TOGETHER || half == 0) {
                channel_pairs(channel ? channel + part * PART_DIM : nullptr, 1.0f, scale);
                channel_pairs(mean ? mean + part * PART_DIM : nullptr, 0.0f, average);
            }
#pragma unroll
            for (int i = 0; i < PAIRS; i++) {
                float low = 0.0f, high = 0.0f;
                if (its.factor > 0.0f) low = sum[part][4 * i + 2 * half] * its.factor * worth, high = sum[part][4 * i + 2 * half + 1] * its.factor * worth;
                low = fmaf(its.share, left[half][i].x, low) * scale[i].x, high = fmaf(its.share, left[half][i].y, high) * scale[i].y;
                pair[i] = make_float2(fmaf(its.share, average[i].x, low), fmaf(its.share, average[i].y, high));
            }
            put_row(c.of.p.out, its.to + part * PART_DIM, pair, its.stores);
        }
    }
}

#endif
