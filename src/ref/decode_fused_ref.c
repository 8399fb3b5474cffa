/* decode_fused_ref.c - the definition of the one-pass rules: decide by base scores, then attend. */
#include "ref/decode_ref.h"
#include "ref/install_ref.h"

/* Largest base score of a unit that a row sees; -inf where it sees nothing. */
static double unit_max(const octavo_decode_input *in, int64_t b, int64_t head, int64_t row, int64_t unit)
{
    const octavo_span span = octavo_ref_span(in, b, row);
    double max = -INFINITY;
    for (int64_t t = unit * in->kv->sub_block_tokens; t < (unit + 1) * in->kv->sub_block_tokens; t++)
        if (octavo_span_sees(&span, t)) max = fmax(max, octavo_ref_cap(in, octavo_ref_score(in, 1, b, head, row, t)));
    return max;
}

/* The given threshold, or the largest base score in the first visible block and in the newest. */
static double threshold_of(const octavo_decode_fused_params *p, int64_t b, int64_t head, int64_t row)
{
    const octavo_kv_view *kv = p->in.kv;
    const int64_t q_tokens = p->in.q.shape[1], length = kv->lengths[octavo_view_row(kv, b)];
    if (p->thresholds) return (double)p->thresholds[b * p->in.q.shape[2] + head * octavo_ref_group(&p->in) + row / q_tokens];
    const int64_t per_block = kv->block_tokens / kv->sub_block_tokens, units = octavo_view_units(kv);
    const int64_t blocks[2] = { octavo_first_visible_block(kv, length, q_tokens, p->in.window, p->in.sink_tokens),
                                octavo_newest_block(kv, length) };
    double threshold = -INFINITY;
    for (int side = 0; side < 2 && blocks[side] >= 0; side++)
        for (int64_t unit = blocks[side] * per_block; unit < (blocks[side] + 1) * per_block && unit < units; unit++)
            threshold = fmax(threshold, unit_max(&p->in, b, head, row, unit));
    return threshold;
}

static void decide(const octavo_decode_fused_params *p, int64_t b, int64_t head)
{
    const octavo_kv_view *kv = p->in.kv;
    const int64_t units = octavo_view_units(kv), rows = octavo_ref_rows(&p->in), q_tokens = p->in.q.shape[1];
    const int64_t length = kv->lengths[octavo_view_row(kv, b)];
    uint8_t *kept = p->kept + (b * kv->kv_heads + head) * units;
    double least[OCTAVO_MAX_ROWS];
    for (int64_t row = 0; row < rows && p->rule == OCTAVO_SELECT_DELTA; row++)
        least[row] = threshold_of(p, b, head, row) - (double)p->delta;
    for (int64_t unit = 0; unit < units; unit++) {
        const octavo_unit_view seen = octavo_unit_seen(kv, length, q_tokens, p->in.window, p->in.sink_tokens, unit);
        kept[unit] = seen == OCTAVO_UNIT_INVISIBLE ? OCTAVO_UNIT_UNSEEN : OCTAVO_UNIT_KEPT;
        if (p->rule != OCTAVO_SELECT_DELTA || seen != OCTAVO_UNIT_WHOLE ||
            octavo_unit_fixed(kv, length, unit, p->keep_first_blocks, p->keep_last_blocks))
            continue;
        int keep = 0;
        for (int64_t row = 0; row < rows && !keep; row++) keep = unit_max(&p->in, b, head, row, unit) >= least[row];
        if (!keep) kept[unit] = OCTAVO_UNIT_DROPPED;
    }
}

octavo_status octavo_decode_fused_ref(const octavo_exec *exec, const octavo_decode_fused_params *p)
{
    for (int64_t b = 0; b < p->in.kv->batch && p->kept; b++)
        for (int64_t head = 0; head < p->in.kv->kv_heads; head++) decide(p, b, head);
    octavo_block_attend_params attend = { .in = p->in, .kept = p->kept, .compensate = p->compensate, .splits = p->splits,
                                          .split_units = p->split_units, .part_out = p->part_out, .part_lse = p->part_lse,
                                          .part_kept = p->part_kept, .part_dropped = p->part_dropped };
    if (p->rule == OCTAVO_SELECT_BASE) attend.in.planes = 1;
    return octavo_block_attend_ref(exec, &attend);
}
