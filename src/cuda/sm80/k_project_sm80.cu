/* k_project_sm80.cu - h W^T + bias into the workspace as a linear layer makes it, then rotated and encoded in one pass.
 *
 * Where h and W are exact as bf16 operands the product is one of them, which is exact; else it is one of float32. */
#include "cuda/cuda_blas.h"
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/key_turn.cuh"
#include "cuda/tile/layer_rows.cuh"
#include "kernel/k_project_plan.h"

enum { THREADS = 128, WARPS = THREADS / WARP, DIM_MOST = 256 /* of rows that are rotated in shared memory */, BLAS_TOKENS = 17, ALIGN = 16 };

struct turn_call {
    octavo_k_project_params p;
    octavo_kv_view kv;
    float *y; /* [tokens of all sequences, kv_heads, head_dim] */
    int64_t tokens;
    int pairs;
    int32_t *device_status;
};

/* Grid: a warp a token and head. Bound by memory. */
static __global__ void __launch_bounds__(THREADS) turn_and_store(const __grid_constant__ turn_call c)
{
    __shared__ float shared[WARPS][DIM_MOST];
    wait_for_kernel_before();
    const octavo_kv_view *kv = &c.kv;
    const int64_t index = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, head = index % kv->kv_heads, n = index / kv->kv_heads;
    if (n >= c.tokens) return;
    const int dim = kv->head_dim;
    float *from = c.y + index * dim, *row = dim <= DIM_MOST ? shared[threadIdx.x / WARP] : from;
    const int32_t position = octavo_project_angle_position(&c.p, n);
    for (int i = 2 * c.pairs + (int)threadIdx.x % WARP; i < dim; i += WARP) row[i] = from[i];
    for (int first = 0; first < c.pairs; first += TURN_PAIRS)
        turn_row(c.p.rope, c.pairs, first, turn_by(c.p.rope, frequencies_of(c.p.rope, c.pairs, first), position), from, row);
    __syncwarp();
    const int64_t b = n / c.p.h.shape[1];
    put_key_row(kv, b, head, c.p.positions[b] + n % c.p.h.shape[1], row, c.device_status);
}

static bool is_aligned(const void *data, int64_t stride, int64_t bytes) { return (uintptr_t)data % ALIGN == 0 && stride * bytes % ALIGN == 0; }

/* Many tokens: straight from h, where that is what cuBLASLt reads. */
static octavo_status by_blas(const octavo_exec *exec, const octavo_k_project_params *p, float *y, void *workspace, size_t bytes, bool *done)
{
    const octavo_project_sizes sizes = octavo_project_sizes_of(p);
    const octavo_tensor *w = &p->weight.codes, *h = &p->h;
    const int64_t element = h->dtype == OCTAVO_F32 ? 4 : 2, stride = h->shape[1] > 1 ? h->strides[1] : h->strides[0];
    const bool even = h->shape[0] == 1 || h->strides[0] == stride * h->shape[1];
    *done = false;
    if (sizes.tokens < BLAS_TOKENS || h->dtype == OCTAVO_F16 || w->dtype != h->dtype || p->weight.scales || !even || stride < sizes.hidden ||
        !is_aligned(h->data, stride, element) || !is_aligned(w->data, w->strides[0], element) || sizes.rows % 4)
        return OCTAVO_OK;
    const octavo_cuda_product product = { h->data, w->data, y, p->bias, h->dtype, OCTAVO_F32, OCTAVO_STORE_SET, sizes.tokens, sizes.rows,
                                          sizes.hidden, stride, w->strides[0], sizes.rows, workspace, bytes };
    return octavo_cuda_blas_multiply(exec, &product, done);
}

static bool is_exact_in_bf16(const octavo_k_project_params *p)
{
    const octavo_dtype w = p->weight.codes.dtype;
    return p->h.dtype == OCTAVO_BF16 && (w == OCTAVO_BF16 || w == OCTAVO_E4M3 || w == OCTAVO_INT8);
}

static octavo_status multiply(const octavo_exec *exec, const octavo_k_project_params *p, float *y)
{
    const octavo_project_layout at = octavo_project_layout_of(p);
    octavo_exec inner = *exec;
    bool done;
    inner.workspace = (uint8_t *)exec->workspace + at.linear, inner.workspace_bytes = at.bytes - at.linear;
    OCTAVO_CUDA_TRY(by_blas(exec, p, y, inner.workspace, inner.workspace_bytes, &done));
    if (done) return OCTAVO_OK;
    octavo_linear_params product = octavo_project_linear_params(p, y);
    if (is_exact_in_bf16(p)) product.precision = OCTAVO_LINEAR_BF16;
    return octavo_linear_cuda(&inner, &product);
}

octavo_status octavo_k_project_cuda(const octavo_exec *exec, const octavo_k_project_params *p)
{
    const octavo_project_sizes sizes = octavo_project_sizes_of(p);
    const turn_call call = { *p, *p->kv, (float *)exec->workspace, sizes.tokens, (int)(sizes.rotary / 2), exec->device_status };
    const int64_t blocks = octavo_cuda_ceil(sizes.tokens * p->kv->kv_heads, WARPS);
    if (sizes.tokens == 0) return OCTAVO_OK;
    OCTAVO_CUDA_TRY(layer_check_rows("h", blocks));
    OCTAVO_CUDA_TRY(multiply(exec, p, call.y));
    return octavo_cuda_launch(turn_and_store, "k_project", dim3((unsigned)blocks), THREADS, 0, exec, call);
}
