/* kerncheck_gather_rows.c - gathered rows and sums of two are exact, the bits of a NaN that is copied among them. */
#include "kerncheck_layer.h"

static const int32_t *draw_indices(const char *name, int64_t count, int64_t end)
{
    int32_t *indices = kc_array(name, OCTAVO_INT32, count);
    for (int64_t i = 0; i < count; i++) indices[i] = (int32_t)kc_between(0, end - 1);
    return indices;
}

int kc_check_gather_rows(const kc_pair *pair)
{
    static const double amplitudes[] = { 1.0, 1.0, 1e-6, 1e-40, 1e5, 1e38 };
    octavo_gather_rows_params p = OCTAVO_GATHER_ROWS_PARAMS_INIT;
    const int64_t count = pair->bench ? 512 : kc_chance(10) ? kc_between(100, 300) : kc_between(1, 20), width = pair->bench ? 4096 : kc_width();
    const int64_t shape[] = { count, width }, table[] = { kc_between(1, 50), width }, add[] = { kc_between(1, 50), width };
    p.table = kc_tensor("table", pair->bench ? OCTAVO_BF16 : kc_float_dtype(), 2, table);
    p.rows = draw_indices("rows", count, table[0]);
    const double amplitude = KC_PICK(amplitudes);
    kc_fill(&p.table, 0.0, amplitude, 15);
    if (!pair->bench && kc_chance(40)) {
        p.add = kc_tensor("add", kc_float_dtype(), 2, add);
        p.add_rows = draw_indices("add_rows", count, add[0]);
        kc_fill(&p.add, 0.0, kc_chance(50) ? 1.0 : amplitude, 15);
    }
    p.y = kc_tensor("y", pair->bench ? OCTAVO_F32 : kc_float_dtype(), 2, shape);
    kc_describe("%lldx%lld of %lld %s%s%s to %s amplitude=%g", (long long)count, (long long)width, (long long)table[0],
                octavo_dtype_name(p.table.dtype), p.add.data ? " + " : "", p.add.data ? octavo_dtype_name(p.add.dtype) : "",
                octavo_dtype_name(p.y.dtype), amplitude);
    const kc_outcome outcome = kc_run(pair, KC_gather_rows, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return kc_finish();
}
