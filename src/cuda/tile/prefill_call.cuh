/* prefill_call.cuh - what the kernels of attention_prefill are given, which query a row is, and the end of a row. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_CALL_CUH
#define OCTAVO_CUDA_TILE_PREFILL_CALL_CUH

#include "cuda/cuda_call.h"
#include "cuda/tile/reduce.cuh"
#include "cuda/tile/stored_rows.cuh"
#include "kernel/prefill_eight.h"

struct prefill_call {
    octavo_attention_prefill_params p;
    octavo_kv_view kv;   /* p.kv is not to be followed on the device */
    int64_t group, rows; /* heads of a kv head; its rows: token by token, the heads of a token one after the other */
    int32_t *device_status;
    int q_terms, k_terms, v_terms; /* bf16 numbers whose sum an operand is */
    float k_unit;                  /* what a key's code counts in units of its factor */
    bool k_wide, v_wide;           /* rows may be read eight elements at a time       */
};

/* What every kernel of a call is told. */
prefill_call octavo_prefill_call_of(const octavo_exec *exec, const octavo_attention_prefill_params *p);

/* Where a block works. */
struct prefill_place {
    int64_t b, head, length, queries;
};

static __device__ __forceinline__ prefill_place prefill_place_of(const prefill_call &c, int64_t b, int64_t head)
{
    const int64_t most = c.p.q.shape[1], asked = c.p.q_lengths ? c.p.q_lengths[b] : most; /* nothing on the host has looked at it */
    return { b, head, sequence_length(&c.kv, b), asked < 0 ? 0 : asked < most ? asked : most };
}

/* What the call's queries see of the sequence; nothing else is encoded. */
static __device__ __forceinline__ octavo_span prefill_seen_of(const prefill_call &c, const prefill_place &at)
{
    if (at.queries <= 0) return { 0, 0, 0 };
    const octavo_span first = octavo_prefill_span_of(&c.p, at.length, at.queries, 0);
    const octavo_span last = octavo_prefill_span_of(&c.p, at.length, at.queries, at.queries - 1);
    return { last.sink_end < first.near_begin ? last.sink_end : first.near_begin, first.near_begin, last.end };
}

/* What codes leave out of V, a mean over the blocks that a row sees some of: sums before its last block's end, before the first, and of the
 * sinks' blocks. begin NULL: the row sees all from the first block on. */
struct prefill_rest {
    const float *end, *begin, *sink;
    float part;
};

/* sums: [blocks + 1, v_dim] of the kv head. */
static __device__ __forceinline__ prefill_rest prefill_rest_of(const prefill_call &c, const prefill_place &at, const float *sums, int64_t token)
{
    const octavo_span blocks = octavo_prefill_blocks_of(octavo_prefill_span_of(&c.p, at.length, at.queries, token)), seen = prefill_seen_of(c, at);
    const int64_t count = octavo_prefill_blocks_seen(&blocks, &seen), dim = c.kv.v_dim;
    return { sums + blocks.end * dim, blocks.near_begin > 0 ? sums + blocks.near_begin * dim : nullptr, sums + blocks.sink_end * dim,
             count > 0 ? 1.0f / (float)count : 0.0f };
}

static __device__ __forceinline__ float prefill_rest_at(const prefill_rest &rest, int64_t d)
{
    const float sum = rest.begin ? rest.end[d] - rest.begin[d] + rest.sink[d] : rest.end[d];
    return sum * rest.part;
}

/* COUNT pairs of neighbours, eight channels apart; all are asked for before one is used. */
template <int COUNT> static __device__ __forceinline__ void prefill_rest_pairs(const prefill_rest &rest, float2 (&pair)[COUNT])
{
#pragma unroll
    for (int i = 0; i < COUNT; i++) pair[i] = rest.end ? *(const float2 *)(rest.end + 8 * i) : make_float2(0.0f, 0.0f);
    if (rest.begin) {
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            const float2 begin = *(const float2 *)(rest.begin + 8 * i), sink = *(const float2 *)(rest.sink + 8 * i);
            pair[i].x = pair[i].x - begin.x + sink.x, pair[i].y = pair[i].y - begin.y + sink.y;
        }
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++) pair[i].x *= rest.part, pair[i].y *= rest.part;
}

/* A token that some query of the block sees; one whose page is not there sets the status word and counts as zeros. */
static __device__ __forceinline__ bool prefill_find(const prefill_call &c, const prefill_place &at, int64_t token, stored_token *found)
{
    *found = find_token(&c.kv, at.b, at.head, token);
    if (!c.kv.page_table || (found->page >= 0 && found->page < c.kv.pages)) return true;
    report(c.device_status, OCTAVO_E_RANGE);
    return false;
}

static __device__ __forceinline__ int64_t prefill_q_at(const prefill_call &c, const prefill_place &at, int64_t row)
{
    return at.b * c.p.q.strides[0] + row / c.group * c.p.q.strides[1] + (at.head * c.group + row % c.group) * c.p.q.strides[2];
}

/* What a softmax over the keys, its logarithms to base e, is to be multiplied by: the sink is a part of the whole. */
struct prefill_end {
    float factor, lse;
};

/* most, mass: the largest score and the sum of the weights relative to it. shift: what smoothing took from every score of the row. */
static __device__ __forceinline__ prefill_end prefill_end_of(const prefill_call &c, int64_t q_head, float most, float mass, float shift)
{
    if (!(mass > 0.0f)) return { 0.0f, -INFINITY };
    const float sink = c.p.sink_logits ? c.p.sink_logits[q_head] - shift : -INFINITY, top = fmaxf(most, sink);
    const float keys = expf(most - top), whole = mass * keys + (c.p.sink_logits ? expf(sink - top) : 0.0f);
    return { keys / whole, top + logf(whole) + shift };
}

/* softmax_scale * q . (what was taken off the keys). */
static __device__ __forceinline__ float prefill_shift(const prefill_call &c, const prefill_place &at, int64_t row)
{
    if (!c.kv.k_mean) return 0.0f;
    const float *mean = c.kv.k_mean + (octavo_view_row(&c.kv, at.b) * c.kv.kv_heads + at.head) * c.kv.head_dim;
    const int64_t q = prefill_q_at(c, at, row);
    float sum = 0.0f;
    for (int64_t i = 0; i < c.kv.head_dim; i++) sum = fmaf(load_float(&c.p.q, q + i), mean[i], sum);
    return sum * c.p.softmax_scale;
}

static __device__ __forceinline__ int64_t prefill_out_at(const prefill_call &c, const prefill_place &at, int64_t row)
{
    return at.b * c.p.out.strides[0] + row / c.group * c.p.out.strides[1] + (at.head * c.group + row % c.group) * c.p.out.strides[2];
}

static __device__ __forceinline__ void prefill_put_lse(const prefill_call &c, const prefill_place &at, int64_t row, float lse)
{
    if (c.p.lse) c.p.lse[(at.b * c.p.q.shape[2] + at.head * c.group + row % c.group) * c.p.q.shape[1] + row / c.group] = lse;
}

/* Starts the matrix kernel of the smallest head size that holds both of the call's. *done: there is one, and it fits the device. */
octavo_status octavo_prefill_tiles(const octavo_exec *exec, const prefill_call &call, bool *done);

/* Q, K and V to codes of eight bits in the workspace, for heads of at most PREFILL_EIGHT_DIM; then attention over them with sm_80's
 * instructions. Of the call they need what every kernel is given: p, kv, device_status, group. */
enum { PREFILL_EIGHT_DIM = 256 };
octavo_status octavo_prefill_encode(const octavo_exec *exec, const prefill_call &call, const octavo_prefill_eight_layout &at);
octavo_status octavo_prefill_eight(const octavo_exec *exec, const prefill_call &call);

#endif
