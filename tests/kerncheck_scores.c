/* kerncheck_scores.c - decodes stored rows by itself, scores them in float64, and keeps the budget of every score. */
#include "budget.h"
#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"
#include "kerncheck.h"

#include <string.h>

enum { DIM_MAX = 512 };

typedef struct place {
    int64_t row, page, head, in_block;
} place;

static place find(const octavo_kv_view *view, int64_t b, int64_t head, int64_t token)
{
    const int64_t row = octavo_view_row(view, b);
    return (place){ row, octavo_view_page(view, row, token / view->block_tokens), head, token % view->block_tokens };
}

static const uint8_t *at(const octavo_section *section, const place *of)
{
    return octavo_section_at(section, of->row, of->page, of->head, of->in_block);
}

static double load_u16(const uint8_t *bytes, int half)
{
    uint16_t code;
    memcpy(&code, bytes, sizeof code);
    return (double)(half ? octavo_fp16_to_float(code) : octavo_bf16_to_float(code));
}

static double load_f32(const uint8_t *bytes)
{
    float value;
    memcpy(&value, bytes, sizeof value);
    return (double)value;
}

static double factor_of(const octavo_section *section, int64_t bytes, const place *of)
{
    if (!section->data || bytes == 0) return 1.0;
    const uint8_t *scale = at(section, of);
    return bytes == 1 ? ldexp(1.0, -(int8_t)*scale) : load_u16(scale, 0);
}

double kc_k_factor(const octavo_kv_view *view, int64_t b, int64_t head, int64_t token)
{
    const place of = find(view, b, head, token);
    return factor_of(&view->k_scale, octavo_k_scale_bytes(view->k_format), &of);
}

double kc_v_factor(const octavo_kv_view *view, int64_t b, int64_t head, int64_t token)
{
    const place of = find(view, b, head, token);
    return factor_of(&view->v_scale, octavo_v_scale_bytes(view->v_format), &of);
}

static int nibble(const uint8_t *row, int64_t i, int64_t dim)
{
    const int64_t half = (dim + 1) / 2;
    return i < half ? row[i] & 15 : row[i - half] >> 4;
}

/* What plane `plane` adds to element i. */
static double part_of(const octavo_kv_view *view, const uint8_t *row, int plane, int64_t i)
{
    switch (view->k_format) {
    case OCTAVO_K_F32:  return load_f32(row + 4 * i);
    case OCTAVO_K_BF16: return load_u16(row + 2 * i, 0);
    case OCTAVO_K_F16:  return load_u16(row + 2 * i, 1);
    case OCTAVO_K_E4M3:
    case OCTAVO_K_E4M3X2: return ldexp((double)octavo_e4m3_to_float(row[i]), plane ? -view->k_residual_exponent : 0);
    case OCTAVO_K_E5M2:
    case OCTAVO_K_E5M2X2: return (double)octavo_e5m2_to_float(row[i]);
    case OCTAVO_K_INT8:
    case OCTAVO_K_INT8X2: return (double)(int8_t)row[i] / (plane ? 254.0 : 1.0);
    case OCTAVO_K_INT4X2: {
        const int code = nibble(row, i, view->head_dim);
        return plane ? (double)code - 7.5 : 16.0 * (code < 8 ? code : code - 16) + 7.5;
    }
    }
    return 0.0;
}

void kc_decode_k(const octavo_kv_view *view, int64_t b, int64_t head, int64_t token, int32_t planes, double *value, double *magnitude)
{
    const place of = find(view, b, head, token);
    const double factor = factor_of(&view->k_scale, octavo_k_scale_bytes(view->k_format), &of);
    /* int4x2's planes may be summed as 16 h and its low nibble, or around the middle of the low nibble */
    const double offset = view->k_format == OCTAVO_K_INT4X2 ? 15.0 : 0.0;
    for (int64_t i = 0; i < view->head_dim; i++) {
        double sum = 0.0, size = offset;
        for (int plane = 0; plane < planes; plane++) {
            const double part = part_of(view, at(&view->k[plane], &of), plane, i);
            sum += part, size += fabs(part);
        }
        value[i] = sum * factor;
        if (magnitude) magnitude[i] = size * factor;
    }
}

void kc_decode_v(const octavo_kv_view *view, int64_t b, int64_t head, int64_t token, double *value)
{
    const place of = find(view, b, head, token);
    const double factor = factor_of(&view->v_scale, octavo_v_scale_bytes(view->v_format), &of);
    const uint8_t *row = at(&view->v, &of);
    for (int64_t i = 0; i < view->v_dim; i++) {
        const double channel = view->v_channel_scale ? (double)view->v_channel_scale[head * view->v_dim + i] : 1.0;
        switch (view->v_format) {
        case OCTAVO_V_F32:  value[i] = load_f32(row + 4 * i); break;
        case OCTAVO_V_BF16: value[i] = load_u16(row + 2 * i, 0); break;
        case OCTAVO_V_F16:  value[i] = load_u16(row + 2 * i, 1); break;
        case OCTAVO_V_E4M3: value[i] = (double)octavo_e4m3_to_float(row[i]) * factor * channel; break;
        case OCTAVO_V_INT8: value[i] = (double)(int8_t)row[i] * factor; break;
        }
    }
}

void kc_round_row(double *x, int64_t dim)
{
    double most = 0.0;
    for (int64_t i = 0; i < dim; i++) most = fmax(most, fabs(x[i]));
    int power = 9;
    const double mantissa = frexp(most, &power); /* of 448: 0.875 * 2^9 */
    const int wanted = 9 - power - (mantissa > 0.875), p = most == 0.0 ? 0 : wanted < -120 ? -120 : wanted > 126 ? 126 : wanted;
    for (int64_t i = 0; i < dim; i++) {
        int exponent;
        frexp(ldexp(x[i], p), &exponent);
        const int step = (exponent > -5 ? exponent : -5) - 4; /* of four bits, 2^-9 at least */
        x[i] = ldexp(nearbyint(ldexp(x[i], p - step)), step - p);
    }
}

octavo_attention_precision kc_draw_precision(const kc_pair *pair)
{
    if (pair->bench || !kc_chance(25)) return OCTAVO_ATTENTION_EXACT;
    kc_describe(" fp8");
    return OCTAVO_ATTENTION_FP8;
}

void kc_decode_mean(const octavo_kv_view *view, int64_t b, int64_t head, int64_t unit, double *value)
{
    const int64_t per_block = view->block_tokens / view->sub_block_tokens, row = octavo_view_row(view, b);
    const place of = { row, octavo_view_page(view, row, unit / per_block), head, unit % per_block };
    const int8_t p = (int8_t)*at(&view->v_mean_scale, &of);
    for (int64_t i = 0; i < view->v_dim; i++)
        value[i] = ldexp((double)octavo_e4m3_to_float(at(&view->v_mean, &of)[i]), -p) *
                   (view->v_channel_scale ? (double)view->v_channel_scale[head * view->v_dim + i] : 1.0);
}

/* ---- scores ---- */

int64_t kc_length(const kc_decode *c, int64_t b) { return c->view.lengths[octavo_view_row(&c->view, b)]; }

octavo_span kc_span(const kc_decode *c, int64_t b, int64_t row)
{
    return octavo_visible_span(kc_length(c, b), c->q_tokens, row % c->q_tokens, c->in.window, c->in.sink_tokens);
}

int64_t kc_q_row(const octavo_tensor *q, int64_t group, int64_t b, int64_t head, int64_t row)
{
    const int64_t q_tokens = q->shape[1];
    return b * q->strides[0] + row % q_tokens * q->strides[1] + (head * group + row / q_tokens) * q->strides[2];
}

double kc_log_add(double a, double b)
{
    const double most = fmax(a, b);
    return isinf(most) ? most : most + log1p(exp(fmin(a, b) - most));
}

static double cap(const kc_decode *c, double score)
{
    const double most = (double)c->in.soft_cap;
    return most > 0.0 ? most * tanh(score / most) : score;
}

/* How far an element of q may be off, over the largest: a scan may round it where keys are rounded more. */
static double error_of_q(const octavo_kv_view *view, kc_scan scan)
{
    if (scan == KC_SCAN_QUANTISED && octavo_k_element_bytes(view->k_format) == 1) return BUDGET_Q15;
    return octavo_k_scale_bytes(view->k_format) == 2 ? BUDGET_Q24 : 0.0;
}

/* A key as it is multiplied. */
static void decode_key(const kc_decode *c, int64_t b, int64_t head, int64_t token, int32_t planes, double *value, double *magnitude)
{
    kc_decode_k(&c->view, b, head, token, planes, value, magnitude);
    if (!octavo_decode_rounds_k(c->in.precision, c->view.k_format)) return;
    kc_round_row(value, c->view.head_dim);
    for (int64_t i = 0; i < c->view.head_dim; i++) magnitude[i] = fabs(value[i]);
}

/* Scores one token against every row of its head. */
static void score_token(const kc_decode *c, const kc_scores *all, const double *q, int64_t b, int64_t head, int64_t token,
                        int32_t planes, kc_scan scan)
{
    const int64_t dim = c->view.head_dim;
    double value[DIM_MAX], magnitude[DIM_MAX], spread = 0.0;
    int decoded = 0;
    for (int64_t row = 0; row < c->rows; row++) {
        const octavo_span span = kc_span(c, b, row);
        if (!octavo_span_sees(&span, token)) continue;
        if (!decoded++) decode_key(c, b, head, token, planes, value, magnitude);
        double sum = 0.0, weight = 0.0, most = 0.0;
        spread = 0.0;
        for (int64_t i = 0; i < dim; i++) {
            const double x = q[row * dim + i];
            sum += x * value[i], weight += fabs(x) * magnitude[i], most = fmax(most, fabs(x)), spread += magnitude[i];
        }
        const double scale = (double)c->in.softmax_scale;
        const int64_t to = ((b * c->view.kv_heads + head) * c->rows + row) * c->view.max_tokens + token;
        all->score[to] = cap(c, scale * sum);
        all->error[to] = budget_score((double)dim, scale * weight, error_of_q(&c->view, scan) * scale * most * spread,
                                      (double)c->in.soft_cap) +
                         (c->eight ? BUDGET_E4M3_SUMS * scale * weight : 0.0);
    }
}

static void load_q(const kc_decode *c, int64_t b, int64_t head, double *q)
{
    for (int64_t row = 0; row < c->rows; row++, q += c->view.head_dim) {
        for (int64_t i = 0; i < c->view.head_dim; i++)
            q[i] = kc_load(c->in.q.dtype, c->in.q.data, kc_q_row(&c->in.q, c->group, b, head, row) + i);
        if (c->in.precision == OCTAVO_ATTENTION_FP8) kc_round_row(q, c->view.head_dim);
    }
}

kc_scores kc_score_all(const kc_decode *c, int32_t planes, kc_scan scan)
{
    const int64_t count = octavo_row_elements(&c->in) * c->view.max_tokens;
    kc_scores all = { kc_scratch(count * (int64_t)sizeof(double)), kc_scratch(count * (int64_t)sizeof(double)) };
    double *q = kc_scratch(c->rows * c->view.head_dim * (int64_t)sizeof *q);
    for (int64_t i = 0; i < count; i++) all.score[i] = -INFINITY, all.error[i] = 0.0;
    for (int64_t b = 0; b < c->view.batch; b++)
        for (int64_t head = 0; head < c->view.kv_heads; head++) {
            load_q(c, b, head, q);
            for (int64_t t = 0; t < kc_length(c, b); t++) score_token(c, &all, q, b, head, t, planes, scan);
        }
    return all;
}

double *kc_true_scores(const kc_decode *c)
{
    const int64_t dim = c->view.head_dim;
    double *score = kc_scratch(octavo_row_elements(&c->in) * c->view.max_tokens * (int64_t)sizeof *score);
    for (int64_t b = 0; b < c->view.batch; b++)
        for (int64_t head = 0; head < c->view.kv_heads; head++)
            for (int64_t row = 0; row < c->rows; row++) {
                const octavo_span span = kc_span(c, b, row);
                const int64_t q = kc_q_row(&c->in.q, c->group, b, head, row);
                double *to = score + ((b * c->view.kv_heads + head) * c->rows + row) * c->view.max_tokens;
                for (int64_t t = 0; t < c->view.max_tokens; t++) {
                    to[t] = -INFINITY;
                    if (!octavo_span_sees(&span, t)) continue;
                    const float *key = kc_true_key(c, b, head, t);
                    double sum = 0.0;
                    for (int64_t i = 0; i < dim; i++) sum += kc_load(c->in.q.dtype, c->in.q.data, q + i) * (double)key[i];
                    to[t] = cap(c, sum * (double)c->in.softmax_scale);
                }
            }
    return score;
}

void kc_draw_mask(const kc_decode *c, uint8_t *kept, int percent)
{
    for (int64_t b = 0; b < c->view.batch; b++)
        for (int64_t head = 0; head < c->view.kv_heads; head++) {
            const int of_head = percent > 0 && kc_chance(50) ? (int)kc_between(0, 100) : percent; /* some keep more than others */
            for (int64_t u = 0; u < c->units; u++) {
                const octavo_unit_view seen = octavo_unit_seen(&c->view, kc_length(c, b), c->q_tokens, c->in.window, c->in.sink_tokens, u);
                const int fixed = octavo_unit_fixed(&c->view, kc_length(c, b), u, 0, 0);
                const int drop = seen == OCTAVO_UNIT_WHOLE && !fixed && kc_chance(of_head);
                kept[(b * c->view.kv_heads + head) * c->units + u] =
                    seen == OCTAVO_UNIT_INVISIBLE ? OCTAVO_UNIT_UNSEEN : drop ? OCTAVO_UNIT_DROPPED : OCTAVO_UNIT_KEPT;
            }
        }
}
