/* linear_call.cuh - what the kernels of a linear layer are given, and where x lies once it is rounded. */
#ifndef OCTAVO_CUDA_TILE_LINEAR_CALL_CUH
#define OCTAVO_CUDA_TILE_LINEAR_CALL_CUH

#include "cuda/cuda_call.h"
#include "cuda/tile/stored_rows.cuh"
#include "kernel/linear_plan.h"

/* How a part is multiplied: its weight's codes by x's. */
enum linear_kind { LINEAR_ROWS /* anything, an element at a time */, LINEAR_BF16, LINEAR_E4M3, LINEAR_INT8, LINEAR_E4M3_E4M3, LINEAR_INT8_INT8 };

struct linear_call {
    octavo_linear_params p;
    const void *x;        /* [tokens, x_stride] as the precision rounds it: f32, bf16, e4m3 or int8; zeros behind a row */
    const float *factors; /* [tokens] scale of its codes or 1, NaN where a token is not finite; NULL: x is the caller's, not looked at */
    int64_t tokens, in, x_stride;
    int first, end;       /* the parts of this launch        */
    int tiles[OCTAVO_LINEAR_PARTS + 1]; /* row tiles of the launch before each part */
};

/* The part that row tile `tile` of the launch belongs to. */
static __device__ __forceinline__ int linear_part_of(const linear_call &c, int tile)
{
    int part = c.first;
    while (part + 1 < c.end && tile >= c.tiles[part + 1]) part++;
    return part;
}

/* Stores what a token's product with a row of W comes to, scales taken in but for x's, which is `factor`. */
static __device__ __forceinline__ void linear_store(const linear_call &c, const octavo_linear_part &part, int64_t token, int64_t row, float sum,
                                                    float factor)
{
    const int64_t at = token * part.y.strides[0] + row;
    float y = sum * factor + (part.bias ? part.bias[row] : 0.0f);
    if (c.p.store == OCTAVO_STORE_ADD) y += load_float(&part.y, at);
    store_float(&part.y, at, y);
}

/* x of the call, rounded into the workspace. */
octavo_status octavo_linear_round(const octavo_exec *exec, const linear_call &call);

octavo_status octavo_linear_tiles(const octavo_exec *exec, const linear_call &call, linear_kind kind);

#endif
