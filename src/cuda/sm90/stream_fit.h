/* stream_fit.h - which views and queries the copy engine's streams take, and what all such calls are told. */
#ifndef OCTAVO_CUDA_SM90_STREAM_FIT_H
#define OCTAVO_CUDA_SM90_STREAM_FIT_H

#include "cuda/cuda_call.h"
#include "cuda/sm90/attend_stream.cuh"

/* 16-byte boxes of rows; pages are blocks of a power of two of tokens, or a sequence is one run of rows. */
static inline bool section_streams(const octavo_kv_view *kv, const octavo_section *section, int row_bytes)
{
    const int64_t bits = (int64_t)(uintptr_t)section->data | section->page_bytes | section->sequence_bytes | section->head_bytes | section->token_bytes;
    const bool forward = section->page_bytes >= 0 && section->sequence_bytes >= 0 && section->head_bytes >= 0 && section->token_bytes >= row_bytes;
    if (!section->data || bits % PIECE || !forward || section->token_bytes >= 1 << 26) return false;
    return kv->page_table ? section->sequence_bytes == 0 && kv->pages > 0
                          : section->page_bytes == kv->block_tokens * section->token_bytes || kv->max_tokens <= kv->block_tokens;
}

static inline bool scales_stream(const octavo_section *section, int width)
{
    return width == 0 || (!section->data && width == 1) || (section->data && scales_are_dense(section, width));
}

static inline bool queries_stream(const octavo_tensor *q, key_kind key)
{
    const int64_t bits = q->strides[0] | q->strides[1] | q->strides[2];
    if (q->dtype == OCTAVO_F32 || (key == KEY_BF16 && q->dtype != OCTAVO_BF16)) return false;
    return q->strides[3] == 1 && bits % 2 == 0 && (uintptr_t)q->data % 4 == 0;
}

/* Keys in `planes` of the format's planes and values, of a call that sees all of a sequence. */
static inline bool keys_and_values_stream(const octavo_decode_input *in, key_kind key, value_kind value, int planes)
{
    const octavo_kv_view *kv = in->kv;
    if (in->window || in->soft_cap > 0.0f || octavo_decode_rounds_k(in->precision, kv->k_format) || octavo_decode_rounds_v(in->precision, kv->v_format)) return false;
    if (kv->head_dim != kv->v_dim || kv->block_tokens & (kv->block_tokens - 1) || kv->max_tokens > 1 << 29) return false;
    for (int i = 0; i < planes; i++)
        if (!section_streams(kv, &kv->k[i], PIECE * key_pieces(key, kv->head_dim)) || !kv->k[i].sequence_bytes != !kv->v.sequence_bytes) return false;
    return queries_stream(&in->q, key) && section_streams(kv, &kv->v, PIECE * value_pieces(value, kv->v_dim)) &&
           scales_stream(&kv->k_scale, key_width(key)) && scales_stream(&kv->v_scale, value_width(value));
}

/* Mean rows that 16-byte pieces make up. */
static inline bool means_stream(const octavo_kv_view *kv)
{
    const octavo_section *mean = &kv->v_mean;
    const int64_t bits = (int64_t)(uintptr_t)mean->data | mean->page_bytes | mean->sequence_bytes | mean->head_bytes | mean->token_bytes;
    return mean->data && kv->v_mean_scale.data && bits % PIECE == 0;
}

/* Where a call's results go. `splits` is the room that the parts have. */
struct stream_results_at {
    int64_t splits;
    float *part_out, *part_lse;
    octavo_tensor out;
    float *lse;
};

/* Splits that give each multiprocessor `blocks` blocks, as far as there is room for their parts. */
static inline int stream_splits(int64_t groups, int64_t splits, int64_t processors, int blocks)
{
    const int64_t fit = blocks * processors / groups, most = SPLITS_MOST, room = splits < most ? splits : most;
    return (int)(fit < 1 ? 1 : fit < room ? fit : room > 1 ? room : 1);
}

static inline stream_call stream_call_of(const octavo_decode_input *in, const stream_results_at &to, void *counts, int processors)
{
    const octavo_kv_view *kv = in->kv;
    const octavo_tensor *q = &in->q;
    stream_call c = {};
    c.k_scale = kv->k_scale, c.v_scale = kv->v_scale, c.lengths = kv->lengths, c.sequences = kv->sequences;
    c.page_table = kv->page_table, c.page_table_stride = kv->page_table_stride, c.max_tokens = (int)kv->max_tokens;
    c.shift = 31 - __builtin_clz((unsigned)kv->block_tokens), c.row_step = kv->k[0].sequence_bytes ? 1 : 0;
    c.group = (int)(q->shape[2] / kv->kv_heads), c.q_tokens = (int)q->shape[1], c.rows = c.group * c.q_tokens;
    c.kv_heads = kv->kv_heads;
    c.early = stream_splits(kv->batch * kv->kv_heads, to.splits, processors, 1), c.splits = stream_splits(kv->batch * kv->kv_heads, to.splits, processors, 2);
    c.q = (const uint16_t *)q->data, c.q_is_bf16 = q->dtype == OCTAVO_BF16, c.rounds_q = in->precision == OCTAVO_ATTENTION_FP8;
    c.scale = in->softmax_scale * LOG2_E;
    for (int i = 0; i < 3; i++) c.q_stride[i] = q->strides[i];
    c.v_channel_scale = kv->v_channel_scale, c.part_out = to.part_out, c.part_lse = to.part_lse;
    c.counts = (stream_count *)counts, c.out = to.out, c.lse = to.lse;
    return c;
}

#endif
