/* kerncheck_combine_rows.c - sums of weighted rows under the COMBINE budget, choices left out among them. */
#include "kerncheck_layer.h"

static int compare(const octavo_combine_rows_params *p, const octavo_tensor *before)
{
    for (int64_t t = 0; t < p->y.shape[0]; t++)
        for (int64_t i = 0; i < p->y.shape[1]; i++) {
            double sum = kc_load(OCTAVO_F32, before->data, kc_row(before, t) + i), size = fabs(sum);
            for (int64_t j = t * p->choices; j < (t + 1) * p->choices; j++) {
                if (p->slots[j] < 0) continue;
                const double term = (double)p->weights[j] * kc_load(p->x.dtype, p->x.data, p->slots[j] * p->x.strides[0] + i);
                sum += term, size += fabs(term);
            }
            const double budget = budget_gamma((double)p->choices + 1.0) * size + BUDGET_TINY;
            if (!kc_close_stored("y", &p->y, kc_row(&p->y, t) + i, sum, budget)) return 0;
        }
    return kc_finish();
}

int kc_check_combine_rows(const kc_pair *pair)
{
    octavo_combine_rows_params p = OCTAVO_COMBINE_ROWS_PARAMS_INIT;
    const int64_t tokens = pair->bench ? 256 : kc_chance(10) ? kc_between(50, 100) : kc_between(1, 20), width = pair->bench ? 2048 : kc_width();
    p.choices = pair->bench ? 8 : kc_between(1, 9);
    const int64_t entries = pair->bench ? tokens * p.choices : kc_between(1, 60), shape[] = { tokens, width }, x[] = { entries, width };
    p.x = kc_tensor("x", pair->bench ? OCTAVO_BF16 : kc_float_dtype(), 2, x);
    p.y = kc_tensor("y", OCTAVO_F32, 2, shape);
    kc_fill(&p.x, 0.0, 1.0, 10);
    kc_fill(&p.y, 0.0, kc_chance(70) ? 1.0 : 1e-3, 5);
    int32_t *slots = kc_array("slots", OCTAVO_INT32, tokens * p.choices);
    float *weights = kc_array("weights", OCTAVO_F32, tokens * p.choices);
    const int left_out = kc_chance(50) ? 0 : (int)kc_between(0, 100);
    for (int64_t i = 0; i < tokens * p.choices; i++)
        slots[i] = kc_chance(left_out) ? -1 : (int32_t)kc_between(0, entries - 1), weights[i] = (float)kc_uniform(-0.1, 1.0);
    p.slots = slots, p.weights = weights;
    const octavo_tensor before = kc_copy(&p.y);
    kc_describe("%lldx%lld, %lld choices of %lld %s, %d%% left out", (long long)tokens, (long long)width, (long long)p.choices,
                (long long)entries, octavo_dtype_name(p.x.dtype), left_out);
    const kc_outcome outcome = kc_run(pair, KC_combine_rows, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare(&p, &before);
}
