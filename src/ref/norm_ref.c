/* norm_ref.c - the definition of RMSNorm and LayerNorm. */
#include "ref/rows_ref.h"

static void norm_row(const octavo_norm_params *p, int64_t x, int64_t y)
{
    const int64_t width = p->x.shape[p->x.ndim - 1];
    double mean = 0.0, squares = 0.0;
    for (int64_t i = 0; i < width && p->kind == OCTAVO_NORM_LAYER; i++) mean += octavo_ref_float(&p->x, x + i) / (double)width;
    for (int64_t i = 0; i < width; i++) {
        const double d = octavo_ref_float(&p->x, x + i) - mean;
        squares += d * d;
    }
    const double factor = 1.0 / sqrt(squares / (double)width + (double)p->eps);
    for (int64_t i = 0; i < width; i++) {
        const double d = octavo_ref_float(&p->x, x + i) - mean; /* read before it is written: y may be x */
        octavo_ref_store(&p->y, y + i, d * factor * (p->weight ? (double)p->weight[i] : 1.0) + (p->bias ? (double)p->bias[i] : 0.0));
    }
}

octavo_status octavo_norm_ref(const octavo_exec *exec, const octavo_norm_params *p)
{
    (void)exec;
    for (int64_t r = 0; r < octavo_ref_row_count(&p->x); r++) norm_row(p, octavo_ref_row(&p->x, r), octavo_ref_row(&p->y, r));
    return OCTAVO_OK;
}
