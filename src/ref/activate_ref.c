/* activate_ref.c - the definition of the activations and of their gated product. */
#include "ref/rows_ref.h"

static double activated(octavo_activation activation, double x)
{
    switch (activation) {
    case OCTAVO_ACTIVATION_RELU: return x < 0.0 ? 0.0 : x; /* NaN stays NaN */
    case OCTAVO_ACTIVATION_SILU: return x / (1.0 + exp(-x));
    case OCTAVO_ACTIVATION_GELU: return x * (1.0 + erf(x * 0x1.6a09e667f3bcdp-1 /* 1 / sqrt(2) */)) / 2.0;
    default:                     return x * (1.0 + tanh(0x1.988453365de0bp-1 /* sqrt(2 / pi) */ * (x + 0.044715 * x * x * x))) / 2.0;
    }
}

octavo_status octavo_activate_ref(const octavo_exec *exec, const octavo_activate_params *p)
{
    (void)exec;
    for (int64_t t = 0; t < p->gate.shape[0]; t++)
        for (int64_t i = 0; i < p->gate.shape[1]; i++) {
            const double gate = octavo_ref_float(&p->gate, t * p->gate.strides[0] + i);
            const double up = p->up.data ? octavo_ref_float(&p->up, t * p->up.strides[0] + i) : 1.0;
            octavo_ref_store(&p->y, t * p->y.strides[0] + i, activated(p->activation, gate) * up);
        }
    return OCTAVO_OK;
}
