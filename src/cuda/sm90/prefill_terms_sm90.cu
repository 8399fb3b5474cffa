/* prefill_terms_sm90.cu - attention of many queries over stored planes: what has eight bits or two planes becomes bf16 in the workspace, once for all rows
 * that meet it, and the kernels for plain floats do the rest (kernel/prefill_terms.h). Bound by what comes after. */
#include "cuda/sm90/prefill_sm90.h"
#include "cuda/tile/prefill_operands.cuh"

enum { TOKENS = OCTAVO_PREFILL_BLOCK, THREADS = 256, NEAR = 128 /* at least as many keys as a tile has */, HALF = 2 };

struct terms_call {
    prefill_call of;
    octavo_prefill_terms_layout at;
    octavo_prefill_eight_layout codes; /* of FP8 */
    uint8_t *workspace;
};

/* ---- K and V ---- */

/* Eight elements times `factor`, and each by a channel's own: as terms, `dim` elements apart. */
static __device__ __forceinline__ void put_terms(const term_pairs &x, float factor, const float *channels, int terms, int dim, uint16_t *to)
{
    term_pairs out;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        const float low = (bf16_low(x.first[i]) + bf16_low(x.second[i])) * factor, high = (bf16_high(x.first[i]) + bf16_high(x.second[i])) * factor;
        put_pair(&out, i, channels ? low * channels[2 * i] : low, channels ? high * channels[2 * i + 1] : high);
    }
    *(uint4 *)to = make_uint4(out.first[0], out.first[1], out.first[2], out.first[3]);
    if (terms > 1) *(uint4 *)(to + dim) = make_uint4(out.second[0], out.second[1], out.second[2], out.second[3]);
}

/* Eight codes of E4M3. */
static __device__ __forceinline__ term_pairs load_codes(const uint8_t *from)
{
    const uint2 codes = *(const uint2 *)from;
    term_pairs out = {};
    put_codes(out.first, CODE_E4M3, { codes.x, codes.y });
    return out;
}

/* Grid (blocks of 64 tokens, kv heads, batch); keys that no query sees, but whose tile is read, become zeros. */
static __global__ void __launch_bounds__(THREADS) terms_of_stored(const __grid_constant__ terms_call c)
{
    wait_for_kernel_before();
    const octavo_kv_view *kv = &c.of.kv;
    const int64_t first = (int64_t)blockIdx.x * TOKENS, head = blockIdx.y;
    const prefill_place at = prefill_place_of(c.of, blockIdx.z, head);
    const octavo_span seen = prefill_seen_of(c.of, at);
    if (first == 0 && head == 0 && threadIdx.x == 0) ((int32_t *)(c.workspace + c.at.lengths))[at.b] = (int32_t)at.length;
    if (octavo_span_count(&seen, first > NEAR ? first - NEAR : 0, first + TOKENS + NEAR) == 0) return;
    const int dim = kv->head_dim, lanes = dim / EIGHT, row = c.at.terms * dim;
    const int64_t line = at.b * kv->kv_heads + head, rows = line * c.at.kv_tokens, code_rows = line * c.codes.kv_tokens;
    uint16_t *k = (uint16_t *)(c.workspace + c.at.k) + rows * row, *v = (uint16_t *)(c.workspace + c.at.v) + rows * row;
    for (int i = threadIdx.x; i < TOKENS * lanes; i += THREADS) {
        const int64_t token = first + i / lanes;
        const int d = i % lanes * EIGHT;
        stored_token found;
        term_pairs key = {}, value = {};
        float k_factor = 0.0f, v_factor = 0.0f;
        if (octavo_span_sees(&seen, token) && prefill_find(c.of, at, token, &found)) {
            value = load_value(c.of, stored_at(&kv->v, found), d);
            v_factor = row_factor(&kv->v_scale, octavo_v_scale_bytes(kv->v_format), found);
            if (c.codes.k) {
                key = load_codes(c.workspace + c.codes.k + (code_rows + token) * c.codes.width + d);
                k_factor = ((const float *)(c.workspace + c.codes.k_scale))[code_rows + token];
            } else if (c.at.k) {
                key = load_key(c.of, find_key(kv, found, octavo_k_plane_count(kv->k_format)), d);
                k_factor = row_factor(&kv->k_scale, octavo_k_scale_bytes(kv->k_format), found) * c.of.k_unit;
            }
        }
        if (c.at.k) put_terms(key, k_factor, nullptr, c.at.terms, dim, k + token * row + d);
        put_terms(value, v_factor, kv->v_channel_scale ? kv->v_channel_scale + head * dim + d : nullptr, c.at.terms, dim, v + token * row + d);
    }
}

/* ---- rows of Q and of the output ---- */

/* A row, query head by query head of a token. */
struct query_place {
    int64_t b, token, head;
};

static __device__ __forceinline__ query_place query_of(const octavo_tensor &q, int64_t row)
{
    return { row / q.shape[2] / q.shape[1], row / q.shape[2] % q.shape[1], row % q.shape[2] };
}

static __device__ __forceinline__ bool is_row(const octavo_tensor &q, int64_t row) { return row < q.shape[0] * q.shape[1] * q.shape[2]; }

static __device__ __forceinline__ int64_t element_of(const octavo_tensor &of, const query_place &at)
{
    return at.b * of.strides[0] + at.token * of.strides[1] + at.head * of.strides[2];
}

/* Rows of Q: each twice, or what codes of it stand for. A thread has eight elements. */
static __global__ void __launch_bounds__(THREADS) terms_of_queries(const __grid_constant__ terms_call c)
{
    wait_for_kernel_before();
    const octavo_tensor &q = c.of.p.q;
    const int64_t dim = c.of.kv.head_dim, lanes = dim / EIGHT, i = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = i / lanes, d = i % lanes * EIGHT;
    if (!is_row(q, row)) return;
    const query_place at = query_of(q, row);
    uint16_t *to = (uint16_t *)(c.workspace + c.at.q) + row * c.at.terms * dim + d;
    if (c.codes.q) {
        const int64_t from = (at.b * q.shape[2] + at.head) * c.codes.q_tokens + at.token;
        put_terms(load_codes(c.workspace + c.codes.q + from * c.codes.width + d), ((const float *)(c.workspace + c.codes.q_scale))[from], nullptr, 1, 0, to);
        return;
    }
    const uint16_t *from = (const uint16_t *)q.data + element_of(q, at) + d;
#pragma unroll
    for (int j = 0; j < EIGHT; j++) to[j] = to[dim + j] = from[j];
}

/* The halves of each row of outputs; what lies behind a sequence's queries stays as it is. */
static __global__ void __launch_bounds__(THREADS) add_halves(const __grid_constant__ terms_call c)
{
    wait_for_kernel_before();
    const int64_t dim = c.of.kv.head_dim, i = (int64_t)blockIdx.x * THREADS + threadIdx.x, row = i / dim, d = i % dim;
    if (!is_row(c.of.p.out, row)) return;
    const query_place at = query_of(c.of.p.out, row);
    if (at.token >= prefill_place_of(c.of, at.b, 0).queries) return;
    const float *from = (const float *)(c.workspace + c.at.out) + row * 2 * dim + d;
    store_float(&c.of.p.out, element_of(c.of.p.out, at) + d, from[0] + from[dim]);
}

/* ---- the call ---- */

static octavo_section rows_of(void *data, int64_t bytes, int64_t tokens, const octavo_kv_view *kv)
{
    octavo_section section = {};
    section.data = (uint8_t *)data, section.token_bytes = bytes, section.page_bytes = bytes * kv->block_tokens;
    section.head_bytes = bytes * tokens, section.sequence_bytes = bytes * tokens * kv->kv_heads;
    return section;
}

static octavo_tensor rows_like(const octavo_tensor *of, void *data, octavo_dtype dtype, int64_t dim)
{
    octavo_tensor tensor = *of;
    tensor.data = data, tensor.dtype = dtype, tensor.shape[3] = dim, tensor.strides[3] = 1;
    for (int i = 2; i >= 0; i--) tensor.strides[i] = tensor.strides[i + 1] * tensor.shape[i + 1];
    return tensor;
}

prefill_call octavo_prefill_terms_call(const octavo_exec *exec, const prefill_call &of, const octavo_prefill_terms_layout &at)
{
    prefill_call call = of;
    octavo_kv_view *kv = &call.kv;
    uint8_t *workspace = (uint8_t *)exec->workspace;
    const int64_t dim = (int64_t)at.terms * kv->head_dim;
    call.p.precision = octavo_prefill_is_sage(&of.p) ? OCTAVO_ATTENTION_SAGE1 : OCTAVO_ATTENTION_EXACT;
    kv->page_table = nullptr, kv->sequences = nullptr, kv->v_channel_scale = nullptr, kv->lengths = (const int32_t *)(workspace + at.lengths);
    kv->v_format = OCTAVO_V_BF16, kv->v = rows_of(workspace + at.v, HALF * dim, at.kv_tokens, kv), kv->v_dim = (int32_t)dim;
    if (at.k) kv->k_format = OCTAVO_K_BF16, kv->k[0] = rows_of(workspace + at.k, HALF * dim, at.kv_tokens, kv), kv->head_dim = (int32_t)dim;
    if (at.q) call.p.q = rows_like(&of.p.q, workspace + at.q, OCTAVO_BF16, dim);
    if (at.out) call.p.out = rows_like(&of.p.out, workspace + at.out, OCTAVO_F32, dim);
    return call;
}

octavo_status octavo_prefill_terms_sm90(const octavo_exec *exec, const prefill_call &of, const octavo_prefill_terms_layout &at, const prefill_call &plain)
{
    const bool sage = octavo_prefill_is_sage(&of.p), fp8 = of.p.precision == OCTAVO_ATTENTION_FP8;
    const int64_t rows = of.p.q.shape[0] * of.p.q.shape[1] * of.p.q.shape[2], dim = of.kv.head_dim;
    const dim3 stored((unsigned)(at.kv_tokens / TOKENS), (unsigned)of.kv.kv_heads, (unsigned)of.kv.batch);
    prefill_call coded = of; /* the view as it is */
    if (sage) coded.p.precision = OCTAVO_ATTENTION_SAGE1;
    terms_call call = { of, at, {}, (uint8_t *)exec->workspace };
    octavo_prefill_eight_layout codes = octavo_prefill_eight_layout_of(&coded.p);
    codes.v = 0; /* it is stored: nobody reads its codes */
    if (fp8) call.codes = codes;
    if (fp8 || sage) OCTAVO_CUDA_TRY(octavo_prefill_encode(exec, coded, codes));
    OCTAVO_CUDA_TRY(octavo_cuda_launch(terms_of_stored, "attention_prefill", stored, THREADS, 0, exec, call));
    if (at.q)
        OCTAVO_CUDA_TRY(octavo_cuda_launch(terms_of_queries, "attention_prefill", dim3((unsigned)octavo_cuda_ceil(rows * dim / EIGHT, THREADS)), THREADS, 0,
                                           exec, call));
    OCTAVO_CUDA_TRY(sage ? octavo_prefill_sage1_sm90(exec, plain) : octavo_prefill_exact_sm90(exec, plain));
    return at.out ? octavo_cuda_launch(add_halves, "attention_prefill", dim3((unsigned)octavo_cuda_ceil(rows * dim, THREADS)), THREADS, 0, exec, call)
                  : OCTAVO_OK;
}
