/* k_project_sm90.cu - the K projection of a few tokens: product, rotation and encoding in one kernel. Bound by reading W.
 *
 * A cluster of blocks has one head, each of them a share of the columns for all tokens: its part of W is on its way to shared memory
 * before the kernel before this one has ended, so that W is read without a pause from call to call. The parts of the sums of token n go
 * to block n % blocks of the cluster, where a warp that multiplies nothing adds, rotates and stores them. */
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_cluster.cuh"
#include "cuda/ptx/ptx_convert.cuh"
#include "cuda/ptx/ptx_mma.cuh"
#include "cuda/ptx/ptx_tma.cuh"
#include "cuda/ptx/ptx_wgmma.cuh"
#include "cuda/sm90/cluster_launch.h"
#include "cuda/sm90/k_project_sm90.h"
#include "cuda/tile/key_turn.cuh"
#include "kernel/k_project_plan.h"

enum { WARP_ROWS = 16, WARPS_MOST = 8, DIM_MOST = WARP_ROWS * WARPS_MOST, TILE_TOKENS = 16, TOKENS_MOST = 64, STEP = 32 /* columns of a step */ };
enum { ALIGN = 16, PIECE_ELEMENTS = 8, SHARED_MOST = 216 << 10, MULTIPLIERS = 1 /* the barrier of the warps that multiply */ };

enum weight_kind { WEIGHT_HALF /* of h's own type */, WEIGHT_E4M3, WEIGHT_INT8 };

/* TILES of 16 tokens; so many warps finish rows. */
template <int KIND_, int TILES_> struct project_config {
    enum { KIND = KIND_, TILES = TILES_, THREADS = WARP * (WARPS_MOST + TILES_) };
    enum { W_BYTES = KIND_ == WEIGHT_HALF ? 2 : 1, CHAINS = TILES_ == 1 ? 2 : 1 /* sums that do not wait for each other */ };
    enum { W_PAD = 16, H_PAD = KIND_ == WEIGHT_HALF ? 16 : 32 /* so that eight rows lie in different banks */ };
};

struct few_call {
    octavo_k_project_params p;
    octavo_kv_view kv;
    int32_t *device_status;
    int tokens, each;   /* of all sequences; of one                 */
    int dim, pairs;
    int columns, span;  /* of a block; of these, that share a scale */
    int blocks;         /* of a cluster, a power of two             */
};

/* Byte offsets in shared memory; two barriers come first. */
enum { W_READY = 0, PARTS_READY = 8, BARRIER_BYTES = 64 };
struct few_layout {
    int w_pitch, h_pitch;
    int w;     /* [dim][w_pitch]                          */
    int h;     /* [16 TILES][h_pitch]                     */
    int parts; /* [tokens of the block][blocks][dim] f32; of 16 rows, 4 t + i is row 2 t + i % 2 + i / 2 * 8, as a lane has them */
    int rows;  /* [TILES][dim] f32                        */
    int bytes;
};

static __host__ __device__ __forceinline__ int tokens_of_block(const few_call &c, int rank) { return (c.tokens - rank + c.blocks - 1) / c.blocks; }

template <typename C> static __host__ __device__ __forceinline__ few_layout few_layout_of(const few_call &c)
{
    few_layout at;
    at.w_pitch = c.columns * C::W_BYTES + C::W_PAD, at.h_pitch = c.columns * 2 + C::H_PAD;
    at.w = BARRIER_BYTES;
    at.h = at.w + c.dim * at.w_pitch;
    at.parts = at.h + TILE_TOKENS * C::TILES * at.h_pitch;
    at.rows = at.parts + tokens_of_block(c, 0) * c.blocks * c.dim * 4;
    at.bytes = at.rows + C::TILES * c.dim * 4;
    return at;
}

/* ---- 1. W ---- */

/* A warp has the rows that it multiplies; each is a copy of its own, so that the rows can lie apart in shared memory. */
template <typename C> static __device__ __forceinline__ void fetch_weight(const few_call &c, const few_layout &at, uint32_t base, int rank)
{
    const octavo_tensor *w = &c.p.weight.codes;
    const int row_bytes = c.columns * C::W_BYTES, lane = (int)threadIdx.x % WARP, row = (int)threadIdx.x / WARP * WARP_ROWS + lane;
    if (threadIdx.x == 0) {
        mbarrier_init(base + W_READY, 1), mbarrier_init(base + PARTS_READY, (uint32_t)c.blocks);
        mbarrier_init_done();
        mbarrier_report_and_expect(base + W_READY, (uint32_t)(c.dim * row_bytes));
    }
    __syncthreads();
    if (lane < WARP_ROWS && row < c.dim)
        copy_run(base + at.w + row * at.w_pitch,
                 (const uint8_t *)w->data + (((int64_t)blockIdx.y * c.dim + row) * w->strides[0] + rank * c.columns) * C::W_BYTES, (uint32_t)row_bytes,
                 base + W_READY);
    __syncwarp();
    cluster_report(); /* others may store here now */
}

/* ---- 2. the product ---- */

/* First element of token n's row of h. */
static __device__ __forceinline__ int64_t token_row(const few_call &c, int n)
{
    const octavo_tensor *h = &c.p.h;
    return c.each == 1 ? n * h->strides[0] : (unsigned)n / (unsigned)c.each * h->strides[0] + (unsigned)n % (unsigned)c.each * h->strides[1];
}

/* The block's columns of every token; of tokens that there are not, zeros. */
template <typename C> static __device__ __forceinline__ void fetch_tokens(const few_call &c, const few_layout &at, uint32_t base, int rank, int threads)
{
    const unsigned pieces = (unsigned)c.columns / PIECE_ELEMENTS;
    const uint16_t *from = (const uint16_t *)c.p.h.data + rank * c.columns;
    for (unsigned i = threadIdx.x; i < TILE_TOKENS * C::TILES * pieces; i += (unsigned)threads) {
        const int n = (int)(i / pieces), piece = (int)(i % pieces);
        copy_16(base + at.h + n * at.h_pitch + piece * ALIGN, from + token_row(c, n < c.tokens ? n : 0) + piece * PIECE_ELEMENTS, n < c.tokens ? ALIGN : 0);
    }
    copy_commit();
}

/* Four codes to the two operands of a step of 16 columns, of which a lane has columns 4t to 4t + 3. */
template <typename C, bool F16> static __device__ __forceinline__ void decode_weight(uint32_t codes, uint32_t &low, uint32_t &high)
{
    if (C::KIND == WEIGHT_E4M3) e4m3_to_f16(codes, &low, &high);
    else int8_to_f16(codes, &low, &high);
    if (!F16) low = pack_bf16(f16_low(low), f16_high(low)), high = pack_bf16(f16_low(high), f16_high(high));
}

/* Operands of 32 columns: of 16 rows of W, [step][tile of 8 rows][2], and of 16 tokens of h, [step][4]. */
template <typename C, bool F16> static __device__ __forceinline__ void load_weight(uint32_t from, int column, uint32_t (&w)[2][2][2])
{
    uint32_t r[4];
    if (C::KIND == WEIGHT_HALF) {
#pragma unroll
        for (int step = 0; step < 2; step++) {
            ldmatrix(r, from + (column + TILE_TOKENS * step) * 2);
            w[step][0][0] = r[0], w[step][0][1] = r[1], w[step][1][0] = r[2], w[step][1][1] = r[3];
        }
    } else {
        ldmatrix(r, from + column);
#pragma unroll
        for (int i = 0; i < 4; i++) decode_weight<C, F16>(r[i], w[i % 2][i / 2][0], w[i % 2][i / 2][1]);
    }
}

template <typename C> static __device__ __forceinline__ void load_tokens(uint32_t from, int pitch, int column, uint32_t (&h)[2][4])
{
#pragma unroll
    for (int step = 0; step < 2; step++) {
        const uint32_t at = from + (column + TILE_TOKENS * step) * 2;
        if (C::KIND == WEIGHT_HALF) {
            ldmatrix(h[step], at);
        } else { /* the columns of a lane as decode_weight has them */
            load_shared_pair(at, h[step][0], h[step][2]);
            load_shared_pair(at + PIECE_ELEMENTS * pitch, h[step][1], h[step][3]);
        }
    }
}

template <bool F16> static __device__ __forceinline__ void multiply_add(float (&sum)[4], const uint32_t (&h)[4], const uint32_t (&w)[2])
{
    if (F16) mma_f16(sum, h, w[0], w[1]);
    else mma_bf16(sum, h, w[0], w[1]);
}

/* Scales of the four rows whose sums a lane has, of 16 that begin at `row` of the head, in the columns of W around `column`. */
static __device__ __forceinline__ void load_scales(const few_call &c, int row, int column, float (&scale)[2][2])
{
    const octavo_weight *w = &c.p.weight;
    const unsigned first = blockIdx.y * (unsigned)c.dim + (unsigned)row + threadIdx.x % 4 * 2, columns = (unsigned)octavo_weight_scale_columns(w);
    const unsigned across = ((unsigned)w->codes.shape[1] + columns - 1) / columns, block = (unsigned)column / columns;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const unsigned its = first + PIECE_ELEMENTS * (unsigned)(i / 2) + (unsigned)(i % 2);
        scale[i / 2][i % 2] = w->scales ? w->scales[(size_t)(w->block_rows > 0 ? its / (unsigned)w->block_rows : 0) * across + block] : 1.0f;
    }
}

/* part += columns begin to end; what the next step needs is read while this one multiplies. */
template <typename C, bool F16>
static __device__ __forceinline__ void multiply_columns(uint32_t w_from, uint32_t h_from, int h_pitch, int begin, int end, float (&part)[C::CHAINS][C::TILES][2][4])
{
    uint32_t w[2][2][2], h[2][4];
    load_weight<C, F16>(w_from, begin, w);
    load_tokens<C>(h_from, h_pitch, begin, h);
#pragma unroll 2
    for (int column = begin; column < end; column += STEP) {
        const int next = column + STEP < end ? column + STEP : begin;
        uint32_t w_next[2][2][2], h_next[2][4];
        load_weight<C, F16>(w_from, next, w_next);
#pragma unroll
        for (int m = 0; m < C::TILES; m++) {
            const bool last = m + 1 == C::TILES;
            load_tokens<C>(h_from + (last ? 0 : m + 1) * TILE_TOKENS * h_pitch, h_pitch, last ? next : column, h_next);
#pragma unroll
            for (int i = 0; i < 4; i++) multiply_add<F16>(part[i / 2 % C::CHAINS][m][i % 2], h[i / 2], w[i / 2][i % 2]);
#pragma unroll
            for (int i = 0; i < 8; i++) h[i / 4][i % 4] = h_next[i / 4][i % 4];
        }
#pragma unroll
        for (int i = 0; i < 8; i++) w[i / 4][i / 2 % 2][i % 2] = w_next[i / 4][i / 2 % 2][i % 2];
    }
}

/* The warp's 16 rows of the head times all tokens: sums [tile of tokens][tile of 8 rows] of tokens g and g + 8, rows 2t and 2t + 1. `scale`
 * is that of the first columns. */
template <typename C, bool F16>
static __device__ __forceinline__ void multiply(const few_call &c, const few_layout &at, uint32_t base, int rank, float (&scale)[2][2],
                                                float (&sum)[C::TILES][2][4])
{
    const int lane = (int)threadIdx.x % WARP, row = WARP_ROWS * ((int)threadIdx.x / WARP);
    const uint32_t w_from = base + at.w + (row + lane / 16 * 8 + lane % 8) * at.w_pitch + lane / 8 % 2 * ALIGN;
    const uint32_t h_from = base + at.h + (C::KIND == WEIGHT_HALF ? lane % 16 * at.h_pitch + lane / 16 * ALIGN : lane / 4 * at.h_pitch + lane % 4 * 8);
    for (int begin = 0; begin < c.columns; begin += c.span) {
        float part[C::CHAINS][C::TILES][2][4] = {};
        if (begin > 0) load_scales(c, row, rank * c.columns + begin, scale);
        multiply_columns<C, F16>(w_from, h_from, at.h_pitch, begin, begin + c.span, part);
#pragma unroll
        for (int i = 0; i < 8 * C::TILES; i++) {
            const int m = i / 8, tile = i / 4 % 2, at_lane = i % 4;
            const float whole = part[0][m][tile][at_lane] + (C::CHAINS > 1 ? part[C::CHAINS - 1][m][tile][at_lane] : 0.0f);
            sum[m][tile][at_lane] = fmaf(whole, scale[tile][at_lane % 2], sum[m][tile][at_lane]);
        }
    }
}

/* One report of a block: a barrier that counts the bytes of each store is busy for longer than the stores take. */
template <typename C>
static __device__ __forceinline__ void send_parts(const few_call &c, const few_layout &at, uint32_t base, int rank, const float (&sum)[C::TILES][2][4])
{
    const int lane = (int)threadIdx.x % WARP, first = (int)threadIdx.x / WARP * WARP_ROWS + lane % 4 * 4;
#pragma unroll
    for (int i = 0; i < 2 * C::TILES; i++) {
        const int m = i / 2, lower = i % 2, token = TILE_TOKENS * m + 8 * lower + lane / 4, to = token & (c.blocks - 1);
        if (token >= c.tokens) continue;
        const uint32_t part = base + at.parts + ((token - to + rank) * c.dim + first) * 4;
        store_far(shared_of(part, to), sum[m][0][2 * lower], sum[m][0][2 * lower + 1], sum[m][1][2 * lower], sum[m][1][2 * lower + 1]);
    }
    barrier_wait_named(MULTIPLIERS, c.dim / WARP_ROWS * WARP);
    if ((int)threadIdx.x < c.blocks && (int)threadIdx.x < c.tokens) mbarrier_report_far(shared_of(base + PARTS_READY, threadIdx.x));
}

/* ---- 3. rows ---- */

/* The sum of a token's parts, with its bias, into `row`. */
static __device__ __forceinline__ void add_parts(const few_call &c, const float *parts, float *row)
{
    for (int i = (int)threadIdx.x % WARP * 4; i < c.dim; i += 4 * WARP) {
        const int low = i / WARP_ROWS * WARP_ROWS + i % WARP_ROWS / 2, high = low + 8;
        float4 whole = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
#pragma unroll 8
        for (int from = 0; from < c.blocks; from++) {
            const float4 part = *(const float4 *)(parts + from * c.dim + i);
            whole.x += part.x, whole.y += part.y, whole.z += part.z, whole.w += part.w;
        }
        if (c.p.bias) {
            const float *bias = c.p.bias + (int64_t)blockIdx.y * c.dim;
            whole.x += bias[low], whole.y += bias[low + 1], whole.z += bias[high], whole.w += bias[high + 1];
        }
        row[low] = whole.x, row[low + 1] = whole.y, row[high] = whole.z, row[high + 1] = whole.w;
    }
    __syncwarp();
}

/* Everything that does not wait for the sums is found first. */
template <typename C> static __device__ __forceinline__ void finish_rows(const few_call &c, const few_layout &at, uint8_t *memory, int rank, int which)
{
    float *row = (float *)(memory + at.rows) + which * c.dim;
    const turn_frequencies frequencies = frequencies_of(c.p.rope, c.pairs, 0);
    wait_for_kernel_before();
    for (int slot = which, n; (n = slot * c.blocks + rank) < c.tokens; slot += C::TILES) {
        const int b = c.each == 1 ? n : (int)((unsigned)n / (unsigned)c.each);
        const int32_t position = c.p.positions[b] + n - b * c.each;
        const row_place place = place_row(&c.kv, b, (int)blockIdx.y, position, c.device_status);
        const row_turn turn = turn_by(c.p.rope, frequencies, c.p.rope_positions ? c.p.rope_positions[n] : position);
        float keys[ROW_EACH];
        mbarrier_wait_cluster(shared_address(memory) + PARTS_READY, 0);
        add_parts(c, (const float *)(memory + at.parts) + slot * c.blocks * c.dim, row);
        turn_row(c.p.rope, c.pairs, 0, turn, row, row);
        __syncwarp();
#pragma unroll
        for (int j = 0; j < ROW_EACH; j++) keys[j] = held_element(j) < c.dim ? row[held_element(j)] : 0.0f;
        put_held_row<0>(&c.kv, place, keys, c.device_status);
    }
}

/* Grid (blocks of a cluster, heads), a cluster a head; warps 0 to dim / 16 - 1 multiply, the others finish. */
template <typename C> static __global__ void __launch_bounds__(C::THREADS, C::TILES == 1 ? 2 : 1) project_few(const __grid_constant__ few_call c)
{
    extern __shared__ __align__(128) uint8_t memory[];
    const few_layout at = few_layout_of<C>(c);
    const uint32_t base = shared_address(memory);
    const int rank = (int)cluster_rank(), warp = __shfl_sync(WHOLE_WARP, (int)threadIdx.x / WARP, 0), multipliers = c.dim / WARP_ROWS;
    next_kernel_may_start(); /* to fetch its own W */
    fetch_weight<C>(c, at, base, rank);
    if (warp < multipliers) {
        float scale[2][2], sum[C::TILES][2][4] = {};
        load_scales(c, warp * WARP_ROWS, rank * c.columns, scale);
        wait_for_kernel_before();
        fetch_tokens<C>(c, at, base, rank, multipliers * WARP);
        mbarrier_wait(base + W_READY, 0);
        copy_wait<0>();
        barrier_wait_named(MULTIPLIERS, multipliers * WARP);
        if (c.p.h.dtype == OCTAVO_F16) multiply<C, true>(c, at, base, rank, scale, sum);
        else multiply<C, false>(c, at, base, rank, scale, sum);
        cluster_wait();
        send_parts<C>(c, at, base, rank, sum);
    } else {
        finish_rows<C>(c, at, memory, rank, warp - multipliers);
        cluster_wait();
    }
}

/* ---- which calls ---- */

static bool has_kind(const octavo_k_project_params *p, weight_kind *kind)
{
    const octavo_dtype h = p->h.dtype, w = p->weight.codes.dtype;
    if (h != OCTAVO_BF16 && h != OCTAVO_F16) return false;
    *kind = w == OCTAVO_E4M3 ? WEIGHT_E4M3 : w == OCTAVO_INT8 ? WEIGHT_INT8 : WEIGHT_HALF;
    return *kind != WEIGHT_HALF || w == h;
}

static bool is_aligned(const octavo_k_project_params *p, int64_t w_bytes)
{
    const octavo_tensor *h = &p->h, *w = &p->weight.codes;
    const int64_t steps = (h->shape[0] > 1 ? h->strides[0] : 0) | (h->shape[1] > 1 ? h->strides[1] : 0);
    return ((uintptr_t)h->data | (uintptr_t)w->data | (uintptr_t)(2 * steps) | (uintptr_t)(w_bytes * w->strides[0])) % ALIGN == 0;
}

/* The share of a block: scales change only between steps. */
static bool split_columns(few_call *call, int64_t hidden, int blocks)
{
    const int64_t columns = hidden / blocks, scaled = octavo_weight_scale_columns(&call->p.weight);
    call->blocks = blocks, call->columns = (int)columns, call->span = (int)(scaled < columns && call->p.weight.scales ? scaled : columns);
    return hidden % blocks == 0 && columns % (2 * STEP) == 0 && call->span % STEP == 0 && columns % call->span == 0 &&
           (!call->p.weight.scales || scaled >= hidden || scaled % call->span == 0);
}

/* As many blocks as there are processors for, and as it takes for W to fit. */
template <typename C> static bool plan(few_call *call, int64_t hidden, int processors)
{
    few_call best = *call;
    bool found = false;
    for (int blocks = 1; blocks <= CLUSTER_MOST && (!found || blocks * call->kv.kv_heads <= processors); blocks *= 2)
        if (split_columns(call, hidden, blocks) && few_layout_of<C>(*call).bytes <= SHARED_MOST) best = *call, found = true;
    *call = best;
    return found;
}

template <typename C> static octavo_status start(const octavo_exec *exec, few_call &call, bool *done)
{
    octavo_cuda_machine machine;
    OCTAVO_CUDA_TRY(octavo_cuda_machine_of(&machine));
    *done = false;
    if (!plan<C>(&call, call.p.h.shape[2], machine.processors)) return OCTAVO_OK;
    const dim3 grid((unsigned)call.blocks, (unsigned)call.kv.kv_heads);
    const int threads = WARP * (call.dim / WARP_ROWS + C::TILES);
    return octavo_cuda_launch_clusters(project_few<C>, "k_project", grid, call.blocks, threads, (size_t)few_layout_of<C>(call).bytes, exec, call, done);
}

template <int KIND> static octavo_status start_kind(const octavo_exec *exec, few_call &call, bool *done)
{
    if (call.tokens <= TILE_TOKENS) return start<project_config<KIND, 1>>(exec, call, done);
    if (call.tokens <= 2 * TILE_TOKENS) return start<project_config<KIND, 2>>(exec, call, done);
    return start<project_config<KIND, 4>>(exec, call, done);
}

octavo_status octavo_k_project_sm90(const octavo_exec *exec, const octavo_k_project_params *p)
{
    const octavo_project_sizes sizes = octavo_project_sizes_of(p);
    const int64_t dim = p->kv->head_dim;
    weight_kind kind;
    bool done = false;
    OCTAVO_CUDA_TRY(octavo_k_project_deep_sm90(exec, p, &done));
    if (!done) OCTAVO_CUDA_TRY(octavo_k_project_wide_sm90(exec, p, &done));
    if (done) return OCTAVO_OK;
    if (sizes.tokens < 1 || sizes.tokens > TOKENS_MOST || dim % WARP_ROWS || dim < WARP || dim > DIM_MOST || sizes.hidden > INT32_MAX / 4 ||
        sizes.rotary > 2 * TURN_PAIRS || !held_rows_fit(p->kv) || p->kv->max_tokens > INT32_MAX / 2 || !has_kind(p, &kind) || !is_aligned(p, kind == WEIGHT_HALF ? 2 : 1))
        return octavo_k_project_cuda(exec, p);
    few_call call = { *p, *p->kv, exec->device_status, (int)sizes.tokens, (int)p->h.shape[1], (int)dim, (int)(sizes.rotary / 2), 0, 0, 0 };
    OCTAVO_CUDA_TRY(kind == WEIGHT_HALF ? start_kind<WEIGHT_HALF>(exec, call, &done) : kind == WEIGHT_E4M3 ? start_kind<WEIGHT_E4M3>(exec, call, &done)
                                                                                    : start_kind<WEIGHT_INT8>(exec, call, &done));
    return done ? OCTAVO_OK : octavo_k_project_cuda(exec, p);
}
