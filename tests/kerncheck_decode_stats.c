/* kerncheck_decode_stats.c - skip ratios and bytes read are exact. */
#include "kerncheck.h"

int kc_check_decode_stats(const kc_pair *pair)
{
    kc_decode c;
    kc_draw_decode(&c, pair, KC_BARE);
    octavo_decode_stats_params p = { .kv = &c.view, .q_tokens = c.q_tokens, .window = c.in.window, .sink_tokens = c.in.sink_tokens };
    p.rule = (octavo_select_rule)kc_between(OCTAVO_SELECT_NONE, OCTAVO_SELECT_CERTIFIED);
    p.compensate = kc_chance(50) ? OCTAVO_COMPENSATE_MEAN : OCTAVO_COMPENSATE_NONE;
    if (p.rule == OCTAVO_SELECT_DELTA && kc_chance(50)) p.thresholds = kc_array("thresholds", OCTAVO_F32, c.view.batch * c.q_heads);
    if (p.rule >= OCTAVO_SELECT_DELTA || kc_chance(30)) {
        uint8_t *kept = kc_array("kept", OCTAVO_UINT8, octavo_unit_elements(&c.view));
        kc_draw_mask(&c, kept, p.rule >= OCTAVO_SELECT_DELTA ? (int)kc_between(0, 100) : 0);
        p.kept = kept;
    }
    if (p.rule == OCTAVO_SELECT_CERTIFIED) {
        uint8_t *first = kc_array("kept_first", OCTAVO_UINT8, octavo_unit_elements(&c.view));
        for (int64_t i = 0; i < octavo_unit_elements(&c.view); i++) /* the last decision drops more */
            first[i] = p.kept[i] == OCTAVO_UNIT_DROPPED && kc_chance(50) ? OCTAVO_UNIT_KEPT : p.kept[i];
        p.kept_first = first;
    }
    if (kc_chance(80)) p.skip_ratio = kc_array("skip_ratio", OCTAVO_F32, c.view.batch * c.view.kv_heads);
    if (kc_chance(80)) p.bytes_read = kc_array("bytes_read", OCTAVO_INT64, c.view.batch * c.view.kv_heads);
    kc_describe(" rule=%s%s%s", octavo_select_rule_name(p.rule), p.compensate ? " compensated" : "", p.kept ? " kept" : "");
    const kc_outcome outcome = kc_run(pair, KC_decode_stats, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return kc_finish();
}
