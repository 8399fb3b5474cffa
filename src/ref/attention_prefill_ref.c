/* attention_prefill_ref.c - the definition of attention of many queries: exact, in FP8, or with INT8 products. */
#include "ref/install_ref.h"
#include "ref/prefill_operands_ref.h"

/* softmax_scale * q . (what was taken off the keys, when they were stored and by smoothing): misses in every score of the row. */
static double score_shift(const octavo_ref_prefill *of, int64_t q_head, int64_t i)
{
    const octavo_kv_view *kv = of->p->kv;
    const int64_t dim = kv->head_dim, at = octavo_ref_prefill_q_at(of, q_head, i), row = octavo_view_row(kv, of->b);
    const float *stored = kv->k_mean ? kv->k_mean + (row * kv->kv_heads + of->head) * dim : NULL;
    double sum = 0.0;
    for (int64_t d = 0; d < dim; d++)
        sum += octavo_ref_float(&of->p->q, at + d) * ((double)of->k_mean[d] + (stored ? (double)stored[d] : 0.0));
    return sum * (double)of->p->softmax_scale;
}

static double score(const octavo_ref_prefill *of, int64_t i, int64_t t)
{
    const int64_t dim = of->p->kv->head_dim;
    const double cap = (double)of->p->soft_cap;
    double sum = 0.0;
    for (int64_t d = 0; d < dim; d++) sum += (double)of->q[i * dim + d] * (double)of->k[t * dim + d];
    sum *= (double)of->q_scale[i] * (double)of->k_scale[t] * (double)of->p->softmax_scale;
    return cap > 0.0 ? cap * tanh(sum / cap) : sum;
}

static void store(const octavo_tensor *tensor, int64_t element, double x)
{
    switch (tensor->dtype) {
    case OCTAVO_F32: ((float *)tensor->data)[element] = (float)x; break;
    case OCTAVO_F16: ((uint16_t *)tensor->data)[element] = octavo_fp16_from_float((float)x); break;
    default:         ((uint16_t *)tensor->data)[element] = octavo_bf16_from_float((float)x); break;
    }
}

static void attend_row(const octavo_ref_prefill *of, int64_t q_head, int64_t i)
{
    const octavo_prefill_params *p = of->p;
    const int64_t dim = p->kv->v_dim;
    const octavo_span span = octavo_prefill_span(p, of->b, i), blocks = octavo_prefill_blocks_of(span);
    const double shift = score_shift(of, q_head, i);
    double most = -INFINITY, keys = 0.0;
    for (int64_t t = 0; t < span.end; t++)
        if (octavo_span_sees(&span, t)) of->score[t] = score(of, i, t), most = fmax(most, of->score[t]);
    for (int64_t t = 0; t < span.end; t++)
        if (octavo_span_sees(&span, t)) keys += exp(of->score[t] - most);
    const double log_keys = most + log(keys), sink = p->sink_logits ? (double)p->sink_logits[q_head] - shift : -INFINITY;
    const double whole = keys > 0.0 ? octavo_ref_log_add(log_keys, sink) : -INFINITY;
    const int64_t at = of->b * p->out.strides[0] + i * p->out.strides[1] + q_head * p->out.strides[2];
    for (int64_t d = 0; d < dim; d++) {
        double sum = 0.0;
        for (int64_t t = 0; t < span.end; t++)
            if (octavo_span_sees(&span, t)) sum += exp(of->score[t] - whole) * (double)of->v[t * dim + d];
        const double share = exp(log_keys - whole);
        if (keys > 0.0) sum = (sum + share * octavo_ref_prefill_rest(of, &blocks, d)) * (double)of->v_scale[d] + share * (double)of->v_mean[d];
        store(&p->out, at + d, sum);
    }
    if (p->lse) p->lse[(of->b * p->q.shape[2] + q_head) * p->q.shape[1] + i] = (float)(whole + shift);
}

octavo_status octavo_attention_prefill_ref(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    const octavo_kv_view *kv = p->kv;
    const octavo_prefill_ref_layout at = octavo_prefill_ref_layout_of(p);
    uint8_t *workspace = exec->workspace;
    octavo_ref_prefill of = { .p = p };
#define PLACE(member) of.member = (void *)(workspace + at.member)
    PLACE(k), PLACE(k_scale), PLACE(v), PLACE(v_scale), PLACE(k_mean), PLACE(v_mean), PLACE(v_rest), PLACE(q), PLACE(q_scale), PLACE(score);
#undef PLACE
    const int64_t group = p->q.shape[2] / kv->kv_heads;
    octavo_ref_prefill_find_most(&of);
    for (int64_t flat = 0; flat < kv->batch * kv->kv_heads; flat++) {
        octavo_ref_prefill_enter(&of, flat / kv->kv_heads, flat % kv->kv_heads);
        octavo_ref_prefill_k(&of);
        octavo_ref_prefill_v(&of);
        for (int64_t q_head = of.head * group; q_head < (of.head + 1) * group; q_head++) {
            octavo_ref_prefill_q(&of, q_head);
            for (int64_t i = 0; i < of.queries; i++) attend_row(&of, q_head, i);
        }
    }
    return OCTAVO_OK;
}
