/* pattern.h - the regular expressions of a tokenizer.json: written for Oniguruma, matched by PCRE2 within limits. */
#ifndef OCTAVO_TOKENIZER_PATTERN_H
#define OCTAVO_TOKENIZER_PATTERN_H

#include "tokenizer/byte_buffer.h"
#include "tokenizer/json_field.h"

/* What to look for: an expression, or this very text. Starts zeroed. */
typedef struct octavo_pattern {
    void *code; /* of PCRE2; NULL: `literal` */
    size_t price; /* of a byte or step that has to be tried again */
    octavo_byte_buffer literal;
} octavo_pattern;

/* One text's memory and what it may still cost, shared by all patterns; starts zeroed but for the label. */
typedef struct octavo_pattern_work {
    const char *label; /* of the file, for refusals */
    void *match_data, *match_context;
    uint64_t steps; /* that may still be taken */
} octavo_pattern_work;

typedef struct octavo_span {
    size_t begin, end;
} octavo_span;

/* Compiles a Regex of the file, naming `field` in refusals. */
octavo_status octavo_pattern_init(octavo_pattern *pattern, const char *expression, size_t bytes, const octavo_json_field *field);
octavo_status octavo_pattern_init_literal(octavo_pattern *pattern, const char *text, size_t bytes);
void octavo_pattern_fini(octavo_pattern *pattern);

/* `text_bytes`: how long the whole text is, which decides how many steps are granted. */
octavo_status octavo_pattern_work_init(octavo_pattern_work *work, const char *label, size_t text_bytes);
void octavo_pattern_work_fini(octavo_pattern_work *work);

/* The first match at or behind `from` in a valid UTF-8 text; begin is SIZE_MAX where there is none. What lies before `from` is
 * seen by the expression's lookbehinds. OCTAVO_E_UNSUPPORTED: the steps ran out. */
octavo_status octavo_pattern_find(const octavo_pattern *pattern, octavo_pattern_work *work, const char *text, size_t bytes,
                                  size_t from, octavo_span *found);

/* All matches of a text, one after the other: starts zeroed. Empty matches are given, but none right behind another match. */
typedef struct octavo_pattern_scan {
    size_t at;
    bool matched; /* a match ended at `at` */
} octavo_pattern_scan;

/* begin is SIZE_MAX after the last. */
octavo_status octavo_pattern_next(const octavo_pattern *pattern, octavo_pattern_work *work, const char *text, size_t bytes,
                                  octavo_pattern_scan *scan, octavo_span *found);

/* Reads {"Regex": ...} or {"String": ...}. */
octavo_status octavo_pattern_read(octavo_pattern *pattern, const octavo_json_field *field);

/* Rewrites an expression in Oniguruma's Ruby syntax as one of PCRE2's with the same meaning (see pattern_syntax.c). */
octavo_status octavo_pattern_translate(const char *expression, size_t bytes, const octavo_json_field *field, octavo_byte_buffer *out);

#endif
