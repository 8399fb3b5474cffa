/* partial_merge_ref.c - the definition of merging by log-sum-exp. */
#include "format/bf16.h"
#include "format/fp16.h"
#include "ref/decode_ref.h"
#include "ref/install_ref.h"

static double log_sum(const float *logs, int64_t count)
{
    double sum = -INFINITY;
    for (int64_t i = 0; i < count; i++) sum = octavo_ref_log_add(sum, (double)logs[i]);
    return sum;
}

static void store(const octavo_tensor *tensor, int64_t element, double x)
{
    switch (tensor->dtype) {
    case OCTAVO_F32: ((float *)tensor->data)[element] = (float)x; break;
    case OCTAVO_F16: ((uint16_t *)tensor->data)[element] = octavo_fp16_from_float((float)x); break;
    default:         ((uint16_t *)tensor->data)[element] = octavo_bf16_from_float((float)x); break;
    }
}

/* softmax_scale * q . mean: what smoothing took from every score of the row. */
static double lse_shift(const octavo_partial_merge_params *p, int64_t b, int64_t head, int64_t row)
{
    if (!p->lse_shift_mean) return 0.0;
    const octavo_tensor *q = &p->lse_shift_q;
    const int64_t dim = q->shape[3], view_row = p->lse_shift_rows ? p->lse_shift_rows[b] : b;
    const float *mean = p->lse_shift_mean + (view_row * p->kv_heads + head) * dim;
    const int64_t at = b * q->strides[0] + row % p->q_tokens * q->strides[1] + (head * p->group + row / p->q_tokens) * q->strides[2];
    double sum = 0.0;
    for (int64_t i = 0; i < dim; i++) sum += octavo_ref_float(q, at + i * q->strides[3]) * (double)mean[i];
    return sum * (double)p->softmax_scale;
}

static double row_dropped(const octavo_partial_merge_params *p, int64_t flat, double sink)
{
    const double dropped = log_sum(p->part_dropped + flat * p->splits, p->splits);
    const double kept = octavo_ref_log_add(log_sum(p->part_kept + flat * p->splits, p->splits), sink);
    return isinf(dropped) && dropped < 0.0 ? 0.0 : exp(dropped - octavo_ref_log_add(dropped, kept));
}

static void merge_row(const octavo_partial_merge_params *p, int64_t b, int64_t head, int64_t row)
{
    const int64_t flat = (b * p->kv_heads + head) * p->group * p->q_tokens + row, q_head = head * p->group + row / p->q_tokens;
    const float *part_lse = p->part_lse + flat * p->splits;
    const double sink = p->sink_logits ? (double)p->sink_logits[q_head] : -INFINITY;
    const double keys = log_sum(part_lse, p->splits), whole = isinf(keys) && keys < 0.0 ? keys : octavo_ref_log_add(keys, sink);
    const int64_t at = b * p->out.strides[0] + row % p->q_tokens * p->out.strides[1] + q_head * p->out.strides[2];
    for (int64_t i = 0; i < p->v_dim; i++) {
        double out = 0.0;
        for (int64_t s = 0; s < p->splits; s++)
            if (!isinf(part_lse[s])) out += exp((double)part_lse[s] - whole) * (double)p->part_out[(flat * p->splits + s) * p->v_dim + i];
        store(&p->out, at + i * p->out.strides[3], out);
    }
    if (p->lse) p->lse[flat] = (float)(whole + lse_shift(p, b, head, row));
    if (!p->dropped_mass) return;
    float *worst = &p->dropped_mass[b * p->kv_heads * p->group + q_head];
    const float dropped = (float)row_dropped(p, flat, sink);
    if (row % p->q_tokens == 0 || dropped > *worst) *worst = dropped;
}

octavo_status octavo_partial_merge_ref(const octavo_exec *exec, const octavo_partial_merge_params *p)
{
    (void)exec;
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t head = 0; head < p->kv_heads; head++)
            for (int64_t row = 0; row < p->group * p->q_tokens; row++) merge_row(p, b, head, row);
    return OCTAVO_OK;
}
