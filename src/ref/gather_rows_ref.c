/* gather_rows_ref.c - the definition of gathering rows, alone or as sums of two: one rounding to float32, one to y. */
#include "ref/rows_ref.h"

octavo_status octavo_gather_rows_ref(const octavo_exec *exec, const octavo_gather_rows_params *p)
{
    (void)exec;
    const int copies = !p->add.data && p->table.dtype == p->y.dtype; /* bits, those of a NaN, too */
    const size_t bytes = octavo_dtype_bytes(p->y.dtype);
    for (int64_t r = 0; r < p->y.shape[0]; r++)
        for (int64_t i = 0; i < p->y.shape[1]; i++) {
            const int64_t from = p->rows[r] * p->table.strides[0] + i, to = r * p->y.strides[0] + i;
            double x = octavo_ref_float(&p->table, from);
            if (p->add.data) x += octavo_ref_float(&p->add, p->add_rows[r] * p->add.strides[0] + i);
            octavo_ref_store(&p->y, to, x);
            if (copies) memcpy((uint8_t *)p->y.data + bytes * (size_t)to, (const uint8_t *)p->table.data + bytes * (size_t)from, bytes);
        }
    return OCTAVO_OK;
}
