/* prefill_exact_sm90.cu - exact attention of many queries in bf16 or f16: a producer warp copies, warpgroups multiply.
 *
 * A task is 64 rows a warpgroup, tokens of one query head, over the tiles of keys that they see. Scores and weights stay in registers, and of
 * the queries what fits. The scores of the next tile are asked for before the sums of this one, so that the matrix unit works while a
 * warpgroup weighs. bf16 weights bear to be relative to the largest score of an earlier tile; where it turns out that they do not, a warp
 * multiplies its scores once more. Bound by the matrix unit, then by the power that a GPU may take: what is left out saves that, too. */
#include "cuda/ptx/ptx_mma.cuh"
#include "cuda/sm90/prefill_sm90.h"
#include "cuda/tile/prefill_finish.cuh"

/* The sums of a warpgroup, and how many columns of its queries, 16 at a time, are held in registers. */
template <int DIM> struct sums_shape {
    enum { COUNT = DIM / 2, HELD = DIM == 128 ? 8 : DIM == 256 ? 4 : 0 };
};
template <int DIM> using held_queries = uint32_t[sums_shape<DIM>::HELD + 1][4];

/* Registers a thread, 65536 in all. */
template <int GROUPS> struct register_shares {
    enum { PRODUCER = GROUPS == 2 ? 40 : 32, CONSUMER = GROUPS == 2 ? 232 : 160 };
};

/* What the weights' type bears: 2^(OFFSET + LAG). */
template <wgmma_type TYPE> struct weight_range {
    enum { LAG = TYPE == WGMMA_BF16 ? 16 : 0, OFFSET = TYPE == WGMMA_BF16 ? 0 : 15 };
};

/* Columns [16 i, 16 i + 16) of a warp's rows; q: of its warpgroup. */
static __device__ __forceinline__ void load_queries(uint32_t (&rows)[4], uint32_t q, int thread, int i)
{
    const int row = thread % GROUP_THREADS / WARP * 16 + thread % 16;
    ldmatrix(rows, q + (i / 4 * GROUP_ROWS + row) * ROW_BYTES + ((i % 4 * 2 + thread % WARP / 16) ^ row % 8) * 16);
}

template <typename L, wgmma_type TYPE>
static __device__ __forceinline__ void ask_scores(float (&score)[L::KEYS / 2], const held_queries<L::DIM> &held, uint32_t q, uint32_t k)
{
    const uint32_t rows = wgmma_begin(q), keys = wgmma_begin(k);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < L::DIM / 16; i++) {
        const int column = i / 4, within = i % 4 * 32;
        const uint64_t b = wgmma_matrix_at<ROW_BYTES>(keys + (column * L::KEYS * ROW_BYTES + within) / 16);
        if (i < sums_shape<L::DIM>::HELD) wgmma_registers<TYPE>(score, held[i], b, i > 0);
        else wgmma_shared<TYPE>(score, wgmma_matrix_at<ROW_BYTES>(rows + (column * GROUP_ROWS * ROW_BYTES + within) / 16), b, i > 0);
    }
    wgmma_commit();
}

/* The same for a warp alone, by its own matrix unit's instructions. */
template <typename L, wgmma_type TYPE>
static __device__ __forceinline__ void multiply_scores(float (&score)[L::KEYS / 2], const held_queries<L::DIM> &held, uint32_t q, uint32_t k)
{
    const int thread = thread_anew(), lane = thread % WARP, key = lane % 8 + lane / 16 * 8;
#pragma unroll
    for (int n = 0; n < L::KEYS / 2; n++) score[n] = 0.0f;
#pragma unroll
    for (int i = 0; i < L::DIM / 16; i++) {
        uint32_t a[4], b[4];
        if (i < sums_shape<L::DIM>::HELD) a[0] = held[i][0], a[1] = held[i][1], a[2] = held[i][2], a[3] = held[i][3];
        else load_queries(a, q, thread, i);
#pragma unroll
        for (int n = 0; n < L::KEYS / 16; n++) {
            ldmatrix(b, k + (i / 4 * L::KEYS + 16 * n + key) * ROW_BYTES + ((i % 4 * 2 + lane / 8 % 2) ^ key % 8) * 16);
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float(&c)[4] = *(float(*)[4])&score[8 * n + 4 * half];
                if (TYPE == WGMMA_BF16) mma_bf16(c, a, b[2 * half], b[2 * half + 1]);
                else mma_f16(c, a, b[2 * half], b[2 * half + 1]);
            }
        }
    }
}

template <typename L, wgmma_type TYPE>
static __device__ __forceinline__ void ask_sums(float (&sum)[L::DIM / 2], const uint32_t (&weight)[L::KEYS / 16][4], uint32_t v)
{
    const uint32_t values = wgmma_begin(v, L::KEYS * ROW_BYTES);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < L::KEYS / 16; i++) wgmma_registers_rows<TYPE>(sum, weight[i], wgmma_matrix_at<ROW_BYTES>(values + i * ROW_BYTES));
    wgmma_commit();
}

template <wgmma_type TYPE, int COUNT> static __device__ __forceinline__ void pack_weights(uint32_t (&weight)[COUNT / 8][4], const float (&score)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT / 2; i++)
        weight[i / 4][i % 4] = TYPE == WGMMA_BF16 ? pack_bf16(score[2 * i], score[2 * i + 1]) : pack_f16(score[2 * i], score[2 * i + 1]);
}

/* Scores of a tile to weights. True: sums so far are to be multiplied by `down`. */
template <typename L, wgmma_type TYPE>
static __device__ __forceinline__ bool weigh_tile(float (&score)[L::KEYS / 2], softmax_rows *rows, float scale, float (&down)[2],
                                                  const held_queries<L::DIM> &held, uint32_t q, uint32_t k, uint32_t facts, uint32_t spans, bool masked)
{
    typedef weight_range<TYPE> R;
    if (masked) {
        softmax_mask(score, spans, load_shared(facts));
    } else if (TYPE == WGMMA_BF16) {
        if (softmax_guess<R::LAG>(score, rows, scale)) return false;
        multiply_scores<L, TYPE>(score, held, q, k);
    }
    softmax_weigh<R::LAG, R::OFFSET>(score, rows, scale, down);
    wgmma_pin(score);
    return __any_sync(WHOLE_WARP, down[0] != 1.0f || down[1] != 1.0f);
}

/* What the rows of a lane see, for softmax_mask(). */
static __device__ __forceinline__ void begin_rows(const prefill_call &c, uint32_t task, int first_row, uint32_t spans)
{
    const int queries = load_shared(task + 4 * TOLD_QUERIES), length = load_shared(task + 4 * TOLD_LENGTH);
#pragma unroll
    for (int row = 0; row < 2; row++) {
        const octavo_span span = octavo_prefill_span_of(&c.p, length, queries, first_row + 8 * row);
        const uint32_t to = spans + 8 * SPAN_BYTES * row;
        if (threadIdx.x % 4 == 0) store_shared(to, (int)span.sink_end), store_shared(to + 4, (int)span.near_begin), store_shared(to + 8, (int)span.end);
    }
    __syncwarp();
}

/* A warpgroup that multiplies. */
template <typename L, wgmma_type TYPE> static __device__ __forceinline__ void consume(const prefill_tma_call &c, uint32_t base, int group)
{
    typedef weight_range<TYPE> R;
    enum { HELD = sums_shape<L::DIM>::HELD, ALL_HELD = HELD == L::DIM / 16 };
    const int my_row = group * GROUP_ROWS + (int)threadIdx.x % GROUP_THREADS / WARP * 16 + (int)threadIdx.x % WARP / 4;
    const bool reports = threadIdx.x % GROUP_THREADS == 0;
    const uint32_t q = base + group * L::Q_GROUP_BYTES, spans = base + L::SPANS + SPAN_BYTES * my_row;
    ring_place k_at = { 0, 0 }, v_at = { 0, 0 }, tasks_at = { 0, 0 };
    uint32_t q_parity = 0, weight[L::KEYS / 16][4];
    held_queries<L::DIM> held;
    float score[L::KEYS / 2], sum[L::DIM / 2], down[2];
    for (;;) {
        const uint32_t task = base + L::TASK + 4 * TOLD_WORDS * tasks_at.stage;
        mbarrier_wait(base + L::TASK_FULL + 8 * tasks_at.stage, tasks_at.parity);
        const int tiles = load_shared(task + 4 * TOLD_TILES);
        if (tiles < 0) break;
        begin_rows(c.of, task, load_shared(task + 4 * TOLD_ROW) + my_row, spans);
        softmax_rows rows = { { -INFINITY, -INFINITY }, { 0.0f, 0.0f } };
#pragma unroll
        for (int i = 0; i < L::DIM / 2; i++) sum[i] = 0.0f;
        if (tiles > 0) {
            /* 1. the first tile's weights */
            uint32_t k = base + L::K + k_at.stage * L::TILE_BYTES, facts = base + L::FACTS + k_at.stage * FACT_BYTES;
            mbarrier_wait(base + L::Q_FULL, q_parity), q_parity ^= 1;
#pragma unroll
            for (int i = 0; i < HELD; i++) load_queries(held[i], q, (int)threadIdx.x, i);
            if (ALL_HELD) ring_report(base + L::Q_EMPTY);
            mbarrier_wait(base + L::K_FULL + 8 * k_at.stage, k_at.parity);
            ask_scores<L, TYPE>(score, held, q, k);
            int flags = load_shared(facts + 4);
            wgmma_wait<0>();
            wgmma_pin(score);
            if (flags & TILE_MASKED) softmax_mask(score, spans, load_shared(facts));
            softmax_weigh<R::LAG, R::OFFSET>(score, &rows, c.scale_log2, down);
            ring_report(base + L::K_EMPTY + 8 * k_at.stage);
            ring_advance<L::K_STAGES>(&k_at);
            pack_weights<TYPE>(weight, score);

            /* 2. scores of a tile, sums of the one before */
            while (!(flags & TILE_LAST)) {
                k = base + L::K + k_at.stage * L::TILE_BYTES, facts = base + L::FACTS + k_at.stage * FACT_BYTES;
                mbarrier_wait(base + L::K_FULL + 8 * k_at.stage, k_at.parity);
                wgmma_pin(score), wgmma_pin(sum);
                ask_scores<L, TYPE>(score, held, q, k);
                mbarrier_wait(base + L::V_FULL + 8 * v_at.stage, v_at.parity);
                ask_sums<L, TYPE>(sum, weight, base + L::V + v_at.stage * L::TILE_BYTES);
                flags = load_shared(facts + 4);
                wgmma_wait<1>();
                wgmma_pin(score);
                /* a wait in each branch: the assembler would bring one behind them forward, before the weights */
                if (weigh_tile<L, TYPE>(score, &rows, c.scale_log2, down, held, q, k, facts, spans, flags & TILE_MASKED)) {
                    wgmma_wait<0>();
                    wgmma_pin(sum);
                    softmax_rescale(sum, down);
                } else {
                    wgmma_wait<0>();
                    wgmma_pin(sum);
                }
                ring_report(base + L::K_EMPTY + 8 * k_at.stage);
                if (reports) mbarrier_report(base + L::V_EMPTY + 8 * v_at.stage);
                ring_advance<L::K_STAGES>(&k_at), ring_advance<L::V_STAGES>(&v_at);
                pack_weights<TYPE>(weight, score);
            }

            /* 3. sums of the last tile */
            if (!ALL_HELD) ring_report(base + L::Q_EMPTY);
            mbarrier_wait(base + L::V_FULL + 8 * v_at.stage, v_at.parity);
            wgmma_pin(sum);
            ask_sums<L, TYPE>(sum, weight, base + L::V + v_at.stage * L::TILE_BYTES);
            wgmma_wait<0>();
            wgmma_pin(sum);
            if (reports) mbarrier_report(base + L::V_EMPTY + 8 * v_at.stage);
            ring_advance<L::V_STAGES>(&v_at);
        }
        finish_rows(c.of, task, load_shared(task + 4 * TOLD_ROW) + my_row, rows, (float)R::OFFSET, sum);
        ring_report(base + L::TASK_EMPTY + 8 * tasks_at.stage);
        ring_advance<TASKS>(&tasks_at);
    }
}

/* Grid: a block a processor, or one a task. */
template <typename L, wgmma_type TYPE> static __global__ void __launch_bounds__(L::THREADS, 1) prefill_exact(const __grid_constant__ prefill_tma_call c)
{
    extern __shared__ uint8_t shared[];
    const uint32_t base = (shared_address(shared) + SWIZZLE_BYTES - 1) / SWIZZLE_BYTES * SWIZZLE_BYTES;
    const int group = __shfl_sync(WHOLE_WARP, (int)threadIdx.x / GROUP_THREADS, 0);
    if (threadIdx.x == 0) {
        prefetch_map(&c.q), prefetch_map(&c.k), prefetch_map(&c.v);
        ring_init<L>(base);
    }
    __syncthreads();
    wait_for_kernel_before();
    if (group == 0) {
        registers_give<register_shares<L::GROUPS>::PRODUCER>();
        if (threadIdx.x < WARP) ring_produce<L>(c, base);
    } else {
        registers_take<register_shares<L::GROUPS>::CONSUMER>();
        consume<L, TYPE>(c, base, group - 1);
    }
}

template <typename L, wgmma_type TYPE> static octavo_status launch(const octavo_exec *exec, const prefill_call &of)
{
    prefill_tma_call call = {};
    int blocks;
    OCTAVO_CUDA_TRY(octavo_prefill_tma_plan(exec, of, TYPE == WGMMA_F16, L::ROWS, L::KEYS, &call, &blocks));
    return octavo_cuda_launch(prefill_exact<L, TYPE>, "attention_prefill", dim3((unsigned)blocks), L::THREADS, L::BYTES, exec, call);
}

template <wgmma_type TYPE> static octavo_status launch_dim(const octavo_exec *exec, const prefill_call &call)
{
    switch (call.kv.head_dim) {
    case 64:  return launch<prefill_layout<64, 128, 3, 4, 4>, TYPE>(exec, call);
    case 128: return launch<prefill_layout<128, 128, 2, 3, 3>, TYPE>(exec, call);
    default:  return launch<prefill_layout<256, 80, 2, 2, 2>, TYPE>(exec, call);
    }
}

octavo_status octavo_prefill_exact_sm90(const octavo_exec *exec, const prefill_call &call)
{
    return call.kv.k_format == OCTAVO_K_BF16 ? launch_dim<WGMMA_BF16>(exec, call) : launch_dim<WGMMA_F16>(exec, call);
}
