/* k_project_deep_sm90.cu - the K projection of up to 16 tokens with heads of 128 elements and 16-bit weights, in one kernel.
 *
 * As k_project_wide_sm90.cu, with twice the columns in a block: clusters of eight blocks have a processor for each of them, where of clusters
 * of sixteen some share theirs, and every stage behind the wait lasts as long as it does on the busiest. A block's part of W is then 128 KB,
 * of which registers hold three eighths, so that the next calls' blocks fit beside. */
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_mma.cuh"
#include "cuda/ptx/ptx_tma.cuh"
#include "cuda/ptx/ptx_wgmma.cuh"
#include "cuda/sm90/k_project_sm90.h"
#include "cuda/sm90/k_project_wide_sm90.cuh"
#include <cudaTypedefs.h>

enum { DIM = ROW_MOST, COLUMNS = 512 /* of a block */, WARPS = 8 /* that multiply: 16 rows of the head each */, MULTIPLIERS = WARP * WARPS };
enum { TOKENS = 16, SLOTS = 2 /* tokens that a block finishes, each by a warp of its own */, THREADS = MULTIPLIERS + SLOTS * WARP };
enum { STEP = 16 /* columns of a product */, STEPS = COLUMNS / STEP };
/* Slabs of 64 columns, rows of 128 bytes swizzled as the copy engine and the matrix unit have it. The first ones lie in registers. */
enum { SLAB_BYTES = 128, SLAB_COLUMNS = SLAB_BYTES / 2, SLABS = COLUMNS / SLAB_COLUMNS, SLAB_STEPS = SLAB_COLUMNS / STEP, ALIGN = 16 };
enum { HELD_SLABS = 3, HELD = HELD_SLABS * SLAB_STEPS, PLACES = SLABS - HELD_SLABS /* for slabs of W in shared memory */ };
enum { IN_FLIGHT = 2 /* slabs of W that a block waits for at a time: more stand in the way of the h of the call before */ };

/* Clusters beside those of the heads that do nothing, so that the processors' room is that of three calls of eight heads and a call takes the
 * places of one before: else two clusters of a call come to share processors. */
enum { SPARE = 2, SPARE_HEADS = 8 };

/* Shared memory; rows take the place of h when it is not wanted any more. */
enum { W_SLAB = DIM * SLAB_BYTES, H_SLAB = TOKENS * SLAB_BYTES, W = 0, H = W + PLACES * W_SLAB, PARTS = H + SLABS * H_SLAB, SENT = PARTS + TOKENS * PART_BYTES };
enum { W_READY = SENT + TOKENS * PART_BYTES, TAKEN = W_READY + 8 * SLABS, SHARED_BYTES = TAKEN + 8 * HELD_SLABS };
enum { BARRIER_MULTIPLY = 1, BARRIER_PRODUCTS = 2, PROCESSOR_BLOCKS = 2 };

template <bool F16_> struct deep_config {
    static constexpr wgmma_type TYPE = F16_ ? WGMMA_F16 : WGMMA_BF16;
};

struct deep_call {
    wide_call of;
    CUtensorMap weight; /* [heads * 8][2][8][hidden]: row r of the head is row r % 8 of group r / 8 % 8, half r / 64 */
};

/* ---- 1. W ---- */

static __device__ __forceinline__ void set_up(uint32_t base)
{
    if (threadIdx.x == 0) {
        for (int i = 0; i < SLABS; i++) mbarrier_init(base + W_READY + 8 * i, 1);
        for (int i = 0; i < HELD_SLABS; i++) mbarrier_init(base + TAKEN + 8 * i, WARPS);
        mbarrier_init_done();
    }
    clear_parts<TOKENS, THREADS>(base + PARTS);
    __syncthreads();
}

/* One thread. Rows of the head lie in shared memory so that rows g and g + 8 of a warp's 16 are half a head apart; the last slabs take the
 * places of those that registers hold. */
static __device__ __forceinline__ void fetch_weight(const deep_call &c, uint32_t base, int rank)
{
    for (int i = 0; i < SLABS; i++) {
        if (i >= IN_FLIGHT) mbarrier_wait(base + W_READY + 8 * (i - IN_FLIGHT), 0);
        if (i >= PLACES) mbarrier_wait(base + TAKEN + 8 * (i - PLACES), 0);
        mbarrier_report_and_expect(base + W_READY + 8 * i, W_SLAB);
        copy_box(base + W + i % PLACES * W_SLAB, &c.weight, base + W_READY + 8 * i, rank * COLUMNS + i * SLAB_COLUMNS, 0, 0, (int)blockIdx.y * (DIM / 8));
    }
}

/* Takes the first slabs to registers, and waits for the others. */
static __device__ __forceinline__ void hold_weight(uint32_t base, uint32_t (&w)[HELD][4])
{
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const uint32_t from = base + W + (16 * warp + lane % 16) * SLAB_BYTES;
#pragma unroll
    for (int slab = 0; slab < HELD_SLABS; slab++) {
        mbarrier_wait(base + W_READY + 8 * slab, 0);
#pragma unroll
        for (int i = 0; i < SLAB_STEPS; i++) ldmatrix(w[slab * SLAB_STEPS + i], from + slab * W_SLAB + ((i * 2 + lane / 16) ^ lane % 8) * ALIGN);
        __syncwarp();
        if (lane == 0) mbarrier_report(base + TAKEN + 8 * slab);
    }
    for (int slab = HELD_SLABS; slab < SLABS; slab++) mbarrier_wait(base + W_READY + 8 * slab, 0);
}

/* ---- 2. products ---- */

/* The block's columns of every token as soon as the kernel before is done; of tokens that there are not, zeros. A warp has two tokens. */
static __device__ __forceinline__ void fetch_tokens(const wide_call &c, uint32_t base, int rank)
{
    enum { PIECES = SLAB_BYTES / ALIGN, AT_ONCE = WARP / PIECES /* slabs */ };
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    uint32_t to = base + H + lane / PIECES * H_SLAB + warp * SLAB_BYTES + (lane % PIECES ^ warp) * ALIGN;
    const uint16_t *low = (const uint16_t *)c.p.h.data + warp * c.stride + rank * COLUMNS + lane * (ALIGN / 2), *high = low + WARPS * c.stride;
    uint32_t low_bytes = warp < c.tokens ? ALIGN : 0, high_bytes = warp + WARPS < c.tokens ? ALIGN : 0;
    asm volatile("" : "+r"(to), "+l"(low), "+l"(high), "+r"(low_bytes), "+r"(high_bytes)); /* found before the wait */
    wait_for_kernel_before();
#pragma unroll
    for (int slab = 0; slab < SLABS; slab += AT_ONCE) {
        copy_16(to + slab * H_SLAB, low + slab * SLAB_COLUMNS, low_bytes);
        copy_16(to + slab * H_SLAB + WARPS * SLAB_BYTES, high + slab * SLAB_COLUMNS, high_bytes);
    }
    copy_commit();
    copy_wait<0>();
    fence_for_engines();
    barrier_wait_named(BARRIER_MULTIPLY, MULTIPLIERS);
}

/* sum [16 rows of the warp, tokens] as the matrix unit has it, which is not done on return. */
template <typename C> static __device__ __forceinline__ void multiply(uint32_t base, const uint32_t (&w)[HELD][4], float (&sum)[TOKENS / 2])
{
    const uint64_t h = wgmma_matrix_at<SLAB_BYTES>(wgmma_begin(base + H));
    const uint64_t rows = wgmma_matrix_at<SLAB_BYTES>(wgmma_begin(base + W + (int)threadIdx.x / (4 * WARP) * (W_SLAB / 2)));
    wgmma_pin(sum);
    wgmma_fence();
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        const int slab = step / SLAB_STEPS, along = step % SLAB_STEPS * (2 * STEP);
        if (step < HELD) wgmma_rows<C::TYPE>(sum, w[step], h + (slab * H_SLAB + along) / ALIGN);
        else wgmma_shared<C::TYPE>(sum, rows + (slab % PLACES * W_SLAB + along) / ALIGN, h + (slab * H_SLAB + along) / ALIGN, 1);
    }
    wgmma_commit();
}

/* ---- 3. rows ---- */

/* Part `rank` of token n's row goes to block n % blocks, by way of own memory: a store to one block is quicker than one to many. */
static __device__ __forceinline__ void send_rows(const wide_call &c, uint8_t *memory, int rank, const float (&sum)[TOKENS / 2])
{
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, row = 4 * (4 * warp + lane / 8) + lane / 4 % 2;
    float *parts = (float *)(memory + SENT); /* [token][DIM], groups of four exchanged so that a warp's stores go to different banks */
#pragma unroll
    for (int i = 0; i < TOKENS / 2; i++) {
        const int token = i / 4 * 8 + 2 * (lane % 4) + i % 2;
        parts[token * DIM + ((row + i / 2 % 2 * 2) ^ lane % 4 * 8)] = sum[i];
    }
    barrier_wait_named(BARRIER_MULTIPLY, MULTIPLIERS);
#pragma unroll
    for (int slot = 0; slot < SLOTS; slot++) {
        const int token = slot * c.blocks + warp;
        if (warp >= c.blocks || token >= c.tokens) break;
        const float4 x = *(const float4 *)(parts + token * DIM + (4 * lane ^ token / 2 % 4 * 8));
        store_far(shared_of(shared_address(memory) + PARTS + (slot * c.blocks + rank) * PART_BYTES + lane * ALIGN, (uint32_t)warp), x.x, x.y, x.z, x.w);
    }
}

template <typename C> static __device__ __forceinline__ void multiply_and_send(const deep_call &c, uint8_t *memory, int rank)
{
    const uint32_t base = shared_address(memory);
    uint32_t w[HELD][4];
    float sum[TOKENS / 2] = {};
    hold_weight(base, w);
    fetch_tokens(c.of, base, rank);
    multiply<C>(base, w, sum);
    cluster_wait(); /* others have cleared their parts */
    wgmma_wait<0>();
    wgmma_pin(sum);
    barrier_report_named(BARRIER_PRODUCTS, THREADS);
    send_rows(c.of, memory, rank, sum);
}

/* Warps that multiply nothing: one fetches W, and both have their tokens' places and angles before the sums are there. */
static __device__ __forceinline__ void finish(const deep_call &call, uint8_t *memory, int rank)
{
    const wide_call &c = call.of;
    const int slot = (int)threadIdx.x / WARP - WARPS, n = slot * c.blocks + rank, b = c.each == 1 ? n : (int)((unsigned)n / (unsigned)c.each);
    const turn_frequencies frequencies = frequencies_of(c.p.rope, c.pairs, 0);
    row_place place = {};
    row_turn turn = {};
    if (threadIdx.x == MULTIPLIERS + WARP) fetch_weight(call, shared_address(memory), rank);
    __syncwarp();
    wait_for_kernel_before();
    if (n < c.tokens) {
        const int32_t position = c.p.positions[b] + n - b * c.each, angle = c.p.rope_positions ? c.p.rope_positions[n] : position;
        place = place_row(&c.kv, b, (int)blockIdx.y, position, c.device_status);
        turn = turn_by(c.p.rope, frequencies, angle);
    }
    cluster_wait();
    barrier_wait_named(BARRIER_PRODUCTS, THREADS); /* no looking for parts while others multiply */
    if (n < c.tokens) finish_token<CLUSTER_ANYWHERE>(c, shared_address(memory) + PARTS + slot * c.blocks * PART_BYTES, (float *)(memory + H) + slot * DIM, place, turn);
}

/* Grid (blocks of a cluster, heads and spare clusters), a cluster a head. Bound by latencies. */
template <typename C> static __global__ void __launch_bounds__(THREADS, PROCESSOR_BLOCKS) project_deep(const __grid_constant__ deep_call c)
{
    extern __shared__ __align__(1024) uint8_t memory[];
    const int rank = (int)cluster_rank();
    next_kernel_may_start(); /* to fetch its own W */
    if ((int)blockIdx.y >= c.of.kv.kv_heads) {
        wait_for_kernel_before();
        return;
    }
    set_up(shared_address(memory));
    if (threadIdx.x < MULTIPLIERS) multiply_and_send<C>(c, memory, rank);
    else finish(c, memory, rank);
}

/* ---- which calls ---- */

/* Boxes of a slab: 64 columns of a head's 128 rows in the order of shared memory. */
static octavo_status make_map(const octavo_tensor *w, int heads, CUtensorMap *map)
{
    enum { GROUP = 8 /* rows */, GROUPS = DIM / GROUP };
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
                                      "cuTensorMapEncodeTiled"));
    if (!found || result != cudaDriverEntryPointSuccess) return octavo_cuda_fail(OCTAVO_E_DEVICE, "the NVIDIA driver has no cuTensorMapEncodeTiled");
    const cuuint64_t pitch = 2 * (cuuint64_t)w->strides[0], size[4] = { (cuuint64_t)w->shape[1], GROUP, 2, (cuuint64_t)(GROUPS * heads - GROUPS / 2) };
    const cuuint64_t stride[3] = { pitch, DIM / 2 * pitch, GROUP * pitch };
    const cuuint32_t box[4] = { SLAB_COLUMNS, GROUP, 2, GROUPS / 2 }, step[4] = { 1, 1, 1, 1 };
    const CUtensorMapDataType type = w->dtype == OCTAVO_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    const CUresult made = ((PFN_cuTensorMapEncodeTiled_v12000)found)(map, type, 4, w->data, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                                                     CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                                                     CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return made == CUDA_SUCCESS ? OCTAVO_OK : octavo_cuda_fail(OCTAVO_E_DEVICE, "cuTensorMapEncodeTiled refused W with error %d", (int)made);
}

template <typename C> static octavo_status start(const octavo_exec *exec, const deep_call &call, bool *done)
{
    const int spare = call.of.blocks == CLUSTER_ANYWHERE && call.of.kv.kv_heads == SPARE_HEADS ? SPARE : 0;
    const dim3 grid((unsigned)call.of.blocks, (unsigned)(call.of.kv.kv_heads + spare));
    return octavo_cuda_launch_clusters(project_deep<C>, "k_project", grid, call.of.blocks, THREADS, SHARED_BYTES, exec, call, done);
}

octavo_status octavo_k_project_deep_sm90(const octavo_exec *exec, const octavo_k_project_params *p, bool *done)
{
    deep_call call;
    *done = false;
    if (!wide_call_of(exec, p, COLUMNS, &call.of) || call.of.blocks > CLUSTER_ANYWHERE || call.of.tokens > TOKENS || call.of.tokens > call.of.blocks * SLOTS)
        return OCTAVO_OK;
    OCTAVO_CUDA_TRY(make_map(&p->weight.codes, call.of.kv.kv_heads, &call.weight));
    return p->h.dtype == OCTAVO_F16 ? start<deep_config<true>>(exec, call, done) : start<deep_config<false>>(exec, call, done);
}
