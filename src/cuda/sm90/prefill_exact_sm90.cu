/* prefill_exact_sm90.cu - exact attention of many queries in bf16 or f16: a producer warp copies, warpgroups multiply.
 *
 * A task is 64 rows a warpgroup, tokens of one query head, over the tiles of keys that they see. Scores and weights stay in registers. The
 * scores of the next tile are asked for before the sums of this one, so that the matrix unit works while a warpgroup weighs; and the
 * warpgroups take turns in asking, so that one weighs while another multiplies. Bound by the matrix unit. */
#include "cuda/sm90/prefill_sm90.h"
#include "cuda/tile/prefill_finish.cuh"

enum { FIRST_TURN = 1 /* named barrier; 0 is __syncthreads() */, TURN_THREADS = 2 * GROUP_THREADS };

/* The sums of a warpgroup: PARTS of COUNT registers, a part at most 128 columns. */
template <int DIM> struct sums_shape {
    enum { PARTS = DIM > 128 ? 2 : 1, COUNT = DIM / PARTS / 2 };
};

/* Registers a thread, 65536 in all. */
template <int GROUPS> struct register_shares {
    enum { PRODUCER = GROUPS == 2 ? 40 : 32, CONSUMER = GROUPS == 2 ? 232 : 160 };
};

template <typename L, wgmma_type TYPE> static __device__ __forceinline__ void ask_scores(float (&score)[L::KEYS / 2], uint32_t q, uint32_t k)
{
#pragma unroll
    for (int i = 0; i < L::DIM / 16; i++) {
        const int column = i / 4, within = i % 4 * 32;
        const uint64_t rows = wgmma_matrix(q + column * GROUP_ROWS * ROW_BYTES + within, 16);
        wgmma_shared<TYPE>(score, rows, wgmma_matrix(k + column * L::KEYS * ROW_BYTES + within, 16), i > 0);
    }
    wgmma_commit();
}

template <typename L, wgmma_type TYPE, typename S>
static __device__ __forceinline__ void ask_sums(float (&sum)[S::PARTS][S::COUNT], const uint32_t (&weight)[L::KEYS / 16][4], uint32_t v)
{
    enum { PART_BYTES = S::COUNT * 2 / ROW_ELEMENTS * L::KEYS * ROW_BYTES };
#pragma unroll
    for (int i = 0; i < L::KEYS / 16; i++)
#pragma unroll
        for (int part = 0; part < S::PARTS; part++)
            wgmma_registers<TYPE>(sum[part], weight[i], wgmma_matrix(v + part * PART_BYTES + i * 16 * ROW_BYTES, L::KEYS * ROW_BYTES));
    wgmma_commit();
}

template <wgmma_type TYPE, int COUNT> static __device__ __forceinline__ void pack_weights(uint32_t (&weight)[COUNT / 8][4], const float (&score)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT / 2; i++)
        weight[i / 4][i % 4] = TYPE == WGMMA_BF16 ? pack_bf16(score[2 * i], score[2 * i + 1]) : pack_f16(score[2 * i], score[2 * i + 1]);
}

template <typename S> static __device__ __forceinline__ void pin_sums(float (&sum)[S::PARTS][S::COUNT])
{
#pragma unroll
    for (int part = 0; part < S::PARTS; part++) wgmma_pin(sum[part]);
}

/* A warpgroup that multiplies. */
template <typename L, wgmma_type TYPE> static __device__ __forceinline__ void consume(const prefill_tma_call &c, uint32_t base, int group)
{
    typedef sums_shape<L::DIM> S;
    enum { LAG = TYPE == WGMMA_BF16 ? 8 : 0, OFFSET = TYPE == WGMMA_BF16 ? 0 : 15 };
    const int warp = (int)threadIdx.x % GROUP_THREADS / WARP, g = (int)threadIdx.x % WARP / 4;
    const bool reports = threadIdx.x % GROUP_THREADS == 0;
    const int my_turn = FIRST_TURN + group, next_turn = FIRST_TURN + (group + 1) % L::GROUPS;
    const uint32_t q = base + group * L::Q_GROUP_BYTES;
    ring_place k_at = { 0, 0 }, v_at = { 0, 0 }, tasks_at = { 0, 0 };
    uint32_t q_parity = 0;
    float score[L::KEYS / 2], sum[S::PARTS][S::COUNT], down[2];
    uint32_t weight[L::KEYS / 16][4];
    if (group == L::GROUPS - 1) barrier_report_named(next_turn, TURN_THREADS);
    for (int index; (index = ring_task<L>(base, &tasks_at)) < c.order.tasks;) {
        const prefill_task task = prefill_task_of(c.of, c.order, index, L::ROWS, L::KEYS);
        const int first_row = task.first_row + group * GROUP_ROWS + warp * 16 + g;
        softmax_rows rows = { { -INFINITY, -INFINITY }, { 0.0f, 0.0f } };
#pragma unroll
        for (int part = 0; part < S::PARTS; part++)
#pragma unroll
            for (int i = 0; i < S::COUNT; i++) sum[part][i] = 0.0f;
        if (task.tiles > 0) {
            /* 1. the first tile's weights */
            mbarrier_wait(base + L::Q_FULL, q_parity), q_parity ^= 1;
            mbarrier_wait(base + L::K_FULL + 8 * k_at.stage, k_at.parity);
            wgmma_fence();
            ask_scores<L, TYPE>(score, q, base + L::K + k_at.stage * L::TILE_BYTES);
            wgmma_wait<0>();
            wgmma_pin(score);
            if (reports) mbarrier_report(base + L::K_EMPTY + 8 * k_at.stage);
            ring_advance<L::STAGES>(&k_at);
            int begin = prefill_tile_number(task, 0) * L::KEYS;
            if (!prefill_tile_whole(task, begin, L::KEYS)) softmax_mask(score, c.of, task, first_row, begin);
            softmax_weigh<LAG, OFFSET>(score, &rows, c.scale_log2, down);
            pack_weights<TYPE>(weight, score);

            /* 2. scores of tile j, sums of tile j - 1 */
            for (int j = 1; j < task.tiles; j++) {
                mbarrier_wait(base + L::K_FULL + 8 * k_at.stage, k_at.parity);
                barrier_wait_named(my_turn, TURN_THREADS);
                wgmma_pin(score), pin_sums<S>(sum);
                wgmma_fence();
                ask_scores<L, TYPE>(score, q, base + L::K + k_at.stage * L::TILE_BYTES);
                mbarrier_wait(base + L::V_FULL + 8 * v_at.stage, v_at.parity);
                ask_sums<L, TYPE, S>(sum, weight, base + L::V + v_at.stage * L::TILE_BYTES);
                barrier_report_named(next_turn, TURN_THREADS);
                wgmma_wait<1>();
                wgmma_pin(score);
                if (reports) mbarrier_report(base + L::K_EMPTY + 8 * k_at.stage);
                ring_advance<L::STAGES>(&k_at);
                begin = prefill_tile_number(task, j) * L::KEYS;
                if (!prefill_tile_whole(task, begin, L::KEYS)) softmax_mask(score, c.of, task, first_row, begin);
                softmax_weigh<LAG, OFFSET>(score, &rows, c.scale_log2, down);
                wgmma_wait<0>();
                pin_sums<S>(sum);
                if (reports) mbarrier_report(base + L::V_EMPTY + 8 * v_at.stage);
                ring_advance<L::STAGES>(&v_at);
                if (__any_sync(WHOLE_WARP, down[0] != 1.0f || down[1] != 1.0f))
#pragma unroll
                    for (int part = 0; part < S::PARTS; part++) softmax_rescale(sum[part], down);
                pack_weights<TYPE>(weight, score);
            }

            /* 3. sums of the last tile */
            if (reports) mbarrier_report(base + L::Q_EMPTY);
            mbarrier_wait(base + L::V_FULL + 8 * v_at.stage, v_at.parity);
            pin_sums<S>(sum);
            wgmma_fence();
            ask_sums<L, TYPE, S>(sum, weight, base + L::V + v_at.stage * L::TILE_BYTES);
            wgmma_wait<0>();
            pin_sums<S>(sum);
            if (reports) mbarrier_report(base + L::V_EMPTY + 8 * v_at.stage);
            ring_advance<L::STAGES>(&v_at);
        }
        finish_rows<S>(c.of, task, first_row, rows, (float)OFFSET, sum);
    }
}

/* Grid: a block a processor, or one a task. */
template <typename L, wgmma_type TYPE> static __global__ void __launch_bounds__(L::THREADS, 1) prefill_exact(const __grid_constant__ prefill_tma_call c)
{
    extern __shared__ uint8_t shared[];
    const uint32_t base = (shared_address(shared) + SWIZZLE_BYTES - 1) / SWIZZLE_BYTES * SWIZZLE_BYTES;
    const int group = (int)threadIdx.x / GROUP_THREADS;
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
    case 64:  return launch<prefill_layout<64, 128, 3, 2>, TYPE>(exec, call);
    case 128: return launch<prefill_layout<128, 128, 2, 2>, TYPE>(exec, call);
    default:  return launch<prefill_layout<256, 64, 2, 2>, TYPE>(exec, call);
    }
}

octavo_status octavo_prefill_exact_sm90(const octavo_exec *exec, const prefill_call &call)
{
    return call.kv.k_format == OCTAVO_K_BF16 ? launch_dim<WGMMA_BF16>(exec, call) : launch_dim<WGMMA_F16>(exec, call);
}
