/* attend_walk_body.h - the way through the units that a task attends, which block_attend and decode_fused share. After a
 * simd_<isa>.h. */
#ifndef OCTAVO_CPU_ATTEND_WALK_BODY_H
#define OCTAVO_CPU_ATTEND_WALK_BODY_H

#include "cpu/body/attend_span_body.h"

/* A task's units, of one or several splits, and where it is among them. */
typedef struct attend_walk {
    const decode_head *of;
    const uint8_t *kept;              /* [units]; NULL: every visible one             */
    const float *given;               /* as attend_span's                             */
    const attend_state *states;       /* of each split                                */
    int64_t begin, end, split_units;  /* units of all splits together, and of each    */
    int32_t planes;
    octavo_decode_dot *dot;           /* of as many planes                            */
    octavo_decode_attend *together;   /* whole units one after the other; NULL: nobody does that */
    int more;                         /* there is a span to come: */
    octavo_decode_span span;
    octavo_decode_ahead ahead;
} attend_walk;

/* How the level attends whole units together, or NULL. */
static octavo_decode_attend *attend_together_of(const decode_plan *plan, int32_t planes)
{
    if (!plan->tiles->attend || plan->in->soft_cap > 0.0f || plan->rounds_k || plan->rounds_v) return NULL;
    return plan->tiles->attend(plan->kv, planes, plan->rows, plan_q_dtype(plan));
}

/* The first span of the first kept unit from `unit` on. */
static int attend_first(const attend_walk *walk, int64_t unit, octavo_decode_span *first)
{
    const decode_head *of = walk->of;
    for (; unit < walk->end && unit * of->plan->kv->sub_block_tokens < of->sight.any.end; unit++)
        if ((!walk->kept || walk->kept[unit] == OCTAVO_UNIT_KEPT) && span_of_unit(of, unit, first)) return 1;
    return 0;
}

/* The unit that the walk is at. */
static int64_t attend_unit(const attend_walk *walk) { return walk->span.token / walk->of->plan->kv->sub_block_tokens; }

static const attend_state *attend_state_at(const attend_walk *walk)
{
    return &walk->states[(attend_unit(walk) - walk->begin) / walk->split_units];
}

/* The span after the walk's: of its unit, or of the next kept one. */
static int attend_next(const attend_walk *walk, octavo_decode_span *next)
{
    const int64_t unit = attend_unit(walk), end = (unit + 1) * walk->of->plan->kv->sub_block_tokens;
    if (span_next(walk->of, walk->span.token + walk->span.tokens, end, next)) return 1;
    return attend_first(walk, unit + 1, next);
}

static int attend_is_whole(const attend_walk *walk) { return head_sees(walk->of, attend_unit(walk)) == OCTAVO_UNIT_WHOLE; }

static octavo_decode_unit attend_unit_of(const attend_walk *walk, const octavo_decode_span *span, const attend_state *state)
{
    const octavo_kv_view *kv = walk->of->plan->kv;
    octavo_decode_unit unit = { .v = span->v, .k_scale = span_section(walk->of, span, &kv->k_scale),
                                .v_scale = span_section(walk->of, span, &kv->v_scale),
                                .max = state->max, .sum = state->sum, .out = state->out };
    memcpy(unit.k, span->k, sizeof unit.k);
    return unit;
}

/* What follows the task's last span: most likely the same thread goes on with it. */
static int attend_beyond(const attend_walk *walk, octavo_decode_span *next)
{
    attend_walk beyond = *walk;
    beyond.end = walk->of->plan->units;
    return attend_next(&beyond, next);
}

/* As many whole spans as follow one another, DECODE_UNITS at most. */
static void attend_run(attend_walk *walk)
{
    const decode_plan *plan = walk->of->plan;
    octavo_decode_unit units[DECODE_UNITS + 1];
    octavo_decode_span next;
    octavo_decode_pass pass = { .units = units, .rows = plan->rows, .v_stride = plan->kv->v.token_bytes,
                                .out_stride = walk->states->out_stride, .softmax_scale = plan->in->softmax_scale };
    for (int32_t plane = 0; plane < walk->planes; plane++) pass.k_stride[plane] = plan->kv->k[plane].token_bytes;
    while (walk->more && pass.count < DECODE_UNITS && walk->span.tokens == DECODE_TOKENS && attend_is_whole(walk)) {
        units[pass.count++] = attend_unit_of(walk, &walk->span, attend_state_at(walk));
        walk->more = attend_next(walk, &next);
        if (walk->more || attend_beyond(walk, &next)) walk->span = next;
    }
    units[pass.count] = attend_unit_of(walk, &walk->span, walk->states);
    walk->together(&walk->of->q, &pass);
}

static void attend_one(attend_walk *walk)
{
    octavo_decode_span next;
    walk->more = attend_next(walk, &next);
    ahead_of(walk->of, walk->more ? &next : NULL, walk->given ? 0 : walk->planes, 1, &walk->ahead);
    walk->span.ahead = &walk->ahead;
    attend_span(walk->of, walk->dot, &walk->span, attend_is_whole(walk), walk->given, attend_state_at(walk));
    if (walk->more) walk->span = next;
}

/* Adds all kept units to the sums of their splits. */
static void attend_all(attend_walk *walk)
{
    walk->more = attend_first(walk, walk->begin, &walk->span);
    if (walk->more) fetch_first(walk->of, &walk->span, walk->given ? 0 : walk->planes, 1);
    while (walk->more) {
        if (walk->together && walk->span.tokens == DECODE_TOKENS && attend_is_whole(walk)) attend_run(walk);
        else attend_one(walk);
    }
}

#endif
