/* visibility.h - which tokens a query sees, which units a call touches, and which of them no rule may drop. */
#ifndef OCTAVO_KERNEL_VISIBILITY_H
#define OCTAVO_KERNEL_VISIBILITY_H

#include "kernel/planes.h"

/* A query at position p sees [0, min(sink_end, near_begin)) and [near_begin, end); both may be empty. */
typedef struct octavo_span {
    int64_t sink_end, near_begin, end;
} octavo_span;

/* What query token i of q_tokens sees of a sequence of `length` tokens; a position before the first token sees nothing. */
OCTAVO_KERNEL_INLINE octavo_span octavo_visible_span(int64_t length, int64_t q_tokens, int64_t i, int64_t window, int64_t sink_tokens)
{
    const int64_t end = length - q_tokens + i + 1;
    octavo_span span = { 0, 0, end > 0 ? end : 0 };
    if (window > 0 && span.end > window) {
        span.near_begin = span.end - window;
        span.sink_end = sink_tokens < span.near_begin ? sink_tokens : span.near_begin;
    }
    return span;
}

OCTAVO_KERNEL_INLINE int octavo_span_sees(const octavo_span *span, int64_t token)
{
    return token < span->end && (token >= span->near_begin || token < span->sink_end);
}

/* Tokens of [begin, end) that the span sees. */
OCTAVO_KERNEL_INLINE int64_t octavo_span_count(const octavo_span *span, int64_t begin, int64_t end)
{
    const int64_t sink = (span->sink_end < end ? span->sink_end : end) - begin;
    const int64_t from = span->near_begin > begin ? span->near_begin : begin;
    const int64_t near_ = (span->end < end ? span->end : end) - from;
    return (sink > 0 ? sink : 0) + (near_ > 0 ? near_ : 0);
}

typedef enum octavo_unit_view {
    OCTAVO_UNIT_INVISIBLE = 0, /* no query token sees any of it                        */
    OCTAVO_UNIT_PARTLY    = 1, /* neither: always kept                                 */
    OCTAVO_UNIT_WHOLE     = 2  /* every query token sees all of it                     */
} octavo_unit_view;

/* How the query tokens of one call see a unit. */
OCTAVO_KERNEL_INLINE octavo_unit_view octavo_unit_seen(const octavo_kv_view *view, int64_t length, int64_t q_tokens, int64_t window,
                                                       int64_t sink_tokens, int64_t unit)
{
    const int64_t begin = unit * view->sub_block_tokens, end = begin + view->sub_block_tokens;
    int64_t seen = 0;
    for (int64_t i = 0; i < q_tokens; i++) {
        const octavo_span span = octavo_visible_span(length, q_tokens, i, window, sink_tokens);
        seen += octavo_span_count(&span, begin, end);
    }
    return seen == 0 ? OCTAVO_UNIT_INVISIBLE : seen == q_tokens * view->sub_block_tokens ? OCTAVO_UNIT_WHOLE : OCTAVO_UNIT_PARTLY;
}

/* Tokens of a unit that at least one query token sees: what a kernel has to read of it. */
OCTAVO_KERNEL_INLINE int64_t octavo_unit_tokens_seen(const octavo_kv_view *view, int64_t length, int64_t q_tokens, int64_t window,
                                                     int64_t sink_tokens, int64_t unit)
{
    const int64_t begin = unit * view->sub_block_tokens, end = begin + view->sub_block_tokens;
    const octavo_span last = octavo_visible_span(length, q_tokens, q_tokens - 1, window, sink_tokens);
    octavo_span first = last; /* the oldest query token that exists sees furthest back */
    for (int64_t i = 0; i < q_tokens; i++) {
        first = octavo_visible_span(length, q_tokens, i, window, sink_tokens);
        if (first.end > 0) break;
    }
    const octavo_span all = { last.sink_end < first.near_begin ? last.sink_end : first.near_begin, first.near_begin, last.end };
    return octavo_span_count(&all, begin, end);
}

/* First block that any query token sees, and the block of the newest token; -1 where nothing is seen. */
OCTAVO_KERNEL_INLINE int64_t octavo_newest_block(const octavo_kv_view *view, int64_t length)
{
    return length > 0 ? (length - 1) / view->block_tokens : -1;
}
OCTAVO_KERNEL_INLINE int64_t octavo_first_visible_block(const octavo_kv_view *view, int64_t length, int64_t q_tokens, int64_t window,
                                                        int64_t sink_tokens)
{
    if (length <= 0) return -1;
    if (sink_tokens > 0) return 0;
    for (int64_t i = 0; i < q_tokens; i++) {
        const octavo_span span = octavo_visible_span(length, q_tokens, i, window, 0);
        if (span.end > 0) return span.near_begin / view->block_tokens;
    }
    return -1;
}

/* 1: no rule may drop this unit, although it is wholly visible: a first or last block, or the newest token's. */
OCTAVO_KERNEL_INLINE int octavo_unit_fixed(const octavo_kv_view *view, int64_t length, int64_t unit, int64_t keep_first_blocks,
                                           int64_t keep_last_blocks)
{
    const int64_t block = unit * view->sub_block_tokens / view->block_tokens, newest = octavo_newest_block(view, length);
    return block >= newest || block < keep_first_blocks || block > newest - keep_last_blocks;
}

#endif
