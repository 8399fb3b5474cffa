/* kv_append_ref.c - tokens into the planes of a view, as it is defined. */
#include "ref/install_ref.h"
#include "ref/plane_codec_ref.h"

static octavo_ref_row k_row(const octavo_kv_append_params *p, int64_t b, int64_t i, int64_t head)
{
    const octavo_kv_view *kv = p->kv;
    const int64_t *strides = p->k.strides, row = octavo_view_row(kv, b);
    const float *mean = kv->k_mean ? kv->k_mean + (row * kv->kv_heads + head) * kv->head_dim : NULL;
    return (octavo_ref_row){ &p->k, b * strides[0] + i * strides[1] + head * strides[2], kv->head_dim, mean, NULL };
}

static octavo_ref_row v_row(const octavo_kv_append_params *p, int64_t b, int64_t i, int64_t head)
{
    const octavo_kv_view *kv = p->kv;
    const int64_t *strides = p->v.strides;
    const float *channel = kv->v_channel_scale ? kv->v_channel_scale + head * kv->v_dim : NULL;
    return (octavo_ref_row){ &p->v, b * strides[0] + i * strides[1] + head * strides[2], kv->v_dim, NULL, channel };
}

static int all_finite(const octavo_kv_append_params *p, int64_t tokens)
{
    for (int64_t b = 0; b < p->kv->batch; b++)
        for (int64_t i = 0; i < tokens; i++)
            for (int64_t head = 0; head < p->kv->kv_heads; head++) {
                octavo_ref_row k = k_row(p, b, i, head), v = v_row(p, b, i, head);
                v.over = NULL;
                if (p->k.data && !octavo_ref_row_finite(&k)) return 0;
                if (p->v.data && !octavo_ref_row_finite(&v)) return 0;
            }
    return 1;
}

octavo_status octavo_kv_append_ref(const octavo_exec *exec, const octavo_kv_append_params *p)
{
    (void)exec;
    const octavo_kv_view *kv = p->kv;
    const int64_t tokens = p->k.data ? p->k.shape[1] : p->v.shape[1];
    if (!all_finite(p, tokens)) return OCTAVO_E_NONFINITE;
    for (int64_t b = 0; b < kv->batch; b++)
        for (int64_t i = 0; i < tokens; i++)
            for (int64_t head = 0; head < kv->kv_heads; head++) {
                const int64_t token = p->positions[b] + i;
                octavo_ref_token at = octavo_ref_find(kv, b, head, token);
                const octavo_ref_row k = k_row(p, b, i, head), v = v_row(p, b, i, head);
                if (p->k.data) octavo_ref_encode_k(kv, &at, &k);
                if (!p->v.data) continue;
                octavo_ref_encode_v(kv, &at, &v);
                if ((token + 1) % kv->sub_block_tokens) continue;
                at.in_block -= kv->sub_block_tokens - 1; /* the unit is full */
                octavo_ref_unit_mean(kv, &at);
            }
    return OCTAVO_OK;
}
