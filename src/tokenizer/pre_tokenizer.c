/* pre_tokenizer.c - hands a text from step to step, piece by piece, without keeping a list of them. */
#include "tokenizer/pre_tokenizer.h"
#include "base/error.h"
#include "tokenizer/byte_chars.h"
#include "tokenizer/utf8.h"
#include <string.h>

enum { BYTE_CHAR_BYTES = 2 }; /* the longest character that stands for a byte */

typedef struct run {
    const octavo_pre_tokenizer *pre;
    octavo_pre_tokenizer_work *work;
} run;

static octavo_status run_step(const run *r, size_t index, const char *text, size_t bytes, bool first);

/* ---- splitting --------------------------------------------------------------------------------------------------- */

/* A piece is held back until it is known whether the next one joins it. */
typedef struct cutter {
    const run *r;
    const octavo_pre_tokenizer_step *step;
    size_t index; /* of the step */
    const char *text;
    bool first;
    octavo_span held;
    bool holding, match_before, held_match;
} cutter;

static octavo_status let_go(cutter *c)
{
    if (!c->holding || c->held.begin == c->held.end) return OCTAVO_OK;
    return run_step(c->r, c->index + 1, c->text + c->held.begin, c->held.end - c->held.begin, c->first && c->held.begin == 0);
}

static octavo_status take_span(cutter *c, octavo_span span, bool is_match)
{
    bool joins = false;
    is_match = is_match != c->step->invert;
    switch (c->step->behavior) {
    case OCTAVO_SPLIT_REMOVED:
        if (is_match) return OCTAVO_OK;
        break;
    case OCTAVO_SPLIT_WITH_PREVIOUS: joins = is_match && !c->match_before; break;
    case OCTAVO_SPLIT_WITH_NEXT: joins = !is_match && c->held_match; break;
    case OCTAVO_SPLIT_CONTIGUOUS: joins = is_match == c->match_before; break;
    case OCTAVO_SPLIT_ISOLATED: break;
    }
    c->match_before = is_match;
    if (c->holding && joins) {
        c->held.end = span.end;
        c->held_match = false;
        return OCTAVO_OK;
    }
    OCTAVO_TRY(let_go(c));
    c->held = span;
    c->holding = true;
    c->held_match = is_match;
    return OCTAVO_OK;
}

static octavo_status split(const run *r, size_t index, const char *text, size_t bytes, bool first)
{
    cutter c = { .r = r, .step = &r->pre->steps[index], .index = index, .text = text, .first = first };
    octavo_pattern_scan scan = { 0 };
    size_t done = 0;
    for (;;) {
        octavo_span found;
        OCTAVO_TRY(octavo_pattern_next(&c.step->pattern, r->work->patterns, text, bytes, &scan, &found));
        const size_t upto = found.begin == SIZE_MAX ? bytes : found.begin;
        if (upto > done) OCTAVO_TRY(take_span(&c, (octavo_span){ done, upto }, false));
        if (found.begin == SIZE_MAX) return let_go(&c);
        OCTAVO_TRY(take_span(&c, found, true));
        done = found.end;
    }
}

/* ---- rewriting --------------------------------------------------------------------------------------------------- */

static octavo_status prefix(const octavo_pre_tokenizer_step *step, const char *text, size_t bytes, octavo_byte_buffer *out)
{
    const octavo_byte_buffer *front = &step->text;
    if (bytes < front->count || memcmp(text, front->data, front->count) != 0)
        OCTAVO_TRY(octavo_byte_buffer_append(out, front->data, front->count));
    return octavo_byte_buffer_append(out, text, bytes);
}

static octavo_status replace_spaces(const octavo_pre_tokenizer_step *step, const char *text, size_t bytes, octavo_byte_buffer *out)
{
    for (size_t at = 0; at < bytes;) {
        const char *blank = memchr(text + at, ' ', bytes - at);
        const size_t upto = blank ? (size_t)(blank - text) : bytes;
        OCTAVO_TRY(octavo_byte_buffer_append(out, text + at, upto - at));
        if (blank) OCTAVO_TRY(octavo_byte_buffer_append(out, step->text.data, step->text.count));
        at = upto + 1;
    }
    return OCTAVO_OK;
}

static octavo_status map_bytes(const char *text, size_t bytes, octavo_byte_buffer *out)
{
    if (bytes > SIZE_MAX / BYTE_CHAR_BYTES) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a piece of %zu bytes", bytes);
    OCTAVO_TRY(octavo_byte_buffer_reserve(out, bytes * BYTE_CHAR_BYTES));
    for (size_t i = 0; i < bytes; i++) out->count += octavo_utf8_encode(octavo_byte_char((uint8_t)text[i]), out->data + out->count);
    return OCTAVO_OK;
}

static octavo_status run_step(const run *r, size_t index, const char *text, size_t bytes, bool first)
{
    if (index == r->pre->count) return r->work->take(r->work->context, text, bytes);
    const octavo_pre_tokenizer_step *step = &r->pre->steps[index];
    octavo_byte_buffer *out = &r->work->buffers[index];
    out->count = 0;
    switch (step->kind) {
    case OCTAVO_PRE_SPLIT: return split(r, index, text, bytes, first);
    case OCTAVO_PRE_PREFIX_FIRST:
        if (!first) return run_step(r, index + 1, text, bytes, first);
        OCTAVO_TRY(prefix(step, text, bytes, out));
        break;
    case OCTAVO_PRE_PREFIX: OCTAVO_TRY(prefix(step, text, bytes, out)); break;
    case OCTAVO_PRE_SPACES: OCTAVO_TRY(replace_spaces(step, text, bytes, out)); break;
    case OCTAVO_PRE_BYTES: OCTAVO_TRY(map_bytes(text, bytes, out)); break;
    }
    return run_step(r, index + 1, out->data, out->count, first);
}

octavo_status octavo_pre_tokenizer_run(const octavo_pre_tokenizer *pre, octavo_pre_tokenizer_work *work, const char *text, size_t bytes,
                                       bool first)
{
    const run r = { pre, work };
    return bytes ? run_step(&r, 0, text, bytes, first) : OCTAVO_OK;
}

void octavo_pre_tokenizer_work_fini(octavo_pre_tokenizer_work *work)
{
    for (size_t i = 0; i < PRE_TOKENIZER_STEPS_MOST; i++) octavo_byte_buffer_fini(&work->buffers[i]);
}
