/* block_score_ref.c - the definition of a unit's mass and of its bounds. */
#include "ref/decode_ref.h"
#include "ref/install_ref.h"

static double q_norm(const octavo_decode_input *in, int64_t b, int64_t head, int64_t row)
{
    const int64_t q = octavo_ref_q_row(in, b, head, row);
    double sum = 0.0;
    for (int64_t i = 0; i < in->kv->head_dim; i++) {
        const double x = octavo_ref_float(&in->q, q + i * in->q.strides[3]);
        sum += x * x;
    }
    return sqrt(sum);
}

/* How far the score of a token may lie from that of the key that was encoded: what the planes leave out, and what a float32 sum of
 * head_dim products rounds. */
static double score_error(const octavo_decode_input *in, double norm_q, int64_t b, int64_t head, int64_t token)
{
    const octavo_kv_view *kv = in->kv;
    const octavo_ref_token at = octavo_ref_find(kv, b, head, token);
    const double left_out = (double)octavo_k_error_bound(kv, in->planes, kv->k_norm.data ? *octavo_ref_at(&kv->k_norm, &at) : 0);
    const double rounding = octavo_k_rounding_bound(kv->k_format, kv->head_dim);
    return fabs((double)in->softmax_scale) * norm_q * (left_out + rounding) * octavo_ref_k_factor(kv, &at);
}

typedef struct masses {
    double max, plain, upper, lower;
} masses;

static masses unit_masses(const octavo_block_score_params *p, int64_t b, int64_t head, int64_t row, int64_t unit)
{
    const octavo_decode_input *in = &p->in;
    const int64_t begin = unit * in->kv->sub_block_tokens, end = begin + in->kv->sub_block_tokens;
    const octavo_span span = octavo_ref_span(in, b, row);
    const double norm_q = p->log_upper ? q_norm(in, b, head, row) : 0.0;
    masses of = { -INFINITY, -INFINITY, -INFINITY, -INFINITY };
    for (int64_t t = begin; t < end; t++) {
        if (!octavo_span_sees(&span, t)) continue;
        const double raw = octavo_ref_score(in, in->planes, b, head, row, t), score = octavo_ref_cap(in, raw);
        of.max = fmax(of.max, score);
        of.plain = octavo_ref_log_add(of.plain, score);
        if (p->log_upper) {
            const double error = score_error(in, norm_q, b, head, t);
            of.upper = octavo_ref_log_add(of.upper, octavo_ref_cap(in, raw + error));
            of.lower = octavo_ref_log_add(of.lower, octavo_ref_cap(in, raw - error));
        }
        if (p->scores) {
            const int64_t rows = octavo_ref_rows(in), group = b * in->kv->kv_heads + head;
            p->scores[(group * rows + row) * in->kv->max_tokens + t] = (float)score;
        }
    }
    return of;
}

octavo_status octavo_block_score_ref(const octavo_exec *exec, const octavo_block_score_params *p)
{
    (void)exec;
    const octavo_kv_view *kv = p->in.kv;
    const int64_t units = octavo_view_units(kv), rows = octavo_ref_rows(&p->in);
    for (int64_t b = 0; b < kv->batch; b++)
        for (int64_t head = 0; head < kv->kv_heads; head++)
            for (int64_t unit = 0; unit < units; unit++) {
                const int64_t group = b * kv->kv_heads + head;
                if (p->only && p->only[group * units + unit] != OCTAVO_UNIT_KEPT) continue;
                for (int64_t row = 0; row < rows; row++) {
                    const masses of = unit_masses(p, b, head, row, unit);
                    const int64_t at = (group * rows + row) * units + unit;
                    p->log_mass[at] = (float)of.plain;
                    if (p->unit_max) p->unit_max[at] = (float)of.max;
                    /* nothing seen stays -inf, which has a larger neighbour */
                    if (p->log_upper) p->log_upper[at] = isinf(of.upper) ? -INFINITY : nextafterf((float)of.upper, INFINITY);
                    if (p->log_lower) p->log_lower[at] = nextafterf((float)of.lower, -INFINITY);
                }
            }
    return OCTAVO_OK;
}
