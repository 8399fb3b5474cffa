/* k_project_wide_sm90.cu - the K projection of a few tokens with heads of 128 elements and 16-bit weights, in one kernel.
 *
 * A cluster has one head, each of its blocks 256 columns of it. While the kernels before still run a block fetches its part of W, takes
 * the first columns of it to registers and clears that memory for what comes: h, and the parts of the sums that other blocks send. Behind
 * the wait there is a chain of latencies and little else: h, products of the matrix unit, parts to the block that has the token, their
 * sum, rotation and encoding. A call takes as long as that chain if three blocks fit on a processor: clusters of 16 blocks do not spread
 * evenly over the parts of the GPU, and with two a call's last cluster fetches W only when the call before it is over. */
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_mma.cuh"
#include "cuda/ptx/ptx_tma.cuh"
#include "cuda/ptx/ptx_wgmma.cuh"
#include "cuda/sm90/k_project_sm90.h"
#include "cuda/sm90/k_project_wide_sm90.cuh"

enum { DIM = ROW_MOST, COLUMNS = 256 /* of a block */, WARPS = 8 /* that multiply: 16 rows of the head each */, MULTIPLIERS = WARP * WARPS };
enum { TILE_TOKENS = 16, SLOTS_MOST = 8 /* tokens that a block finishes */, BARRIER_MULTIPLY = 1 };
enum { ALIGN = 16, PIECE_ELEMENTS = 8, COPY_BYTES = 256 /* of a row of W */ };
enum { STEP = 16 /* columns of a product */, STEPS = COLUMNS / STEP, GROUP = 2 /* waited for together */, COPY_STEPS = COPY_BYTES / 2 / STEP };
enum { SLAB_BYTES = 128 /* of a row of h as the matrix unit wants it */, SLAB_STEPS = SLAB_BYTES / 2 / STEP, PIECES = SLAB_BYTES / ALIGN };

/* Shared memory: a barrier, a row for each token of the block, W in two halves of its columns, of whose place h and the parts take the first
 * bytes. */
enum { W_READY = 0, ROWS = 1024, W = ROWS + SLOTS_MOST * DIM * 4 };
enum { W_PITCH = COPY_BYTES + ALIGN /* eight rows in different banks */, HALF_BYTES = DIM * W_PITCH, SHARED_BYTES = W + 2 * HALF_BYTES };
/* TILES of 16 tokens. HELD steps of W are in registers before h is there: of many tokens all, or the place of W would not do for h and parts.
 * Few leave registers for a warp that multiplies nothing and has its token's place and angles in time. */
template <bool F16_, int TILES_> struct wide_config {
    enum { TILES = TILES_, TOKENS = TILE_TOKENS * TILES_, HELD = TILES_ > 2 ? STEPS : STEPS / 2, BLOCKS = TILES_ > 2 ? 2 : 3 /* of a processor */ };
    enum { HELPER = TILES_ == 1, THREADS = MULTIPLIERS + (HELPER ? WARP : 0) };
    enum { H = W, PARTS = H + TOKENS * COLUMNS * 2 };
    static constexpr wgmma_type TYPE = F16_ ? WGMMA_F16 : WGMMA_BF16;
};

/* ---- 1. before the wait ---- */

/* A thread has half of a row. */
static __device__ __forceinline__ void fetch_weight(const wide_call &c, uint32_t base, int rank)
{
    const octavo_tensor *w = &c.p.weight.codes;
    const int row = (int)threadIdx.x / 2, half = (int)threadIdx.x % 2;
    if (threadIdx.x == 0) {
        mbarrier_init(base + W_READY, 1);
        mbarrier_init_done();
        mbarrier_report_and_expect(base + W_READY, DIM * COLUMNS * 2);
    }
    __syncthreads();
    if (threadIdx.x < MULTIPLIERS)
        copy_run(base + W + half * HALF_BYTES + row * W_PITCH,
                 (const uint16_t *)w->data + ((int64_t)blockIdx.y * DIM + row) * w->strides[0] + rank * COLUMNS + half * (COLUMNS / 2), COPY_BYTES,
                 base + W_READY);
}

/* Row of the head that is row m of the 16 of a warp: the four of m = 2i, 2i + 1, 2i + 8 and 2i + 9 are what a lane will hold. */
static __device__ __forceinline__ int row_of(int warp, int m) { return 8 * warp + m % 8 + m / 8 * (DIM / 2); }

static __device__ __forceinline__ void load_step(uint32_t from, int step, uint32_t (&w)[4])
{
    ldmatrix(w, from + step / COPY_STEPS * HALF_BYTES + step % COPY_STEPS * (2 * STEP));
}

/* ---- 2. products ---- */

/* The block's columns of every token, rows of 128 bytes swizzled as the matrix unit wants them; of tokens that there are not, zeros. */
template <typename C> static __device__ __forceinline__ void fetch_tokens(const wide_call &c, uint32_t base, int rank)
{
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const uint32_t to = base + C::H + lane / PIECES * (C::TOKENS * SLAB_BYTES) + warp * SLAB_BYTES + (lane % PIECES ^ warp) * ALIGN;
    const uint16_t *from = (const uint16_t *)c.p.h.data + warp * c.stride + rank * COLUMNS + lane * PIECE_ELEMENTS;
#pragma unroll
    for (int n = 0; n < C::TOKENS; n += WARPS) copy_16(to + n * SLAB_BYTES, from + n * c.stride, n + warp < c.tokens ? ALIGN : 0);
    copy_commit();
}

/* sum [16 rows of the warp, tokens] as the matrix unit has it, which is not done on return. Steps that are not held take the registers of those
 * that are done. */
template <typename C>
static __device__ __forceinline__ void multiply(uint32_t base, uint32_t w_from, uint32_t (&w)[C::HELD][4], float (&sum)[C::TOKENS / 2])
{
    const uint64_t h = wgmma_matrix_at<SLAB_BYTES>(wgmma_begin(base + C::H));
    wgmma_pin(sum);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        if (step >= C::HELD && step % GROUP == 0) {
            wgmma_wait<C::HELD / GROUP - 1>();
#pragma unroll
            for (int i = 0; i < GROUP; i++) load_step(w_from, step + i, w[(step + i) % C::HELD]);
            wgmma_fence();
        }
        const int slab = step / SLAB_STEPS * (C::TOKENS * SLAB_BYTES);
        wgmma_rows<C::TYPE>(sum, w[step % C::HELD], h + (slab + step % SLAB_STEPS * (2 * STEP)) / ALIGN);
        if (step % GROUP == GROUP - 1) wgmma_commit();
    }
}

/* ---- 3. the kernel ---- */

/* Grid (blocks of a cluster, heads), a cluster a head. Bound by latencies. */
template <typename C> static __global__ void __launch_bounds__(C::THREADS, C::BLOCKS) project_wide(const __grid_constant__ wide_call c)
{
    extern __shared__ __align__(1024) uint8_t memory[];
    const uint32_t base = shared_address(memory);
    const int rank = (int)cluster_rank(), warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const int slot = C::HELPER ? (warp + 1) % (WARPS + 1) : warp, n = slot * c.blocks + rank;
    const int b = c.each == 1 ? n : (int)((unsigned)n / (unsigned)c.each);
    const bool multiplies = warp < WARPS, finishes = n < c.tokens; /* token n */
    const uint32_t w_from = base + W + row_of(warp % WARPS, lane % 16) * W_PITCH + lane / 16 * ALIGN;
    uint32_t w[C::HELD][4];
    next_kernel_may_start(); /* to fetch its own W */
    fetch_weight(c, base, rank);
    mbarrier_wait(base + W_READY, 0);
    if (multiplies)
#pragma unroll
        for (int step = 0; step < C::HELD; step++) load_step(w_from, step, w[step]);
    __syncthreads(); /* all have theirs */
    clear_parts<C::TOKENS, C::THREADS>(base + C::PARTS);
    wait_for_kernel_before();
    if (multiplies) fetch_tokens<C>(c, base, rank);
    int32_t position = 0, angle = 0;
    turn_frequencies frequencies = {};
    row_place place = {};
    if (finishes) {
        position = c.p.positions[b] + n - b * c.each;
        angle = c.p.rope_positions ? c.p.rope_positions[n] : position;
        frequencies = frequencies_of(c.p.rope, c.pairs, 0);
    }
    cluster_wait(); /* others have cleared their parts */
    if (multiplies) {
        float sum[C::TOKENS / 2] = {};
        copy_wait<0>();
        fence_for_engines();
        barrier_wait_named(BARRIER_MULTIPLY, MULTIPLIERS);
        multiply<C>(base, w_from, w, sum);
        if (!C::HELPER && finishes) place = place_row(&c.kv, b, (int)blockIdx.y, position, c.device_status);
        wgmma_wait<0>();
        wgmma_pin(sum);
        send_parts(c, base + C::PARTS, rank, sum);
    }
    row_turn turn = {};
    if (finishes) {
        if (C::HELPER) place = place_row(&c.kv, b, (int)blockIdx.y, position, c.device_status);
        turn = turn_by(c.p.rope, frequencies, angle);
    }
    __syncthreads(); /* no looking for parts while others multiply */
    if (finishes) finish_token<CLUSTER_MOST>(c, base + C::PARTS + slot * c.blocks * PART_BYTES, (float *)(memory + ROWS) + slot * DIM, place, turn);
}

/* ---- which calls ---- */

template <typename C> static octavo_status start(const octavo_exec *exec, const wide_call &call, bool *done)
{
    const dim3 grid((unsigned)call.blocks, (unsigned)call.kv.kv_heads);
    return octavo_cuda_launch_clusters(project_wide<C>, "k_project", grid, call.blocks, C::THREADS, SHARED_BYTES, exec, call, done);
}

template <bool F16> static octavo_status start_type(const octavo_exec *exec, const wide_call &call, bool *done)
{
    if (call.tokens <= TILE_TOKENS) return start<wide_config<F16, 1>>(exec, call, done);
    if (call.tokens <= 2 * TILE_TOKENS) return start<wide_config<F16, 2>>(exec, call, done);
    return start<wide_config<F16, 4>>(exec, call, done);
}

octavo_status octavo_k_project_wide_sm90(const octavo_exec *exec, const octavo_k_project_params *p, bool *done)
{
    wide_call call;
    *done = false;
    if (!wide_call_of(exec, p, COLUMNS, &call) || call.tokens > call.blocks * SLOTS_MOST) return OCTAVO_OK;
    return p->h.dtype == OCTAVO_F16 ? start_type<true>(exec, call, done) : start_type<false>(exec, call, done);
}
