/* attention_prefill_sm80.cu - attention of many queries: eight-bit ones elsewhere, exact ones through the matrix unit where the view's floats have 16 bits or fewer and
 * heads are not too large, else a warp a row in float32. */
#include "cuda/cuda_install.h"
#include "cuda/ptx/ptx_copy.cuh"
#include "cuda/tile/prefill_call.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS, HEAD_DIM_MOST = 2048 /* of head_dim + v_dim, for which WARPS rows fit in shared memory */ };

/* ---- a warp a row ---- */

/* Grid (WARPS rows, kv heads, batch); a lane a key. */
static __global__ void __launch_bounds__(THREADS) prefill_rows(const __grid_constant__ prefill_call c)
{
    extern __shared__ float shared[];
    wait_for_kernel_before();
    const prefill_place at = prefill_place_of(c, blockIdx.z, blockIdx.y);
    const octavo_kv_view *kv = &c.kv;
    const int64_t warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, row = (int64_t)blockIdx.x * WARPS + warp, token = row / c.group;
    if (row >= c.rows || token >= at.queries) return;
    float *q = shared + warp * (kv->head_dim + kv->v_dim), *out = q + kv->head_dim;
    const int64_t from = prefill_q_at(c, at, row), to = prefill_out_at(c, at, row);
    const octavo_span span = octavo_prefill_span_of(&c.p, at.length, at.queries, token);
    for (int64_t i = lane; i < kv->head_dim; i += WARP) q[i] = load_float(&c.p.q, from + i);
    for (int64_t i = lane; i < kv->v_dim; i += WARP) out[i] = 0.0f;
    __syncwarp();
    float most = -INFINITY, mass = 0.0f;
    for (int64_t begin = 0; begin < span.end; begin += WARP) {
        if (begin >= span.sink_end && begin + WARP <= span.near_begin) continue;
        stored_token found;
        const uint8_t *value = nullptr;
        float score = -INFINITY, v_factor = 0.0f;
        if (octavo_span_sees(&span, begin + lane) && prefill_find(c, at, begin + lane, &found)) {
            const key_row key = find_key(kv, found, octavo_k_plane_count(kv->k_format));
            float sum = 0.0f;
            for (int64_t i = 0; i < kv->head_dim; i++) sum = fmaf(q[i], key_code(kv, key, i), sum);
            score = soft_cap(sum * row_factor(&kv->k_scale, octavo_k_scale_bytes(kv->k_format), found) * c.p.softmax_scale, c.p.soft_cap);
            value = stored_at(&kv->v, found), v_factor = row_factor(&kv->v_scale, octavo_v_scale_bytes(kv->v_format), found);
        }
        const float top = fmaxf(most, warp_reduce(score, take_larger()));
        if (top == -INFINITY) continue;
        const float down = most == -INFINITY ? 0.0f : expf(most - top), weight = score == -INFINITY ? 0.0f : expf(score - top);
        most = top, mass = mass * down + warp_reduce(weight, add_up());
        for (int64_t i = lane; i - lane < kv->v_dim; i += WARP) {
            float sum = i < kv->v_dim ? out[i] * down : 0.0f;
            for (int j = 0; j < WARP; j++) {
                const uint8_t *v = (const uint8_t *)__shfl_sync(WHOLE_WARP, (unsigned long long)value, j);
                const float its = __shfl_sync(WHOLE_WARP, weight, j), factor = __shfl_sync(WHOLE_WARP, v_factor, j);
                if (v && its > 0.0f && i < kv->v_dim) sum = fmaf(its, value_code(kv, v, i) * factor, sum);
            }
            if (i < kv->v_dim) out[i] = sum;
        }
    }
    const prefill_end end = prefill_end_of(c, at.head * c.group + row % c.group, most, mass, prefill_shift(c, at, row));
    if (lane == 0) prefill_put_lse(c, at, row, end.lse);
    for (int64_t i = lane; i < kv->v_dim; i += WARP)
        store_float(&c.p.out, to + i, end.factor == 0.0f ? 0.0f : out[i] * end.factor * channel_factor(kv, at.head, i));
}

static octavo_status launch_rows(const octavo_exec *exec, const prefill_call &call)
{
    const int64_t dims = (int64_t)call.kv.head_dim + call.kv.v_dim;
    if (dims > HEAD_DIM_MOST)
        return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "kv.head_dim is %d and v_dim %d, expected at most %d together on a GPU", call.kv.head_dim,
                                call.kv.v_dim, (int)HEAD_DIM_MOST);
    const dim3 grid((unsigned)octavo_cuda_ceil(call.rows, WARPS), (unsigned)call.kv.kv_heads, (unsigned)call.kv.batch);
    return octavo_cuda_launch(prefill_rows, "attention_prefill", grid, THREADS, (size_t)(WARPS * dims) * sizeof(float), exec, call);
}

/* ---- the call ---- */

static bool is_wide(const octavo_section *section, int bytes)
{
    return ((uintptr_t)section->data | (uintptr_t)section->page_bytes | (uintptr_t)section->sequence_bytes | (uintptr_t)section->head_bytes |
            (uintptr_t)section->token_bytes) % (uintptr_t)bytes == 0;
}

static int k_terms_of(octavo_k_format format)
{
    return format == OCTAVO_K_F16 || format == OCTAVO_K_E4M3X2 || format == OCTAVO_K_E5M2X2 || format == OCTAVO_K_INT8X2 ? 2 : 1;
}

prefill_call octavo_prefill_call_of(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    const octavo_kv_view *kv = p->kv;
    prefill_call call = {};
    call.p = *p, call.kv = *kv, call.device_status = exec->device_status;
    call.group = p->q.shape[2] / kv->kv_heads, call.rows = p->q.shape[1] * call.group;
    call.q_terms = p->q.dtype == OCTAVO_BF16 ? 1 : 2, call.k_terms = k_terms_of(kv->k_format), call.v_terms = kv->v_format == OCTAVO_V_F16 ? 2 : 1;
    call.k_unit = kv->k_format == OCTAVO_K_INT8X2 ? 1.0f / 254.0f : 1.0f;
    call.k_wide = is_wide(&kv->k[0], kv->k_format == OCTAVO_K_BF16 || kv->k_format == OCTAVO_K_F16 ? 16 : 8) &&
                  (octavo_k_plane_count(kv->k_format) == 1 || is_wide(&kv->k[1], 8));
    call.v_wide = is_wide(&kv->v, kv->v_format == OCTAVO_V_BF16 || kv->v_format == OCTAVO_V_F16 ? 16 : 8);
    return call;
}

octavo_status octavo_attention_prefill_cuda(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    const octavo_kv_view *kv = p->kv;
    const prefill_call call = octavo_prefill_call_of(exec, p);
    bool done = false;
    if (kv->batch > 65535 || kv->kv_heads > 65535 || call.rows > INT32_MAX)
        return octavo_cuda_fail(OCTAVO_E_UNSUPPORTED, "kv.batch is %lld and kv_heads %d, expected at most 65535 on a GPU", (long long)kv->batch,
                                kv->kv_heads);
    if (call.rows == 0) return OCTAVO_OK;
    if (p->precision != OCTAVO_ATTENTION_EXACT) return octavo_prefill_eight(exec, call);
    if (kv->k_format != OCTAVO_K_F32 && kv->v_format != OCTAVO_V_F32) OCTAVO_CUDA_TRY(octavo_prefill_tiles(exec, call, &done));
    return done ? OCTAVO_OK : launch_rows(exec, call);
}
