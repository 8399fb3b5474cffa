/* kerncheck_partials.c - the ATTEND budget: what every score, weight and value may contribute to the error of a split's output. */
#include "budget.h"
#include "kerncheck.h"

#include <string.h>

enum { DIM_MAX = 512, STAGE_TOKENS = 64 /* whose weights may share a scale where they become E4M3 */ };

/* One row of one split, and what its sums came to in float64. */
typedef struct part {
    const kc_decode *c;
    const kc_partials *p;
    int64_t b, head, row, begin, end; /* units */
    double max, mass, mass_error, terms, largest; /* largest: of all |v| */
    double kept, kept_error, dropped, dropped_error;
    int64_t stage; /* the one that stage_largest is of */
    double stage_largest; /* of weight times V's factor */
    double *sum, *size, *size_error, *plain; /* [v_dim] of w v, w |v|, w |v| times the relative error of w, and |v| */
} part;

static int64_t flat_row(const part *of) { return (of->b * of->c->view.kv_heads + of->head) * of->c->rows + of->row; }

static int state_of(const part *of, int64_t unit)
{
    return of->p->kept ? of->p->kept[(of->b * of->c->view.kv_heads + of->head) * of->c->units + unit] : OCTAVO_UNIT_KEPT;
}

/* Adds one weight exp(x), and its row where it has one. rounding: of the weight before it meets a row; faint: what it may lose besides. */
static void add(part *of, double x, double error, const double *row, double rounding, double faint)
{
    if (x == -INFINITY) return;
    const double weight = exp(x - of->max), relative = budget_weight(error, of->max - x);
    of->mass += weight, of->mass_error += weight * relative, of->terms += 1.0;
    for (int64_t i = 0; row && i < of->c->view.v_dim; i++) {
        of->sum[i] += weight * row[i], of->size[i] += weight * fabs(row[i]);
        of->size_error[i] += fabs(row[i]) * (weight * (relative + rounding) + faint);
        of->plain[i] += fabs(row[i]);
        of->largest = fmax(of->largest, fabs(row[i]));
    }
}

/* Calls `visit` for every visible token of kept units and for every dropped unit. */
static void walk(part *of, void (*token)(part *, int64_t t), void (*dropped)(part *, int64_t unit))
{
    const int64_t sub = of->c->view.sub_block_tokens;
    const octavo_span span = kc_span(of->c, of->b, of->row);
    for (int64_t unit = of->begin; unit < of->end; unit++) {
        const int state = state_of(of, unit);
        if (state == OCTAVO_UNIT_DROPPED) dropped(of, unit);
        for (int64_t t = unit * sub; state == OCTAVO_UNIT_KEPT && t < (unit + 1) * sub && t < span.end; t++)
            if (octavo_span_sees(&span, t)) token(of, t);
    }
}

static int64_t token_at(const part *of, int64_t t) { return flat_row(of) * of->c->view.max_tokens + t; }
static double mass_of_unit(const part *of, int64_t unit) { return (double)of->p->log_mass[flat_row(of) * of->c->units + unit]; }
static double mass_error_of_unit(const part *of, int64_t unit)
{
    return of->p->log_mass_error ? of->p->log_mass_error[flat_row(of) * of->c->units + unit] : 0.0;
}

static void weigh_token(part *of, int64_t t)
{
    of->kept = kc_log_add(of->kept, of->p->scores.score[token_at(of, t)]);
    of->kept_error = fmax(of->kept_error, of->p->scores.error[token_at(of, t)]);
    of->max = fmax(of->max, of->p->scores.score[token_at(of, t)]);
}

static void weigh_dropped(part *of, int64_t unit)
{
    const double bound = of->p->log_upper ? (double)of->p->log_upper[flat_row(of) * of->c->units + unit] : mass_of_unit(of, unit);
    of->dropped = kc_log_add(of->dropped, bound);
    of->dropped_error = fmax(of->dropped_error, mass_error_of_unit(of, unit));
    if (of->p->compensate == OCTAVO_COMPENSATE_MEAN) of->max = fmax(of->max, mass_of_unit(of, unit));
}

/* Rows of 8 bits, stored or made. */
static int rows_have_8_bits(const part *of)
{
    const octavo_v_format format = of->c->view.v_format;
    return octavo_v_element_bytes(format) == 1 || octavo_decode_rounds_v(of->c->in.precision, format);
}

/* What E4M3 has no step for: half its least one, of a weight times factor, where the largest of 64 tokens is 256. */
static double faint_of(part *of, int64_t t)
{
    if (of->stage != t / STAGE_TOKENS) {
        const octavo_span span = kc_span(of->c, of->b, of->row);
        of->stage = t / STAGE_TOKENS, of->stage_largest = 0.0;
        for (int64_t u = of->stage * STAGE_TOKENS; u < (of->stage + 1) * STAGE_TOKENS && u < span.end; u++)
            if (octavo_span_sees(&span, u))
                of->stage_largest = fmax(of->stage_largest, exp(of->p->scores.score[token_at(of, u)] - of->max) * kc_v_factor(&of->c->view, of->b, of->head, u));
    }
    return 1.1 * BUDGET_E4M3_FAINT * of->stage_largest / kc_v_factor(&of->c->view, of->b, of->head, t); /* scores err, too */
}

static void add_token(part *of, int64_t t)
{
    const double coarse = of->c->eight ? BUDGET_P_E4M3 + BUDGET_E4M3_SUMS : BUDGET_P_BF16;
    double row[DIM_MAX];
    kc_decode_v(&of->c->view, of->b, of->head, t, row);
    if (octavo_decode_rounds_v(of->c->in.precision, of->c->view.v_format)) kc_round_row(row, of->c->view.v_dim);
    add(of, of->p->scores.score[token_at(of, t)], of->p->scores.error[token_at(of, t)], row, rows_have_8_bits(of) ? coarse : 0.0,
        of->c->eight ? faint_of(of, t) : 0.0);
}

static void add_dropped(part *of, int64_t unit)
{
    double row[DIM_MAX];
    if (of->p->compensate != OCTAVO_COMPENSATE_MEAN) return;
    kc_decode_mean(&of->c->view, of->b, of->head, unit, row);
    add(of, mass_of_unit(of, unit), mass_error_of_unit(of, unit), row, BUDGET_P_BF16, 0.0);
}

/* |o - o'| for o = sum w v / sum w, each w off by its relative error: each error meets |v| in the sum above and |o| in that below. */
static double output_budget(const part *of, int64_t i)
{
    if (of->terms == 0.0) return 0.0;
    const double out = fabs(of->sum[i] / of->mass), size = of->size[i] / of->mass;
    const double relative = of->mass_error / of->mass, sums = budget_gamma(of->terms + 2 * BUDGET_SLACK);
    const double underflow = 0x1p-99 * of->terms * (1.0 + of->largest); /* weights below 2^-99 of the largest may become 0 */
    /* rows of 8 bits and of f16 may meet weights of 32 bits below the largest of their span */
    const double fixed = rows_have_8_bits(of) || of->c->view.v_format == OCTAVO_V_F16 ? 0x1p-32 * of->terms * of->largest : 0.0;
    const double first = of->size_error[i] / of->mass + out * relative + sums * (size + out) + underflow + fixed;
    return first * (1.0 + 2.0 * relative) + 0x1p-140;
}

static int close_row(part *of, int64_t split)
{
    const kc_partials *p = of->p;
    const int64_t dim = of->c->view.v_dim, at = flat_row(of) * p->splits + split;
    of->max = of->kept = of->dropped = -INFINITY, of->stage = -1;
    of->mass = of->mass_error = of->terms = of->largest = of->kept_error = of->dropped_error = 0.0;
    for (int64_t i = 0; i < dim; i++) of->sum[i] = of->size[i] = of->size_error[i] = of->plain[i] = 0.0;
    walk(of, weigh_token, weigh_dropped);
    walk(of, add_token, add_dropped);
    for (int64_t i = 0; i < dim; i++) {
        const double budget = output_budget(of, i), wanted = (double)*(const float *)kc_want(&p->part_out[at * dim + i]);
        const double exact = of->terms > 0.0 ? of->sum[i] / of->mass : 0.0;
        if (!(fabs(wanted - exact) <= budget))
            return kc_fail("part_out[%lld] of the reference is %.9g, by definition %.9g", (long long)(at * dim + i), wanted, exact);
        if (!kc_close("part_out", p->part_out, at * dim + i, budget)) return 0;
    }
    const double error = of->terms > 0.0 ? of->mass_error / of->mass : 0.0;
    if (!kc_close("part_lse", p->part_lse, at, budget_log_sum(of->terms, error, (double)p->part_lse[at]))) return 0;
    const double tokens = (double)(of->end - of->begin) * (double)of->c->view.sub_block_tokens;
    if (p->part_kept && !kc_close("part_kept", p->part_kept, at, budget_log_sum(tokens, of->kept_error, (double)p->part_kept[at])))
        return 0;
    if (p->part_dropped) {
        const double units = (double)(of->end - of->begin);
        return kc_close("part_dropped", p->part_dropped, at, budget_log_sum(units, of->dropped_error, (double)p->part_dropped[at]));
    }
    return 1;
}

void kc_draw_splits(const kc_decode *c, const kc_pair *pair, int64_t *splits, int64_t *split_units)
{
    enum { GPU_SPLITS = 33 }; /* of eight heads: two a multiprocessor of a large GPU */
    *split_units = pair->bench || kc_chance(40) ? c->units : kc_between(1, c->units);
    *splits = (c->units + *split_units - 1) / *split_units;
    if (!pair->device && pair->bench) return;
    if (pair->bench || kc_chance(30)) *split_units = 0, *splits = pair->bench ? GPU_SPLITS : kc_between(1, 40);
}

/* One row's parts, merged in float64 into the first; the others become empty. 0: an empty part is not zero. */
static int fold_row(float *out, float *lse, int64_t splits, int64_t dim)
{
    double whole = -INFINITY, sum[DIM_MAX] = { 0.0 };
    for (int64_t s = 0; s < splits; s++) whole = kc_log_add(whole, (double)lse[s]);
    for (int64_t s = 0; s < splits; s++)
        for (int64_t i = 0; i < dim; i++) {
            if (lse[s] == -INFINITY && out[s * dim + i] != 0.0f) return 0;
            if (lse[s] != -INFINITY) sum[i] += exp((double)lse[s] - whole) * (double)out[s * dim + i];
        }
    for (int64_t i = 0; i < splits * dim; i++) out[i] = i < dim ? (float)sum[i] : 0.0f;
    for (int64_t s = 0; s < splits; s++) lse[s] = s ? -INFINITY : (float)whole;
    return 1;
}

static void fold_logs(float *logs, int64_t splits)
{
    double whole = -INFINITY;
    for (int64_t s = 0; logs && s < splits; s++) whole = kc_log_add(whole, (double)logs[s]);
    for (int64_t s = 0; logs && s < splits; s++) logs[s] = s ? -INFINITY : (float)whole;
}

/* Both sides' parts of every row become one, which is all that is defined where the kernel chose the splits. */
static int fold_parts(const kc_decode *c, const kc_partials *p)
{
    for (int64_t flat = 0; flat < octavo_row_elements(&c->in); flat++)
        for (int side = 0; side < 2; side++) {
            float *arrays[] = { p->part_out + flat * p->splits * c->view.v_dim, p->part_lse + flat * p->splits,
                                p->part_kept ? p->part_kept + flat * p->splits : NULL,
                                p->part_dropped ? p->part_dropped + flat * p->splits : NULL };
            for (int i = 0; i < 4; i++)
                if (side && arrays[i]) arrays[i] = (float *)(uintptr_t)kc_want(arrays[i]);
            if (!fold_row(arrays[0], arrays[1], p->splits, c->view.v_dim))
                return kc_fail("a part of row %lld has no mass, but is not zero", (long long)flat);
            fold_logs(arrays[2], p->splits), fold_logs(arrays[3], p->splits);
        }
    return 1;
}

/* A kernel that merges by itself leaves one part: what it put out, which is exact or rounded to bf16. */
int kc_take_merged(const kc_decode *c, const kc_merged *p)
{
    const octavo_tensor *out = p->out;
    const int64_t dim = c->view.v_dim;
    const size_t bytes = octavo_dtype_bytes(out->dtype);
    for (int64_t flat = 0; flat < octavo_row_elements(&c->in); flat++) {
        const int64_t b = flat / c->rows / c->view.kv_heads, head = flat / c->rows % c->view.kv_heads;
        const float *logs = (const float *)kc_want(p->part_lse + flat * p->splits), *parts = (const float *)kc_want(p->part_out + flat * p->splits * dim);
        const int64_t row = kc_q_row(out, c->group, b, head, flat % c->rows);
        double whole = -INFINITY, most = 0.0;
        for (int64_t s = 0; s < p->splits; s++) whole = kc_log_add(whole, (double)logs[s]);
        for (int64_t i = 0; i < p->splits * dim; i++) most = fmax(most, logs[i / dim] > -INFINITY ? fabs((double)parts[i]) : 0.0);
        for (int64_t i = 0; i < p->splits * dim; i++) {
            float *place = p->part_out + flat * p->splits * dim + i;
            *place = i < dim ? (float)kc_load(out->dtype, out->data, row + i * out->strides[3]) : 0.0f;
            if (i >= dim || out->dtype == OCTAVO_F32) continue;
            double exact = 0.0;
            for (int64_t s = 0; s < p->splits; s++)
                if (logs[s] > -INFINITY) exact += exp((double)logs[s] - whole) * (double)parts[s * dim + i];
            if (!(fabs((double)*place - exact) <= 0x1p-6 * most)) return kc_fail("merged_out is %g, expected about %g", (double)*place, exact);
            *place = (float)exact;
        }
        for (int64_t s = 0; s < p->splits; s++) p->part_lse[flat * p->splits + s] = s ? -INFINITY : p->lse[flat];
        for (int64_t i = 0; i < dim; i++) kc_accept((uint8_t *)out->data + bytes * (size_t)(row + i * out->strides[3]), bytes);
    }
    kc_accept(p->lse, (size_t)octavo_row_elements(&c->in) * sizeof(float));
    return 1;
}

int kc_close_partials(const kc_decode *c, const kc_partials *p)
{
    double sums[4][DIM_MAX];
    const int folded = p->split_units == 0;
    const int64_t split_units = folded ? c->units : p->split_units;
    if (folded && !fold_parts(c, p)) return 0;
    for (int64_t b = 0; b < c->view.batch; b++)
        for (int64_t head = 0; head < c->view.kv_heads; head++)
            for (int64_t row = 0; row < c->rows; row++)
                for (int64_t split = 0; split < (folded ? 1 : p->splits); split++) {
                    const int64_t begin = split * split_units, end = begin + split_units;
                    part of = { .c = c, .p = p, .b = b, .head = head, .row = row, .begin = begin < c->units ? begin : c->units,
                                .end = end < c->units ? end : c->units, .sum = sums[0], .size = sums[1], .size_error = sums[2],
                                .plain = sums[3] };
                    if (!close_row(&of, split)) return 0;
                }
    return 1;
}
