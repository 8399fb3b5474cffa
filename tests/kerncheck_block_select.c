/* kerncheck_block_select.c - the decision of every unit, worked out here once more, free only where float32 cannot tell. */
#include "budget.h"
#include "kerncheck.h"

enum { BINS = 256, ROWS_MAX = 256, EITHER = 3 };

static const double AGAINST_US = 1e-5; /* CERTIFIED counts what it drops this much heavier */

/* The units of one kv head of one sequence. */
typedef struct head_of {
    const kc_decode *c;
    const octavo_block_select_params *p;
    const uint8_t *first; /* [units] the mask before the call (REFINE) */
    int64_t b, head, length;
    double whole[ROWS_MAX], tolerance[ROWS_MAX]; /* log of each row's mass, and how well float32 knows it */
} head_of;

static double value(const head_of *of, const float *array, int64_t row, int64_t unit)
{
    return (double)array[((of->b * of->c->view.kv_heads + of->head) * of->c->rows + row) * of->c->units + unit];
}

static octavo_unit_view seen(const head_of *of, int64_t unit)
{
    return octavo_unit_seen(&of->c->view, of->length, of->c->q_tokens, of->p->window, of->p->sink_tokens, unit);
}

static int may_drop(const head_of *of, int64_t unit)
{
    return seen(of, unit) == OCTAVO_UNIT_WHOLE &&
           !octavo_unit_fixed(&of->c->view, of->length, unit, of->p->keep_first_blocks, of->p->keep_last_blocks) &&
           !(of->first && of->first[unit] == OCTAVO_UNIT_DROPPED);
}

static double sink_of(const head_of *of, int64_t row)
{
    return of->p->sink_logits ? (double)of->p->sink_logits[of->head * of->c->group + row / of->c->q_tokens] : -INFINITY;
}

static void weigh_rows(head_of *of, const float *masses)
{
    for (int64_t row = 0; row < of->c->rows; row++) {
        double whole = sink_of(of, row), most = 0.0;
        for (int64_t u = 0; u < of->c->units; u++) {
            if (seen(of, u) == OCTAVO_UNIT_INVISIBLE) continue;
            const double mass = value(of, masses, row, u);
            whole = kc_log_add(whole, mass);
            if (isfinite(mass)) most = fmax(most, fabs(mass));
        }
        of->whole[row] = whole, of->tolerance[row] = budget_log_sum((double)of->c->units, 0.0, most);
    }
}

/* The grid's bin of a mass, give or take the rounding of the row's whole: low <= bin <= high. */
static void bin_of(const head_of *of, int64_t row, double log_mass, int *low, int *high)
{
    const double at = 8.0 * (of->whole[row] - log_mass), off = 8.0 * (of->tolerance[row] + 4.0 * BUDGET_U * fabs(log_mass));
    *low = (int)fmax(0.0, fmin(floor(at - off), BINS - 1.0)), *high = (int)fmax(0.0, fmin(floor(at + off), BINS - 1.0));
}

/* ---- MASS ---- */

/* Marks what one row says about each unit: dropped, kept, or either; `say` starts as DROPPED for candidates. */
static void row_of_mass(const head_of *of, int64_t row, uint8_t *say)
{
    double most[BINS + 1] = { 0.0 }, least[BINS + 1] = { 0.0 };
    const double slack = budget_gamma((double)of->c->units + BUDGET_SLACK) + 2.0 * of->tolerance[row], epsilon = (double)of->p->epsilon;
    if (isinf(of->whole[row])) return;
    for (int64_t u = 0; u < of->c->units; u++) {
        if (!may_drop(of, u)) continue;
        int low, high;
        bin_of(of, row, value(of, of->p->log_mass, row, u), &low, &high);
        const double share = exp(value(of, of->p->log_mass, row, u) - of->whole[row]);
        most[high] += share, least[low] += share;
    }
    int careful = BINS, bold = BINS; /* the first bin to go, as late and as early as float32 may put it */
    double gone = 0.0;
    while (careful > 0 && (gone + most[careful - 1]) * (1.0 + slack) <= epsilon) gone += most[--careful];
    gone = 0.0;
    while (bold > 0 && (gone + least[bold - 1]) * (1.0 - slack) <= epsilon) gone += least[--bold];
    for (int64_t u = 0; u < of->c->units; u++) {
        if (!may_drop(of, u)) continue;
        int low, high;
        bin_of(of, row, value(of, of->p->log_mass, row, u), &low, &high);
        if (high < bold) say[u] = OCTAVO_UNIT_KEPT;
        else if (low < careful && say[u] == OCTAVO_UNIT_DROPPED) say[u] = EITHER;
    }
}

/* ---- DELTA ---- */

static void row_of_delta(const head_of *of, int64_t row, uint8_t *say)
{
    const octavo_block_select_params *p = of->p;
    const octavo_kv_view *view = &of->c->view;
    const int64_t per_block = view->block_tokens / view->sub_block_tokens, newest = octavo_newest_block(view, of->length);
    const int64_t first = octavo_first_visible_block(view, of->length, p->q_tokens, p->window, p->sink_tokens);
    double threshold = -INFINITY;
    for (int64_t u = 0; u < of->c->units; u++)
        if (seen(of, u) != OCTAVO_UNIT_INVISIBLE && (u / per_block == first || u / per_block == newest))
            threshold = fmax(threshold, value(of, p->unit_max, row, u));
    if (p->thresholds) threshold = (double)p->thresholds[of->b * p->q_heads + of->head * of->c->group + row / p->q_tokens];
    const double least = threshold - (double)p->delta, margin = 2.0 * BUDGET_U * (fabs(threshold) + (double)p->delta);
    for (int64_t u = 0; u < of->c->units; u++) {
        const double max = value(of, p->unit_max, row, u);
        if (!may_drop(of, u) || max < least - margin) continue;
        if (max >= least + margin) say[u] = OCTAVO_UNIT_KEPT;
        else if (say[u] == OCTAVO_UNIT_DROPPED) say[u] = EITHER;
    }
}

/* ---- CERTIFIED ---- */

/* From the lightest bin to the heaviest, units of a bin in their order: each goes if every row's bound still holds afterwards. What
 * went before is taken from the mask under test, so that one decision that float32 cannot tell does not hide the next. */
typedef struct greedy {
    const head_of *of;
    const uint8_t *kept;                /* [units] under test                          */
    double *upper, *lower;              /* [rows, units] shares of each row's whole    */
    int *low, *high;                    /* [units] bins; -1: no candidate              */
    double gone[ROWS_MAX], left[ROWS_MAX];
} greedy;

static void bin_of_unit(const head_of *of, int64_t unit, int *low, int *high)
{
    *low = *high = BINS - 1;
    for (int64_t row = 0; row < of->c->rows; row++) {
        int l, h;
        if (isinf(of->whole[row])) continue;
        bin_of(of, row, value(of, of->p->log_upper, row, unit), &l, &h);
        *low = l < *low ? l : *low, *high = h < *high ? h : *high;
    }
}

static void start(greedy *g, const head_of *of, const uint8_t *kept)
{
    const int64_t units = of->c->units, cells = of->c->rows * units;
    *g = (greedy){ .of = of, .kept = kept, .upper = kc_scratch(cells * 8), .lower = kc_scratch(cells * 8),
                   .low = kc_scratch(units * (int64_t)sizeof(int)), .high = kc_scratch(units * (int64_t)sizeof(int)) };
    for (int64_t row = 0; row < of->c->rows; row++) {
        g->left[row] = exp(sink_of(of, row) - of->whole[row]);
        for (int64_t u = 0; u < units && !isinf(of->whole[row]); u++) {
            const double upper = g->upper[row * units + u] = exp(value(of, of->p->log_upper, row, u) - of->whole[row]);
            const double lower = g->lower[row * units + u] = exp(value(of, of->p->log_lower, row, u) - of->whole[row]);
            if (seen(of, u) == OCTAVO_UNIT_INVISIBLE) continue;
            if (of->first && of->first[u] == OCTAVO_UNIT_DROPPED) g->gone[row] += upper;
            else g->left[row] += lower;
        }
    }
    for (int64_t u = 0; u < units; u++) {
        g->low[u] = g->high[u] = -1;
        if (may_drop(of, u)) bin_of_unit(of, u, &g->low[u], &g->high[u]);
    }
}

/* What the rows say to dropping `unit` after the units before it: DROPPED, KEPT, or EITHER. */
static int judge(const greedy *g, int64_t unit)
{
    const head_of *of = g->of;
    const int64_t units = of->c->units;
    int say = OCTAVO_UNIT_DROPPED;
    if (g->low[unit] != g->high[unit]) return EITHER;
    for (int64_t row = 0; row < of->c->rows; row++) {
        if (isinf(of->whole[row])) continue;
        const double upper = g->upper[row * units + unit], lower = g->lower[row * units + unit], epsilon = (double)of->p->epsilon;
        const double off = AGAINST_US + 4.0 * (budget_gamma((double)units + BUDGET_SLACK) + of->tolerance[row]);
        double least = g->gone[row] + upper, most = least, left = g->left[row] - lower, left_least = left;
        for (int64_t v = 0; v < units; v++) { /* those of which float32 cannot tell the bin are not in the running sums */
            if (g->low[v] == g->high[v] || g->high[v] < g->low[unit] || g->kept[v] != OCTAVO_UNIT_DROPPED) continue;
            const int sure = g->low[v] > g->low[unit];
            most += g->upper[row * units + v], left_least -= g->lower[row * units + v];
            if (sure) least += g->upper[row * units + v], left -= g->lower[row * units + v];
        }
        if (least * (1.0 - off) > epsilon * (least * (1.0 - off) + left)) return OCTAVO_UNIT_KEPT;
        if (most * (1.0 + off) > epsilon * (most * (1.0 + off) + left_least)) say = EITHER;
    }
    return say;
}

static void decide_certified(const head_of *of, const uint8_t *kept, uint8_t *say)
{
    const int64_t units = of->c->units;
    greedy g;
    start(&g, of, kept);
    for (int bin = BINS - 1; bin >= 0; bin--)
        for (int64_t u = 0; u < units; u++) {
            if (g.low[u] != bin) continue;
            say[u] = (uint8_t)judge(&g, u);
            if (kept[u] != OCTAVO_UNIT_DROPPED || g.low[u] != g.high[u]) continue;
            for (int64_t row = 0; row < of->c->rows; row++)
                g.gone[row] += g.upper[row * units + u], g.left[row] -= g.lower[row * units + u];
        }
}

/* The promise itself, on the mask that was chosen: no float32 excuses. */
static int check_promise(const head_of *of, const uint8_t *kept)
{
    for (int64_t row = 0; row < of->c->rows; row++) {
        double dropped = 0.0, stays = exp(sink_of(of, row) - of->whole[row]), before = 0.0;
        if (isinf(of->whole[row])) continue;
        for (int64_t u = 0; u < of->c->units; u++) {
            if (kept[u] == OCTAVO_UNIT_DROPPED) dropped += exp(value(of, of->p->log_upper, row, u) - of->whole[row]);
            if (kept[u] == OCTAVO_UNIT_KEPT) stays += exp(value(of, of->p->log_lower, row, u) - of->whole[row]);
            if (of->first && of->first[u] == OCTAVO_UNIT_DROPPED) before = 1.0;
        }
        /* a first decision that these random masks did not earn cannot be taken back */
        if (before == 0.0 && dropped > (double)of->p->epsilon * (dropped + stays))
            return kc_fail("row %lld of kv head %lld may lose %.9g of its mass, epsilon is %.9g", (long long)row, (long long)of->head,
                           dropped / (dropped + stays), (double)of->p->epsilon);
    }
    return 1;
}

/* ---- the whole ---- */

static int check_head(head_of *of, const uint8_t *kept)
{
    uint8_t *say = kc_scratch(of->c->units);
    for (int64_t u = 0; u < of->c->units; u++)
        say[u] = may_drop(of, u) ? OCTAVO_UNIT_DROPPED : seen(of, u) == OCTAVO_UNIT_INVISIBLE ? OCTAVO_UNIT_UNSEEN : OCTAVO_UNIT_KEPT;
    for (int64_t u = 0; u < of->c->units && of->first; u++)
        if (of->first[u] == OCTAVO_UNIT_DROPPED) say[u] = OCTAVO_UNIT_DROPPED;
    if (of->p->rule == OCTAVO_SELECT_MASS) weigh_rows(of, of->p->log_mass);
    if (of->p->rule == OCTAVO_SELECT_CERTIFIED) weigh_rows(of, of->p->log_lower), decide_certified(of, kept, say);
    for (int64_t row = 0; row < of->c->rows; row++) {
        if (of->p->rule == OCTAVO_SELECT_MASS) row_of_mass(of, row, say);
        if (of->p->rule == OCTAVO_SELECT_DELTA) row_of_delta(of, row, say);
    }
    for (int64_t u = 0; u < of->c->units; u++) {
        if (kept[u] == say[u] || (say[u] == EITHER && (kept[u] == OCTAVO_UNIT_KEPT || kept[u] == OCTAVO_UNIT_DROPPED))) continue;
        return kc_fail("kept of unit %lld of kv head %lld of sequence %lld is %d, expected %d", (long long)u, (long long)of->head,
                       (long long)of->b, kept[u], say[u]);
    }
    return of->p->rule != OCTAVO_SELECT_CERTIFIED || check_promise(of, kept);
}

static int compare(const kc_decode *c, const octavo_block_select_params *p, const uint8_t *first)
{
    const uint8_t *reference = kc_want(p->kept);
    head_of of = { .c = c, .p = p };
    for (of.b = 0; of.b < c->view.batch; of.b++)
        for (of.head = 0; of.head < c->view.kv_heads; of.head++) {
            const int64_t at = (of.b * c->view.kv_heads + of.head) * c->units;
            of.length = kc_length(c, of.b);
            of.first = first ? first + at : NULL;
            if (!check_head(&of, reference + at)) return kc_fail("... and that is the reference");
            if (!check_head(&of, p->kept + at)) return 0;
        }
    kc_accept(p->kept, (size_t)octavo_unit_elements(&c->view));
    return kc_finish();
}

/* Units' masses, alike in all rows but for noise: a flat floor and some that stand out. -inf where a row sees nothing. */
static void draw_masses(const kc_decode *c, octavo_block_select_params *p)
{
    static const double spreads[] = { 0.0, 0.2, 1.0, 4.0, 30.0 };
    const int64_t cells = octavo_row_elements(&c->in) * c->units;
    float *arrays[4]; /* unit_max, log_mass, log_upper, log_lower */
    static const char *const names[] = { "unit_max", "log_mass", "log_upper", "log_lower" };
    for (int i = 0; i < 4; i++) arrays[i] = kc_array(names[i], OCTAVO_F32, cells);
    const double spread = KC_PICK(spreads), noise = KC_PICK(spreads) * 0.3, level = kc_uniform(-50.0, 50.0), width = kc_uniform(0.0, 0.5);
    double *common = kc_scratch(c->units * (int64_t)sizeof *common);
    for (int64_t i = 0; i < cells; i++) {
        const int64_t u = i % c->units, flat = i / c->units, b = flat / c->rows / c->view.kv_heads;
        if (flat % c->rows == 0) common[u] = level + spread * (double)kc_normal() + (kc_chance(5) ? 8.0 : 0.0);
        const octavo_span span = kc_span(c, b, flat % c->rows);
        const int sees = octavo_span_count(&span, u * c->view.sub_block_tokens, (u + 1) * c->view.sub_block_tokens) > 0;
        const double mass = sees ? common[u] + noise * (double)kc_normal() : -INFINITY, off = width * kc_uniform(0.0, 1.0);
        arrays[0][i] = (float)(mass - kc_uniform(0.0, 2.0)), arrays[1][i] = (float)mass;
        arrays[2][i] = (float)(mass + off), arrays[3][i] = (float)(mass - off);
    }
    if (p->rule == OCTAVO_SELECT_DELTA) p->unit_max = arrays[0];
    if (p->rule != OCTAVO_SELECT_DELTA) p->log_mass = arrays[1];
    if (p->rule == OCTAVO_SELECT_CERTIFIED) p->log_upper = arrays[2], p->log_lower = arrays[3];
}

int kc_check_block_select(const kc_pair *pair)
{
    static const octavo_select_rule rules[] = { OCTAVO_SELECT_DELTA, OCTAVO_SELECT_MASS, OCTAVO_SELECT_CERTIFIED };
    kc_decode c;
    kc_draw_decode(&c, pair, KC_BARE);
    octavo_block_select_params p = { .kv = &c.view, .q_heads = c.q_heads, .q_tokens = c.q_tokens, .window = c.in.window,
                                     .sink_tokens = c.in.sink_tokens, .rule = pair->bench ? OCTAVO_SELECT_MASS : KC_PICK(rules) };
    c.in.q.shape[0] = c.view.batch, c.in.q.shape[1] = c.q_tokens, c.in.q.shape[2] = c.q_heads;
    p.epsilon = kc_chance(30) ? 0.1f : (float)exp2(kc_uniform(-12.0, -0.1));
    p.delta = kc_chance(20) ? 0.0f : (float)kc_uniform(0.0, 6.0);
    p.keep_first_blocks = kc_chance(40) ? (int32_t)kc_between(0, 3) : 0;
    p.keep_last_blocks = kc_chance(40) ? (int32_t)kc_between(0, 3) : 0;
    draw_masses(&c, &p);
    if (kc_chance(40)) {
        float *sinks = kc_array("sink_logits", OCTAVO_F32, c.q_heads);
        for (int64_t i = 0; i < c.q_heads; i++) sinks[i] = (float)kc_uniform(-60.0, 60.0);
        p.sink_logits = sinks;
    }
    if (p.rule == OCTAVO_SELECT_DELTA && kc_chance(40)) {
        float *thresholds = kc_array("thresholds", OCTAVO_F32, c.view.batch * c.q_heads);
        for (int64_t i = 0; i < c.view.batch * c.q_heads; i++) thresholds[i] = (float)kc_uniform(-50.0, 50.0);
        p.thresholds = thresholds;
    }
    p.kept = kc_array("kept", OCTAVO_UINT8, octavo_unit_elements(&c.view));
    uint8_t *first = NULL;
    if (p.rule == OCTAVO_SELECT_CERTIFIED && kc_chance(40)) {
        p.stage = OCTAVO_STAGE_REFINE, p.keep_first_blocks = p.keep_last_blocks = 0;
        kc_draw_mask(&c, p.kept, (int)kc_between(0, 30));
        first = kc_scratch(octavo_unit_elements(&c.view));
        for (int64_t i = 0; i < octavo_unit_elements(&c.view); i++) first[i] = p.kept[i];
    }
    kc_describe(" rule=%s stage=%d epsilon=%g delta=%g keep=%d,%d%s%s", octavo_select_rule_name(p.rule), (int)p.stage, (double)p.epsilon,
                (double)p.delta, p.keep_first_blocks, p.keep_last_blocks, p.sink_logits ? " sinks" : "", p.thresholds ? " thresholds" : "");
    const kc_outcome outcome = kc_run(pair, KC_block_select, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare(&c, &p, first);
}
