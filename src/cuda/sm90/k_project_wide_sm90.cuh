/* k_project_wide_sm90.cuh - how the blocks of a cluster that share a head's columns add their sums, and what the block that has a token does
 * with its row. */
#ifndef OCTAVO_CUDA_SM90_K_PROJECT_WIDE_SM90_CUH
#define OCTAVO_CUDA_SM90_K_PROJECT_WIDE_SM90_CUH

#include "cuda/ptx/ptx_cluster.cuh"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/sm90/cluster_launch.h"
#include "cuda/tile/key_turn.cuh"
#include "kernel/k_project_plan.h"

enum { PART_BYTES = 4 * ROW_MOST, PARTS_AT_ONCE = 8, WIDE_TOKENS_MOST = 64 };

/* A part that has not come: a NaN that no arithmetic makes. */
static constexpr uint32_t ABSENT = 0xffc0deadu;

struct wide_call {
    octavo_k_project_params p;
    octavo_kv_view kv;
    int32_t *device_status;
    int64_t stride;   /* of tokens of h, in elements     */
    int tokens, each; /* of all sequences; of one        */
    int pairs;
    int blocks;       /* of a cluster, a power of two    */
};

/* ---- sending ---- */

template <int TOKENS, int THREADS> static __device__ __forceinline__ void clear_parts(uint32_t parts)
{
    const uint4 absent = make_uint4(ABSENT, ABSENT, ABSENT, ABSENT);
    for (int i = (int)threadIdx.x; i < TOKENS * PART_BYTES / (int)sizeof absent; i += THREADS)
        store_shared_16(parts + i * (int)sizeof absent, absent);
    cluster_report_written();
}

/* Part `rank` of token n's row goes to block n % blocks. Lanes of neighbouring rows change sums, so that each has four of one token. */
template <int COUNT> static __device__ __forceinline__ void send_parts(const wide_call &c, uint32_t parts, int rank, const float (&sum)[COUNT])
{
    const int lane = (int)threadIdx.x % WARP, odd = lane / 4 % 2, first = 4 * (4 * ((int)threadIdx.x / WARP) + lane / 8);
#pragma unroll
    for (int j = 0; j < COUNT / 4; j++) {
        const float low = __shfl_xor_sync(WHOLE_WARP, odd ? sum[4 * j] : sum[4 * j + 1], 4);
        const float high = __shfl_xor_sync(WHOLE_WARP, odd ? sum[4 * j + 2] : sum[4 * j + 3], 4);
        const int token = 8 * j + 2 * (lane % 4) + odd, to = token & (c.blocks - 1);
        if (token >= c.tokens) continue;
        const uint32_t part = shared_of(parts + (token - to + rank) * PART_BYTES + 4 * first, (uint32_t)to);
        store_far(part, odd ? low : sum[4 * j], odd ? sum[4 * j + 1] : low, odd ? high : sum[4 * j + 2], odd ? sum[4 * j + 3] : high);
    }
}

/* ---- rows ---- */

static __device__ __forceinline__ bool is_absent(const float4 &x)
{
    return __float_as_uint(x.x) == ABSENT || __float_as_uint(x.y) == ABSENT || __float_as_uint(x.z) == ABSENT || __float_as_uint(x.w) == ABSENT;
}

/* In pairs, and these in pairs: a short chain. */
template <int COUNT> static __device__ __forceinline__ float4 sum_of(const float4 (&part)[COUNT])
{
    float4 sum[COUNT];
#pragma unroll
    for (int i = 0; i < COUNT; i++) sum[i] = part[i];
#pragma unroll
    for (int half = COUNT / 2; half > 0; half /= 2)
#pragma unroll
        for (int i = 0; i < half; i++)
            sum[i] = make_float4(sum[i].x + sum[i + half].x, sum[i].y + sum[i + half].y, sum[i].z + sum[i + half].z, sum[i].w + sum[i + half].w);
    return sum[0];
}

/* The sum of so many parts as soon as all are there: four elements a lane. The blocks that send them run. */
template <int COUNT> static __device__ __forceinline__ float4 add_parts(uint32_t parts)
{
    for (;;) {
        float4 part[COUNT];
#pragma unroll
        for (int i = 0; i < COUNT; i++) part[i] = load_far_stored(parts + i * PART_BYTES);
        const float4 sum = sum_of(part);
        const float all = sum.x + sum.y + sum.z + sum.w;
        if (__all_sync(WHOLE_WARP, all == all)) return sum;
        bool absent = false;
#pragma unroll
        for (int i = 0; i < COUNT; i++) absent = absent || is_absent(part[i]);
        if (!__any_sync(WHOLE_WARP, absent)) return sum; /* a sum is a NaN */
    }
}

/* Of MOST blocks at most. */
template <int AT_ONCE, int MOST> static __device__ __forceinline__ float4 add_all_parts(uint32_t parts, int blocks)
{
    float4 sum = add_parts<AT_ONCE>(parts);
    for (int from = AT_ONCE; from < MOST && from < blocks; from += AT_ONCE) {
        const float4 more = add_parts<AT_ONCE>(parts + from * PART_BYTES);
        sum.x += more.x, sum.y += more.y, sum.z += more.z, sum.w += more.w;
    }
    return sum;
}

/* Rotates a row that the warp holds. */
static __device__ __forceinline__ void turn_keys(const wide_call &c, const row_turn &turn, float *row, float (&keys)[ROW_EACH])
{
    if (c.pairs == ROW_MOST / 2 && c.p.rope.style == OCTAVO_ROPE_ROTATE_HALF) {
#pragma unroll
        for (int i = 0; i < TURN_EACH; i++) {
            const float a = keys[i], b = keys[i + TURN_EACH];
            keys[i] = a * turn.cosine[i] - b * turn.sine[i], keys[i + TURN_EACH] = b * turn.cosine[i] + a * turn.sine[i];
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < ROW_EACH; j++) row[held_element(j)] = keys[j];
    __syncwarp();
    turn_row(c.p.rope, c.pairs, 0, turn, row, row);
    __syncwarp();
#pragma unroll
    for (int j = 0; j < ROW_EACH; j++) keys[j] = row[held_element(j)];
}

/* A warp adds, rotates and stores a token's row of a head; `row` is its own place in shared memory. */
template <int MOST> static __device__ __forceinline__ void finish_token(const wide_call &c, uint32_t parts, float *row, const row_place &place, const row_turn &turn)
{
    parts += (uint32_t)threadIdx.x % WARP * sizeof(float4);
    const float4 sum = c.blocks < PARTS_AT_ONCE ? add_all_parts<1, PARTS_AT_ONCE>(parts, c.blocks) : add_all_parts<PARTS_AT_ONCE, MOST>(parts, c.blocks);
    float keys[ROW_EACH] = { sum.x, sum.y, sum.z, sum.w };
    if (c.p.bias)
#pragma unroll
        for (int j = 0; j < ROW_EACH; j++) keys[j] += c.p.bias[(int64_t)blockIdx.y * ROW_MOST + held_element(j)];
    turn_keys(c, turn, row, keys);
    put_held_row<ROW_MOST>(&c.kv, place, keys, c.device_status);
}

/* ---- which calls ---- */

static inline bool wide_is_aligned(const octavo_k_project_params *p, int64_t stride)
{
    return ((uintptr_t)p->h.data | (uintptr_t)p->weight.codes.data | (uintptr_t)(2 * stride) | (uintptr_t)(2 * p->weight.codes.strides[0])) % sizeof(float4) == 0;
}

/* False: not a call of 16-bit h and W, heads of 128 elements, evenly spaced tokens and clusters of blocks of so many columns. */
static inline bool wide_call_of(const octavo_exec *exec, const octavo_k_project_params *p, int columns, wide_call *call)
{
    const octavo_project_sizes sizes = octavo_project_sizes_of(p);
    const octavo_tensor *h = &p->h;
    const int64_t blocks = sizes.hidden / columns, stride = h->shape[1] > 1 ? h->strides[1] : h->shape[0] > 1 ? h->strides[0] : sizes.hidden;
    const bool even = h->shape[0] == 1 || h->shape[1] == 1 || h->strides[0] == h->shape[1] * stride;
    if (sizes.tokens < 1 || sizes.tokens > WIDE_TOKENS_MOST || p->kv->head_dim != ROW_MOST || sizes.rotary > 2 * TURN_PAIRS || p->kv->max_tokens > INT32_MAX / 2)
        return false;
    if (blocks < 1 || blocks > CLUSTER_MOST || (blocks & (blocks - 1)) || sizes.hidden % columns || !even || !wide_is_aligned(p, stride)) return false;
    if ((h->dtype != OCTAVO_BF16 && h->dtype != OCTAVO_F16) || p->weight.codes.dtype != h->dtype || p->weight.scales) return false;
    *call = { *p, *p->kv, exec->device_status, stride, (int)sizes.tokens, (int)h->shape[1], (int)(sizes.rotary / 2), (int)blocks };
    return true;
}

#endif
