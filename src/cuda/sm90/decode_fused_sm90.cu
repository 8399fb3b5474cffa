/* decode_fused_sm90.cu - dense decode that streams and merges in one kernel, for the calls that ask for the merge and fit; delta by this
 * level's scan and selection. All other calls are handed down. */
#include "cuda/cuda_install.h"
#include "cuda/sm80/decode_tiles_sm80.h"
#include "cuda/sm90/stream_launch.cuh"

/* ---- what fits ---- */

/* 16-byte boxes of rows; pages are blocks of a power of two of tokens, or a sequence is one run of rows. */
static bool section_streams(const octavo_kv_view *kv, const octavo_section *section, int row_bytes)
{
    const int64_t bits = (int64_t)(uintptr_t)section->data | section->page_bytes | section->sequence_bytes | section->head_bytes | section->token_bytes;
    const bool forward = section->page_bytes >= 0 && section->sequence_bytes >= 0 && section->head_bytes >= 0 && section->token_bytes >= row_bytes;
    if (!section->data || bits % PIECE || !forward || section->token_bytes >= 1 << 26) return false;
    return kv->page_table ? section->sequence_bytes == 0 && kv->pages > 0
                          : section->page_bytes == kv->block_tokens * section->token_bytes || kv->max_tokens <= kv->block_tokens;
}

static bool scales_stream(const octavo_section *section, int width)
{
    return width == 0 || (!section->data && width == 1) || (section->data && scales_are_dense(section, width));
}

static bool queries_stream(const octavo_tensor *q, key_kind key)
{
    const int64_t bits = q->strides[0] | q->strides[1] | q->strides[2];
    if (q->dtype == OCTAVO_F32 || (key == KEY_BF16 && q->dtype != OCTAVO_BF16)) return false;
    return q->strides[3] == 1 && bits % 2 == 0 && (uintptr_t)q->data % 4 == 0;
}

/* What the copy engine can bring, of a call that asks for nothing but attention. */
static bool view_streams(const octavo_decode_fused_params *p, key_kind key, value_kind value)
{
    const octavo_kv_view *kv = p->in.kv;
    const bool delta = p->rule == OCTAVO_SELECT_DELTA;
    if (p->split_units || !p->kept == delta || p->part_kept || p->part_dropped || p->in.window || p->in.soft_cap > 0.0f) return false;
    if (octavo_decode_rounds_k(p->in.precision, kv->k_format) || octavo_decode_rounds_v(p->in.precision, kv->v_format)) return false;
    if (kv->head_dim != kv->v_dim || kv->block_tokens & (kv->block_tokens - 1) || kv->max_tokens > 1 << 29) return false;
    return queries_stream(&p->in.q, key) && section_streams(kv, &kv->k[0], PIECE * key_pieces(key, kv->head_dim)) &&
           (!delta || (section_streams(kv, &kv->k[1], PIECE * key_pieces(key, kv->head_dim)) && !kv->k[0].sequence_bytes == !kv->k[1].sequence_bytes)) &&
           section_streams(kv, &kv->v, PIECE * value_pieces(value, kv->v_dim)) && !kv->k[0].sequence_bytes == !kv->v.sequence_bytes &&
           scales_stream(&kv->k_scale, key_width(key)) && scales_stream(&kv->v_scale, value_width(value));
}

static int64_t call_rows(const octavo_decode_fused_params *p) { return p->in.q.shape[1] * p->in.q.shape[2] / p->in.kv->kv_heads; }

static bool call_streams(const octavo_exec *exec, const octavo_decode_fused_params *p, key_kind key, value_kind value)
{
    const octavo_kv_view *kv = p->in.kv;
    const int64_t groups = kv->batch * kv->kv_heads;
    if (!p->merged || !p->merged_out.data || call_rows(p) > STREAM_ROWS || kv->block_tokens % 32 || groups > 65535) return false;
    if (exec->workspace_bytes < (size_t)groups * sizeof(stream_count) || (uintptr_t)exec->workspace % 8) return false;
    return (uintptr_t)p->part_out % sizeof(float2) == 0 && view_streams(p, key, value);
}

/* FP8 over E4M3, and so many rows that it pays: more than a stream has columns, and of short heads more than a tile has. */
static bool call_is_eight(const octavo_decode_fused_params *p, key_kind key, value_kind value)
{
    const octavo_kv_view *kv = p->in.kv;
    const bool dim = kv->head_dim == 64 || kv->head_dim == 128 || kv->head_dim == 256;
    if (p->in.precision != OCTAVO_ATTENTION_FP8 || p->rule == OCTAVO_SELECT_DELTA || key != KEY_E4M3 || value != VALUE_E4M3 || !dim) return false;
    if (call_rows(p) <= (kv->head_dim == 64 ? 16 : STREAM_ROWS) || kv->block_tokens % 64 || kv->batch * ((call_rows(p) + 63) / 64) > 65535 || kv->kv_heads > 65535) return false;
    return p->splits < 65536 && (uintptr_t)p->part_out % sizeof(float2) == 0 && view_streams(p, key, value);
}

/* ---- the call ---- */

/* Splits that give each multiprocessor `blocks` blocks, as far as there is room for their parts. */
static int stream_splits(const octavo_decode_fused_params *p, int64_t processors, int blocks)
{
    const int64_t groups = p->in.kv->batch * p->in.kv->kv_heads, fit = blocks * processors / groups;
    const int64_t most = SPLITS_MOST, room = p->splits < most ? p->splits : most;
    return (int)(fit < 1 ? 1 : fit < room ? fit : room > 1 ? room : 1);
}

static stream_call stream_call_of(const octavo_exec *exec, const octavo_decode_fused_params *p, int processors)
{
    const octavo_kv_view *kv = p->in.kv;
    const octavo_tensor *q = &p->in.q;
    stream_call c = {};
    c.k_scale = kv->k_scale, c.v_scale = kv->v_scale, c.lengths = kv->lengths, c.sequences = kv->sequences;
    c.page_table = kv->page_table, c.page_table_stride = kv->page_table_stride, c.max_tokens = (int)kv->max_tokens;
    c.shift = 31 - __builtin_clz((unsigned)kv->block_tokens), c.row_step = kv->k[0].sequence_bytes ? 1 : 0;
    c.group = (int)(q->shape[2] / kv->kv_heads), c.q_tokens = (int)q->shape[1], c.rows = c.group * c.q_tokens;
    c.kv_heads = kv->kv_heads, c.early = stream_splits(p, processors, 1), c.splits = stream_splits(p, processors, 2);
    c.q = (const uint16_t *)q->data, c.q_is_bf16 = q->dtype == OCTAVO_BF16, c.rounds_q = p->in.precision == OCTAVO_ATTENTION_FP8;
    c.scale = p->in.softmax_scale * LOG2_E;
    for (int i = 0; i < 3; i++) c.q_stride[i] = q->strides[i];
    c.v_channel_scale = kv->v_channel_scale, c.part_out = p->part_out, c.part_lse = p->part_lse;
    c.counts = (stream_count *)exec->workspace, c.out = p->merged_out, c.lse = p->merged_lse;
    return c;
}

octavo_status octavo_decode_fused_sm90(const octavo_exec *exec, const octavo_decode_fused_params *p)
{
    const octavo_kv_view *kv = p->in.kv;
    const bool delta = p->rule == OCTAVO_SELECT_DELTA;
    const key_kind key = key_kind_of(kv->k_format, delta || p->rule == OCTAVO_SELECT_BASE ? 1 : p->in.planes); /* what is read of every unit */
    const value_kind value = value_kind_of(kv->v_format);
    octavo_cuda_machine machine;
    bool done = false;
    OCTAVO_CUDA_TRY(decode_check(&p->in));
    OCTAVO_CUDA_TRY(octavo_cuda_machine_of(&machine));
    if (call_is_eight(p, key, value)) {
        const stream_call call = stream_call_of(exec, p, machine.processors);
        return octavo_attend_eight(exec, &call, p);
    }
    if (key != KEY_NONE && key_planes(key) == 1 && value != VALUE_ANY && call_streams(exec, p, key, value)) {
        stream_call call = stream_call_of(exec, p, machine.processors);
        if (delta) OCTAVO_CUDA_TRY(p->in.planes > 1 ? octavo_attend_delta(exec, &call, p, &done) : OCTAVO_OK);
        else if (kv->head_dim == 64) OCTAVO_CUDA_TRY(octavo_attend_stream_64(exec, &call, kv, key, value, &done));
        else if (kv->head_dim == 128) OCTAVO_CUDA_TRY(octavo_attend_stream_128(exec, &call, kv, key, value, &done));
        else if (kv->head_dim == 256) OCTAVO_CUDA_TRY(octavo_attend_stream_256(exec, &call, kv, key, value, &done));
    }
    if (done) *p->merged = 1;
    if (done) return OCTAVO_OK;
    return delta ? octavo_decode_above_threshold(exec, p, octavo_block_score_sm90, octavo_block_select_sm90) : octavo_decode_fused_cuda(exec, p);
}
