/* kerncheck_decode_fused.c - the one-pass rules: the decision where its margin is clear, the output for the kernel's own decision. */
#include "budget.h"
#include "kerncheck.h"

#include <string.h>

/* Largest base score of every unit and row, with the budget of what it is the largest of. */
typedef struct maxima {
    double *max, *error, *log_mass_error; /* [batch, kv_heads, rows, units] */
    float *log_mass;
} maxima;

static maxima unit_maxima(const kc_decode *c, const kc_scores *base)
{
    const int64_t rows = octavo_row_elements(&c->in), cells = rows * c->units, sub = c->view.sub_block_tokens;
    maxima all = { kc_scratch(cells * 8), kc_scratch(cells * 8), kc_scratch(cells * 8), kc_scratch(cells * 4) };
    for (int64_t i = 0; i < cells; i++) {
        double max = -INFINITY, error = 0.0, log = -INFINITY;
        for (int64_t t = i % c->units * sub; t < (i % c->units + 1) * sub && t < c->view.max_tokens; t++) {
            const int64_t at = i / c->units * c->view.max_tokens + t;
            max = fmax(max, base->score[at]), error = fmax(error, base->error[at]), log = kc_log_add(log, base->score[at]);
        }
        all.max[i] = max, all.error[i] = error + BUDGET_U * fabs(isfinite(max) ? max : 0.0);
        all.log_mass[i] = (float)log, all.log_mass_error[i] = budget_log_sum((double)sub, error, log);
    }
    return all;
}

/* The threshold of a row and its error. */
static double threshold_of(const kc_decode *c, const octavo_decode_fused_params *p, const maxima *all, int64_t b, int64_t flat,
                           double *error)
{
    const int64_t length = kc_length(c, b), per_block = c->view.block_tokens / c->view.sub_block_tokens, row = flat % c->rows;
    const int64_t head = flat / c->rows % c->view.kv_heads;
    const int64_t first = octavo_first_visible_block(&c->view, length, c->q_tokens, c->in.window, c->in.sink_tokens);
    const int64_t newest = octavo_newest_block(&c->view, length);
    double most = -INFINITY;
    *error = 0.0;
    if (p->thresholds) return (double)p->thresholds[b * c->q_heads + head * c->group + row / c->q_tokens];
    for (int64_t u = 0; u < c->units; u++)
        if (u / per_block == first || u / per_block == newest)
            most = fmax(most, all->max[flat * c->units + u]), *error = fmax(*error, all->error[flat * c->units + u]);
    return most;
}

/* The state that a unit has to have, or -1 where some row is too close to call. */
static int wanted_state(const kc_decode *c, const octavo_decode_fused_params *p, const maxima *all, int64_t b, int64_t head, int64_t unit)
{
    const int64_t length = kc_length(c, b);
    const octavo_unit_view seen = octavo_unit_seen(&c->view, length, c->q_tokens, c->in.window, c->in.sink_tokens, unit);
    if (seen == OCTAVO_UNIT_INVISIBLE) return OCTAVO_UNIT_UNSEEN;
    if (p->rule != OCTAVO_SELECT_DELTA || seen == OCTAVO_UNIT_PARTLY ||
        octavo_unit_fixed(&c->view, length, unit, p->keep_first_blocks, p->keep_last_blocks))
        return OCTAVO_UNIT_KEPT;
    int state = OCTAVO_UNIT_DROPPED;
    for (int64_t row = 0; row < c->rows; row++) {
        const int64_t flat = (b * c->view.kv_heads + head) * c->rows + row, at = flat * c->units + unit;
        double error;
        const double least = threshold_of(c, p, all, b, flat, &error) - (double)p->delta;
        const double margin = error + all->error[at] + 4.0 * BUDGET_U * (fabs(least) + (double)p->delta + 1.0);
        if (all->max[at] >= least + margin) return OCTAVO_UNIT_KEPT;
        if (all->max[at] >= least - margin) state = -1;
    }
    return state;
}

static int check_mask(const kc_decode *c, const octavo_decode_fused_params *p, const maxima *all)
{
    for (int64_t i = 0; i < octavo_unit_elements(&c->view); i++) {
        const int64_t group = i / c->units;
        const int state = wanted_state(c, p, all, group / c->view.kv_heads, group % c->view.kv_heads, i % c->units);
        if (state < 0 && (p->kept[i] == OCTAVO_UNIT_KEPT || p->kept[i] == OCTAVO_UNIT_DROPPED)) continue;
        if (p->kept[i] != state) return kc_fail("kept[%lld] is %d, expected %d", (long long)i, p->kept[i], state);
    }
    return 1;
}

/* What the reference gives for the tested kernel's own mask takes the place of what it gave for its own. */
static int redo_reference(const kc_pair *pair, const kc_decode *c, const octavo_decode_fused_params *p)
{
    const int64_t parts = octavo_row_elements(&c->in) * p->splits, dim = c->view.v_dim;
    octavo_block_attend_params attend = { .in = p->in, .kept = p->kept, .compensate = p->compensate, .splits = p->splits,
                                          .split_units = p->split_units };
    if (p->rule == OCTAVO_SELECT_BASE) attend.in.planes = 1;
    attend.part_out = (float *)(uintptr_t)kc_want(p->part_out), attend.part_lse = (float *)(uintptr_t)kc_want(p->part_lse);
    if (p->part_kept) {
        attend.part_kept = (float *)(uintptr_t)kc_want(p->part_kept);
        attend.part_dropped = (float *)(uintptr_t)kc_want(p->part_dropped);
    }
    memset(attend.part_out, 0xFF, (size_t)(parts * dim) * sizeof(float));
    const octavo_exec exec = OCTAVO_EXEC_INIT;
    if (pair->ref->block_attend(&exec, &attend) != OCTAVO_OK) return kc_fail("the reference refused the kernel's own mask");
    return 1;
}

static int merged; /* by the kernel itself */

static int compare(const kc_pair *pair, const kc_decode *c, octavo_decode_fused_params *p)
{
    const kc_scores base = kc_score_all(c, 1, KC_SCAN_QUANTISED);
    const kc_scores scores = kc_score_all(c, p->rule == OCTAVO_SELECT_BASE ? 1 : p->in.planes, KC_SCAN_EXACT_Q);
    const maxima all = unit_maxima(c, &base);
    if (p->kept && !check_mask(c, p, &all)) return 0;
    uint8_t *kept = NULL; /* the kernel's own, which the reference's replaces in the arena once it is judged */
    if (p->kept) {
        kept = kc_scratch(octavo_unit_elements(&c->view));
        memcpy(kept, p->kept, (size_t)octavo_unit_elements(&c->view));
    }
    if (p->rule == OCTAVO_SELECT_DELTA) {
        if (!redo_reference(pair, c, p)) return 0;
        kc_accept(p->kept, (size_t)octavo_unit_elements(&c->view));
    }
    const kc_merged whole = { .out = &p->merged_out, .lse = p->merged_lse, .splits = p->splits, .part_out = p->part_out, .part_lse = p->part_lse };
    if (merged && !kc_take_merged(c, &whole)) return 0;
    const kc_partials of = { .kept = kept, .scores = scores, .log_mass = all.log_mass, .log_mass_error = all.log_mass_error,
                             .compensate = p->compensate, .splits = p->splits, .split_units = p->split_units, .part_out = p->part_out,
                             .part_lse = p->part_lse, .part_kept = p->part_kept, .part_dropped = p->part_dropped };
    return kc_close_partials(c, &of) && kc_finish();
}

int kc_check_decode_fused(const kc_pair *pair)
{
    static const octavo_select_rule rules[] = { OCTAVO_SELECT_NONE, OCTAVO_SELECT_BASE, OCTAVO_SELECT_DELTA, OCTAVO_SELECT_DELTA };
    kc_decode c;
    octavo_decode_fused_params p = { .rule = pair->bench ? OCTAVO_SELECT_NONE : KC_PICK(rules) };
    kc_draw_decode(&c, pair, p.rule == OCTAVO_SELECT_DELTA ? KC_MEANS | KC_STREAMS : KC_STREAMS);
    c.in.precision = kc_draw_precision(pair), p.in = c.in;
    c.eight = pair->device && c.in.precision == OCTAVO_ATTENTION_FP8 && p.rule != OCTAVO_SELECT_DELTA && c.view.v_format == OCTAVO_V_E4M3;
    if (p.rule == OCTAVO_SELECT_DELTA) {
        p.delta = kc_chance(20) ? 0.0f : (float)kc_uniform(0.0, 6.0);
        p.compensate = kc_chance(c.tiled && c.view.sub_block_tokens > 64 ? 20 : 60) ? OCTAVO_COMPENSATE_MEAN : OCTAVO_COMPENSATE_NONE;
        p.keep_first_blocks = kc_chance(30) ? (int32_t)kc_between(0, 3) : 0;
        p.keep_last_blocks = kc_chance(30) ? (int32_t)kc_between(0, 3) : 0;
        if (kc_chance(30)) {
            float *thresholds = kc_array("thresholds", OCTAVO_F32, c.view.batch * c.q_heads);
            for (int64_t i = 0; i < c.view.batch * c.q_heads; i++) thresholds[i] = (float)kc_uniform(-2.0, 8.0);
            p.thresholds = thresholds;
        }
    }
    if (p.rule == OCTAVO_SELECT_DELTA || kc_chance(30)) p.kept = kc_array("kept", OCTAVO_UINT8, octavo_unit_elements(&c.view));
    kc_draw_splits(&c, pair, &p.splits, &p.split_units);
    const int64_t parts = octavo_row_elements(&c.in) * p.splits;
    p.part_out = kc_array("part_out", OCTAVO_F32, parts * c.view.v_dim);
    p.part_lse = kc_array("part_lse", OCTAVO_F32, parts);
    if (kc_chance(30)) p.part_kept = kc_array("part_kept", OCTAVO_F32, parts), p.part_dropped = kc_array("part_dropped", OCTAVO_F32, parts);
    merged = 0, p.merged = &merged;
    if (p.split_units == 0 && kc_chance(70)) {
        const int64_t shape[] = { c.view.batch, c.q_tokens, c.q_heads, c.view.v_dim };
        p.merged_out = kc_tensor("merged_out", kc_chance(80) ? OCTAVO_F32 : OCTAVO_BF16, 4, shape);
        p.merged_lse = kc_array("merged_lse", OCTAVO_F32, octavo_row_elements(&c.in));
    }
    kc_describe(" rule=%s delta=%g splits=%lld%s%s%s", octavo_select_rule_name(p.rule), (double)p.delta, (long long)p.splits,
                p.compensate ? " compensated" : "", p.thresholds ? " thresholds" : "", p.merged_out.data ? " merged" : "");
    const kc_outcome outcome = kc_run(pair, KC_decode_fused, &p, octavo_decode_fused_workspace(&p));
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare(pair, &c, &p);
}
