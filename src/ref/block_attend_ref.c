/* block_attend_ref.c - the definition of attention over the units that were kept, and of compensation. */
#include "ref/decode_ref.h"
#include "ref/install_ref.h"

/* One row of one split. */
typedef struct attend_row {
    const octavo_block_attend_params *p;
    int64_t b, head, row, rows, units;
    octavo_span span;
} attend_row;

static int state_of(const attend_row *of, int64_t unit)
{
    const int64_t group = of->b * of->p->in.kv->kv_heads + of->head;
    return of->p->kept ? of->p->kept[group * of->units + unit] : OCTAVO_UNIT_KEPT;
}

static double unit_value(const attend_row *of, const float *array, int64_t unit)
{
    const int64_t group = of->b * of->p->in.kv->kv_heads + of->head;
    return (double)array[(group * of->rows + of->row) * of->units + unit];
}

static double token_score(const attend_row *of, int64_t token)
{
    const octavo_decode_input *in = &of->p->in;
    const int64_t group = of->b * in->kv->kv_heads + of->head;
    if (of->p->scores) return (double)of->p->scores[(group * of->rows + of->row) * in->kv->max_tokens + token];
    return octavo_ref_cap(in, octavo_ref_score(in, in->planes, of->b, of->head, of->row, token));
}

/* log of a dropped unit's mass: as given, or from the base plane. */
static double unit_log_mass(const attend_row *of, int64_t unit)
{
    const octavo_decode_input *in = &of->p->in;
    if (of->p->log_mass) return unit_value(of, of->p->log_mass, unit);
    double log = -INFINITY;
    for (int64_t t = unit * in->kv->sub_block_tokens; t < (unit + 1) * in->kv->sub_block_tokens; t++)
        if (octavo_span_sees(&of->span, t))
            log = octavo_ref_log_add(log, octavo_ref_cap(in, octavo_ref_score(in, 1, of->b, of->head, of->row, t)));
    return log;
}

typedef struct log_masses {
    double kept, dropped, bound; /* exact scores; log_mass; log_upper */
} log_masses;

static log_masses masses_of(const attend_row *of, int64_t begin, int64_t end)
{
    const octavo_kv_view *kv = of->p->in.kv;
    log_masses log = { -INFINITY, -INFINITY, -INFINITY };
    for (int64_t unit = begin; unit < end; unit++) {
        const int state = state_of(of, unit);
        if (state == OCTAVO_UNIT_KEPT)
            for (int64_t t = unit * kv->sub_block_tokens; t < (unit + 1) * kv->sub_block_tokens; t++)
                if (octavo_span_sees(&of->span, t)) log.kept = octavo_ref_log_add(log.kept, token_score(of, t));
        if (state != OCTAVO_UNIT_DROPPED) continue;
        log.dropped = octavo_ref_log_add(log.dropped, unit_log_mass(of, unit));
        if (of->p->log_upper) log.bound = octavo_ref_log_add(log.bound, unit_value(of, of->p->log_upper, unit));
    }
    return log;
}

enum { CHUNK = 256 };

/* Elements [from, from + count) of the output, in double. */
static void output_chunk(const attend_row *of, int64_t begin, int64_t end, double log_whole, int64_t from, int64_t count, double *out)
{
    const octavo_kv_view *kv = of->p->in.kv;
    for (int64_t i = 0; i < count; i++) out[i] = 0.0;
    for (int64_t unit = begin; unit < end; unit++) {
        const int state = state_of(of, unit);
        if (state == OCTAVO_UNIT_DROPPED && of->p->compensate == OCTAVO_COMPENSATE_MEAN) {
            const double weight = exp(unit_log_mass(of, unit) - log_whole);
            for (int64_t i = 0; i < count; i++) out[i] += weight * octavo_ref_v_mean(kv, of->b, of->head, unit, from + i);
        }
        if (state != OCTAVO_UNIT_KEPT) continue;
        for (int64_t t = unit * kv->sub_block_tokens; t < (unit + 1) * kv->sub_block_tokens; t++) {
            if (!octavo_span_sees(&of->span, t)) continue;
            const octavo_ref_token at = octavo_ref_find(kv, of->b, of->head, t);
            const double weight = exp(token_score(of, t) - log_whole);
            const int32_t p = octavo_ref_v_exponent(&of->p->in, &at);
            for (int64_t i = 0; i < count; i++)
                out[i] += weight * octavo_ref_rounded(octavo_ref_v_stored(kv, &at, from + i), p) * octavo_ref_v_channel(kv, of->head, from + i);
        }
    }
}

static void attend_split(const attend_row *of, int64_t split)
{
    const octavo_block_attend_params *p = of->p;
    const octavo_kv_view *kv = p->in.kv;
    const int64_t each = octavo_split_units_of(kv, p->splits, p->split_units), begin = split * each, last = begin + each;
    const int64_t end = last < of->units ? last : of->units;
    const log_masses log = masses_of(of, begin, end);
    const double log_whole = p->compensate == OCTAVO_COMPENSATE_MEAN ? octavo_ref_log_add(log.kept, log.dropped) : log.kept;
    const int64_t at = ((of->b * kv->kv_heads + of->head) * of->rows + of->row) * p->splits + split;
    for (int64_t from = 0; from < kv->v_dim; from += CHUNK) {
        const int64_t count = kv->v_dim - from < CHUNK ? kv->v_dim - from : CHUNK;
        double out[CHUNK] = { 0.0 };
        if (!isinf(log_whole)) output_chunk(of, begin, end, log_whole, from, count, out);
        for (int64_t i = 0; i < count; i++) p->part_out[at * kv->v_dim + from + i] = (float)out[i];
    }
    p->part_lse[at] = (float)log_whole;
    if (p->part_kept) p->part_kept[at] = (float)log.kept;
    if (p->part_dropped) p->part_dropped[at] = (float)(p->log_upper ? log.bound : log.dropped);
}

octavo_status octavo_block_attend_ref(const octavo_exec *exec, const octavo_block_attend_params *p)
{
    (void)exec;
    const octavo_kv_view *kv = p->in.kv;
    for (int64_t b = 0; b < kv->batch; b++)
        for (int64_t head = 0; head < kv->kv_heads; head++)
            for (int64_t row = 0; row < octavo_ref_rows(&p->in); row++)
                for (int64_t split = 0; split < p->splits; split++) {
                    const attend_row of = { p, b, head, row, octavo_ref_rows(&p->in), octavo_view_units(kv),
                                            octavo_ref_span(&p->in, b, row) };
                    attend_split(&of, split);
                }
    return OCTAVO_OK;
}
