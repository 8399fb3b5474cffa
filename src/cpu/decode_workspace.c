/* decode_workspace.c - the scratch memory of the decode operations, the same for every level. */
#include "cpu/decode_tiles.h"

/* A span's K and V, where FP8 rounds them. */
static int64_t codes_bytes(const octavo_decode_input *in)
{
    const octavo_kv_view *kv = in->kv;
    const int64_t k = octavo_decode_rounds_k(in->precision, kv->k_format) ? kv->head_dim : 0;
    return DECODE_TOKENS * (k + (octavo_decode_rounds_v(in->precision, kv->v_format) ? kv->v_dim : 0));
}

static octavo_decode_layout layout_of(const octavo_decode_input *in, int64_t tasks, int64_t task_floats, int64_t head_floats)
{
    const octavo_kv_view *kv = in->kv;
    const int64_t rows = in->q.shape[1] * in->q.shape[2] / kv->kv_heads;
    const int64_t row_floats = octavo_decode_row_floats(kv->k_format, kv->head_dim);
    octavo_decode_layout layout = { .heads = kv->batch * kv->kv_heads, .tasks = tasks };
    layout.q_bytes = octavo_round_up(rows * row_floats * 4, DECODE_PAD);
    layout.packed_bytes = octavo_round_up(octavo_decode_packed_bytes(rows, row_floats), DECODE_PAD);
    layout.codes_at = octavo_round_up(task_floats, DECODE_PAD);
    layout.task_floats = layout.codes_at + octavo_round_up(codes_bytes(in), 4 * DECODE_PAD) / 4;
    layout.head_floats = octavo_round_up(head_floats, DECODE_PAD);
    layout.total_bytes = layout.heads * (layout.q_bytes + layout.packed_bytes + 4 * layout.head_floats) +
                         4 * layout.tasks * layout.task_floats + DECODE_PAD;
    return layout;
}

static int64_t padded_rows(const octavo_decode_input *in)
{
    return octavo_round_up(in->q.shape[1] * in->q.shape[2] / in->kv->kv_heads, DECODE_ROWS);
}

octavo_decode_layout octavo_decode_layout_score(const octavo_block_score_params *p)
{
    const octavo_kv_view *kv = p->in.kv;
    const int64_t each = octavo_decode_score_units(kv);
    const int64_t tasks = kv->batch * kv->kv_heads * ((octavo_view_units(kv) + each - 1) / each);
    return layout_of(&p->in, tasks, SCORE_STATES * padded_rows(&p->in), 0);
}

octavo_decode_layout octavo_decode_layout_attend(const octavo_block_attend_params *p)
{
    return layout_of(&p->in, p->in.kv->batch * p->in.kv->kv_heads * p->splits, ATTEND_STATES * padded_rows(&p->in), 0);
}

/* DELTA keeps the log masses of a split's dropped units and the thresholds of each head. */
octavo_decode_layout octavo_decode_layout_fused(const octavo_decode_fused_params *p)
{
    const int64_t rows = padded_rows(&p->in), each = octavo_split_units_of(p->in.kv, p->splits, p->split_units);
    const int64_t logs = p->rule == OCTAVO_SELECT_DELTA ? rows * each : 0;
    return layout_of(&p->in, p->in.kv->batch * p->in.kv->kv_heads * p->splits, (ATTEND_STATES + SCORE_STATES) * rows + logs,
                     p->rule == OCTAVO_SELECT_DELTA ? rows : 0);
}

size_t octavo_block_score_workspace(const octavo_block_score_params *p)
{
    return (size_t)octavo_decode_layout_score(p).total_bytes;
}

size_t octavo_block_attend_workspace(const octavo_block_attend_params *p)
{
    return (size_t)octavo_decode_layout_attend(p).total_bytes;
}

/* On a GPU, DELTA holds the largest score and the mass of every unit, and what its scan counts by. */
size_t octavo_decode_fused_workspace(const octavo_decode_fused_params *p)
{
    const int64_t cpu = octavo_decode_layout_fused(p).total_bytes, heads = p->in.kv->batch * p->in.kv->kv_heads;
    const int64_t cuda = p->rule == OCTAVO_SELECT_DELTA ? 8 * octavo_row_elements(&p->in) * octavo_view_units(p->in.kv) + (heads + 1) * DECODE_PAD : 0;
    return (size_t)(cpu > cuda ? cpu : cuda);
}
