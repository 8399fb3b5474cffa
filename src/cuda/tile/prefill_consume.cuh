/* prefill_consume.cuh - what a warpgroup of the prefill kernels of sm_90 does, whatever its scores are products of.
 *
 * Scores and weights stay in registers. The scores of the next tile are asked for before the sums of this one, so that the matrix unit works
 * while a warpgroup weighs. bf16 weights bear to be relative to the largest score of an earlier tile; where it turns out that they do not, a
 * warp multiplies its scores once more. Without branches from each other the assembler would wait for the sums before there are weights.
 *
 * P is what scores are products of: L, TYPE (of weights and values), score_type, SCALES (of scores, in a tile), SCALED (where a score is of
 * type float and all have one scale; so it is where there is a CAP), and
 *   P(c, base, group)             the queries of a warpgroup;
 *   begin(c, base, task, my_row)  the queries of a task have come, the lane's are my_row and my_row + 8;
 *   ask(score, k)                 asks the matrix unit for a tile's scores;   multiply(score, k): the same for a warp alone;
 *   end(base)                     the last tile's scores are known;
 *   scale(scales, facts)          what scores are multiplied by to be logarithms to base 2;   shift(c, task, token): what they lack. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_CONSUME_CUH
#define OCTAVO_CUDA_TILE_PREFILL_CONSUME_CUH

#include "cuda/tile/prefill_finish.cuh"

/* Registers a thread, 65536 in all. */
template <int GROUPS> struct register_shares {
    enum { PRODUCER = GROUPS == 2 ? 40 : 32, CONSUMER = GROUPS == 2 ? 232 : 160 };
};

/* Named barriers, 0 is __syncthreads(): where weights take as long as products, warpgroups take turns in asking, so that one weighs while
 * another multiplies. Elsewhere, and under a soft cap, turns are a loss. */
enum { FIRST_TURN = 1, TURN_THREADS = 2 * GROUP_THREADS };
template <typename P> struct takes_turns {
    enum { TURNS = P::L::DIM == 64 && P::CAP == UNCAPPED };
};
template <int GROUPS> static __device__ __forceinline__ void turn_end()
{
    const int next = thread_anew() / GROUP_THREADS; /* the first warpgroup of the block copies */
    barrier_report_named(next == GROUPS ? FIRST_TURN : FIRST_TURN + next, TURN_THREADS);
}

/* What the weights' type bears: 2^(OFFSET + LAG). */
template <wgmma_type TYPE> struct weight_range {
    enum { LAG = TYPE == WGMMA_BF16 ? 16 : 0, OFFSET = TYPE == WGMMA_BF16 ? 0 : 15 };
};

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

/* A tile's scores, where they are masked or may be larger than any before, to weights. */
template <typename P>
static __device__ __forceinline__ void weigh_anew(float (&weight)[P::L::KEYS / 2], const typename P::score_type (&score)[P::L::KEYS / 2],
                                                  const P &products, const prefill_cap_terms &cap, softmax_rows *rows, float (&down)[2], uint32_t facts,
                                                  uint32_t spans, bool masked)
{
    typedef weight_range<P::TYPE> R;
    float scale[2][P::SCALES];
    products.scale(scale, facts);
    if constexpr (P::CAP == CAPPED) {
        if (__builtin_expect(prefill_all_narrow(score, scale[0][0]), 1)) prefill_logarithms<MAP_NARROW>(weight, score, scale[0][0], cap);
        else prefill_logarithms<MAP_WIDE>(weight, score, scale[0][0], cap);
    } else {
#pragma unroll
        for (int i = 0; i < P::L::KEYS / 2; i++) weight[i] = P::SCALED ? (float)score[i] : (float)score[i] * scale[i / 2 % 2][i * P::SCALES / (P::L::KEYS / 2)];
    }
    if (masked) softmax_mask(weight, spans, ring_fact(facts));
    softmax_weigh<R::LAG, R::OFFSET>(weight, rows, P::SCALED && P::CAP == UNCAPPED ? scale[0][0] : 1.0f, down);
    wgmma_pin(weight);
}

/* A tile's scores to weights. True: sums so far are to be multiplied by `down`. */
template <typename P>
static __device__ __forceinline__ bool weigh_tile(float (&weight)[P::L::KEYS / 2], typename P::score_type (&score)[P::L::KEYS / 2], const P &products,
                                                  const prefill_cap_terms &cap, softmax_rows *rows, float (&down)[2], uint32_t k, uint32_t facts,
                                                  uint32_t spans, bool masked)
{
    if (P::TYPE == WGMMA_BF16 && __builtin_expect(!masked, 1)) {
        float scale[2][P::SCALES];
        products.scale(scale, facts);
        if (__builtin_expect(softmax_guess<weight_range<P::TYPE>::LAG, P::CAP>(weight, score, rows, scale, cap), 1)) return false;
        products.multiply(score, k);
    }
    weigh_anew<P>(weight, score, products, cap, rows, down, facts, spans, masked);
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
template <typename P> static __device__ __forceinline__ void consume(const prefill_tma_call &c, uint32_t base, int group)
{
    typedef typename P::L L;
    const int my_row = group * GROUP_ROWS + (int)threadIdx.x % GROUP_THREADS / WARP * 16 + (int)threadIdx.x % WARP / 4;
    const bool reports = threadIdx.x % GROUP_THREADS == 0;
    const uint32_t spans = base + L::SPANS + SPAN_BYTES * my_row;
    ring_place k_at = { 0, 0 }, v_at = { 0, 0 }, tasks_at = { 0, 0 };
    uint32_t q_parity = 0, weight[L::KEYS / 16][4];
    typename P::score_type score[L::KEYS / 2];
    float power[L::KEYS / 2], sum[L::DIM / 2], down[2];
    P products(c, base, group);
    enum { TURNS = takes_turns<P>::TURNS };
    if (TURNS && group == L::GROUPS - 1) turn_end<L::GROUPS>();
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
            uint32_t k = base + L::K + k_at.stage * L::K_TILE_BYTES, facts = base + L::FACTS + k_at.stage * L::FACT_BYTES;
            mbarrier_wait(base + L::Q_FULL, q_parity), q_parity ^= 1;
            products.begin(c, base, task, my_row);
            mbarrier_wait(base + L::K_FULL + 8 * k_at.stage, k_at.parity);
            products.ask(score, k);
            int flags = ring_fact(facts + 4);
            wgmma_wait<0>();
            wgmma_pin(score);
            weigh_anew<P>(power, score, products, c.cap, &rows, down, facts, spans, flags & TILE_MASKED);
            ring_report(base + L::K_EMPTY + 8 * k_at.stage);
            ring_advance<L::STAGES>(&k_at);
            pack_weights<P::TYPE>(weight, power);

            /* 2. scores of a tile, sums of the one before */
            while (!(flags & TILE_LAST)) {
                k = base + L::K + k_at.stage * L::K_TILE_BYTES, facts = base + L::FACTS + k_at.stage * L::FACT_BYTES;
                mbarrier_wait(base + L::K_FULL + 8 * k_at.stage, k_at.parity);
                if (TURNS) barrier_wait_named(FIRST_TURN + group, TURN_THREADS);
                wgmma_pin(score), wgmma_pin(sum);
                products.ask(score, k);
                mbarrier_wait(base + L::V_FULL + 8 * v_at.stage, v_at.parity);
                ask_sums<L, P::TYPE>(sum, weight, base + L::V + v_at.stage * L::V_TILE_BYTES);
                if (TURNS) turn_end<L::GROUPS>();
                flags = ring_fact(facts + 4);
                wgmma_wait<1>();
                wgmma_pin(score);
                /* a wait in each branch: the assembler would bring one behind them forward, before the weights */
                if (weigh_tile(power, score, products, c.cap, &rows, down, k, facts, spans, flags & TILE_MASKED)) {
                    wgmma_wait<0>();
                    wgmma_pin(sum);
                    softmax_rescale(sum, down);
                } else {
                    wgmma_wait<0>();
                    wgmma_pin(sum);
                }
                ring_report(base + L::K_EMPTY + 8 * k_at.stage);
                if (reports) mbarrier_report(base + L::V_EMPTY + 8 * v_at.stage);
                ring_advance<L::STAGES>(&k_at), ring_advance<L::STAGES>(&v_at);
                pack_weights<P::TYPE>(weight, power);
            }

            /* 3. sums of the last tile */
            products.end(base);
            mbarrier_wait(base + L::V_FULL + 8 * v_at.stage, v_at.parity);
            wgmma_pin(sum);
            ask_sums<L, P::TYPE>(sum, weight, base + L::V + v_at.stage * L::V_TILE_BYTES);
            wgmma_wait<0>();
            wgmma_pin(sum);
            if (reports) mbarrier_report(base + L::V_EMPTY + 8 * v_at.stage);
            ring_advance<L::STAGES>(&v_at);
        }
        finish_rows<P>(c, task, load_shared(task + 4 * TOLD_ROW) + my_row, rows, (float)weight_range<P::TYPE>::OFFSET, sum);
        ring_report(base + L::TASK_EMPTY + 8 * tasks_at.stage);
        ring_advance<TASKS>(&tasks_at);
    }
}

/* A block: its first warpgroup copies, the others multiply. */
template <typename P> static __device__ __forceinline__ void prefill_block(const prefill_tma_call &c, const uint8_t *shared)
{
    typedef typename P::L L;
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
        if (threadIdx.x < WARP) ring_produce_keys<L>(c, base);
        else if (threadIdx.x < 2 * WARP) ring_produce_values<L>(c, base);
    } else {
        registers_take<register_shares<L::GROUPS>::CONSUMER>();
        consume<P>(c, base, group - 1);
    }
}

#endif
