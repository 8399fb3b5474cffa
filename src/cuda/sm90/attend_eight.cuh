/* attend_eight.cuh - decode in FP8 on the warpgroup's matrix unit: E4M3 keys and values as they lie, queries and weights rounded to E4M3.
 *
 * A block is a warpgroup and a split of a kv head for up to ROWS of its rows; stages of 64 tokens go around all splits. Scores are
 * S^T = K Q^T with both operands in shared memory, warp w having tokens 16 w and on; the output is O^T += V^T P^T. V's operand comes from
 * registers: bytes of four tokens of a channel side by side, tokens 2t, 2t + 1, 8 + 2t, 9 + 2t of each 16 in this order, and P lies so in
 * shared memory. Weights are relative to a row's largest of the stage, 256 there; a stage's sums begin anew, since the unit keeps 13 bits. */
#ifndef OCTAVO_CUDA_SM90_ATTEND_EIGHT_CUH
#define OCTAVO_CUDA_SM90_ATTEND_EIGHT_CUH

#include "cuda/ptx/ptx_wgmma_narrow.cuh"
#include "cuda/sm90/attend_stream.cuh"

enum { EIGHT_TOKENS = 64, EIGHT_WARPS = 4, EIGHT_THREADS = 32 * EIGHT_WARPS, EIGHT_ALIGN = 1024 };
static constexpr float EIGHT_LIFT = 8.0f; /* the largest weight of a stage is 2^8 */

struct eight_call {
    stream_call of;
    int row_tiles, all_splits; /* splits of the params, of which those past of.splits are empty */
    float *part_lse;           /* part_out is [batch, kv_heads, rows, all_splits, DIM] and normalised here */
};

/* Shared memory from a multiple of EIGHT_ALIGN on; two blocks a multiprocessor. */
template <int DIM_, int ROWS_> struct eight_layout {
    enum { DIM = DIM_, ROWS = ROWS_, ROW = DIM < 128 ? DIM : 128, COLUMNS = DIM / ROW, STAGE = 2 * EIGHT_TOKENS * DIM, V_AT = EIGHT_TOKENS * DIM };
    enum { Q = 0, P = Q + ROWS * DIM, STAGES = (P + ROWS * EIGHT_TOKENS + EIGHT_ALIGN - 1) / EIGHT_ALIGN * EIGHT_ALIGN };
    enum { FIT = (100 * 1024 - STAGES) / STAGE, SLOTS = FIT < 6 ? FIT : 6, MOST = STAGES + SLOTS * STAGE, SCALE = MOST + 4 * EIGHT_WARPS * ROWS };
    enum { FULL = SCALE + 4 * ROWS, BYTES = FULL + 8 * SLOTS + EIGHT_ALIGN };
};

/* A block's place in the call. */
struct eight_block {
    stream_block of;
    uint32_t base;
    int first_row, rows;
};

/* ---- memory ---- */

static __device__ __forceinline__ int eight_page(const eight_call &c, const eight_block &k, int step)
{
    const int block = (step * EIGHT_TOKENS) >> c.of.shift, blocks = (c.of.max_tokens + (1 << c.of.shift) - 1) >> c.of.shift;
    return k.of.table && block < blocks ? k.of.table[block] : 0;
}

/* One thread asks for a stage. */
template <typename L> static __device__ __forceinline__ void eight_ask(const eight_call &c, const eight_block &k, int step, int page, int slot)
{
    const int token = step * EIGHT_TOKENS, at = k.of.table ? token & ((1 << c.of.shift) - 1) : token, row = k.of.row * c.of.row_step;
    const uint32_t to = k.base + L::STAGES + slot * L::STAGE, barrier = k.base + L::FULL + 8 * slot;
    mbarrier_report_and_expect(barrier, L::STAGE);
#pragma unroll
    for (int i = 0; i < L::COLUMNS; i++) copy_box_5(to + i * EIGHT_TOKENS * L::ROW, &c.of.k, barrier, i * L::ROW, at, k.of.head, page, row);
#pragma unroll
    for (int i = 0; i < L::COLUMNS; i++) copy_box_5(to + L::V_AT + i * EIGHT_TOKENS * L::ROW, &c.of.v, barrier, i * L::ROW, at, k.of.head, page, row);
}

/* Exponents of a lane's tokens, 16 w + g and 8 more. */
struct eight_exponents {
    int key[2], value[2];
};

static __device__ __forceinline__ eight_exponents eight_exponents_of(const eight_call &c, const eight_block &k, int step, int page)
{
    const int first = step * EIGHT_TOKENS + (int)threadIdx.x / 32 * 16 + (int)threadIdx.x % 32 / 4;
    const int block = k.of.table ? page : step * EIGHT_TOKENS >> c.of.shift, mask = (1 << c.of.shift) - 1;
    eight_exponents of = { { 0, 0 }, { 0, 0 } };
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int token = first + 8 * i;
        if (token >= k.of.length) continue;
        if (c.of.k_scale.data) of.key[i] = ((const int8_t *)scales_of(&c.of.k_scale, k.of, block))[token & mask];
        if (c.of.v_scale.data) of.value[i] = ((const int8_t *)scales_of(&c.of.v_scale, k.of, block))[token & mask];
    }
    return of;
}

/* ---- queries ---- */

/* Where word `word` of row r lies in columns of ROW bytes that are swizzled as the copy engine does it. */
template <int ROW> static __device__ __forceinline__ int swizzled_word(int r, int word, int rows)
{
    const int piece = word / 4;
    return piece / (ROW / PIECE) * rows * ROW + PIECE * tile_piece<ROW / PIECE>(r, piece % (ROW / PIECE)) + word % 4 * 4;
}

/* A warp makes every fourth row ready: codes, and what their products are worth in powers of two. */
template <typename L> static __device__ __forceinline__ void eight_queries(const eight_call &c, const eight_block &k)
{
    constexpr int WORDS = L::DIM / 4, EACH = (WORDS + 31) / 32;
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int r = threadIdx.x / 32; r < L::ROWS; r += EIGHT_WARPS) {
        const int of_group = k.first_row + r, of_head = of_group / c.of.q_tokens;
        const uint16_t *from = c.of.q + k.of.b * c.of.q_stride[0] + (of_group - of_head * c.of.q_tokens) * c.of.q_stride[1] +
                               (k.of.head * c.of.group + of_head) * c.of.q_stride[2];
        float x[EACH][4] = {}, amax = 0.0f;
#pragma unroll
        for (int i = 0; i < EACH; i++)
#pragma unroll
            for (int j = 0; j < 2; j++) {
                if (r >= k.rows || lane + 32 * i >= WORDS) continue;
                const uint32_t pair = ((const uint32_t *)from)[2 * (lane + 32 * i) + j];
                x[i][2 * j] = c.of.q_is_bf16 ? bf16_low(pair) : f16_low(pair), x[i][2 * j + 1] = c.of.q_is_bf16 ? bf16_high(pair) : f16_high(pair);
                amax = fmaxf(amax, fmaxf(fabsf(x[i][2 * j]), fabsf(x[i][2 * j + 1])));
            }
        const int32_t p = octavo_row_exponent(warp_reduce(amax, take_larger()));
        const float up = octavo_power_of_two(p);
#pragma unroll
        for (int i = 0; i < EACH; i++)
            if (lane + 32 * i < WORDS)
                store_shared(k.base + L::Q + swizzled_word<L::ROW>(r, lane + 32 * i, L::ROWS),
                             (int)pack_e4m3(x[i][0] * up, x[i][1] * up, x[i][2] * up, x[i][3] * up));
        if (lane == 0) store_shared(k.base + L::SCALE + 4 * r, __float_as_int(c.of.scale * octavo_power_of_two(-p)));
    }
}

/* ---- a stage ---- */

/* Sums of a lane's columns 8n + 2t and one more, and of its channels; relative to the columns' bases. */
template <typename L> struct eight_state {
    float out[L::DIM / 64][L::ROWS / 2], base[L::ROWS / 8][2], sum[L::ROWS / 8][2];
};

static __device__ __forceinline__ float2 load_shared_floats(uint32_t from)
{
    float2 x;
    asm volatile("ld.shared.v2.f32 {%0, %1}, [%2];" : "=f"(x.x), "=f"(x.y) : "r"(from) : "memory");
    return x;
}

/* Scores of the stage in powers of two, V's exponents taken in; what a row does not see is NOTHING. */
template <typename L>
static __device__ __forceinline__ void eight_scores(const eight_call &c, const eight_block &k, int token, uint32_t keys, const eight_exponents &at,
                                                    float (&x)[L::ROWS / 2])
{
    enum { STEPS = L::ROW / 32 };
    const uint32_t a = wgmma_begin(keys), b = wgmma_begin(k.base + L::Q);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < L::DIM / 32; i++)
        wgmma_eight_shared(x, wgmma_matrix_at<L::ROW>(a + (i / STEPS * EIGHT_TOKENS * L::ROW + i % STEPS * 32) / 16),
                           wgmma_matrix_at<L::ROW>(b + (i / STEPS * L::ROWS * L::ROW + i % STEPS * 32) / 16), i > 0);
    wgmma_commit();
    const int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    const float key[2] = { octavo_power_of_two(-at.key[0]), octavo_power_of_two(-at.key[1]) };
    const float exponent[2] = { (float)held_exponent(-at.value[0]), (float)held_exponent(-at.value[1]) };
    wgmma_wait<0>();
    wgmma_pin(x);
#pragma unroll
    for (int n = 0; n < L::ROWS / 8; n++) {
        const float2 scale = load_shared_floats(k.base + L::SCALE + 4 * (8 * n + 2 * t));
#pragma unroll
        for (int i = 0; i < 4; i++) x[4 * n + i] = fmaf(x[4 * n + i], key[i / 2] * (i % 2 ? scale.y : scale.x), exponent[i / 2]);
    }
    if (token + EIGHT_TOKENS <= k.of.length - c.of.q_tokens + 1) return;
#pragma unroll
    for (int i = 0; i < L::ROWS / 2; i++) {
        const int row = k.first_row + i / 4 * 8 + 2 * t + i % 2, end = k.of.length - c.of.q_tokens + 1 + row % c.of.q_tokens;
        if (token + 16 * warp + g + i % 4 / 2 * 8 >= end) x[i] = NOTHING;
    }
}

/* The largest of each column over the warp's tokens, for the other warps. */
template <typename L> static __device__ __forceinline__ void eight_put_most(const eight_block &k, const float (&x)[L::ROWS / 2])
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
    for (int n = 0; n < L::ROWS / 8; n++) {
        float most[2];
#pragma unroll
        for (int i = 0; i < 2; i++) {
            most[i] = fmaxf(x[4 * n + i], x[4 * n + i + 2]);
#pragma unroll
            for (int step = 4; step < 32; step *= 2) most[i] = fmaxf(most[i], __shfl_xor_sync(WHOLE_WARP, most[i], step));
        }
        const uint32_t to = k.base + L::MOST + 4 * (warp * L::ROWS + 8 * n + 2 * lane);
        if (lane < 4) store_shared(to, __float_as_int(most[0])), store_shared(to + 4, __float_as_int(most[1]));
    }
}

/* Weights into shared memory as codes and into the denominators as they are. up, down: what the stage's sums and those so far count. */
template <typename L>
static __device__ __forceinline__ void eight_weigh(const eight_block &k, const float (&x)[L::ROWS / 2], const eight_exponents &at, eight_state<L> &of,
                                                   float (&up)[L::ROWS / 8][2], float (&down)[L::ROWS / 8][2])
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4, odd = g % 2;
    float inverse[2], mantissa[2];
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const int held = held_exponent(-at.value[i]);
        inverse[i] = octavo_power_of_two(-held), mantissa[i] = octavo_power_of_two(-at.value[i] - held);
    }
#pragma unroll
    for (int n = 0; n < L::ROWS / 8; n++) {
        float base[2] = { UNSET, UNSET }, weight[4];
#pragma unroll
        for (int w = 0; w < EIGHT_WARPS; w++) {
            const float2 most = load_shared_floats(k.base + L::MOST + 4 * (w * L::ROWS + 8 * n + 2 * t));
            base[0] = fmaxf(base[0], most.x - EIGHT_LIFT), base[1] = fmaxf(base[1], most.y - EIGHT_LIFT);
        }
#pragma unroll
        for (int i = 0; i < 4; i++) weight[i] = exp2_fast(x[4 * n + i] - base[i % 2]);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const float whole = fmaxf(of.base[n][i], base[i]);
            down[n][i] = exp2_fast(of.base[n][i] - whole), up[n][i] = exp2_fast(base[i] - whole);
            of.base[n][i] = whole;
            of.sum[n][i] = fmaf(of.sum[n][i], down[n][i], fmaf(weight[i], inverse[0], weight[i + 2] * inverse[1]) * up[n][i]);
        }
        /* of both columns tokens g and g + 8; the lane of g ^ 1 has their neighbours */
        const uint32_t mine = pack_e4m3(weight[0] * mantissa[0], weight[2] * mantissa[1], weight[1] * mantissa[0], weight[3] * mantissa[1]);
        const uint32_t other = __shfl_xor_sync(WHOLE_WARP, mine, 4), word = odd ? permute(mine, other, 0x3726) : permute(mine, other, 0x5140);
        store_shared(k.base + L::P + PIECE * tile_piece<4>(8 * n + 2 * t + odd, warp) + g / 2 * 4, (int)word);
    }
}

/* A stage's sums join the others. */
template <typename L>
static __device__ __forceinline__ void eight_sums(const eight_block &k, uint32_t values, eight_state<L> &of, const float (&up)[L::ROWS / 8][2],
                                                  const float (&down)[L::ROWS / 8][2])
{
    constexpr int TILES = L::DIM / 64, AT_ONCE = L::ROWS * TILES <= 128 ? TILES : 1;
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const uint32_t b = wgmma_begin(k.base + L::P);
#pragma unroll
    for (int first = 0; first < TILES; first += AT_ONCE) {
        float fresh[AT_ONCE][L::ROWS / 2];
        uint32_t a[AT_ONCE][2][4];
#pragma unroll
        for (int m = 0; m < AT_ONCE; m++)
#pragma unroll
            for (int step = 0; step < 2; step++) {
                uint32_t r[4];
                ldmatrix_transposed(r, values + box_piece<L::DIM>(32 * step + lane, 4 * (first + m) + warp, EIGHT_TOKENS));
                a[m][step][0] = permute(r[0], r[1], 0x6420), a[m][step][1] = permute(r[0], r[1], 0x7531);
                a[m][step][2] = permute(r[2], r[3], 0x6420), a[m][step][3] = permute(r[2], r[3], 0x7531);
            }
        wgmma_fence();
#pragma unroll
        for (int m = 0; m < AT_ONCE; m++)
#pragma unroll
            for (int step = 0; step < 2; step++) wgmma_eight_registers(fresh[m], a[m][step], wgmma_matrix_at<64>(b + 2 * step), step);
        wgmma_commit();
        wgmma_wait<0>();
#pragma unroll
        for (int m = 0; m < AT_ONCE; m++) {
            wgmma_pin(fresh[m]);
#pragma unroll
            for (int i = 0; i < L::ROWS / 2; i++)
                of.out[first + m][i] = fmaf(of.out[first + m][i], down[i / 4][i % 2], fresh[m][i] * up[i / 4][i % 2]);
        }
    }
}

/* ---- results ---- */

template <typename L> static __device__ __forceinline__ void eight_put(const eight_call &c, const eight_block &k, const eight_state<L> &of)
{
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < L::ROWS / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float sum = of.sum[n][i];
#pragma unroll
            for (int step = 4; step < 32; step *= 2) sum += __shfl_xor_sync(WHOLE_WARP, sum, step);
            if (g == 0) store_shared(k.base + L::MOST + 4 * (warp * L::ROWS + 8 * n + 2 * t + i), __float_as_int(sum));
        }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < L::ROWS / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const int r = 8 * n + 2 * t + i;
            if (r >= k.rows) continue;
            float sum = 0.0f;
#pragma unroll
            for (int w = 0; w < EIGHT_WARPS; w++) sum += __int_as_float(load_shared(k.base + L::MOST + 4 * (w * L::ROWS + r)));
            const bool none = of.base[n][i] == UNSET;
            const float inverse = none ? 0.0f : 1.0f / sum;
            const int64_t part = (((int64_t)k.of.b * gridDim.y + k.of.head) * c.of.rows + k.first_row + r) * c.all_splits + blockIdx.x;
            if (warp == 0 && g == 0) c.part_lse[part] = none ? NOTHING : (of.base[n][i] + log2f(sum)) * LN_2;
#pragma unroll
            for (int m = 0; m < L::DIM / 64; m++) {
                const int d = 64 * m + 16 * warp + 2 * g;
                float2 o = make_float2(of.out[m][4 * n + i] * inverse, of.out[m][4 * n + i + 2] * inverse);
                if (c.of.v_channel_scale) o.x *= c.of.v_channel_scale[k.of.head * L::DIM + d], o.y *= c.of.v_channel_scale[k.of.head * L::DIM + d + 1];
                *(float2 *)(c.of.part_out + part * L::DIM + d) = o;
            }
        }
}

/* The splits that nobody has are empty. */
template <typename L> static __device__ __forceinline__ void eight_put_nothing(const eight_call &c, const eight_block &k)
{
    const int unused = c.all_splits - c.of.splits, count = k.rows * unused;
    const int64_t first = (((int64_t)k.of.b * gridDim.y + k.of.head) * c.of.rows + k.first_row) * c.all_splits;
    for (int i = blockIdx.x * EIGHT_THREADS + threadIdx.x; i < count; i += c.of.splits * EIGHT_THREADS)
        c.part_lse[first + (int64_t)(i / unused) * c.all_splits + c.of.splits + i % unused] = NOTHING;
    for (int i = blockIdx.x * EIGHT_THREADS + threadIdx.x; i < count * L::DIM; i += c.of.splits * EIGHT_THREADS)
        c.of.part_out[(first + (int64_t)(i / L::DIM / unused) * c.all_splits + c.of.splits + i / L::DIM % unused) * L::DIM + i % L::DIM] = 0.0f;
}

/* Grid (splits, kv heads, batch * row tiles). */
template <typename L> static __global__ void __launch_bounds__(EIGHT_THREADS, 2) attend_eight(const __grid_constant__ eight_call c)
{
    extern __shared__ uint8_t memory[];
    eight_block k = { { (int)blockIdx.z / c.row_tiles, (int)blockIdx.y, 0, 0, c.of.page_table, 0, 0, 0 }, 0, (int)blockIdx.z % c.row_tiles * L::ROWS, 0 };
    k.base = (shared_address(memory) + EIGHT_ALIGN - 1) / EIGHT_ALIGN * EIGHT_ALIGN;
    k.rows = c.of.rows - k.first_row < L::ROWS ? c.of.rows - k.first_row : L::ROWS;
    const bool asks = threadIdx.x == 0;

    /* 1: barriers, the first stages, queries */
    if (asks) {
        prefetch_map(&c.of.k), prefetch_map(&c.of.v);
        for (int i = 0; i < L::SLOTS; i++) mbarrier_init(k.base + L::FULL + 8 * i, 1);
        mbarrier_init_done();
    }
    wait_for_kernel_before();
    k.of.row = c.of.sequences ? c.of.sequences[k.of.b] : k.of.b;
    if (k.of.table) k.of.table += k.of.row * c.of.page_table_stride;
    k.of.length = clamped_length(c.of, c.of.lengths[k.of.row]);
    const int steps = (k.of.length + EIGHT_TOKENS - 1) / EIGHT_TOKENS, first = blockIdx.x, stride = c.of.splits;
    __syncthreads();
    if (asks)
        for (int i = 0; i < L::SLOTS && first + i * stride < steps; i++)
            eight_ask<L>(c, k, first + i * stride, eight_page(c, k, first + i * stride), i);
    eight_queries<L>(c, k);
    eight_put_nothing<L>(c, k);
    eight_state<L> of;
#pragma unroll
    for (int i = 0; i < L::ROWS / 4; i++) of.base[i / 2][i % 2] = UNSET, of.sum[i / 2][i % 2] = 0.0f;
#pragma unroll
    for (int i = 0; i < L::DIM / 64 * (L::ROWS / 2); i++) of.out[i / (L::ROWS / 2)][i % (L::ROWS / 2)] = 0.0f;
    /* pages are looked up a stage before they are needed */
    int page_next = eight_page(c, k, first + stride), page_asked = eight_page(c, k, first + L::SLOTS * stride);
    eight_exponents next = eight_exponents_of(c, k, first, eight_page(c, k, first));
    fence_for_engines();
    __syncthreads();

    /* 2: the stream */
    int slot = 0, parity = 0;
#pragma unroll 1
    for (int step = first; step < steps; step += stride) {
        const eight_exponents at = next;
        const int token = step * EIGHT_TOKENS, before = slot == 0 ? L::SLOTS - 1 : slot - 1, ahead = step + (L::SLOTS - 1) * stride;
        const uint32_t keys = k.base + L::STAGES + slot * L::STAGE, values = keys + L::V_AT;
        float x[L::ROWS / 2], up[L::ROWS / 8][2], down[L::ROWS / 8][2];
        if (step + stride < steps) next = eight_exponents_of(c, k, step + stride, page_next);
        page_next = eight_page(c, k, step + 2 * stride);
        mbarrier_wait(k.base + L::FULL + 8 * slot, parity);
        for (int i = threadIdx.x; token + EIGHT_TOKENS > k.of.length && i < (token + EIGHT_TOKENS - k.of.length) * (L::DIM / PIECE); i += EIGHT_THREADS)
            store_shared_16(values + box_piece<L::DIM>(k.of.length - token + i / (L::DIM / PIECE), i % (L::DIM / PIECE), EIGHT_TOKENS), make_uint4(0, 0, 0, 0));
        eight_scores<L>(c, k, token, keys, at, x);
        eight_put_most<L>(k, x);
        __syncthreads(); /* and nobody needs the stage before any more */
        if (step > first) {
            if (asks && ahead < steps) eight_ask<L>(c, k, ahead, page_asked, before);
            page_asked = eight_page(c, k, ahead + stride);
        }
        eight_weigh<L>(k, x, at, of, up, down);
        fence_for_engines();
        __syncthreads();
        eight_sums<L>(k, values, of, up, down);
        if (++slot == L::SLOTS) slot = 0, parity ^= 1;
    }
    next_kernel_may_start();

    /* 3: results */
    eight_put<L>(c, k, of);
}

#endif
