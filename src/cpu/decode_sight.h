/* decode_sight.h - how the query tokens of one sequence see its units, without going through them for every unit. */
#ifndef OCTAVO_CPU_DECODE_SIGHT_H
#define OCTAVO_CPU_DECODE_SIGHT_H

#include "kernel/visibility.h"

typedef struct octavo_decode_sight {
    octavo_span any, whole; /* tokens that some query token sees, and that all do */
    int64_t unit_tokens;
} octavo_decode_sight;

static inline octavo_decode_sight octavo_decode_sight_of(const octavo_kv_view *kv, int64_t length, int64_t q_tokens,
                                                         int64_t window, int64_t sink_tokens)
{
    const octavo_span last = octavo_visible_span(length, q_tokens, q_tokens - 1, window, sink_tokens);
    octavo_span first = last; /* the oldest query token that exists sees furthest back */
    for (int64_t i = 0; i < q_tokens; i++) {
        first = octavo_visible_span(length, q_tokens, i, window, sink_tokens);
        if (first.end > 0) break;
    }
    octavo_decode_sight sight = { .unit_tokens = kv->sub_block_tokens };
    sight.any = (octavo_span){ last.sink_end < first.near_begin ? last.sink_end : first.near_begin, first.near_begin, last.end };
    sight.whole = last; /* the newest has the shortest past, the oldest the nearest end */
    sight.whole.end = octavo_visible_span(length, q_tokens, 0, window, sink_tokens).end;
    if (sight.whole.sink_end > sight.whole.end) sight.whole.sink_end = sight.whole.end;
    return sight;
}

/* The same as octavo_unit_seen. */
static inline octavo_unit_view octavo_decode_sees(const octavo_decode_sight *sight, int64_t unit)
{
    const int64_t begin = unit * sight->unit_tokens, end = begin + sight->unit_tokens;
    if (octavo_span_count(&sight->any, begin, end) == 0) return OCTAVO_UNIT_INVISIBLE;
    return octavo_span_count(&sight->whole, begin, end) == sight->unit_tokens ? OCTAVO_UNIT_WHOLE : OCTAVO_UNIT_PARTLY;
}

#endif
