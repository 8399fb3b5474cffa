/* decode_stats_ref.c - the definition of the skip ratio and of the bytes that a call reads. */
#include "ref/decode_ref.h"
#include "ref/install_ref.h"

/* Bytes of one token by part. */
typedef struct token_bytes {
    int64_t base, residual, k_scale, norm, v;
} token_bytes;

static token_bytes bytes_of(const octavo_kv_view *kv)
{
    const int64_t row = octavo_k_row_bytes(kv->k_format, kv->head_dim);
    return (token_bytes){
        .base     = row,
        .residual = row * (octavo_k_plane_count(kv->k_format) - 1),
        .k_scale  = kv->k_scale.data ? octavo_k_scale_bytes(kv->k_format) : 0,
        .norm     = kv->k_norm.data ? 1 : 0,
        .v        = octavo_v_row_bytes(kv->v_format, kv->v_dim) + (kv->v_scale.data ? octavo_v_scale_bytes(kv->v_format) : 0),
    };
}

/* What the call reads of one unit of `tokens` visible tokens, given its states after the first and the last decision. */
static int64_t unit_bytes(const octavo_decode_stats_params *p, const token_bytes *of, int64_t tokens, int first, int last)
{
    const int64_t mean = p->compensate == OCTAVO_COMPENSATE_MEAN && last == OCTAVO_UNIT_DROPPED ? p->kv->v_dim + 1 : 0;
    const int64_t scan = tokens * (of->base + of->k_scale), keys = tokens * (of->base + of->residual + of->k_scale);
    const int64_t values = last == OCTAVO_UNIT_KEPT ? tokens * of->v : 0;
    switch (p->rule) {
    case OCTAVO_SELECT_BASE:  return scan + values;
    case OCTAVO_SELECT_DELTA: return scan + (last == OCTAVO_UNIT_KEPT ? tokens * of->residual : 0) + values + mean;
    case OCTAVO_SELECT_MASS:  return scan + (last == OCTAVO_UNIT_KEPT ? keys : 0) + values + mean;
    case OCTAVO_SELECT_CERTIFIED:
        return scan + tokens * of->norm + (first == OCTAVO_UNIT_KEPT ? keys : 0) + values + mean;
    case OCTAVO_SELECT_NONE:  break;
    }
    return keys + values;
}

static void head_stats(const octavo_decode_stats_params *p, int64_t b, int64_t head)
{
    const octavo_kv_view *kv = p->kv;
    const token_bytes of = bytes_of(kv);
    const int64_t units = octavo_view_units(kv), group = b * kv->kv_heads + head, length = kv->lengths[octavo_view_row(kv, b)];
    const int64_t per_block = kv->block_tokens / kv->sub_block_tokens;
    const int64_t first_block = octavo_first_visible_block(kv, length, p->q_tokens, p->window, p->sink_tokens);
    const int64_t newest = octavo_newest_block(kv, length);
    int64_t bytes = 0, visible = 0, dropped = 0, dropped_first = 0;
    for (int64_t unit = 0; unit < units; unit++) {
        const int64_t tokens = octavo_unit_tokens_seen(kv, length, p->q_tokens, p->window, p->sink_tokens, unit);
        if (tokens == 0) continue;
        const int last = p->kept ? p->kept[group * units + unit] : OCTAVO_UNIT_KEPT;
        const int first = p->kept_first ? p->kept_first[group * units + unit] : last;
        const int for_threshold = p->rule == OCTAVO_SELECT_DELTA && !p->thresholds &&
                                  (unit / per_block == first_block || unit / per_block == newest);
        bytes += unit_bytes(p, &of, tokens, first, last) + (for_threshold ? tokens * (of.base + of.k_scale) : 0);
        visible++, dropped += last == OCTAVO_UNIT_DROPPED, dropped_first += first == OCTAVO_UNIT_DROPPED;
    }
    if (p->skip_ratio) p->skip_ratio[group] = visible ? (float)((double)dropped / (double)visible) : 0.0f;
    if (p->skip_ratio_first) p->skip_ratio_first[group] = visible ? (float)((double)dropped_first / (double)visible) : 0.0f;
    if (p->bytes_read) p->bytes_read[group] = bytes;
}

octavo_status octavo_decode_stats_ref(const octavo_exec *exec, const octavo_decode_stats_params *p)
{
    (void)exec;
    for (int64_t b = 0; b < p->kv->batch; b++)
        for (int64_t head = 0; head < p->kv->kv_heads; head++) head_stats(p, b, head);
    return OCTAVO_OK;
}
