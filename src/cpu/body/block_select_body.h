/* block_select_body.h - which units are read, by their masses on a grid of 1/8 nat. After a simd_<isa>.h. */
#include "base/parallel.h"
#include "cpu/body/decode_math_body.h"
#include "cpu/decode_sight.h"
#include "kernel/kernels.h"

octavo_status SIMD(block_select)(const octavo_exec *exec, const octavo_block_select_params *p);

enum {
    SELECT_BINS = 256,
    SELECT_BINS_A_NAT = 8,
    SELECT_BLOCK = 64,          /* units that are handled together         */
    SELECT_SUMS = 4,            /* that a bin's mass is kept in: neighbours often meet in a bin, and would wait for one another */
    SELECT_BIN_LAST = 254,      /* CERTIFIED keeps a candidate's bin in `kept` meanwhile, */
    SELECT_DROPPED_BEFORE = 255 /* and this for what an earlier stage dropped: the two lightest bins, 31 nats down, are one */
};

/* Covers the float32 rounding of the sums in every level. */
#define SELECT_AGAINST_US 1e-5

typedef struct select_head {
    const octavo_block_select_params *p;
    int64_t b, head, units, rows, group, length;
    octavo_decode_sight sight;
    int64_t seen_end; /* without a window: units before it are seen, the others are not; with one: 0 */
    uint8_t *kept;    /* [units] */
} select_head;

static float select_sink(const select_head *of, int64_t row)
{
    if (!of->p->sink_logits) return -INFINITY;
    return of->p->sink_logits[of->head * of->group + row / of->p->q_tokens];
}

static const float *select_values(const select_head *of, const float *array, int64_t row)
{
    return array + ((of->b * of->p->kv->kv_heads + of->head) * of->rows + row) * of->units;
}

static int select_may_drop(const select_head *of, int64_t unit)
{
    return !octavo_unit_fixed(of->p->kv, of->length, unit, of->p->keep_first_blocks, of->p->keep_last_blocks) &&
           octavo_decode_sees(&of->sight, unit) == OCTAVO_UNIT_WHOLE;
}

/* `count` values from `unit` on of units whose state is not UNSEEN, -inf for the others and behind the end; [SELECT_BLOCK]. */
static void select_load(const select_head *of, const float *values, int64_t unit, float *out)
{
    const int64_t left = of->units - unit, count = left < SELECT_BLOCK ? left : SELECT_BLOCK;
    if (unit + SELECT_BLOCK <= of->seen_end) {
        memcpy(out, values + unit, SELECT_BLOCK * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < SELECT_BLOCK; i++)
        out[i] = i < count && of->kept[unit + i] != OCTAVO_UNIT_UNSEEN ? values[unit + i] : -INFINITY;
}

/* log of a row's whole mass: every visible unit, and the sink. `unseen` units have no mass. */
static float select_log_total(const select_head *of, const float *values, float sink)
{
    float block[SELECT_BLOCK], max = sink;
    for (int64_t unit = 0; unit < of->units; unit += SELECT_BLOCK) {
        select_load(of, values, unit, block);
        vf32 m = v_load(block);
        for (int64_t i = SIMD_F32; i < SELECT_BLOCK; i += SIMD_F32) m = v_max(m, v_load(block + i));
        const float largest = v_hmax(m);
        max = largest > max ? largest : max;
    }
    if (max == -INFINITY) return max;
    double sum = exp((double)(sink - max));
    for (int64_t unit = 0; unit < of->units; unit += SELECT_BLOCK) {
        select_load(of, values, unit, block);
        vf32 s = v_zero();
        for (int64_t i = 0; i < SELECT_BLOCK; i += SIMD_F32) s = v_add(s, v_exp(v_sub(v_load(block + i), v_splat(max))));
        sum += (double)v_hsum(s);
    }
    return max + (float)log(sum);
}

/* How light units are against `log_whole`, as whole numbers 0 .. 255; -inf is 255. */
static inline vf32 select_bins(vf32 log_mass, float log_whole)
{
    const vf32 bins = v_floor(v_mul(v_sub(v_splat(log_whole), log_mass), v_splat((float)SELECT_BINS_A_NAT)));
    return v_min(v_max(bins, v_zero()), v_splat((float)(SELECT_BINS - 1)));
}

/* ---- MASS and DELTA: a unit goes only where no row of the group keeps it. ---- */

static void select_mark_candidates(const select_head *of)
{
    const octavo_block_select_params *p = of->p;
    const int64_t per_block = p->kv->block_tokens / p->kv->sub_block_tokens, newest = octavo_newest_block(p->kv, of->length);
    const int64_t last = p->keep_last_blocks > 1 ? newest - p->keep_last_blocks + 1 : newest, end = last * per_block;
    for (int64_t unit = p->keep_first_blocks * per_block; unit < end && unit < of->units; unit++)
        if (octavo_decode_sees(&of->sight, unit) == OCTAVO_UNIT_WHOLE) of->kept[unit] = OCTAVO_UNIT_DROPPED;
}

/* Units from this bin on may go, as far as this row is concerned. */
static int mass_from_bin(const select_head *of, const float *log_mass, float log_whole)
{
    double mass[SELECT_SUMS][SELECT_BINS] = { { 0.0 } }, dropped = 0.0;
    float block[SELECT_BLOCK], bins[SELECT_BLOCK];
    for (int64_t unit = 0; unit < of->units; unit += SELECT_BLOCK) {
        const int64_t left = of->units - unit, count = left < SELECT_BLOCK ? left : SELECT_BLOCK;
        select_load(of, log_mass, unit, block);
        for (int64_t i = 0; i < SELECT_BLOCK; i += SIMD_F32) {
            const vf32 x = v_load(block + i);
            v_store(bins + i, select_bins(x, log_whole));
            v_store(block + i, v_exp(v_sub(x, v_splat(log_whole))));
        }
        for (int64_t i = 0; i < count; i++)
            if (of->kept[unit + i] == OCTAVO_UNIT_DROPPED) mass[i % SELECT_SUMS][(int)bins[i]] += (double)block[i];
    }
    for (int from = SELECT_BINS; from > 0; from--) {
        for (int i = 0; i < SELECT_SUMS; i++) dropped += mass[i][from - 1];
        if (!(dropped <= (double)of->p->epsilon)) return from;
    }
    return 0;
}

/* Every row's bin first, then what some row keeps. A row that sees nothing agrees to everything. */
static void select_mass(const select_head *of)
{
    float log_whole[OCTAVO_MAX_ROWS], from[OCTAVO_MAX_ROWS], block[SELECT_BLOCK], keep[SELECT_BLOCK];
    for (int64_t row = 0; row < of->rows; row++) {
        const float *log_mass = select_values(of, of->p->log_mass, row);
        log_whole[row] = select_log_total(of, log_mass, select_sink(of, row));
        from[row] = log_whole[row] == -INFINITY ? 0.0f : (float)mass_from_bin(of, log_mass, log_whole[row]);
    }
    for (int64_t unit = 0; unit < of->units; unit += SELECT_BLOCK) {
        const int64_t left = of->units - unit, count = left < SELECT_BLOCK ? left : SELECT_BLOCK;
        memset(keep, 0, sizeof keep);
        for (int64_t row = 0; row < of->rows; row++) {
            if (from[row] == 0.0f) continue;
            select_load(of, select_values(of, of->p->log_mass, row), unit, block);
            for (int64_t i = 0; i < SELECT_BLOCK; i += SIMD_F32)
                v_store(keep + i, v_if_less(select_bins(v_load(block + i), log_whole[row]), v_splat(from[row]), v_splat(1.0f),
                                            v_load(keep + i)));
        }
        for (int64_t i = 0; i < count; i++)
            if (of->kept[unit + i] == OCTAVO_UNIT_DROPPED && keep[i] > 0.0f) of->kept[unit + i] = OCTAVO_UNIT_KEPT;
    }
}

/* The given threshold, or the largest base score in the first visible block and in the newest. */
static float delta_threshold(const select_head *of, const float *unit_max, int64_t row)
{
    const octavo_block_select_params *p = of->p;
    if (p->thresholds) return p->thresholds[of->b * p->q_heads + of->head * of->group + row / p->q_tokens];
    const int64_t per_block = p->kv->block_tokens / p->kv->sub_block_tokens;
    const int64_t blocks[2] = {
        octavo_first_visible_block(p->kv, of->length, p->q_tokens, p->window, p->sink_tokens),
        octavo_newest_block(p->kv, of->length),
    };
    float threshold = -INFINITY;
    for (int side = 0; side < 2 && blocks[side] >= 0; side++)
        for (int64_t unit = blocks[side] * per_block; unit < (blocks[side] + 1) * per_block && unit < of->units; unit++)
            if (of->kept[unit] != OCTAVO_UNIT_UNSEEN && unit_max[unit] > threshold) threshold = unit_max[unit];
    return threshold;
}

static void delta_row_keeps(const select_head *of, int64_t row)
{
    const float *unit_max = select_values(of, of->p->unit_max, row);
    const float least = delta_threshold(of, unit_max, row) - of->p->delta;
    for (int64_t unit = 0; unit < of->units; unit++)
        if (of->kept[unit] == OCTAVO_UNIT_DROPPED && unit_max[unit] >= least && unit_max[unit] > -INFINITY)
            of->kept[unit] = OCTAVO_UNIT_KEPT;
}

/* ---- CERTIFIED: one list of units for all rows, by the row for which each may weigh most. ---- */

static void certified_bins(const select_head *of, const float *log_whole)
{
    float block[SELECT_BLOCK], bins[SELECT_BLOCK];
    for (int64_t unit = 0; unit < of->units; unit += SELECT_BLOCK) {
        const int64_t left = of->units - unit, count = left < SELECT_BLOCK ? left : SELECT_BLOCK;
        for (int64_t i = 0; i < SELECT_BLOCK; i++) bins[i] = (float)SELECT_BIN_LAST;
        for (int64_t row = 0; row < of->rows; row++) {
            if (log_whole[row] == -INFINITY) continue;
            select_load(of, select_values(of, of->p->log_upper, row), unit, block);
            for (int64_t i = 0; i < SELECT_BLOCK; i += SIMD_F32)
                v_store(bins + i, v_min(v_load(bins + i), select_bins(v_load(block + i), log_whole[row])));
        }
        for (int64_t i = 0; i < count; i++)
            if (select_may_drop(of, unit + i))
                of->kept[unit + i] = of->kept[unit + i] == OCTAVO_UNIT_DROPPED ? SELECT_DROPPED_BEFORE : (uint8_t)bins[i];
    }
}

/* What a row loses and keeps when the units of a bin go, relative to its whole. */
typedef struct certified_masses {
    double upper[SELECT_BINS], lower[SELECT_BINS], dropped, left;
    uint8_t filled[SELECT_BINS];
} certified_masses;

static void certified_sum(const select_head *of, int64_t row, float log_whole, certified_masses *of_row)
{
    const float *log_upper = select_values(of, of->p->log_upper, row), *log_lower = select_values(of, of->p->log_lower, row);
    float upper[SELECT_BLOCK], lower[SELECT_BLOCK];
    for (int64_t begin = 0; begin < of->units; begin += SELECT_BLOCK) {
        const int64_t left = of->units - begin, count = left < SELECT_BLOCK ? left : SELECT_BLOCK;
        for (int64_t i = 0; i < SELECT_BLOCK; i++) upper[i] = i < count ? log_upper[begin + i] : -INFINITY;
        for (int64_t i = 0; i < SELECT_BLOCK; i++) lower[i] = i < count ? log_lower[begin + i] : -INFINITY;
        for (int64_t i = 0; i < SELECT_BLOCK; i += SIMD_F32) {
            v_store(upper + i, v_exp(v_sub(v_load(upper + i), v_splat(log_whole))));
            v_store(lower + i, v_exp(v_sub(v_load(lower + i), v_splat(log_whole))));
        }
        for (int64_t i = 0; i < count; i++) {
            const int64_t unit = begin + i;
            const uint8_t bin = of->kept[unit];
            if (!select_may_drop(of, unit)) {
                if (octavo_decode_sees(&of->sight, unit) != OCTAVO_UNIT_INVISIBLE) of_row->left += (double)lower[i];
            } else if (bin == SELECT_DROPPED_BEFORE) {
                of_row->dropped += (double)upper[i];
            } else {
                of_row->upper[bin] += (double)upper[i];
                of_row->lower[bin] += (double)lower[i];
                of_row->filled[bin] = 1;
            }
        }
    }
}

/* The lowest bin from which on everything may go while this row's share of dropped mass stays within epsilon. */
static int certified_from_bin(const select_head *of, int64_t row, float log_whole)
{
    certified_masses sums = { .left = exp((double)(select_sink(of, row) - log_whole)) };
    double kept[SELECT_BINS], dropped;
    int from = SELECT_BINS;
    certified_sum(of, row, log_whole, &sums);
    for (int bin = 0; bin < SELECT_BINS; bin++) {
        kept[bin] = sums.left;
        sums.left += sums.lower[bin];
    }
    dropped = sums.dropped;
    for (int bin = SELECT_BINS - 1; bin >= 0; bin--) {
        if (!sums.filled[bin]) continue;
        dropped += sums.upper[bin];
        const double bound = dropped * (1.0 + SELECT_AGAINST_US);
        if ((1.0 - (double)of->p->epsilon) * bound > (double)of->p->epsilon * kept[bin]) break; /* an infinite bound fails */
        from = bin;
    }
    return from;
}

/* Shares of each row's mass: at most what was dropped, at least what is left, and log of what one more unit may weigh at most. */
typedef struct certified_rows {
    float log_whole[OCTAVO_MAX_ROWS], log_slack[OCTAVO_MAX_ROWS];
    double dropped[OCTAVO_MAX_ROWS], left[OCTAVO_MAX_ROWS];
} certified_rows;

/* dropped + upper <= epsilon * (dropped + upper + left - lower) holds for no upper past this, whatever lower is. */
static void certified_slack(const select_head *of, certified_rows *rows, int64_t row)
{
    const double epsilon = (double)of->p->epsilon, room = epsilon * (rows->dropped[row] + rows->left[row]) - rows->dropped[row];
    rows->log_slack[row] = room > 0.0 ? (float)log(room / (1.0 - epsilon)) + 1e-5f : -INFINITY;
}

/* Drops the unit if every row's bound still holds afterwards. */
static void certified_try(const select_head *of, certified_rows *rows, int64_t unit)
{
    const float *log_upper = select_values(of, of->p->log_upper, 0) + unit,
                *log_lower = select_values(of, of->p->log_lower, 0) + unit;
    for (int64_t row = 0; row < of->rows; row++)
        if (log_upper[row * of->units] - rows->log_whole[row] > rows->log_slack[row]) return;
    for (int pass = 0; pass < 2; pass++) /* first look, then leap */
        for (int64_t row = 0; row < of->rows; row++) {
            if (rows->log_whole[row] == -INFINITY) continue;
            const double upper = exp((double)(log_upper[row * of->units] - rows->log_whole[row]));
            const double lower = exp((double)(log_lower[row * of->units] - rows->log_whole[row]));
            const double dropped = (rows->dropped[row] + upper) * (1.0 + SELECT_AGAINST_US), left = rows->left[row] - lower;
            if (pass == 0 && (1.0 - (double)of->p->epsilon) * dropped > (double)of->p->epsilon * left) return;
            if (pass == 0) continue;
            rows->dropped[row] += upper, rows->left[row] = left;
            certified_slack(of, rows, row);
        }
    of->kept[unit] = SELECT_DROPPED_BEFORE;
}

static void select_certified(const select_head *of)
{
    certified_rows rows;
    int from = 0;
    for (int64_t row = 0; row < of->rows; row++)
        rows.log_whole[row] = select_log_total(of, select_values(of, of->p->log_lower, row), select_sink(of, row));
    certified_bins(of, rows.log_whole);
    for (int64_t row = 0; row < of->rows; row++) {
        if (rows.log_whole[row] == -INFINITY) continue;
        const int row_from = certified_from_bin(of, row, rows.log_whole[row]);
        from = row_from > from ? row_from : from;
    }
    for (int64_t unit = 0; unit < of->units; unit++) /* bins that go whole */
        if (select_may_drop(of, unit) && of->kept[unit] >= from) of->kept[unit] = SELECT_DROPPED_BEFORE;
    for (int64_t row = 0; row < of->rows; row++) {
        certified_masses sums = { .left = exp((double)(select_sink(of, row) - rows.log_whole[row])) };
        rows.log_slack[row] = INFINITY; /* a row that sees nothing agrees to everything */
        if (rows.log_whole[row] == -INFINITY) continue;
        certified_sum(of, row, rows.log_whole[row], &sums);
        for (int bin = 0; bin < SELECT_BINS; bin++) sums.left += sums.lower[bin];
        rows.dropped[row] = sums.dropped, rows.left[row] = sums.left;
        certified_slack(of, &rows, row);
    }
    for (int bin = from > SELECT_BIN_LAST ? SELECT_BIN_LAST : from - 1; bin >= 0;
         bin--) /* then unit by unit, the lightest bin first */
        for (int64_t unit = 0; unit < of->units; unit++)
            if (of->kept[unit] == bin && select_may_drop(of, unit)) certified_try(of, &rows, unit);
    for (int64_t unit = 0; unit < of->units; unit++)
        if (select_may_drop(of, unit))
            of->kept[unit] = of->kept[unit] == SELECT_DROPPED_BEFORE ? OCTAVO_UNIT_DROPPED : OCTAVO_UNIT_KEPT;
}

typedef struct select_call {
    const octavo_block_select_params *p;
    int64_t units;
} select_call;

static void select_task(void *argument, int64_t index)
{
    const select_call *call = argument;
    const octavo_block_select_params *p = call->p;
    const octavo_kv_view *kv = p->kv;
    select_head of = { .p = p, .b = index / kv->kv_heads, .head = index % kv->kv_heads, .units = call->units };
    of.group = p->q_heads / kv->kv_heads;
    of.rows = of.group * p->q_tokens;
    of.length = kv->lengths[octavo_view_row(kv, of.b)];
    of.sight = octavo_decode_sight_of(kv, of.length, p->q_tokens, p->window, p->sink_tokens);
    of.seen_end = p->window > 0 ? 0 : (of.sight.any.end + of.sight.unit_tokens - 1) / of.sight.unit_tokens;
    of.kept = p->kept + index * of.units;
    for (int64_t unit = 0; p->stage == OCTAVO_STAGE_FIRST && unit < of.units; unit++)
        of.kept[unit] = octavo_decode_sees(&of.sight, unit) == OCTAVO_UNIT_INVISIBLE ? OCTAVO_UNIT_UNSEEN : OCTAVO_UNIT_KEPT;
    if (p->rule == OCTAVO_SELECT_CERTIFIED) {
        select_certified(&of);
        return;
    }
    select_mark_candidates(&of);
    if (p->rule == OCTAVO_SELECT_MASS) select_mass(&of);
    for (int64_t row = 0; p->rule == OCTAVO_SELECT_DELTA && row < of.rows; row++) delta_row_keeps(&of, row);
}

octavo_status SIMD(block_select)(const octavo_exec *exec, const octavo_block_select_params *p)
{
    select_call call = { p, octavo_view_units(p->kv) };
    octavo_parallel(exec, p->kv->batch * p->kv->kv_heads, select_task, &call);
    return OCTAVO_OK;
}
