/* kerncheck_norm.c - RMSNorm and LayerNorm under the NORM budget: in place or not, far from 0, tiny, huge, of zeros. */
#include "kerncheck_layer.h"

/* The mean and the factor of a row, and how far float32 may be from them. */
typedef struct moments {
    double mean, mean_error, factor, factor_error;
} moments;

static moments moments_of(const octavo_norm_params *p, const octavo_tensor *x, int64_t at)
{
    const int64_t width = octavo_norm_width(p);
    const double n = (double)width, gamma = budget_gamma(n + BUDGET_SLACK);
    double sum = 0.0, size = 0.0, squares = 0.0;
    for (int64_t i = 0; i < width; i++) sum += kc_load(x->dtype, x->data, at + i), size += fabs(kc_load(x->dtype, x->data, at + i));
    moments m = { .mean = p->kind == OCTAVO_NORM_LAYER ? sum / n : 0.0 };
    m.mean_error = p->kind == OCTAVO_NORM_LAYER ? gamma * size / n : 0.0;
    for (int64_t i = 0; i < width; i++) {
        const double d = kc_load(x->dtype, x->data, at + i) - m.mean;
        squares += d * d;
    }
    const double variance = squares / n, eps = (double)p->eps;
    m.factor = 1.0 / sqrt(variance + eps);
    const double low = 1.0 / sqrt(variance * (1.0 + gamma) + m.mean_error * m.mean_error + eps);
    const double high = 1.0 / sqrt(variance * (1.0 - gamma) + eps);
    m.factor_error = fmax(high - m.factor, m.factor - low);
    return m;
}

static int compare(const octavo_norm_params *p, const octavo_tensor *x, int64_t rows)
{
    for (int64_t r = 0; r < rows; r++) {
        const moments m = moments_of(p, x, kc_row(x, r));
        for (int64_t i = 0; i < octavo_norm_width(p); i++) {
            const double d = kc_load(x->dtype, x->data, kc_row(x, r) + i) - m.mean;
            const double weight = p->weight ? (double)p->weight[i] : 1.0, bias = p->bias ? (double)p->bias[i] : 0.0;
            const double exact = d * m.factor * weight + bias;
            const double error = (fabs(d) + m.mean_error) * m.factor_error + m.mean_error * m.factor;
            const double budget = fabs(weight) * error + budget_gamma(BUDGET_SLACK) * (fabs(exact - bias) + fabs(bias)) + BUDGET_TINY;
            if (!kc_close_stored("y", &p->y, kc_row(&p->y, r) + i, exact, budget)) return 0;
        }
    }
    return kc_finish();
}

static const float *draw_vector(const char *name, int64_t count, float centre)
{
    float *x = kc_array(name, OCTAVO_F32, count);
    for (int64_t i = 0; i < count; i++) x[i] = centre + 0.5f * kc_normal();
    return x;
}

int kc_check_norm(const kc_pair *pair)
{
    static const double amplitudes[] = { 1.0, 1.0, 1.0, 1e-3, 1e-20, 1e-38, 1e4, 1e18, 1e30 }, offsets[] = { 0.0, 0.0, 1.0, -100.0 };
    static const float eps[] = { 1e-5f, 1e-6f, 1e-12f, 0.0f };
    static const int64_t widths[] = { 8, 64, 200, 256, 512, 1024, 1032, 2048 };
    octavo_norm_params p = OCTAVO_NORM_PARAMS_INIT;
    const int32_t axes = pair->bench ? 2 : (int32_t)kc_between(2, 3);
    int64_t shape[] = { kc_between(1, 6), kc_between(1, 6), kc_width() };
    if (axes == 2) shape[0] = pair->bench ? 512 : kc_chance(10) ? 150 : kc_between(1, 20), shape[1] = pair->bench ? 4096 : shape[2];
    if (kc_draw_wide(pair)) shape[axes - 2] = kc_between(512, 700) / (axes == 3 ? shape[0] : 1) + 1, shape[axes - 1] = KC_PICK(widths);
    p.kind = pair->bench ? OCTAVO_NORM_RMS : (octavo_norm_kind)kc_between(OCTAVO_NORM_RMS, OCTAVO_NORM_LAYER);
    p.x = kc_tensor("x", pair->bench ? OCTAVO_F32 : kc_float_dtype(), axes, shape);
    p.y = kc_chance(40) ? p.x : kc_tensor("y", pair->bench ? OCTAVO_BF16 : kc_float_dtype(), axes, shape);
    p.eps = KC_PICK(eps);
    const int64_t width = octavo_norm_width(&p), rows = axes == 3 ? shape[0] * shape[1] : shape[0];
    if (kc_chance(70)) p.weight = draw_vector("weight", width, 1.0f);
    if (p.kind == OCTAVO_NORM_LAYER && kc_chance(70)) p.bias = draw_vector("bias", width, 0.0f);
    const double amplitude = pair->bench ? 1.0 : KC_PICK(amplitudes), offset = amplitude * KC_PICK(offsets);
    const int narrow = p.x.dtype == OCTAVO_F16;
    kc_fill(&p.x, narrow ? fmax(-3000.0, fmin(offset, 3000.0)) : offset, narrow ? fmin(amplitude, 1e3) : amplitude, pair->bench ? 0 : 10);
    const octavo_tensor x = kc_copy(&p.x);
    kc_describe("kind=%d %lldx%lld %s to %s%s amplitude=%g offset=%g eps=%g%s%s", (int)p.kind, (long long)rows, (long long)width,
                octavo_dtype_name(p.x.dtype), octavo_dtype_name(p.y.dtype), p.y.data == p.x.data ? " in place" : "", amplitude, offset,
                (double)p.eps, p.weight ? " weight" : "", p.bias ? " bias" : "");
    const kc_outcome outcome = kc_run(pair, KC_norm, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare(&p, &x, rows);
}
