/* kerncheck_activate.c - activations and gated products under the ACTIVATE budget, far out on both sides. */
#include "kerncheck_layer.h"

/* The value and how far float32 may be from it. */
static double activated(octavo_activation activation, double x, double *error)
{
    /* Past 8 what 1 + erf and 1 + tanh miss of 0 or 2 is below 2^-49, and a kernel has to have got there. */
    const double share = fabs(x) < 8.0 ? BUDGET_EXP : 0x1p-49;
    double y = 0.0;
    switch (activation) {
    case OCTAVO_ACTIVATION_RELU: *error = 0.0; return x < 0.0 ? 0.0 : x;
    case OCTAVO_ACTIVATION_SILU:
        y = x / (1.0 + exp(-x));
        *error = fabs(y) * (BUDGET_EXP + budget_gamma(4.0));
        return y;
    case OCTAVO_ACTIVATION_GELU:
        y = x * (1.0 + erf(x * sqrt(0.5))) / 2.0;
        break;
    case OCTAVO_ACTIVATION_GELU_TANH:
        y = x * (1.0 + tanh(sqrt(2.0 / acos(-1.0)) * (x + 0.044715 * x * x * x))) / 2.0;
        break;
    }
    *error = fabs(x) * share + fabs(y) * budget_gamma(4.0);
    return y;
}

static int compare(const octavo_activate_params *p, const octavo_tensor *gate, const octavo_tensor *up)
{
    for (int64_t t = 0; t < gate->shape[0]; t++)
        for (int64_t i = 0; i < gate->shape[1]; i++) {
            double error = 0.0;
            const double y = activated(p->activation, kc_load(gate->dtype, gate->data, kc_row(gate, t) + i), &error);
            const double factor = up->data ? kc_load(up->dtype, up->data, kc_row(up, t) + i) : 1.0;
            if (isinf(factor) && fabs(y) <= error + BUDGET_TINY) { /* what may be 0 times Inf may be NaN */
                if (isfinite(kc_load(p->y.dtype, p->y.data, kc_row(&p->y, t) + i))) return kc_fail("y of an infinite up is finite");
                kc_accept((uint8_t *)p->y.data + octavo_dtype_bytes(p->y.dtype) * (size_t)(kc_row(&p->y, t) + i), octavo_dtype_bytes(p->y.dtype));
                continue;
            }
            const double budget = fabs(factor) * (error + BUDGET_TINY) + 2.0 * BUDGET_U * fabs(y * factor);
            if (!kc_close_stored("y", &p->y, kc_row(&p->y, t) + i, y * factor, budget)) return 0;
        }
    return kc_finish();
}

int kc_check_activate(const kc_pair *pair)
{
    static const double amplitudes[] = { 1.0, 1.0, 3.0, 10.0, 40.0, 200.0, 1e-3, 1e-30, 1e20 };
    octavo_activate_params p = OCTAVO_ACTIVATE_PARAMS_INIT;
    int64_t shape[] = { kc_chance(10) ? kc_between(20, 60) : kc_between(1, 12), kc_width() };
    if (kc_chance(3)) shape[0] = 1, shape[1] = kc_between(40000, 70000);
    if (kc_draw_wide(pair)) shape[0] = kc_between(200, 400), shape[1] = 8 * kc_between(170, 240);
    if (pair->bench) shape[0] = 64, shape[1] = 14336;
    p.activation = pair->bench ? OCTAVO_ACTIVATION_SILU : (octavo_activation)kc_between(OCTAVO_ACTIVATION_RELU, OCTAVO_ACTIVATION_GELU_TANH);
    p.gate = kc_tensor("gate", pair->bench ? OCTAVO_F32 : kc_float_dtype(), 2, shape);
    if (pair->bench || kc_chance(60)) p.up = kc_tensor("up", pair->bench ? OCTAVO_F32 : kc_float_dtype(), 2, shape);
    switch (pair->bench ? 0 : kc_between(0, 2)) {
    case 1:  p.y = p.gate; break;
    case 2:  p.y = p.up.data ? p.up : p.gate; break;
    default: p.y = kc_tensor("y", pair->bench ? OCTAVO_BF16 : kc_float_dtype(), 2, shape); break;
    }
    const double amplitude = KC_PICK(amplitudes);
    kc_fill(&p.gate, 0.0, p.gate.dtype == OCTAVO_F16 ? fmin(amplitude, 1e3) : amplitude, 10);
    if (p.up.data) kc_fill(&p.up, 0.0, kc_chance(80) ? 1.0 : 100.0, 10);
    const octavo_tensor gate = kc_copy(&p.gate);
    octavo_tensor up = p.up;
    if (p.up.data) up = kc_copy(&p.up);
    kc_describe("%lldx%lld activation=%d amplitude=%g gate %s%s%s to %s%s", (long long)shape[0], (long long)shape[1], (int)p.activation,
                amplitude, octavo_dtype_name(p.gate.dtype), p.up.data ? " up " : "", p.up.data ? octavo_dtype_name(p.up.dtype) : "",
                octavo_dtype_name(p.y.dtype), p.y.data == p.gate.data || p.y.data == p.up.data ? " in place" : "");
    const kc_outcome outcome = kc_run(pair, KC_activate, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare(&p, &gate, &up);
}
