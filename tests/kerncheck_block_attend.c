/* kerncheck_block_attend.c - attention over kept units, with compensation, splits and given scores, under the ATTEND budget. */
#include "kerncheck.h"

/* The logarithm of a dropped unit's mass in every row: near the truth, as a scan of the base would say it. The rest stays poisoned. */
static float *draw_masses(const kc_decode *c, const char *name, const uint8_t *kept, const kc_scores *scores, double above)
{
    const int64_t rows = c->view.batch * c->view.kv_heads * c->rows, sub = c->view.sub_block_tokens;
    float *mass = kc_array(name, OCTAVO_F32, rows * c->units);
    for (int64_t i = 0; i < rows * c->units; i++) {
        const int64_t row = i / c->units, unit = i % c->units;
        if (kept[row / c->rows * c->units + unit] != OCTAVO_UNIT_DROPPED) continue;
        double log = -INFINITY;
        for (int64_t t = unit * sub; t < (unit + 1) * sub; t++) log = kc_log_add(log, scores->score[row * c->view.max_tokens + t]);
        mass[i] = (float)(log + kc_uniform(-0.3, 0.3) + above);
    }
    return mass;
}

/* Scores as block_score leaves them: of visible tokens of kept units. */
static float *draw_scores(const kc_decode *c, const uint8_t *kept, kc_scores *scores)
{
    const int64_t tokens = c->view.max_tokens, count = octavo_row_elements(&c->in) * tokens;
    float *given = kc_array("scores", OCTAVO_F32, count);
    for (int64_t i = 0; i < count; i++) {
        const int64_t group = i / tokens / c->rows, unit = i % tokens / c->view.sub_block_tokens;
        if (scores->score[i] == -INFINITY || (kept && kept[group * c->units + unit] != OCTAVO_UNIT_KEPT)) continue;
        given[i] = (float)scores->score[i], scores->score[i] = (double)given[i], scores->error[i] = 0.0;
    }
    return given;
}

static int merged; /* by the kernel itself */

int kc_check_block_attend(const kc_pair *pair)
{
    kc_decode c;
    const int prune = pair->bench || kc_chance(70);
    kc_draw_decode(&c, pair, prune ? KC_MEANS | KC_STREAMS : KC_STREAMS);
    c.in.precision = kc_draw_precision(pair);
    octavo_block_attend_params p = { .in = c.in };
    uint8_t *kept = NULL;
    const int plain = !pair->bench && prune && c.tiled && kc_chance(60); /* what a kernel may merge by itself */
    if (!pair->bench) p.in.planes = kc_chance(plain ? 95 : 80) ? c.in.planes : 1;
    kc_scores scores = kc_score_all(&c, p.in.planes, KC_SCAN_EXACT_Q);
    if (prune) {
        kept = kc_array("kept", OCTAVO_UINT8, octavo_unit_elements(&c.view));
        kc_draw_mask(&c, kept, pair->bench ? 90 : (int)kc_between(0, 100));
        p.kept = kept;
        p.compensate = pair->bench || kc_chance(70) ? OCTAVO_COMPENSATE_MEAN : OCTAVO_COMPENSATE_NONE;
        p.log_mass = draw_masses(&c, "log_mass", kept, &scores, 0.0);
        if (!pair->bench && !plain && kc_chance(30)) p.log_upper = draw_masses(&c, "log_upper", kept, &scores, 0.5);
    }
    if (!pair->bench && !plain && kc_chance(30)) p.scores = draw_scores(&c, kept, &scores);
    kc_draw_splits(&c, pair, &p.splits, &p.split_units);
    if (plain) p.split_units = 0, p.splits = kc_chance(40) ? 1 : kc_between(1, 40);
    const int64_t parts = octavo_row_elements(&c.in) * p.splits;
    p.part_out = kc_array("part_out", OCTAVO_F32, parts * c.view.v_dim);
    p.part_lse = kc_array("part_lse", OCTAVO_F32, parts);
    if (!plain && kc_chance(50)) p.part_kept = kc_array("part_kept", OCTAVO_F32, parts), p.part_dropped = kc_array("part_dropped", OCTAVO_F32, parts);
    merged = 0, p.merged = &merged;
    if (pair->bench || plain || (p.split_units == 0 && kc_chance(50))) {
        const int64_t shape[] = { c.view.batch, c.q_tokens, c.q_heads, c.view.v_dim };
        p.merged_out = kc_tensor("merged_out", kc_chance(80) ? OCTAVO_F32 : OCTAVO_BF16, 4, shape);
        p.merged_lse = kc_array("merged_lse", OCTAVO_F32, octavo_row_elements(&c.in));
    }
    kc_describe(" planes=%d splits=%lld%s%s%s%s%s", p.in.planes, (long long)p.splits, prune ? " pruned" : "",
                p.compensate ? " compensated" : "", p.scores ? " scores" : "", p.log_upper ? " log_upper" : "",
                p.merged_out.data ? " merged" : "");
    const kc_outcome outcome = kc_run(pair, KC_block_attend, &p, octavo_block_attend_workspace(&p));
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    const kc_merged whole = { .out = &p.merged_out, .lse = p.merged_lse, .splits = p.splits, .part_out = p.part_out, .part_lse = p.part_lse };
    if (merged && !kc_take_merged(&c, &whole)) return 0;
    const kc_partials of = { .kept = kept, .scores = scores, .log_mass = p.log_mass, .log_upper = p.log_upper, .compensate = p.compensate,
                             .splits = p.splits, .split_units = p.split_units, .part_out = p.part_out, .part_lse = p.part_lse,
                             .part_kept = p.part_kept, .part_dropped = p.part_dropped };
    return kc_close_partials(&c, &of) && kc_finish();
}
