/* prefill_lanes.cuh - rows of attention_prefill in the registers in which a warp's matrix unit leaves them: softmax as tiles of keys come, and the
 * end of a row. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_LANES_CUH
#define OCTAVO_CUDA_TILE_PREFILL_LANES_CUH

#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/tile/prefill_call.cuh"

static constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f, NOTHING = -INFINITY;

/* What each row of a block sees. */
template <int ROWS> struct row_spans {
    int32_t sink_end[ROWS], near_begin[ROWS], end[ROWS];
};

/* What a lane knows of its two rows, g and g + 8. */
struct lane_rows {
    int sink_end[2], near_begin[2], end[2];
    float most[2], mass[2];
};

template <int ROWS>
static __device__ __forceinline__ void find_spans(const prefill_call &c, const prefill_place &at, int64_t first_row, row_spans<ROWS> *spans)
{
    if (threadIdx.x >= ROWS) return;
    const int64_t row = first_row + threadIdx.x;
    octavo_span span = { 0, 0, 0 };
    if (row < c.rows && row / c.group < at.queries) span = octavo_prefill_span_of(&c.p, at.length, at.queries, row / c.group);
    spans->sink_end[threadIdx.x] = (int32_t)span.sink_end, spans->near_begin[threadIdx.x] = (int32_t)span.near_begin;
    spans->end[threadIdx.x] = (int32_t)span.end;
}

template <int ROWS> static __device__ __forceinline__ lane_rows lane_rows_of(const row_spans<ROWS> &spans, int first)
{
    lane_rows rows;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        rows.sink_end[i] = spans.sink_end[first + 8 * i], rows.near_begin[i] = spans.near_begin[first + 8 * i], rows.end[i] = spans.end[first + 8 * i];
        rows.most[i] = NOTHING, rows.mass[i] = 0.0f;
    }
    return rows;
}

/* What the first and the last row of a block see, and what some row does. */
struct tile_sight {
    octavo_span first, last, seen;
};
static __device__ __forceinline__ tile_sight tile_sight_of(const prefill_call &c, const prefill_place &at, int64_t first_row, int rows)
{
    int64_t last_token = (first_row + rows - 1 < c.rows ? first_row + rows - 1 : c.rows - 1) / c.group;
    if (last_token >= at.queries) last_token = at.queries - 1;
    const octavo_span first = octavo_prefill_span_of(&c.p, at.length, at.queries, first_row / c.group);
    const octavo_span last = octavo_prefill_span_of(&c.p, at.length, at.queries, last_token);
    return { first, last, { last.sink_end < first.near_begin ? last.sink_end : first.near_begin, first.near_begin, last.end } };
}

/* 1: every row sees every key of the tile. */
static __device__ __forceinline__ bool tile_whole(const tile_sight &sight, int64_t begin, int keys)
{
    return begin + keys <= sight.first.end && (begin >= sight.last.near_begin || begin + keys <= sight.first.sink_end);
}

/* Scores that bend to the cap: one after the other from local memory, since the hyperbolic tangent is long. */
template <int TILES> static __device__ __forceinline__ void cap_scores(float (&score)[TILES][4], float cap)
{
    float bent[TILES][4];
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) bent[n][i] = score[n][i];
#pragma unroll 1
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) bent[n][i] = soft_cap(bent[n][i], cap);
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) score[n][i] = bent[n][i];
}

/* Scores in units of a key's factor and a row's scale to logarithms to base 2, NOTHING where a row does not see the key; the largest of each row and of
 * `most`. */
template <int TILES>
static __device__ __forceinline__ void score_tile(float (&score)[TILES][4], const float *k_factor, const float (&scale)[2], float cap, int begin, bool whole,
                                                  const lane_rows &rows, float (&most)[2])
{
    const int t = (int)threadIdx.x % 4;
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) score[n][i] *= k_factor[8 * n + 2 * t + i % 2], score[n][i] *= scale[i / 2];
    if (cap > 0.0f) cap_scores(score, cap);
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const int token = begin + 8 * n + 2 * t + i % 2, row = i / 2;
            const bool sees = whole || (token < rows.end[row] && (token >= rows.near_begin[row] || token < rows.sink_end[row]));
            score[n][i] = sees ? score[n][i] * LOG2_E : NOTHING;
            most[row] = fmaxf(most[row], score[n][i]);
        }
#pragma unroll
    for (int row = 0; row < 2; row++) {
        most[row] = fmaxf(most[row], __shfl_xor_sync(WHOLE_WARP, most[row], 1));
        most[row] = fmaxf(most[row], __shfl_xor_sync(WHOLE_WARP, most[row], 2));
    }
}

/* Logarithms to weights relative to a row's `most`; their sums join `mass`. */
template <int TILES> static __device__ __forceinline__ void weights_of(float (&score)[TILES][4], const float (&most)[2], float (&mass)[2])
{
#pragma unroll
    for (int n = 0; n < TILES; n++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            score[n][i] = score[n][i] == NOTHING ? 0.0f : exp2_fast(score[n][i] - most[i / 2]);
            mass[i / 2] += score[n][i];
        }
}

/* Scores to weights; what was summed so far shrinks to the new largest score. */
template <int DIM, int TILES>
static __device__ __forceinline__ void weigh_tile(float (&score)[TILES][4], const float *k_factor, const float (&scale)[2], float cap, int begin, bool whole,
                                                  lane_rows *rows, float (&out)[DIM / 8][4])
{
    float most[2] = { rows->most[0], rows->most[1] };
    score_tile(score, k_factor, scale, cap, begin, whole, *rows, most);
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const float down = rows->most[row] == NOTHING ? 0.0f : exp2_fast(rows->most[row] - most[row]);
        rows->most[row] = most[row], rows->mass[row] *= down;
#pragma unroll
        for (int m = 0; m < DIM / 8; m++) out[m][2 * row] *= down, out[m][2 * row + 1] *= down;
    }
    weights_of(score, most, rows->mass);
}

/* The same with weights relative to the largest of the tile alone. *down, *up: what sums so far and the tile's are to be multiplied by, to be
 * relative to the new largest score. */
template <int TILES>
static __device__ __forceinline__ void weigh_apart(float (&score)[TILES][4], const float *k_factor, const float (&scale)[2], float cap, int begin, bool whole,
                                                   lane_rows *rows, float (&down)[2], float (&up)[2])
{
    float top[2] = { NOTHING, NOTHING }, mass[2] = { 0.0f, 0.0f };
    score_tile(score, k_factor, scale, cap, begin, whole, *rows, top);
    weights_of(score, top, mass);
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const float most = fmaxf(rows->most[row], top[row]);
        down[row] = rows->most[row] == NOTHING ? 0.0f : exp2_fast(rows->most[row] - most);
        up[row] = top[row] == NOTHING ? 0.0f : exp2_fast(top[row] - most);
        rows->mass[row] = fmaf(mass[row], up[row], rows->mass[row] * down[row]), rows->most[row] = most;
    }
}

/* Rows of the warp to memory, some channels at a time from local memory: the code is short, and runs once. of.element() gets a weighted sum, the
 * keys' share of the denominator, which is 0 for a row that sees none, and what codes left out of the channel's values, where of.rest() knows it. */
template <int DIM, typename End>
static __device__ void put_rows(const prefill_call &c, const prefill_place &at, int64_t first_row, const lane_rows &rows, const float (&out)[DIM / 8][4],
                                const End &of)
{
    enum { EACH = 4 };
    const int g = (int)threadIdx.x % 32 / 4, t = (int)threadIdx.x % 4;
    float sum[DIM / 8][4];
#pragma unroll
    for (int m = 0; m < DIM / 8; m++)
#pragma unroll
        for (int i = 0; i < 4; i++) sum[m][i] = out[m][i];
#pragma unroll 1
    for (int half = 0; half < 2; half++) {
        float mass = half ? rows.mass[1] : rows.mass[0];
        mass += __shfl_xor_sync(WHOLE_WARP, mass, 1);
        mass += __shfl_xor_sync(WHOLE_WARP, mass, 2);
        const int64_t row = first_row + g + 8 * half;
        if (row >= c.rows || row / c.group >= at.queries) continue;
        const prefill_rest rest = of.rest(row);
        const prefill_end end = prefill_end_of(c, at.head * c.group + row % c.group, (half ? rows.most[1] : rows.most[0]) * LN_2, mass, of.shift(row));
        const int64_t to = prefill_out_at(c, at, row);
        if (t == 0) prefill_put_lse(c, at, row, end.lse);
#pragma unroll 1
        for (int first = 0; first < DIM / 8; first += EACH) {
            float left[EACH][2] = {};
#pragma unroll
            for (int i = 0; rest.end && i < 2 * EACH; i++)
                if (8 * (first + i / 2) + 2 * t + i % 2 < c.kv.v_dim) left[i / 2][i % 2] = prefill_rest_at(rest, 8 * (first + i / 2) + 2 * t + i % 2);
#pragma unroll
            for (int i = 0; i < 2 * EACH; i++) {
                const int d = 8 * (first + i / 2) + 2 * t + i % 2;
                if (d < c.kv.v_dim) store_float(&c.p.out, to + d, of.element(sum[first + i / 2][2 * half + i % 2] * end.factor, mass * end.factor, d, left[i / 2][i % 2]));
            }
        }
    }
}

#endif
