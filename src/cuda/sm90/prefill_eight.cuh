/* prefill_eight.cuh - attention of many queries in FP8, or with INT8 scores and E4M3 sums (SageAttention 2).
 *
 * A producer warp copies; each of two or three warpgroups has 64 rows of one query head. It asks for a tile's scores, weighs them, asks for the
 * tile's sums, and adds these to those of float32, since the matrix unit keeps 13 bits of what it sums up. They take the registers of the
 * scores, so that a tile may have 256 keys. Exponentials take as long as products at head_dim 128, where two warpgroups take turns in them, so
 * that one has products meanwhile; at 64 and 96 there are three and no turns. Bound by both, with a soft cap by the scores' way to logarithms. */
#ifndef OCTAVO_CUDA_SM90_PREFILL_EIGHT_CUH
#define OCTAVO_CUDA_SM90_PREFILL_EIGHT_CUH

#include "cuda/ptx/ptx_mma.cuh"
#include "cuda/sm90/prefill_sm90.h"
#include "cuda/tile/prefill_eight_finish.cuh"

enum { FIRST_TURN = 1 /* named barrier; 0 is __syncthreads() */, TURN_THREADS = 2 * GROUP_THREADS };
enum { PRODUCER_REGISTERS = 24, SUMS_MORE = 4 /* registers of the weights' own sums */ };
static constexpr uint32_t NO_CODES = ~0u; /* what four weights never are */

enum eight_codes { CODES_E4M3, CODES_INT8 };
template <eight_codes CODES> struct code_sums { typedef float type; };
template <> struct code_sums<CODES_INT8> { typedef int type; };

/* Queries of the warpgroup at `q` to registers, as far as these have room; that saves shared memory's bandwidth and power. */
template <typename L> static __device__ __forceinline__ void hold_queries(uint32_t (&held)[L::HELD + 1][4], uint32_t q)
{
    const int lane = (int)threadIdx.x % WARP, row = (int)threadIdx.x % GROUP_THREADS / WARP * 16 + lane % 16;
#pragma unroll
    for (int i = 0; i < L::HELD; i++) ldmatrix(held[i], swizzled_piece<L::ROW>(q, row, 2 * i + lane / 16));
}

/* The scores of a part that come with one of its groups of products. */
template <typename L, typename T> static __device__ __forceinline__ T (&asked_scores(T (&score)[PART_SCORES], int ask))[PART_SCORES / L::ASKS]
{
    return *(T(*)[PART_SCORES / L::ASKS]) & score[PART_SCORES / L::ASKS * ask];
}

/* Asks for the scores of a tile. */
template <typename L, typename T>
static __device__ __forceinline__ void ask_scores(T (&score)[L::PARTS][PART_SCORES], const uint32_t (&held)[L::HELD + 1][4], uint32_t q, uint32_t k)
{
    enum { STEPS = L::ROW / 32, ASK_KEYS = PART_KEYS / L::ASKS };
    static_assert(L::HELD <= STEPS, "of the first column");
    wgmma_fence();
#pragma unroll
    for (int ask = 0; ask < L::PARTS * L::ASKS; ask++) {
        T(&its)[PART_SCORES / L::ASKS] = asked_scores<L>(score[ask / L::ASKS], ask % L::ASKS);
#pragma unroll
        for (int i = 0; i < L::DIM / 32; i++) {
            const uint64_t rows = wgmma_matrix_at<L::ROW>(q + (i / STEPS * GROUP_ROWS * L::ROW + i % STEPS * 32) / 16);
            const uint64_t keys = wgmma_matrix_at<L::ROW>(k + ((i / STEPS * L::KEYS + ask * ASK_KEYS) * L::ROW + i % STEPS * 32) / 16);
            if (i < L::HELD) wgmma_eight_registers(its, held[i], keys, i > 0);
            else wgmma_eight_shared(its, rows, keys, i > 0);
        }
        wgmma_commit();
    }
}

/* Waits for the scores of a part; the largest of each half, of use where the tile is not special. */
template <typename L, typename T> static __device__ __forceinline__ void await_scores(T (&score)[PART_SCORES], int (&top)[PART_HALVES][2], int part)
{
    static_assert(L::PARTS * L::ASKS <= 2 && PART_HALVES % L::ASKS == 0, "groups of products");
#pragma unroll
    for (int ask = 0; ask < L::ASKS; ask++) {
        if (part * L::ASKS + ask < L::PARTS * L::ASKS - 1) wgmma_wait<1>();
        else wgmma_wait<0>();
        wgmma_pin(asked_scores<L>(score, ask));
        if (L::ASKS == PART_HALVES) eight_tops(top[ask], score, ask);
    }
}

/* The largest logarithm of a weight so far in a lane's rows; of integers, which become floats in place in a special tile. */
template <prefill_cap CAP, typename L>
static __device__ __forceinline__ void most_of(float (&most)[2], float (&score)[PART_SCORES], int (&top)[PART_HALVES][2], const eight_tile<L> &tile,
                                               uint32_t facts, uint32_t spans, bool special, int part, const prefill_cap_terms &cap)
{
    if (__builtin_expect(special, 0)) eight_mask(score, spans, load_shared(facts + 4 * L::TILE_BEGIN) + part * PART_KEYS);
    if (special || L::ASKS != PART_HALVES) eight_tops(top[0], score, 0), eight_tops(top[1], score, 1);
    eight_most<prefill_maps<CAP>::ALWAYS>(most, score, top, tile, part, cap);
}
template <prefill_cap CAP, typename L>
static __device__ __forceinline__ void most_of(float (&most)[2], int (&score)[PART_SCORES], int (&top)[PART_HALVES][2], const eight_tile<L> &tile,
                                               uint32_t facts, uint32_t spans, bool special, int part, const prefill_cap_terms &cap)
{
    if (__builtin_expect(special, 0)) {
        float all[PART_SCORES];
#pragma unroll
        for (int i = 0; i < PART_SCORES; i++) all[i] = (float)score[i];
        most_of<CAP>(most, all, top, tile, facts, spans, special, part, cap);
#pragma unroll
        for (int i = 0; i < PART_SCORES; i++) score[i] = __float_as_int(all[i]);
        return;
    }
    if (L::ASKS != PART_HALVES) eight_tops(top[0], score, 0), eight_tops(top[1], score, 1);
    eight_most<prefill_maps<CAP>::ALWAYS>(most, score, top, tile, part, cap);
}

/* Weights of a part of a special tile. */
template <prefill_map MAP, typename L>
static __device__ __forceinline__ void weigh_special(uint32_t (&weight)[PART_KEYS / 32][4], const float (&score)[PART_SCORES], eight_rows *rows,
                                                     const eight_tile<L> &tile, uint32_t facts, int part, float zero, const prefill_cap_terms &cap)
{
    eight_weigh<true, MAP>(weight, score, rows, tile, facts, part, zero, cap);
}
template <prefill_map MAP, typename L>
static __device__ __forceinline__ void weigh_special(uint32_t (&weight)[PART_KEYS / 32][4], const int (&score)[PART_SCORES], eight_rows *rows,
                                                     const eight_tile<L> &tile, uint32_t facts, int part, float zero, const prefill_cap_terms &cap)
{
    float all[PART_SCORES];
#pragma unroll
    for (int i = 0; i < PART_SCORES; i++) all[i] = __int_as_float(score[i]);
    eight_weigh<true, MAP>(weight, all, rows, tile, facts, part, zero, cap);
}

/* Weights of a tile. */
template <prefill_cap CAP, typename L, typename T>
static __device__ __forceinline__ void weigh_tile(uint32_t (&weight)[L::PARTS][PART_KEYS / 32][4], const T (&score)[L::PARTS][PART_SCORES], eight_rows *rows,
                                                  const eight_tile<L> &tile, uint32_t facts, bool special, bool narrow, const prefill_codes_call &c)
{
    typedef prefill_maps<CAP> M;
    if (__builtin_expect(special, 0)) {
#pragma unroll
        for (int part = 0; part < L::PARTS; part++) weigh_special<M::ALWAYS>(weight[part], score[part], rows, tile, facts, part, c.zero, c.cap);
    } else if (!narrow) {
#pragma unroll
        for (int part = 0; part < L::PARTS; part++) eight_weigh<false, M::ALWAYS>(weight[part], score[part], rows, tile, facts, part, c.zero, c.cap);
    } else {
#pragma unroll
        for (int part = 0; part < L::PARTS; part++) eight_weigh<false, M::MOSTLY>(weight[part], score[part], rows, tile, facts, part, c.zero, c.cap);
    }
}

/* Asks for sums of a tile's values, some columns of them, and with four registers more for those of the weights themselves. */
template <typename L, int COUNT>
static __device__ __forceinline__ void ask_sums(float (&fresh)[COUNT], const uint32_t (&weight)[L::PARTS][PART_KEYS / 32][4], uint32_t v)
{
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < L::KEYS / 32; i++) {
        const int column = i / (V_COLUMN / 32), within = i % (V_COLUMN / 32);
        wgmma_eight_registers(fresh, weight[column][within], wgmma_matrix_at<V_COLUMN>(v + (column * L::V_COLUMN_BYTES + within * 32) / 16), i > 0);
    }
    wgmma_commit();
}
template <int MORE, int COUNT>
static __device__ __forceinline__ void add_sums(float (&sum)[COUNT], const float (&down)[2], const float (&fresh)[COUNT + MORE])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) sum[i] = fmaf(sum[i], down[i / 2 % 2], fresh[i]);
}

/* What the rows of a lane see, for eight_mask(), and the factors of their scores. */
template <typename L>
static __device__ __forceinline__ void begin_rows(const prefill_codes_call &c, const prefill_task &task, int first_row, uint32_t spans, eight_rows *rows)
{
    const float *factor = c.q_scale + ((int64_t)task.b * c.of.p.q.shape[2] + task.q_head) * c.q_tokens;
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const int token = first_row + 8 * row;
        const octavo_span span = octavo_prefill_span_of(&c.of.p, task.length, task.queries, token);
        const uint32_t to = spans + 8 * SPAN_BYTES * row;
        rows->unit[row] = rows->largest[row] = EIGHT_NONE, rows->mass[row] = 0.0f;
        rows->factor[row] = token < task.queries ? factor[token] * c.scale_log2 : 0.0f;
        if (threadIdx.x % 4 == 0) store_shared(to, (int)span.sink_end), store_shared(to + 4, (int)span.near_begin), store_shared(to + 8, (int)span.end);
    }
    __syncwarp();
}

/* A warpgroup that multiplies. */
template <typename L, eight_codes CODES, prefill_cap CAP> static __device__ __forceinline__ void consume(const prefill_codes_call &c, uint32_t base, int group)
{
    typedef eight_sums<L::DIM> S;
    enum { TURNS = L::TURNS && (CAP == UNCAPPED || L::DIM > 128) /* where weights take longer than products turns are a loss */ };
    const int warp = (int)threadIdx.x % GROUP_THREADS / WARP, g = (int)threadIdx.x % WARP / 4;
    const bool reports = threadIdx.x % GROUP_THREADS == 0, warp_reports = threadIdx.x % WARP == 0;
    const int my_row = group * GROUP_ROWS + warp * 16 + g;
    const uint32_t q = wgmma_begin(base + group * L::Q_GROUP_BYTES), spans = base + L::SPANS + SPAN_BYTES * my_row;
    const int my_turn = FIRST_TURN + group, next_turn = FIRST_TURN + (group + 1) % L::GROUPS;
    if (TURNS && group == L::GROUPS - 1) barrier_report_named(next_turn, TURN_THREADS);
    ring_place at = { 0, 0 }, tasks_at = { 0, 0 };
    uint32_t q_parity = 0;
    for (int index; (index = ring_task<L>(base, &tasks_at)) < c.order.tasks;) {
        prefill_task task = prefill_task_of(c.of, c.order, index, L::ROWS, L::KEYS);
        eight_rows rows;
        uint32_t held[L::HELD + 1][4];
        float sum[S::PARTS][S::COUNT];
        begin_rows<L>(c, task, task.first_row + my_row, spans, &rows);
#pragma unroll
        for (int i = 0; i < S::PARTS * S::COUNT; i++) sum[i / S::COUNT][i % S::COUNT] = 0.0f;
        int flags = TILE_LAST;
        if (task.tiles > 0) {
            flags = 0;
            mbarrier_wait(base + L::Q_FULL, q_parity), q_parity ^= 1;
            hold_queries<L>(held, base + group * L::Q_GROUP_BYTES);
            if (L::HELD_ALL) ring_report(base + L::Q_EMPTY);
        }
        while (!(flags & TILE_LAST)) {
            const uint32_t facts = base + L::FACTS + at.stage * L::FACT_BYTES, v = wgmma_begin(base + L::V + at.stage * L::V_TILE_BYTES);
            typename code_sums<CODES>::type score[L::PARTS][PART_SCORES];
            uint32_t weight[L::PARTS][PART_KEYS / 32][4];
            float most[2] = { -INFINITY, -INFINITY }, down[2];

            /* 1. scores */
            mbarrier_wait(base + L::K_FULL + 8 * at.stage, at.parity);
            ask_scores<L>(score, held, q, wgmma_begin(base + L::K + at.stage * L::TILE_BYTES));
            flags = load_shared(facts + 4 * L::TILE_FLAGS);
            const bool special = (flags & TILE_SPECIAL) != 0;
            eight_tile<L> tile;
            eight_read(&tile, rows, facts);
#pragma unroll
            for (int part = 0; part < L::PARTS; part++) {
                int top[PART_HALVES][2];
                await_scores<L>(score[part], top, part);
                most_of<CAP>(most, score[part], top, tile, facts, spans, special, part, c.cap);
            }
            eight_unit(&rows, most, down);
            const bool narrow = CAP == UNCAPPED || eight_narrow<L>(score, tile);

            /* 2. weights, of one warpgroup at a time: its turn ends once they are known */
            if (TURNS) barrier_wait_named(my_turn, TURN_THREADS);
            weigh_tile<CAP>(weight, score, &rows, tile, facts, special, narrow, c);
            if (TURNS) barrier_report_named(next_turn + (weight[L::PARTS - 1][3][3] == NO_CODES), TURN_THREADS);
            __syncwarp();
            if (warp_reports) mbarrier_report(base + L::K_EMPTY + 8 * at.stage);
            if (!L::HELD_ALL && (flags & TILE_LAST)) ring_report(base + L::Q_EMPTY);

            /* 3. sums, a part asked for before the one before it is added */
            mbarrier_wait(base + L::V_FULL + 8 * at.stage, at.parity);
            float fresh[S::PARTS][S::COUNT], last[S::COUNT + SUMS_MORE];
#pragma unroll
            for (int part = 0; part < S::PARTS; part++) {
                const uint32_t values = v + part * S::COUNT * 2 * V_COLUMN / 16;
                if (part < S::PARTS - 1) ask_sums<L>(fresh[part], weight, values);
                else ask_sums<L>(last, weight, values);
                if (part == 0) continue;
                wgmma_wait<1>();
                wgmma_pin(fresh[part - 1]);
                add_sums<0>(sum[part - 1], down, fresh[part - 1]);
            }
            wgmma_wait<0>();
            wgmma_pin(last);
            if (reports) mbarrier_report(base + L::V_EMPTY + 8 * at.stage);
            add_sums<SUMS_MORE>(sum[S::PARTS - 1], down, last);
#pragma unroll
            for (int row = 0; row < 2; row++) rows.mass[row] = fmaf(last[S::COUNT + 2 * row], tile.worth, rows.mass[row]);
            ring_advance<L::STAGES>(&at);
        }
        task = prefill_task_of(c.of, c.order, index, L::ROWS, L::KEYS);
        const int64_t kv_line = (int64_t)task.b * c.of.kv.kv_heads + task.kv_head;
        eight_finish<S>(c, task, task.first_row + my_row, rows, eight_v_unit(c, kv_line), sum);
    }
}

/* Grid: a block a processor, or one a task. */
template <typename L, eight_codes CODES, prefill_cap CAP>
static __global__ void __launch_bounds__(L::THREADS, 1) prefill_eight(const __grid_constant__ prefill_codes_call c)
{
    extern __shared__ uint8_t shared[];
    const uint32_t base = (shared_address(shared) + SWIZZLE_BYTES - 1) / SWIZZLE_BYTES * SWIZZLE_BYTES;
    const int group = __shfl_sync(WHOLE_WARP, (int)threadIdx.x / GROUP_THREADS, 0);
    if (threadIdx.x == 0) {
        prefetch_map(&c.q), prefetch_map(&c.k), prefetch_map(&c.v);
        eight_init<L>(base);
    }
    eight_init_values<L>(base);
    __syncthreads();
    wait_for_kernel_before();
    if (group == 0) {
        registers_give<PRODUCER_REGISTERS>();
        if (threadIdx.x < WARP) eight_produce<L>(c, base);
    } else {
        registers_take<L::REGISTERS>();
        consume<L, CODES, CAP>(c, base, group - 1);
    }
}

template <typename L, eight_codes CODES, prefill_cap CAP> static octavo_status launch(const octavo_exec *exec, const prefill_call &of)
{
    prefill_codes_call call = {};
    int blocks;
    OCTAVO_CUDA_TRY(octavo_prefill_eight_plan(exec, of, L::ROWS, L::KEYS, &call, &blocks));
    return octavo_cuda_launch(prefill_eight<L, CODES, CAP>, "attention_prefill", dim3((unsigned)blocks), L::THREADS, L::BYTES, exec, call);
}

template <eight_codes CODES, prefill_cap CAP> static octavo_status launch_dim(const octavo_exec *exec, const prefill_call &call)
{
    switch (call.kv.head_dim) {
    case 64:  return launch<prefill_eight_layout<64, 128, 4, 3>, CODES, CAP>(exec, call);
    case 96:  return launch<prefill_eight_layout<96, 128, 4, 3>, CODES, CAP>(exec, call);
    case 128: return launch<prefill_eight_layout<128, 256, 3, 2>, CODES, CAP>(exec, call);
    default:  return launch<prefill_eight_layout<256, 128, 2, 2>, CODES, CAP>(exec, call);
    }
}

#endif
