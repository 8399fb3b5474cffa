/* prefill_most.cuh - largest magnitudes of whole heads, or of a whole call of attention_prefill, which scales are made for. Bound by memory. */
#ifndef OCTAVO_CUDA_TILE_PREFILL_MOST_CUH
#define OCTAVO_CUDA_TILE_PREFILL_MOST_CUH

#include "cuda/tile/prefill_facts.cuh"

/* Walsh and Hadamard's butterflies over rows of which a lane has eight elements, in the reference's order. */
static __device__ __forceinline__ void rotate_rows(float (&x)[EIGHT], int d, int dim, float unit)
{
#pragma unroll
    for (int half = 1; half < EIGHT; half *= 2)
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            if (i & half || half >= dim) continue;
            const float a = x[i], b = x[i + half];
            x[i] = a + b, x[i + half] = a - b;
        }
    for (int half = EIGHT; half < dim; half *= 2) {
#pragma unroll
        for (int i = 0; i < EIGHT; i++) {
            const float other = __shfl_xor_sync(WHOLE_WARP, x[i], half / EIGHT);
            x[i] = d & half ? other - x[i] : x[i] + other;
        }
    }
#pragma unroll
    for (int i = 0; i < EIGHT; i++) x[i] *= unit;
}

/* What block.x has of the tokens of a head: THREADS of them. */
struct most_shared {
    prefill_row row[THREADS];
    float most[THREADS / WARP];
};

template <encode_from FROM>
static __device__ __forceinline__ void find_most(const prefill_encode_call &c, prefill_operand what, most_shared &shared, int head)
{
    enum { EACH = 4 };
    const int lanes = c.lanes, rows = THREADS / lanes;
    const int64_t first = (int64_t)blockIdx.x * THREADS, b = blockIdx.z;
    const prefill_place at = prefill_place_of(c.of, b, head);
    const octavo_span seen = what == PREFILL_Q ? octavo_span{ 0, 0, at.queries } : prefill_seen_of(c.of, at);
    const int d = (int)threadIdx.x % lanes * EIGHT, dim = what == PREFILL_V ? c.of.kv.v_dim : c.of.kv.head_dim;
    if (first >= seen.end) return;
    shared.row[threadIdx.x] = { nullptr, nullptr, 0.0f };
    if (octavo_span_sees(&seen, first + threadIdx.x)) shared.row[threadIdx.x] = prefill_row_of(c.of, c.as, what, at, first + threadIdx.x);
    __syncthreads();
    float most = 0.0f;
#pragma unroll 1
    for (int r = (int)threadIdx.x / lanes; r < THREADS; r += EACH * rows) {
        prefill_row row[EACH];
        float x[EACH][EIGHT];
#pragma unroll
        for (int i = 0; i < EACH; i++) row[i] = shared.row[r + i * rows];
        prefill_load_eights<FROM>(c.of, c.as, what, at.head, row, d, dim, x);
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            if (what != PREFILL_V && c.rotates) rotate_rows(x[i], d, dim, c.rotation);
#pragma unroll
            for (int j = 0; j < EIGHT; j++) most = fmaxf(most, fabsf(x[i][j]));
        }
    }
    most = block_reduce(most, shared.most, take_larger());
    if (threadIdx.x == 0) raise_most(c, what, b, head, most);
}

/* Grid (THREADS tokens, heads of V, of K, of Q, each if theirs are sought, batch). */
template <encode_from FROM> static __global__ void __launch_bounds__(THREADS, 3) prefill_most(const __grid_constant__ prefill_encode_call c)
{
    __shared__ most_shared shared;
    wait_for_kernel_before();
    next_kernel_may_start();
    const int heads = c.of.kv.kv_heads, index = (int)blockIdx.y, values = c.whole[PREFILL_V].sought ? heads : 0, keys = values + (c.whole[PREFILL_K].sought ? heads : 0);
    const prefill_operand what = index < values ? PREFILL_V : index < keys ? PREFILL_K : PREFILL_Q;
    find_most<FROM>(c, what, shared, index - (what == PREFILL_V ? 0 : what == PREFILL_K ? values : keys));
}

#endif
