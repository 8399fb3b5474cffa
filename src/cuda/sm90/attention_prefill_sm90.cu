/* attention_prefill_sm90.cu - which calls the kernels of sm_90 take, and what the copy engine is told about their operands. */
#include "cuda/cuda_install.h"
#include "cuda/sm90/prefill_sm90.h"
#include <cudaTypedefs.h>

enum { COPY_ALIGN = 16, HALF_BYTES = 2, SECTION_BYTES = 24 << 20 /* of keys and values, about half of the second-level cache */ };
static constexpr float LOG2_E = 1.44269504f;

/* ---- the copy engine's maps ---- */

/* The driver's function by name: the library is not linked against. */
static octavo_status map_encoder(PFN_cuTensorMapEncodeTiled_v12000 *encode)
{
    void *found = nullptr;
    cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &result),
                                      "cuTensorMapEncodeTiled"));
    if (!found || result != cudaDriverEntryPointSuccess) return octavo_cuda_fail(OCTAVO_E_DEVICE, "the NVIDIA driver has no cuTensorMapEncodeTiled");
    *encode = (PFN_cuTensorMapEncodeTiled_v12000)found;
    return OCTAVO_OK;
}

/* Axes: element, token, head, sequence or page; strides in bytes of the last three. */
struct map_axes {
    const void *data;
    int64_t size[4], stride[3];
};

/* The copy engine's boxes: `elements` of a row, of 128 or 64 bytes, by which they are swizzled. */
static octavo_status make_map(PFN_cuTensorMapEncodeTiled_v12000 encode, const map_axes &of, CUtensorMapDataType type, int elements, int box_tokens,
                              CUtensorMap *map)
{
    const bool narrow = type == CU_TENSOR_MAP_DATA_TYPE_UINT8 && elements < ROW_BYTES;
    cuuint64_t size[4], stride[3];
    for (int i = 0; i < 4; i++) size[i] = (cuuint64_t)of.size[i];
    for (int i = 0; i < 3; i++) stride[i] = of.stride[i] ? (cuuint64_t)of.stride[i] : (cuuint64_t)COPY_ALIGN; /* of an axis of size one */
    const cuuint32_t box[4] = { (cuuint32_t)elements, (cuuint32_t)box_tokens, 1, 1 }, step[4] = { 1, 1, 1, 1 };
    const CUresult result = encode(map, type, 4, (void *)of.data, size, stride, box,
                                   step, CU_TENSOR_MAP_INTERLEAVE_NONE, narrow ? CU_TENSOR_MAP_SWIZZLE_64B : CU_TENSOR_MAP_SWIZZLE_128B,
                                   CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return result == CUDA_SUCCESS ? OCTAVO_OK : octavo_cuda_fail(OCTAVO_E_DEVICE, "cuTensorMapEncodeTiled refused a tensor with error %d", (int)result);
}

static map_axes axes_of_section(const octavo_kv_view *kv, const octavo_section *section)
{
    enum { ROWS_ANY = 1 << 30 }; /* how many rows a view has is known to the caller alone */
    if (kv->page_table)
        return { section->data, { kv->head_dim, kv->block_tokens, kv->kv_heads, kv->pages },
                 { section->token_bytes, section->head_bytes, section->page_bytes } };
    return { section->data, { kv->head_dim, kv->max_tokens, kv->kv_heads, section->sequence_bytes ? ROWS_ANY : 1 },
             { section->token_bytes, section->head_bytes, section->sequence_bytes } };
}

/* Orders the tasks, the next of which is the workspace's first word. *blocks: a grid that has one for each processor. */
template <typename C> static octavo_status plan_tasks(const octavo_exec *exec, const prefill_call &of, int rows, int64_t token_bytes, C *call, int *blocks)
{
    const octavo_tensor *q = &of.p.q;
    prefill_order *order = &call->order;
    octavo_cuda_machine machine;
    OCTAVO_CUDA_TRY(octavo_cuda_machine_of(&machine));
    const float cap = of.p.soft_cap;
    call->of = of, call->cap = prefill_cap_terms_of(cap * LOG2_E), call->scale_log2 = of.p.softmax_scale * (cap > 0.0f ? 1.0f / cap : LOG2_E);
    order->heads = (int)(q->shape[0] * q->shape[2]), order->row_tiles = (int)octavo_cuda_ceil(q->shape[1], rows);
    order->tasks = order->heads * order->row_tiles;
    const int64_t kv_heads = SECTION_BYTES / (of.kv.max_tokens * token_bytes), section = (kv_heads < 1 ? 1 : kv_heads) * of.group;
    order->section_heads = (int)(section < order->heads ? section : order->heads);
    *blocks = order->tasks < machine.processors ? order->tasks : machine.processors;
    call->next_task = (int *)exec->workspace;
    return OCTAVO_OK;
}

static int common_divisor(int a, int b)
{
    while (b) {
        const int rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* Stored values, or keys. */
static octavo_status section_map(PFN_cuTensorMapEncodeTiled_v12000 encode, const octavo_kv_view *kv, const octavo_section *section, bool halves, int keys,
                                 CUtensorMap *map, prefill_tma_call *call)
{
    const CUtensorMapDataType type = halves ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    const int box_tokens = kv->page_table ? common_divisor(kv->block_tokens, keys) : keys;
    call->page_tokens = kv->page_table ? box_tokens : 0, call->boxes = keys / box_tokens;
    return make_map(encode, axes_of_section(kv, section), type, ROW_ELEMENTS, box_tokens, map);
}

octavo_status octavo_prefill_tma_plan(const octavo_exec *exec, const prefill_call &of, bool halves, int rows, int keys, prefill_tma_call *call, int *blocks)
{
    const octavo_kv_view *kv = &of.kv;
    const octavo_tensor *q = &of.p.q;
    const CUtensorMapDataType type = halves ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16;
    PFN_cuTensorMapEncodeTiled_v12000 encode = nullptr;
    OCTAVO_CUDA_TRY(map_encoder(&encode));
    const map_axes queries = { q->data, { kv->head_dim, q->shape[1], q->shape[2], q->shape[0] },
                               { HALF_BYTES * q->strides[1], HALF_BYTES * q->strides[2], HALF_BYTES * q->strides[0] } };
    OCTAVO_CUDA_TRY(make_map(encode, queries, type, ROW_ELEMENTS, GROUP_ROWS, &call->q));
    OCTAVO_CUDA_TRY(section_map(encode, kv, &kv->k[0], halves, keys, &call->k, call));
    OCTAVO_CUDA_TRY(section_map(encode, kv, &kv->v, halves, keys, &call->v, call));
    OCTAVO_CUDA_TRY(plan_tasks(exec, of, rows, HALF_BYTES * (kv->head_dim + kv->v_dim), call, blocks));
    return octavo_cuda_check(cudaMemsetAsync(call->next_task, 0, sizeof *call->next_task, octavo_cuda_stream(exec)), "attention_prefill");
}

/* Codes of queries and keys in the workspace. */
static octavo_status code_maps(PFN_cuTensorMapEncodeTiled_v12000 encode, const octavo_exec *exec, const prefill_call &of, const octavo_prefill_eight_layout &at,
                               int keys, CUtensorMap *q_map, CUtensorMap *k_map)
{
    const int64_t batch = of.p.q.shape[0], q_heads = of.p.q.shape[2], kv_heads = of.kv.kv_heads, dim = of.kv.head_dim;
    const int row = dim > 64 ? ROW_BYTES : 64; /* zeros where they end before */
    const uint8_t *workspace = (const uint8_t *)exec->workspace;
    const map_axes q = { workspace + at.q, { dim, at.q_tokens, q_heads, batch }, { dim, dim * at.q_tokens, dim * at.q_tokens * q_heads } };
    const map_axes k = { workspace + at.k, { dim, at.kv_tokens, kv_heads, batch }, { dim, dim * at.kv_tokens, dim * at.kv_tokens * kv_heads } };
    OCTAVO_CUDA_TRY(make_map(encode, q, CU_TENSOR_MAP_DATA_TYPE_UINT8, row, GROUP_ROWS, q_map));
    return make_map(encode, k, CU_TENSOR_MAP_DATA_TYPE_UINT8, row, keys, k_map);
}

octavo_status octavo_prefill_sage1_plan(const octavo_exec *exec, const prefill_call &of, bool halves, int rows, int keys, prefill_tma_call *call, int *blocks)
{
    const octavo_prefill_eight_layout at = octavo_prefill_eight_layout_of(&of.p);
    const uint8_t *workspace = (const uint8_t *)exec->workspace;
    PFN_cuTensorMapEncodeTiled_v12000 encode = nullptr;
    OCTAVO_CUDA_TRY(map_encoder(&encode));
    OCTAVO_CUDA_TRY(code_maps(encode, exec, of, at, keys, &call->q, &call->k));
    OCTAVO_CUDA_TRY(section_map(encode, &of.kv, &of.kv.v, halves, keys, &call->v, call));
    call->q_tokens = at.q_tokens, call->kv_tokens = at.kv_tokens;
    call->q_scale = (const float *)(workspace + at.q_scale), call->k_scale = (const float *)(workspace + at.k_scale);
    call->q_shift = at.q_shift ? (const float *)(workspace + at.q_shift) : nullptr;
    return plan_tasks(exec, of, rows, of.kv.head_dim + HALF_BYTES * of.kv.v_dim, call, blocks);
}

octavo_status octavo_prefill_eight_plan(const octavo_exec *exec, const prefill_call &of, int rows, int keys, prefill_codes_call *call, int *blocks)
{
    const octavo_prefill_eight_layout at = octavo_prefill_eight_layout_of(&of.p);
    const int64_t batch = of.p.q.shape[0], kv_heads = of.kv.kv_heads, dim = of.kv.head_dim, values = of.kv.v_dim, tokens = at.kv_tokens;
    uint8_t *workspace = (uint8_t *)exec->workspace;
    PFN_cuTensorMapEncodeTiled_v12000 encode = nullptr;
    OCTAVO_CUDA_TRY(map_encoder(&encode));
    OCTAVO_CUDA_TRY(code_maps(encode, exec, of, at, keys, &call->q, &call->k));
    const map_axes v = { workspace + at.v, { tokens, values, kv_heads, batch }, { tokens, values * tokens, values * tokens * kv_heads } };
    OCTAVO_CUDA_TRY(make_map(encode, v, CU_TENSOR_MAP_DATA_TYPE_UINT8, V_COLUMN, (int)values, &call->v));
    const auto array = [workspace](size_t offset) { return offset ? (const float *)(workspace + offset) : nullptr; };
    call->q_tokens = at.q_tokens, call->kv_tokens = tokens;
    call->q_scale = array(at.q_scale), call->q_shift = array(at.q_shift), call->k_scale = array(at.k_scale);
    call->v_log2 = array(at.v_log2), call->v_scale = array(at.v_scale), call->v_mean = array(at.v_mean), call->v_rest = array(at.v_rest);
    return plan_tasks(exec, of, rows, dim + values, call, blocks);
}

/* ---- the call ---- */

static bool is_aligned(const octavo_section *section)
{
    const int64_t steps = section->page_bytes | section->sequence_bytes | section->head_bytes | section->token_bytes;
    return section->data && ((uintptr_t)section->data | (uintptr_t)steps) % COPY_ALIGN == 0 && section->page_bytes >= 0 && section->sequence_bytes >= 0 &&
           section->head_bytes >= 0 && section->token_bytes > 0;
}

/* Rows may be read and written 16 bytes at a time. */
static bool is_aligned(const octavo_tensor *tensor, int bytes)
{
    bool fits = (uintptr_t)tensor->data % COPY_ALIGN == 0;
    for (int i = 0; i < 3; i++) fits = fits && tensor->strides[i] >= 0 && tensor->strides[i] * bytes % COPY_ALIGN == 0;
    return fits;
}

/* Boxes are whole groups of eight rows, as what they are swizzled by. */
static bool pages_fit(const octavo_kv_view *kv, const octavo_section *section)
{
    if (!kv->page_table) return section->page_bytes == section->token_bytes * kv->block_tokens;
    return kv->block_tokens % 8 == 0 && section->sequence_bytes == 0;
}

/* 2^-21 of a cap is little beside the scores that it lets pass, and its inverse no large number. */
static bool fits_cap(float cap) { return cap == 0.0f || (cap >= 0x1p-10f && cap <= 0x1p10f); }

/* What all kernels of sm_90 ask for. */
static bool fits_all(const octavo_attention_prefill_params *p, bool exact_bf16)
{
    enum { KEYS_MOST = 256 };
    const octavo_kv_view *kv = p->kv;
    const int64_t tasks_most = p->q.shape[0] * p->q.shape[2] * octavo_cuda_ceil(p->q.shape[1], GROUP_ROWS);
    return kv->head_dim == kv->v_dim && octavo_prefill_fits_dim(kv->head_dim, exact_bf16) && p->softmax_scale > 0.0f && fits_cap(p->soft_cap) &&
           is_aligned(&p->out, p->out.dtype == OCTAVO_F32 ? 4 : HALF_BYTES) && kv->max_tokens <= INT32_MAX - KEYS_MOST && tasks_most <= INT32_MAX / 2;
}

static bool fits_exact(const octavo_attention_prefill_params *p)
{
    const octavo_kv_view *kv = p->kv;
    const bool bf16 = p->q.dtype == OCTAVO_BF16 && kv->k_format == OCTAVO_K_BF16 && kv->v_format == OCTAVO_V_BF16;
    const bool f16 = p->q.dtype == OCTAVO_F16 && kv->k_format == OCTAVO_K_F16 && kv->v_format == OCTAVO_V_F16;
    return fits_all(p, bf16) && p->precision == OCTAVO_ATTENTION_EXACT && (bf16 || f16) && !kv->k_mean && !kv->v_channel_scale && is_aligned(&p->q, HALF_BYTES) &&
           is_aligned(&kv->k[0]) && is_aligned(&kv->v) && pages_fit(kv, &kv->k[0]) && pages_fit(kv, &kv->v);
}

/* Not with a soft cap, nor with scales of a single token; the encoding of keys takes any view. */
static bool fits_sage1(const octavo_attention_prefill_params *p)
{
    const octavo_kv_view *kv = p->kv;
    const bool halves = kv->v_format == OCTAVO_V_BF16 || kv->v_format == OCTAVO_V_F16;
    return fits_all(p, false) && p->precision == OCTAVO_ATTENTION_SAGE1 && p->soft_cap == 0.0f && halves && !kv->v_channel_scale &&
           !octavo_prefill_eight_layout_of(p).per_token && is_aligned(&kv->v) && pages_fit(kv, &kv->v);
}

/* Not with scales of a single token; the encoding takes any view. */
static bool fits_eight(const octavo_attention_prefill_params *p)
{
    const bool kind = p->precision == OCTAVO_ATTENTION_FP8 || p->precision == OCTAVO_ATTENTION_SAGE2;
    return fits_all(p, false) && kind && !octavo_prefill_eight_layout_of(p).per_token;
}

/* The call over bf16 numbers in the workspace, where there is a kernel for it. */
static octavo_status run_terms(const octavo_exec *exec, const prefill_call &call, bool *done)
{
    enum { GRID_MOST = 65535 };
    const octavo_prefill_terms_layout at = octavo_prefill_terms_layout_of(&call.p);
    if (at.terms == 0 || call.kv.batch > GRID_MOST || call.kv.kv_heads > GRID_MOST) return OCTAVO_OK;
    prefill_call plain = octavo_prefill_terms_call(exec, call, at);
    plain.p.kv = &plain.kv;
    *done = fits_exact(&plain.p) || fits_sage1(&plain.p);
    return *done ? octavo_prefill_terms_sm90(exec, call, at, plain) : OCTAVO_OK;
}

octavo_status octavo_attention_prefill_sm90(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    octavo_attention_prefill_params plain = *p;
    plain.flags &= ~(uint32_t)OCTAVO_PREFILL_F16_SUMS; /* sums of float32 are as fast */
    const prefill_call call = octavo_prefill_call_of(exec, &plain);
    const bool empty = p->q.shape[0] * p->q.shape[1] * p->q.shape[2] == 0 || p->kv->max_tokens == 0, sage1 = !empty && fits_sage1(&plain);
    bool done = false;
    if (!empty && fits_exact(&plain)) return octavo_prefill_exact_sm90(exec, call);
    if (!empty) OCTAVO_CUDA_TRY(run_terms(exec, call, &done));
    if (done) return OCTAVO_OK;
    if (!sage1 && (empty || !fits_eight(&plain))) return octavo_attention_prefill_cuda(exec, p);
    OCTAVO_CUDA_TRY(octavo_prefill_encode(exec, call, octavo_prefill_eight_layout_of(&plain)));
    return sage1 ? octavo_prefill_sage1_sm90(exec, call) : octavo_prefill_eight_sm90(exec, call);
}
