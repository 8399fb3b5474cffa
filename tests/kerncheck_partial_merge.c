/* kerncheck_partial_merge.c - merging by log-sum-exp under the MERGE budget: empty parts, huge logits, sinks, the shift of the mean. */
#include "budget.h"
#include "kerncheck.h"

typedef struct merged {
    double max, mass, mass_error, terms;
} merged;

/* Weights of a row's parts, relative to the largest, and of its sink. */
static merged merge(const float *logs, int64_t count, double sink)
{
    merged of = { .max = sink };
    for (int64_t s = 0; s < count; s++) of.max = fmax(of.max, (double)logs[s]);
    for (int64_t s = 0; s <= count; s++) {
        const double x = s < count ? (double)logs[s] : sink, weight = x == -INFINITY ? 0.0 : exp(x - of.max);
        of.mass += weight, of.terms += 1.0;
        if (weight > 0.0) of.mass_error += weight * budget_weight(0.0, of.max - x);
    }
    return of;
}

/* Half a unit in the last place of the output's dtype, which may fall on either side: twice that. */
static double store_error(octavo_dtype dtype, double value)
{
    const double unit = dtype == OCTAVO_F32 ? BUDGET_U : dtype == OCTAVO_F16 ? 0x1p-11 : 0x1p-8;
    return 2.0 * unit * fabs(value) + (dtype == OCTAVO_F16 ? 0x1p-24 : 0x1p-126);
}

static double shift_budget(const octavo_partial_merge_params *p, int64_t b, int64_t head, int64_t row)
{
    if (!p->lse_shift_mean) return 0.0;
    const octavo_tensor *q = &p->lse_shift_q;
    const int64_t dim = q->shape[3], view_row = p->lse_shift_rows ? p->lse_shift_rows[b] : b;
    const float *mean = p->lse_shift_mean + (view_row * p->kv_heads + head) * dim;
    double size = 0.0;
    for (int64_t i = 0; i < dim; i++) size += fabs(kc_load(q->dtype, q->data, kc_q_row(q, p->group, b, head, row) + i) * (double)mean[i]);
    return size * fabs((double)p->softmax_scale) * (budget_gamma((double)dim + BUDGET_SLACK) + 4.0 * BUDGET_U);
}

static int check_row(const octavo_partial_merge_params *p, int64_t b, int64_t head, int64_t row)
{
    const int64_t q_head = head * p->group + row / p->q_tokens, flat = (b * p->kv_heads + head) * p->group * p->q_tokens + row;
    const float *lse = p->part_lse + flat * p->splits;
    const merged keys = merge(lse, p->splits, -INFINITY);
    const merged of = merge(lse, p->splits, p->sink_logits && keys.max > -INFINITY ? (double)p->sink_logits[q_head] : -INFINITY);
    const double relative = of.mass > 0.0 ? of.mass_error / of.mass : 0.0, sums = budget_gamma(of.terms + BUDGET_SLACK);
    for (int64_t i = 0; i < p->v_dim; i++) {
        double out = 0.0, size = 0.0, error = 0.0;
        for (int64_t s = 0; s < p->splits; s++) {
            if (lse[s] == -INFINITY) continue;
            const double share = exp((double)lse[s] - of.max) / of.mass, value = (double)p->part_out[(flat * p->splits + s) * p->v_dim + i];
            out += share * value, size += share * fabs(value);
            error += share * fabs(value) * budget_weight(0.0, of.max - (double)lse[s]);
        }
        const int64_t element = kc_q_row(&p->out, p->group, b, head, row) + i * p->out.strides[3];
        const double budget = 1.01 * (error + fabs(out) * relative + sums * (size + fabs(out))) + 0x1p-124 * (1.0 + size);
        if (!kc_close_tensor("out", &p->out, element, budget + store_error(p->out.dtype, out))) return 0;
    }
    if (p->lse) {
        const double most = of.max > -INFINITY ? of.max : 0.0, shift = shift_budget(p, b, head, row);
        const double budget = budget_log_sum(of.terms, relative, most) + shift + 2.0 * BUDGET_U * fabs((double)p->lse[flat]);
        if (!kc_close("lse", p->lse, flat, budget)) return 0;
    }
    return 1;
}

/* The share x = d / (d + k) of two sums whose logarithms err by e1, e2 is off by at most x (1 - x) (e1 + e2), and its own rounding. */
static int check_dropped(const octavo_partial_merge_params *p)
{
    for (int64_t i = 0; i < p->batch * p->kv_heads * p->group; i++) {
        double most = 0.0, share = (double)p->dropped_mass[i];
        for (int64_t j = 0; j < p->q_tokens * p->splits; j++) {
            const int64_t at = i * p->q_tokens * p->splits + j;
            const double d = (double)p->part_dropped[at], k = (double)p->part_kept[at];
            most = fmax(most, fmax(isfinite(d) ? fabs(d) : 0.0, isfinite(k) ? fabs(k) : 0.0));
        }
        if (p->sink_logits) most = fmax(most, fabs((double)p->sink_logits[i % (p->kv_heads * p->group)]));
        const double error = 4.0 * (budget_log_sum((double)p->splits, 0.0, most) + budget_weight(0.0, 2.0 * most));
        if (!kc_close("dropped_mass", p->dropped_mass, i, share * error + 0x1p-120)) return 0;
    }
    return 1;
}

static int compare(const octavo_partial_merge_params *p)
{
    for (int64_t b = 0; b < p->batch; b++)
        for (int64_t head = 0; head < p->kv_heads; head++)
            for (int64_t row = 0; row < p->group * p->q_tokens; row++)
                if (!check_row(p, b, head, row)) return 0;
    return (!p->dropped_mass || check_dropped(p)) && kc_finish();
}

static float *draw_logs(const char *name, int64_t count, double level, double spread, int empty)
{
    float *logs = kc_array(name, OCTAVO_F32, count);
    for (int64_t i = 0; i < count; i++) logs[i] = kc_chance(empty) ? -INFINITY : (float)(level + spread * (double)kc_normal());
    return logs;
}

static void draw_shift(octavo_partial_merge_params *p)
{
    static const octavo_dtype dtypes[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    const int64_t dim = kc_between(1, 300), rows = p->batch + kc_between(0, 2);
    const int64_t shape[] = { p->batch, p->q_tokens, p->kv_heads * p->group, dim };
    p->lse_shift_q = kc_tensor("q", KC_PICK(dtypes), 4, shape);
    p->softmax_scale = (float)(1.0 / sqrt((double)dim));
    for (int64_t b = 0; b < shape[0]; b++)
        for (int64_t i = 0; i < shape[1]; i++)
            for (int64_t h = 0; h < shape[2]; h++)
                for (int64_t d = 0; d < dim; d++)
                    kc_store(p->lse_shift_q.dtype, p->lse_shift_q.data, b * p->lse_shift_q.strides[0] + i * p->lse_shift_q.strides[1] +
                             h * p->lse_shift_q.strides[2] + d, kc_normal());
    float *mean = kc_array("lse_shift_mean", OCTAVO_F32, rows * p->kv_heads * dim);
    for (int64_t i = 0; i < rows * p->kv_heads * dim; i++) mean[i] = 3.0f * kc_normal();
    p->lse_shift_mean = mean;
    if (rows == p->batch && kc_chance(50)) return;
    int32_t *map = kc_array("lse_shift_rows", OCTAVO_INT32, p->batch);
    for (int64_t b = 0; b < p->batch; b++) map[b] = (int32_t)kc_between(0, rows - 1);
    p->lse_shift_rows = map;
}

int kc_check_partial_merge(const kc_pair *pair)
{
    static const octavo_dtype dtypes[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    static const double spreads[] = { 0.0, 1.0, 10.0, 300.0 };
    octavo_partial_merge_params p = { .batch = kc_between(1, 3), .kv_heads = kc_between(1, 4), .group = kc_between(1, 16),
                                      .q_tokens = kc_chance(60) ? 1 : kc_between(1, 16), .v_dim = kc_between(1, 300) };
    p.splits = kc_chance(10) ? kc_between(60, 300) : kc_between(1, 12);
    while (octavo_merge_rows(&p) * p.splits * p.v_dim > 400000) { /* what is largest gives way */
        if (p.group * p.q_tokens > 16) p.q_tokens = (p.q_tokens + 1) / 2, p.group = (p.group + 1) / 2;
        else p.splits = (p.splits + 1) / 2;
    }
    if (pair->bench) p.batch = 1, p.kv_heads = 8, p.group = 4, p.q_tokens = 1, p.v_dim = 128, p.splits = 16;
    const int64_t rows = octavo_merge_rows(&p), parts = rows * p.splits, shape[] = { p.batch, p.q_tokens, p.kv_heads * p.group, p.v_dim };
    const double level = kc_chance(50) ? 0.0 : kc_uniform(-1000.0, 1000.0), spread = KC_PICK(spreads);
    const int empty = kc_chance(50) ? 0 : (int)kc_between(0, 100);
    p.part_lse = draw_logs("part_lse", parts, level, spread, empty);
    float *out = kc_array("part_out", OCTAVO_F32, parts * p.v_dim);
    for (int64_t i = 0; i < parts * p.v_dim; i++) out[i] = p.part_lse[i / p.v_dim] == -INFINITY ? 0.0f : 10.0f * kc_normal();
    p.part_out = out;
    if (kc_chance(50)) {
        p.part_kept = draw_logs("part_kept", parts, level, spread, empty);
        p.part_dropped = draw_logs("part_dropped", parts, level - 2.0, spread, (int)kc_between(0, 100));
        p.dropped_mass = kc_array("dropped_mass", OCTAVO_F32, p.batch * p.kv_heads * p.group);
    }
    if (kc_chance(40)) p.sink_logits = draw_logs("sink_logits", p.kv_heads * p.group, level, 20.0, 0);
    if (kc_chance(40)) draw_shift(&p);
    p.out = kc_tensor("out", KC_PICK(dtypes), 4, shape);
    if (kc_chance(70)) p.lse = kc_array("lse", OCTAVO_F32, rows);
    kc_describe("rows=%lld splits=%lld v_dim=%lld level=%g spread=%g empty=%d%%%s%s%s", (long long)rows, (long long)p.splits,
                (long long)p.v_dim, level, spread, empty, p.sink_logits ? " sinks" : "", p.lse_shift_mean ? " shift" : "",
                p.dropped_mass ? " dropped" : "");
    const kc_outcome outcome = kc_run(pair, KC_partial_merge, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare(&p);
}
