/* kerncheck_block_score.c - units' largest scores, masses and bounds against the reference, and the bounds against the true keys. */
#include "budget.h"
#include "format/ue4m4.h"
#include "kerncheck.h"

/* One row of one unit. */
typedef struct cell {
    const kc_decode *c;
    const octavo_block_score_params *p;
    int64_t b, head, row, unit, index; /* index into [batch, kv_heads, rows, units] */
    const double *score, *error, *truth; /* [max_tokens] of this row; truth NULL without bounds */
    double q_norm;
} cell;

/* How much two bounds of one token may differ beside the score's own budget: each may allow for twice what the header says float32
 * rounds, and computes its allowance in float32. */
static double bound_error(const cell *of, int64_t token)
{
    const octavo_kv_view *view = &of->c->view;
    const int64_t row = octavo_view_row(view, of->b), page = octavo_view_page(view, row, token / view->block_tokens);
    const uint8_t *code = octavo_section_at(&view->k_norm, row, page, of->head, token % view->block_tokens);
    const double left_out = (double)octavo_k_error_bound(view, of->p->in.planes, *code);
    const double rounding = (double)octavo_k_rounding_bound(view->k_format, view->head_dim);
    return (double)of->c->in.softmax_scale * of->q_norm * kc_k_factor(view, of->b, of->head, token) *
           (2.0 * rounding + left_out * budget_gamma((double)view->head_dim + 2 * BUDGET_SLACK));
}

static int check_bounds(const cell *of, double truth, double error, double bounds_error, double tokens)
{
    const octavo_block_score_params *p = of->p;
    const double upper = (double)p->log_upper[of->index], lower = (double)p->log_lower[of->index];
    if (tokens == 0.0 && (upper != -INFINITY || lower != -INFINITY))
        return kc_fail("bounds [%lld] of what is not seen are %.9g, %.9g, expected -inf", (long long)of->index, lower, upper);
    const double slack = tokens > 0.0 ? 1e-12 * (1.0 + fabs(truth)) : 0.0; /* of our own float64 */
    if (!(upper >= truth - slack))
        return kc_fail("log_upper[%lld] is %.9g, below the true mass %.9g", (long long)of->index, upper, truth);
    if (!(lower <= truth + slack))
        return kc_fail("log_lower[%lld] is %.9g, above the true mass %.9g", (long long)of->index, lower, truth);
    const double sub = (double)of->c->view.sub_block_tokens; /* a bound may allow for a whole unit's sum */
    const double budget = 2.0 * budget_log_sum(sub, error + bounds_error, upper);
    return kc_close("log_upper", p->log_upper, of->index, budget) && kc_close("log_lower", p->log_lower, of->index, budget);
}

static int check_cell(const cell *of)
{
    const octavo_block_score_params *p = of->p;
    const int64_t sub = of->c->view.sub_block_tokens, tokens_end = of->c->view.max_tokens;
    const octavo_span span = kc_span(of->c, of->b, of->row);
    double error = 0.0, bounds_error = 0.0, mass = -INFINITY, truth = -INFINITY, tokens = 0.0;
    for (int64_t t = of->unit * sub; t < (of->unit + 1) * sub && t < tokens_end; t++) {
        const int64_t at = of->index / of->c->units * tokens_end + t;
        if (!octavo_span_sees(&span, t)) { /* the score of what is not seen is nobody's business */
            if (p->scores) kc_accept(&p->scores[at], sizeof *p->scores);
            continue;
        }
        tokens += 1.0, error = fmax(error, of->error[t]), mass = kc_log_add(mass, of->score[t]);
        if (of->truth) truth = kc_log_add(truth, of->truth[t]), bounds_error = fmax(bounds_error, bound_error(of, t));
        if (p->scores && !kc_close("scores", p->scores, at, of->error[t] + BUDGET_U * fabs(of->score[t]))) return 0;
    }
    const double value = (double)p->log_mass[of->index], budget = budget_log_sum(tokens, error, value);
    const double wanted = (double)*(const float *)kc_want(&p->log_mass[of->index]);
    if (wanted != mass && !(fabs(wanted - mass) <= budget))
        return kc_fail("log_mass[%lld] of the reference is %.9g, by definition %.9g", (long long)of->index, wanted, mass);
    if (!kc_close("log_mass", p->log_mass, of->index, budget)) return 0;
    if (p->unit_max && !kc_close("unit_max", p->unit_max, of->index, error + BUDGET_U * fabs((double)p->unit_max[of->index]))) return 0;
    if (!p->log_upper) return 1;
    return check_bounds(of, truth, error, bounds_error, tokens);
}

static double norm_of_q(const kc_decode *c, int64_t b, int64_t head, int64_t row)
{
    const int64_t q = kc_q_row(&c->in.q, c->group, b, head, row);
    double sum = 0.0;
    for (int64_t i = 0; i < c->view.head_dim; i++) {
        const double x = kc_load(c->in.q.dtype, c->in.q.data, q + i);
        sum += x * x;
    }
    return sqrt(sum);
}

static int compare(const kc_decode *c, const octavo_block_score_params *p)
{
    const kc_scores scores = kc_score_all(c, p->in.planes, p->log_upper ? KC_SCAN_EXACT_Q : KC_SCAN_QUANTISED);
    const double *truth = p->log_upper ? kc_true_scores(c) : NULL;
    for (int64_t b = 0; b < c->view.batch; b++)
        for (int64_t head = 0; head < c->view.kv_heads; head++)
            for (int64_t row = 0; row < c->rows; row++) {
                const int64_t group = b * c->view.kv_heads + head, flat = group * c->rows + row, tokens = flat * c->view.max_tokens;
                cell of = { .c = c, .p = p, .b = b, .head = head, .row = row, .score = scores.score + tokens,
                            .error = scores.error + tokens, .truth = truth ? truth + tokens : NULL,
                            .q_norm = truth ? norm_of_q(c, b, head, row) : 0.0 };
                for (of.unit = 0; of.unit < c->units; of.unit++) {
                    if (p->only && p->only[group * c->units + of.unit] != OCTAVO_UNIT_KEPT) continue; /* has to be untouched */
                    of.index = flat * c->units + of.unit;
                    if (!check_cell(&of)) return 0;
                }
            }
    return kc_finish();
}

int kc_check_block_score(const kc_pair *pair)
{
    kc_decode c;
    const int plain = pair->bench || kc_chance(40); /* as a scan asks, and levels answer by a way of its own */
    const int bounds = !plain && kc_chance(50);
    kc_draw_decode(&c, pair, bounds ? KC_NORMS : KC_STREAMS);
    if (!bounds) c.in.precision = kc_draw_precision(pair);
    octavo_block_score_params p = { .in = c.in };
    p.in.planes = plain ? 1 : (int32_t)kc_between(1, c.in.planes);
    const int64_t cells = octavo_row_elements(&c.in) * c.units;
    p.log_mass = kc_array("log_mass", OCTAVO_F32, cells);
    if (kc_chance(60)) p.unit_max = kc_array("unit_max", OCTAVO_F32, cells);
    if (bounds) p.log_upper = kc_array("log_upper", OCTAVO_F32, cells), p.log_lower = kc_array("log_lower", OCTAVO_F32, cells);
    if (!plain && kc_chance(60))
        p.scores = kc_array("scores", OCTAVO_F32, octavo_row_elements(&c.in) * c.view.max_tokens);
    if (!plain && kc_chance(45)) {
        uint8_t *only = kc_array("only", OCTAVO_UINT8, octavo_unit_elements(&c.view));
        kc_draw_mask(&c, only, 40);
        p.only = only;
    }
    kc_describe(" planes=%d%s%s%s", p.in.planes, p.scores ? " scores" : "", bounds ? " bounds" : "", p.only ? " only" : "");
    const kc_outcome outcome = kc_run(pair, KC_block_score, &p, octavo_block_score_workspace(&p));
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare(&c, &p);
}
