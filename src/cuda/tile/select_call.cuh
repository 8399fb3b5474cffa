/* select_call.cuh - what the selections share: a kv head's view of its units, and what a unit is before a rule decides. */
#ifndef OCTAVO_CUDA_TILE_SELECT_CALL_CUH
#define OCTAVO_CUDA_TILE_SELECT_CALL_CUH

#include "cuda/tile/decode_call.cuh"

enum { BINS = 256, BINS_A_NAT = 8 };
enum { FIXED = 1, CANDIDATE = 2, GONE = 3 }; /* beside OCTAVO_UNIT_UNSEEN: what a unit is before the rule decides */

struct select_call {
    octavo_block_select_params p;
    octavo_kv_view kv;
    int64_t rows, units;
    int rows_cached; /* rows whose shares fit in one block's shared memory at a time */
};

static inline select_call select_call_of(const octavo_block_select_params *p)
{
    return { *p, *p->kv, p->q_heads / p->kv->kv_heads * p->q_tokens, octavo_view_units(p->kv), 0 };
}

/* One kv head of one sequence. */
struct select_head {
    int64_t b, head, group, length, first_block, newest_block;
    int64_t whole_from, whole_to;     /* tokens that every query token sees, whatever the sinks */
    int held_below, held_from;        /* blocks that no rule may drop: below the one, from the other on */
};

static __device__ __forceinline__ select_head select_head_of(const select_call &c, int group)
{
    const octavo_kv_view *kv = &c.kv;
    select_head h = { group / kv->kv_heads, group % kv->kv_heads, group, 0, 0, 0, 0, 0, 0, 0 };
    h.length = sequence_length(kv, h.b);
    h.first_block = octavo_first_visible_block(kv, h.length, c.p.q_tokens, c.p.window, c.p.sink_tokens);
    h.newest_block = octavo_newest_block(kv, h.length);
    h.whole_from = octavo_visible_span(h.length, c.p.q_tokens, c.p.q_tokens - 1, c.p.window, 0).near_begin;
    h.whole_to = octavo_visible_span(h.length, c.p.q_tokens, 0, c.p.window, 0).end;
    const int64_t last = h.newest_block - c.p.keep_last_blocks + 1; /* as octavo_unit_fixed has it */
    h.held_below = c.p.keep_first_blocks, h.held_from = (int)(last < h.newest_block ? last : h.newest_block);
    return h;
}

static __device__ __forceinline__ float value_of(const select_call &c, const select_head &h, const float *array, int64_t row, int64_t unit)
{
    return array[(h.group * c.rows + row) * c.units + unit];
}

static __device__ __forceinline__ float sink_of(const select_call &c, const select_head &h, int64_t row)
{
    if (!c.p.sink_logits) return NOTHING;
    return c.p.sink_logits[h.head * (c.p.q_heads / c.kv.kv_heads) + row / c.p.q_tokens];
}

static __device__ uint8_t state_before(const select_call &c, const select_head &h, int64_t unit)
{
    const int64_t begin = unit * (int64_t)c.kv.sub_block_tokens, end = begin + c.kv.sub_block_tokens;
    const octavo_unit_view seen = begin >= h.whole_from && end <= h.whole_to ? OCTAVO_UNIT_WHOLE
                                  : begin >= h.length ? OCTAVO_UNIT_INVISIBLE
                                  : octavo_unit_seen(&c.kv, h.length, c.p.q_tokens, c.p.window, c.p.sink_tokens, unit);
    if (c.p.stage == OCTAVO_STAGE_REFINE) {
        const uint8_t kept = c.p.kept[h.group * c.units + unit];
        if (kept != OCTAVO_UNIT_KEPT) return kept == OCTAVO_UNIT_DROPPED ? GONE : OCTAVO_UNIT_UNSEEN;
    } else if (seen == OCTAVO_UNIT_INVISIBLE) {
        return OCTAVO_UNIT_UNSEEN;
    }
    const int block = (int)unit / (c.kv.block_tokens / c.kv.sub_block_tokens);
    return seen == OCTAVO_UNIT_WHOLE && block >= h.held_below && block < h.held_from ? CANDIDATE : FIXED;
}

#endif
