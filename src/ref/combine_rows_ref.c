/* combine_rows_ref.c - the definition of adding weighted rows to y. */
#include "ref/rows_ref.h"

octavo_status octavo_combine_rows_ref(const octavo_exec *exec, const octavo_combine_rows_params *p)
{
    (void)exec;
    for (int64_t t = 0; t < p->y.shape[0]; t++)
        for (int64_t i = 0; i < p->y.shape[1]; i++) {
            double sum = octavo_ref_float(&p->y, t * p->y.strides[0] + i);
            for (int64_t j = t * p->choices; j < (t + 1) * p->choices; j++)
                if (p->slots[j] >= 0) sum += (double)p->weights[j] * octavo_ref_float(&p->x, p->slots[j] * p->x.strides[0] + i);
            octavo_ref_store(&p->y, t * p->y.strides[0] + i, sum);
        }
    return OCTAVO_OK;
}
