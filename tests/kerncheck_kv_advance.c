/* kerncheck_kv_advance.c - positions of a step and the lengths after it are exact; a row or length out of range is refused. */
#include "kerncheck.h"

/* `count` of the rows 0 .. rows - 1, none twice. */
static const int32_t *draw_rows(int64_t count, int64_t rows)
{
    int32_t *drawn = kc_array("sequences", OCTAVO_INT32, count), *all = kc_scratch(rows * (int64_t)sizeof *all);
    for (int64_t i = 0; i < rows; i++) all[i] = (int32_t)i;
    for (int64_t i = 0; i < count; i++) {
        const int64_t from = kc_between(i, rows - 1);
        drawn[i] = all[from];
        all[from] = all[i];
    }
    return drawn;
}

int kc_check_kv_advance(const kc_pair *pair)
{
    octavo_kv_advance_params p = { .layers = pair->bench ? 80 : kc_between(1, 140), .rows = pair->bench ? 64 : kc_between(1, 30) };
    p.tokens = pair->bench || kc_chance(60) ? 1 : kc_between(1, 300);
    p.max_tokens = p.tokens + kc_between(1, 100000);
    p.batch = pair->bench ? p.rows : kc_between(1, p.rows);
    p.sequences = draw_rows(p.batch, p.rows);
    p.lengths = kc_array("lengths", OCTAVO_INT32, p.layers * p.rows);
    const int odd = !pair->bench && kc_chance(12);
    for (int64_t i = 0; i < p.layers * p.rows; i++) p.lengths[i] = (int32_t)kc_between(0, p.max_tokens - p.tokens);
    if (odd && kc_chance(50)) p.lengths[kc_between(0, p.layers - 1) * p.rows + p.sequences[0]] = kc_chance(50) ? -1 : (int32_t)(p.max_tokens - p.tokens + 1);
    else if (odd) ((int32_t *)(uintptr_t)p.sequences)[kc_between(0, p.batch - 1)] = kc_chance(50) ? -1 : (int32_t)p.rows;
    if (kc_chance(70)) p.first = kc_array("first", OCTAVO_INT32, p.batch);
    if (kc_chance(70)) p.positions = kc_array("positions", OCTAVO_INT32, p.batch * p.tokens);
    kc_describe("layers=%lld rows=%lld batch=%lld tokens=%lld%s", (long long)p.layers, (long long)p.rows, (long long)p.batch, (long long)p.tokens,
                odd ? " odd" : "");
    const kc_outcome outcome = kc_run(pair, KC_kv_advance, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return kc_finish();
}
