/* block_select_ref.c - the definition of the three rules that drop units. */
#include "ref/decode_ref.h"
#include "ref/install_ref.h"

enum { BINS = 256, BINS_A_NAT = 8 };
static const double AGAINST_US = 1e-5; /* covers the float32 rounding of the sums in every level */

/* The units of one kv head of one sequence, and how each row weighs them. */
typedef struct head_units {
    const octavo_block_select_params *p;
    int64_t b, head, units, rows, group, length;
    uint8_t *kept; /* [units] */
} head_units;

static double sink_of(const head_units *of, int64_t row)
{
    if (!of->p->sink_logits) return -INFINITY;
    return (double)of->p->sink_logits[of->head * of->group + row / of->p->q_tokens];
}

static double value(const head_units *of, const float *array, int64_t row, int64_t unit)
{
    return (double)array[((of->b * of->p->kv->kv_heads + of->head) * of->rows + row) * of->units + unit];
}

static octavo_unit_view seen(const head_units *of, int64_t unit)
{
    return octavo_unit_seen(of->p->kv, of->length, of->p->q_tokens, of->p->window, of->p->sink_tokens, unit);
}

/* A unit that a rule may drop: seen whole by every query token, not fixed, and not dropped by an earlier stage. */
static int is_candidate(const head_units *of, int64_t unit)
{
    return seen(of, unit) == OCTAVO_UNIT_WHOLE &&
           !octavo_unit_fixed(of->p->kv, of->length, unit, of->p->keep_first_blocks, of->p->keep_last_blocks);
}

/* log of the row's whole mass: every visible unit, and the sink. */
static double log_total(const head_units *of, const float *masses, int64_t row)
{
    double total = sink_of(of, row);
    for (int64_t unit = 0; unit < of->units; unit++)
        if (of->kept[unit] != OCTAVO_UNIT_UNSEEN) total = octavo_ref_log_add(total, value(of, masses, row, unit));
    return total;
}

/* How light a unit is on the grid of 1/8 nat, against a whole of `log_whole`; 0 is the heaviest. */
static int bin_of(double log_mass, double log_whole)
{
    const double bin = floor(BINS_A_NAT * (log_whole - log_mass));
    return bin >= 0.0 ? bin < BINS ? (int)bin : BINS - 1 : isnan(bin) ? BINS - 1 : 0;
}

/* MASS: units from this bin on may go, as far as this row is concerned. */
static int mass_from_bin(const head_units *of, int64_t row, double log_whole)
{
    double mass[BINS] = { 0.0 }, dropped = 0.0;
    for (int64_t unit = 0; unit < of->units; unit++)
        if (is_candidate(of, unit)) {
            const double log_mass = value(of, of->p->log_mass, row, unit);
            mass[bin_of(log_mass, log_whole)] += exp(log_mass - log_whole);
        }
    int from = BINS;
    while (from > 0 && dropped + mass[from - 1] <= (double)of->p->epsilon) dropped += mass[--from];
    return from;
}

static void row_keeps_by_mass(const head_units *of, int64_t row)
{
    const double log_whole = log_total(of, of->p->log_mass, row);
    if (isinf(log_whole)) return; /* sees nothing: agrees to everything */
    const int from = mass_from_bin(of, row, log_whole);
    for (int64_t unit = 0; unit < of->units; unit++)
        if (is_candidate(of, unit) && bin_of(value(of, of->p->log_mass, row, unit), log_whole) < from)
            of->kept[unit] = OCTAVO_UNIT_KEPT;
}

/* DELTA: the given threshold, or the largest base score in the first visible block and in the newest. */
static double threshold_of(const head_units *of, int64_t row)
{
    const octavo_block_select_params *p = of->p;
    if (p->thresholds) return (double)p->thresholds[of->b * p->q_heads + of->head * of->group + row / p->q_tokens];
    const int64_t per_block = p->kv->block_tokens / p->kv->sub_block_tokens;
    const int64_t first = octavo_first_visible_block(p->kv, of->length, p->q_tokens, p->window, p->sink_tokens);
    const int64_t newest = octavo_newest_block(p->kv, of->length);
    double threshold = -INFINITY;
    for (int64_t unit = 0; unit < of->units; unit++)
        if (of->kept[unit] != OCTAVO_UNIT_UNSEEN && (unit / per_block == first || unit / per_block == newest))
            threshold = fmax(threshold, value(of, p->unit_max, row, unit));
    return threshold;
}

static void row_keeps_by_delta(const head_units *of, int64_t row)
{
    const double least = threshold_of(of, row) - (double)of->p->delta;
    for (int64_t unit = 0; unit < of->units; unit++) {
        const double max = value(of, of->p->unit_max, row, unit);
        if (is_candidate(of, unit) && max >= least && !isinf(max)) of->kept[unit] = OCTAVO_UNIT_KEPT;
    }
}

/* CERTIFIED: the bin of a unit is that of the row for which it may weigh most. */
static int certified_bin(const head_units *of, const double *log_whole, int64_t unit)
{
    int heaviest = BINS - 1;
    for (int64_t row = 0; row < of->rows; row++) {
        if (isinf(log_whole[row])) continue;
        const int bin = bin_of(value(of, of->p->log_upper, row, unit), log_whole[row]);
        if (bin < heaviest) heaviest = bin;
    }
    return heaviest;
}

/* Shares of each row's mass: at most what was dropped, at least what is left. */
typedef struct certified_rows {
    double log_whole[OCTAVO_MAX_ROWS], dropped[OCTAVO_MAX_ROWS], left[OCTAVO_MAX_ROWS];
} certified_rows;

static void certified_start(const head_units *of, certified_rows *rows)
{
    for (int64_t row = 0; row < of->rows; row++) {
        const double log_whole = rows->log_whole[row] = log_total(of, of->p->log_lower, row);
        rows->dropped[row] = 0.0;
        rows->left[row] = isinf(log_whole) ? 0.0 : exp(sink_of(of, row) - log_whole);
        for (int64_t unit = 0; unit < of->units && !isinf(log_whole); unit++) {
            if (of->kept[unit] == OCTAVO_UNIT_DROPPED) rows->dropped[row] += exp(value(of, of->p->log_upper, row, unit) - log_whole);
            if (of->kept[unit] == OCTAVO_UNIT_KEPT) rows->left[row] += exp(value(of, of->p->log_lower, row, unit) - log_whole);
        }
    }
}

/* Drops the unit if every row's bound still holds afterwards. */
static void certified_try(const head_units *of, certified_rows *rows, int64_t unit)
{
    for (int pass = 0; pass < 2; pass++) /* first look, then leap */
        for (int64_t row = 0; row < of->rows; row++) {
            if (isinf(rows->log_whole[row])) continue;
            const double upper = exp(value(of, of->p->log_upper, row, unit) - rows->log_whole[row]);
            const double lower = exp(value(of, of->p->log_lower, row, unit) - rows->log_whole[row]);
            const double dropped = (rows->dropped[row] + upper) * (1.0 + AGAINST_US), left = rows->left[row] - lower;
            /* dropped <= epsilon * (dropped + left), written so that an infinite bound fails it */
            if (pass == 0 && (1.0 - (double)of->p->epsilon) * dropped > (double)of->p->epsilon * left) return;
            if (pass == 1) rows->dropped[row] += upper, rows->left[row] = left;
        }
    of->kept[unit] = OCTAVO_UNIT_DROPPED;
}

static void select_certified(const head_units *of)
{
    certified_rows rows;
    certified_start(of, &rows);
    for (int bin = BINS - 1; bin >= 0; bin--)
        for (int64_t unit = 0; unit < of->units; unit++)
            if (of->kept[unit] == OCTAVO_UNIT_KEPT && is_candidate(of, unit) && certified_bin(of, rows.log_whole, unit) == bin)
                certified_try(of, &rows, unit);
}

/* MASS and DELTA: a unit goes only where no row of the group keeps it. */
static void select_by_rows(const head_units *of, void (*row_keeps)(const head_units *, int64_t row))
{
    for (int64_t unit = 0; unit < of->units; unit++)
        if (is_candidate(of, unit)) of->kept[unit] = OCTAVO_UNIT_DROPPED;
    for (int64_t row = 0; row < of->rows; row++) row_keeps(of, row);
}

static void select_head(const head_units *of)
{
    if (of->p->stage == OCTAVO_STAGE_FIRST)
        for (int64_t unit = 0; unit < of->units; unit++)
            of->kept[unit] = seen(of, unit) == OCTAVO_UNIT_INVISIBLE ? OCTAVO_UNIT_UNSEEN : OCTAVO_UNIT_KEPT;
    switch (of->p->rule) {
    case OCTAVO_SELECT_DELTA:     select_by_rows(of, row_keeps_by_delta); break;
    case OCTAVO_SELECT_MASS:      select_by_rows(of, row_keeps_by_mass); break;
    case OCTAVO_SELECT_CERTIFIED: select_certified(of); break;
    case OCTAVO_SELECT_NONE:
    case OCTAVO_SELECT_BASE:      break; /* everything visible stays */
    }
}

octavo_status octavo_block_select_ref(const octavo_exec *exec, const octavo_block_select_params *p)
{
    (void)exec;
    const octavo_kv_view *kv = p->kv;
    const int64_t units = octavo_view_units(kv), group = p->q_heads / kv->kv_heads;
    for (int64_t b = 0; b < kv->batch; b++)
        for (int64_t head = 0; head < kv->kv_heads; head++) {
            const head_units of = { .p = p, .b = b, .head = head, .units = units, .rows = group * p->q_tokens, .group = group,
                                    .length = kv->lengths[octavo_view_row(kv, b)],
                                    .kept = p->kept + (b * kv->kv_heads + head) * units };
            select_head(&of);
        }
    return OCTAVO_OK;
}
