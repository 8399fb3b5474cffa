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
enum { H_GROUPS = 4 /* of slabs of h that are waited for */, GROUP_SLABS = SLABS / H_GROUPS, GROUP_STEPS = STEPS / H_GROUPS };

/* Shared memory. */
enum { W_SLAB = DIM * SLAB_BYTES, H_SLAB = TOKENS * SLAB_BYTES, W = 0, H = W + PLACES * W_SLAB, PARTS = H + SLABS * H_SLAB, ROWS = PARTS + TOKENS * PART_BYTES };
enum { W_READY = ROWS + SLOTS * DIM * 4 /* two barriers */, H_READY = W_READY + 16, SHARED_BYTES = H_READY + 8 * H_GROUPS, PROCESSOR_BLOCKS = 2 };
enum { BARRIER_MULTIPLY = 1, BARRIER_PRODUCTS = 2 };

template <bool F16_> struct deep_config {
    static constexpr wgmma_type TYPE = F16_ ? WGMMA_F16 : WGMMA_BF16;
};

struct deep_call {
    wide_call of;
    CUtensorMap weight; /* [heads * 8][2][8][hidden]: row r of the head is row r % 8 of group r / 8 % 8, half r / 64  */
    CUtensorMap tokens; /* [hidden / 64][tokens][64]                                                                 */
};

/* ---- 1. W ---- */

/* Rows of the head lie in shared memory so that rows g and g + 8 of a warp's 16 are half a head apart. */
static __device__ __forceinline__ void fetch_slabs(const deep_call &c, uint32_t base, int rank, int first, int count, uint32_t ready)
{
    mbarrier_report_and_expect(ready, (uint32_t)(count * W_SLAB));
    for (int i = first; i < first + count; i++)
        copy_box(base + W + i % PLACES * W_SLAB, &c.weight, ready, rank * COLUMNS + i * SLAB_COLUMNS, 0, 0, (int)blockIdx.y * (DIM / 8));
}

static __device__ __forceinline__ void set_up(const deep_call &c, uint32_t base, int rank)
{
    if (threadIdx.x == 0) {
        for (int i = 0; i < 2; i++) mbarrier_init(base + W_READY + 8 * i, 1);
        for (int i = 0; i < H_GROUPS; i++) mbarrier_init(base + H_READY + 8 * i, 1);
        mbarrier_init_done();
        fetch_slabs(c, base, rank, 0, PLACES, base + W_READY);
        prefetch_map(&c.tokens);
    }
    clear_parts<TOKENS, THREADS>(base + PARTS);
    __syncthreads();
}

/* Takes the first slabs to registers and fetches the others in their place. */
static __device__ __forceinline__ void hold_weight(const deep_call &c, uint32_t base, int rank, uint32_t (&w)[HELD][4])
{
    const int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP;
    const uint32_t from = base + W + (16 * warp + lane % 16) * SLAB_BYTES;
    mbarrier_wait(base + W_READY, 0);
#pragma unroll
    for (int i = 0; i < HELD; i++) ldmatrix(w[i], from + i / SLAB_STEPS * W_SLAB + ((i % SLAB_STEPS * 2 + lane / 16) ^ lane % 8) * ALIGN);
    barrier_wait_named(BARRIER_MULTIPLY, MULTIPLIERS);
    if (threadIdx.x == 0) fetch_slabs(c, base, rank, PLACES, HELD_SLABS, base + W_READY + 8);
}

/* ---- 2. products ---- */

/* Of tokens that there are not, zeros come. */
static __device__ __forceinline__ void fetch_tokens(const deep_call &c, uint32_t base, int rank)
{
    for (int i = 0; i < H_GROUPS; i++) mbarrier_report_and_expect(base + H_READY + 8 * i, GROUP_SLABS * H_SLAB);
    wait_for_kernel_before();
#pragma unroll
    for (int i = 0; i < H_GROUPS; i++)
        copy_box(base + H + i * GROUP_SLABS * H_SLAB, &c.tokens, base + H_READY + 8 * i, 0, 0, rank * SLABS + i * GROUP_SLABS, 0);
}

/* sum [16 rows of the warp, tokens] as the matrix unit has it. */
template <typename C> static __device__ __forceinline__ void multiply(uint32_t base, const uint32_t (&w)[HELD][4], float (&sum)[TOKENS / 2])
{
    const uint64_t h = wgmma_matrix_at<SLAB_BYTES>(wgmma_begin(base + H));
    const uint64_t rows = wgmma_matrix_at<SLAB_BYTES>(wgmma_begin(base + W + (int)threadIdx.x / (4 * WARP) * (W_SLAB / 2)));
    mbarrier_wait(base + W_READY + 8, 0);
    wgmma_pin(sum);
#pragma unroll
    for (int step = 0; step < STEPS; step++) {
        const int slab = step / SLAB_STEPS, along = step % SLAB_STEPS * (2 * STEP);
        if (step % GROUP_STEPS == 0) {
            mbarrier_wait(base + H_READY + 8 * (step / GROUP_STEPS), 0);
            wgmma_fence();
        }
        if (step < HELD) wgmma_rows<C::TYPE>(sum, w[step], h + (slab * H_SLAB + along) / ALIGN);
        else wgmma_shared<C::TYPE>(sum, rows + (slab % PLACES * W_SLAB + along) / ALIGN, h + (slab * H_SLAB + along) / ALIGN, 1);
    }
    wgmma_commit();
}

/* ---- 3. the kernel ---- */

template <typename C> static __device__ __forceinline__ void multiply_and_send(const deep_call &c, uint32_t base, int rank)
{
    uint32_t w[HELD][4];
    float sum[TOKENS / 2] = {};
    hold_weight(c, base, rank, w);
    if (threadIdx.x == 0) fetch_tokens(c, base, rank);
    __syncwarp();
    multiply<C>(base, w, sum);
    cluster_wait(); /* others have cleared their parts */
    wgmma_wait<0>();
    wgmma_pin(sum);
    barrier_report_named(BARRIER_PRODUCTS, THREADS);
    send_parts(c.of, base + PARTS, rank, sum);
}

/* A warp that multiplies nothing has its token's place and angles before its sums are there. */
static __device__ __forceinline__ void finish(const wide_call &c, uint8_t *memory, int rank)
{
    const int slot = (int)threadIdx.x / WARP - WARPS, n = slot * c.blocks + rank, b = c.each == 1 ? n : (int)((unsigned)n / (unsigned)c.each);
    const turn_frequencies frequencies = frequencies_of(c.p.rope, c.pairs, 0);
    row_place place = {};
    row_turn turn = {};
    wait_for_kernel_before();
    if (n < c.tokens) {
        const int32_t position = c.p.positions[b] + n - b * c.each, angle = c.p.rope_positions ? c.p.rope_positions[n] : position;
        place = place_row(&c.kv, b, (int)blockIdx.y, position, c.device_status);
        turn = turn_by(c.p.rope, frequencies, angle);
    }
    cluster_wait();
    barrier_wait_named(BARRIER_PRODUCTS, THREADS); /* no looking for parts while others multiply */
    if (n < c.tokens) finish_token(c, shared_address(memory) + PARTS + slot * c.blocks * PART_BYTES, (float *)(memory + ROWS) + slot * DIM, place, turn);
}

/* Grid (blocks of a cluster, heads), a cluster a head. Bound by latencies. */
template <typename C> static __global__ void __launch_bounds__(THREADS, PROCESSOR_BLOCKS) project_deep(const __grid_constant__ deep_call c)
{
    extern __shared__ __align__(1024) uint8_t memory[];
    const uint32_t base = shared_address(memory);
    const int rank = (int)cluster_rank();
    next_kernel_may_start(); /* to fetch its own W */
    set_up(c, base, rank);
    if (threadIdx.x < MULTIPLIERS) multiply_and_send<C>(c, base, rank);
    else finish(c.of, memory, rank);
}

/* ---- which calls ---- */

/* Boxes of 64 elements of 16 bits, axes from the fastest; strides in elements, of an axis of size one any. */
struct box_axes {
    const octavo_tensor *of;
    int64_t size[4], stride[3];
    int box[3]; /* of all but the first */
};

static octavo_status make_map(const box_axes &axes, CUtensorMap *map)
{
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
                                      "cuTensorMapEncodeTiled"));
    if (!found || result != cudaDriverEntryPointSuccess) return octavo_cuda_fail(OCTAVO_E_DEVICE, "the NVIDIA driver has no cuTensorMapEncodeTiled");
    cuuint64_t size[4], stride[3];
    for (int i = 0; i < 4; i++) size[i] = (cuuint64_t)axes.size[i];
    for (int i = 0; i < 3; i++) stride[i] = 2 * (cuuint64_t)axes.stride[i];
    const cuuint32_t box[4] = { SLAB_COLUMNS, (cuuint32_t)axes.box[0], (cuuint32_t)axes.box[1], (cuuint32_t)axes.box[2] }, step[4] = { 1, 1, 1, 1 };
    const CUtensorMapDataType type = axes.of->dtype == OCTAVO_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    const CUresult made = ((PFN_cuTensorMapEncodeTiled_v12000)found)(map, type, 4, axes.of->data, size, stride, box, step, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                                                     CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                                                     CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return made == CUDA_SUCCESS ? OCTAVO_OK : octavo_cuda_fail(OCTAVO_E_DEVICE, "cuTensorMapEncodeTiled refused h or W with error %d", (int)made);
}

template <typename C> static octavo_status start(const octavo_exec *exec, const deep_call &call, bool *done)
{
    const dim3 grid((unsigned)call.of.blocks, (unsigned)call.of.kv.kv_heads);
    return octavo_cuda_launch_clusters(project_deep<C>, "k_project", grid, call.of.blocks, THREADS, SHARED_BYTES, exec, call, done);
}

octavo_status octavo_k_project_deep_sm90(const octavo_exec *exec, const octavo_k_project_params *p, bool *done)
{
    deep_call call;
    *done = false;
    if (!wide_call_of(exec, p, COLUMNS, &call.of) || call.of.blocks > CLUSTER_ANYWHERE || call.of.tokens > TOKENS || call.of.tokens > call.of.blocks * SLOTS)
        return OCTAVO_OK;
    const octavo_tensor *w = &p->weight.codes;
    const int64_t hidden = w->shape[1], groups = DIM / 8, pitch = w->strides[0];
    const box_axes rows = { w, { hidden, 8, 2, groups * call.of.kv.kv_heads - groups / 2 }, { pitch, DIM / 2 * pitch, 8 * pitch }, { 8, 2, (int)groups / 2 } };
    const box_axes tokens = { &p->h, { SLAB_COLUMNS, call.of.tokens, hidden / SLAB_COLUMNS, 1 }, { call.of.stride, SLAB_COLUMNS, call.of.stride },
                              { TOKENS, GROUP_SLABS, 1 } };
    OCTAVO_CUDA_TRY(make_map(rows, &call.weight));
    OCTAVO_CUDA_TRY(make_map(tokens, &call.tokens));
    return p->h.dtype == OCTAVO_F16 ? start<deep_config<true>>(exec, call, done) : start<deep_config<false>>(exec, call, done);
}
