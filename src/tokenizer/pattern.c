/* pattern.c - finds matches with PCRE2, so that no pattern can hold up a text for long.
 *
 * PCRE2 limits the steps of one attempt, not of a text, and counts a run of one character as a single step. So an attempt first
 * sees only a short reach of the text. A partial match means that the attempt wanted to see more: it is repeated with a longer
 * reach, and every such repetition is paid for from the text's budget. An attempt that did not get to the end of its reach is as
 * good as one over the whole text. */
#define PCRE2_CODE_UNIT_WIDTH 8
#define _GNU_SOURCE 1
#include "tokenizer/pattern.h"
#include "base/error.h"
#include "tokenizer/utf8.h"
#include <pcre2.h>
#include <string.h>

enum {
    PATTERN_BYTES_MOST = 2048, /* those in use have less than 500 */
    NESTING_MOST = 32,
    REACH_FIRST = 32,          /* bytes; most words with what follows them */
    REACH_GROWTH = 4,
    STEPS_A_BYTE = 4,          /* of reach */
    STEPS_LEAST = 64,
    STARTS_PAID = 8,           /* when the limit is hit somewhere within the reach */
    CODE_BYTES_A_PRICE = 128,  /* a longer pattern tries more at every byte */
    BUDGET_A_BYTE = 64,        /* of text */
    BUDGET_LEAST = 1 << 22,
    HEAP_KIB_MOST = 1 << 16
};

octavo_status octavo_pattern_init_literal(octavo_pattern *pattern, const char *text, size_t bytes)
{
    return octavo_byte_buffer_append(&pattern->literal, text, bytes);
}

static octavo_status compile(octavo_pattern *pattern, const octavo_byte_buffer *expression, const octavo_json_field *field)
{
    int error;
    PCRE2_SIZE offset;
    PCRE2_UCHAR reason[128] = "";
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for a pattern", field->label);
    pcre2_set_newline(context, PCRE2_NEWLINE_LF);
    pcre2_set_parens_nest_limit(context, NESTING_MOST);
    pattern->code = pcre2_compile((PCRE2_SPTR)expression->data, expression->count,
                                  PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &error, &offset, context);
    pcre2_compile_context_free(context);
    if (pattern->code) {
        size_t size = 0;
        pcre2_pattern_info(pattern->code, PCRE2_INFO_SIZE, &size);
        pattern->price = 1 + size / CODE_BYTES_A_PRICE;
        return OCTAVO_OK;
    }
    pcre2_get_error_message(error, reason, sizeof reason);
    return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "is not compiled by PCRE2: %s", (const char *)reason);
}

octavo_status octavo_pattern_init(octavo_pattern *pattern, const char *expression, size_t bytes, const octavo_json_field *field)
{
    octavo_byte_buffer translated = { 0 };
    if (bytes > PATTERN_BYTES_MOST)
        return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "has %zu bytes, expected at most %d", bytes, PATTERN_BYTES_MOST);
    octavo_status status = octavo_pattern_translate(expression, bytes, field, &translated);
    if (status == OCTAVO_OK) status = compile(pattern, &translated, field);
    octavo_byte_buffer_fini(&translated);
    return status;
}

void octavo_pattern_fini(octavo_pattern *pattern)
{
    pcre2_code_free(pattern->code);
    octavo_byte_buffer_fini(&pattern->literal);
    pattern->code = NULL;
}

octavo_status octavo_pattern_work_init(octavo_pattern_work *work, const char *label, size_t text_bytes)
{
    work->label = label;
    work->steps = BUDGET_LEAST + (uint64_t)BUDGET_A_BYTE * text_bytes;
    work->match_data = pcre2_match_data_create(1, NULL);
    work->match_context = pcre2_match_context_create(NULL);
    if (!work->match_data || !work->match_context) return octavo_fail(OCTAVO_E_NOMEM, "no memory to match patterns");
    pcre2_set_heap_limit(work->match_context, HEAP_KIB_MOST);
    return OCTAVO_OK;
}

void octavo_pattern_work_fini(octavo_pattern_work *work)
{
    pcre2_match_data_free(work->match_data);
    pcre2_match_context_free(work->match_context);
    work->match_data = work->match_context = NULL;
}

static octavo_status pay(octavo_pattern_work *work, uint64_t steps)
{
    if (work->steps < steps)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: a pattern takes too many steps on this text", work->label);
    work->steps -= steps;
    return OCTAVO_OK;
}

/* The end of the reach, moved to the start of a character. */
static size_t reach_end(const char *text, size_t bytes, size_t from, size_t reach)
{
    if (reach >= bytes - from) return bytes;
    size_t end = from + reach;
    while (((uint8_t)text[end] & 0xc0) == 0x80) end--;
    return end;
}

static octavo_status find_expression(const octavo_pattern *pattern, octavo_pattern_work *work, const char *text, size_t bytes, size_t from,
                                     octavo_span *found)
{
    const PCRE2_SIZE *place = pcre2_get_ovector_pointer(work->match_data);
    size_t reach = REACH_FIRST;
    uint32_t anchored = 0; /* once an attempt needs more, it is made alone */
    for (;;) {
        const size_t end = reach_end(text, bytes, from, reach);
        const uint32_t steps = reach < UINT32_MAX / STEPS_A_BYTE / 2 ? (uint32_t)reach * STEPS_A_BYTE + STEPS_LEAST : UINT32_MAX;
        pcre2_set_match_limit(work->match_context, steps);
        const uint32_t options = PCRE2_NO_UTF_CHECK | anchored | (end < bytes ? PCRE2_PARTIAL_HARD : 0);
        const int result = pcre2_match(pattern->code, (PCRE2_SPTR)text, end, from, options, work->match_data, work->match_context);
        if (result >= 0) {
            *found = (octavo_span){ place[0], place[1] };
            return OCTAVO_OK;
        }
        if (result == PCRE2_ERROR_NOMATCH && (anchored ? from : end) >= bytes) {
            found->begin = SIZE_MAX;
            return OCTAVO_OK;
        }
        if (result == PCRE2_ERROR_NOMATCH) { /* no match begins within the reach, or none right here */
            from = anchored ? from + octavo_utf8_bytes(text[from]) : end;
            reach = REACH_FIRST;
            anchored = 0;
            continue;
        }
        if (result != PCRE2_ERROR_PARTIAL && result != PCRE2_ERROR_MATCHLIMIT)
            return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: a pattern needs too much memory on this text (PCRE2's error %d)", work->label, result);
        if (result == PCRE2_ERROR_PARTIAL) from = place[0];
        OCTAVO_TRY(pay(work, pattern->price * (result == PCRE2_ERROR_PARTIAL ? reach : (uint64_t)steps * (anchored ? 1 : STARTS_PAID))));
        anchored = PCRE2_ANCHORED;
        reach = reach < SIZE_MAX / REACH_GROWTH ? reach * REACH_GROWTH : SIZE_MAX;
    }
}

octavo_status octavo_pattern_find(const octavo_pattern *pattern, octavo_pattern_work *work, const char *text, size_t bytes,
                                  size_t from, octavo_span *found)
{
    if (pattern->code) return find_expression(pattern, work, text, bytes, from, found);
    const char *at = memmem(text + from, bytes - from, pattern->literal.data, pattern->literal.count);
    *found = at ? (octavo_span){ (size_t)(at - text), (size_t)(at - text) + pattern->literal.count } : (octavo_span){ SIZE_MAX, SIZE_MAX };
    return OCTAVO_OK;
}

octavo_status octavo_pattern_next(const octavo_pattern *pattern, octavo_pattern_work *work, const char *text, size_t bytes,
                                  octavo_pattern_scan *scan, octavo_span *found)
{
    found->begin = SIZE_MAX;
    while (scan->at <= bytes) {
        OCTAVO_TRY(octavo_pattern_find(pattern, work, text, bytes, scan->at, found));
        if (found->begin == SIZE_MAX) {
            scan->at = SIZE_MAX;
            return OCTAVO_OK;
        }
        const bool again = found->end == found->begin && scan->matched && found->end == scan->at;
        if (!again) {
            *scan = (octavo_pattern_scan){ found->end, true };
            return OCTAVO_OK;
        }
        found->begin = SIZE_MAX;
        scan->at += scan->at < bytes ? octavo_utf8_bytes(text[scan->at]) : 1;
        scan->matched = false;
    }
    return OCTAVO_OK;
}

octavo_status octavo_pattern_read(octavo_pattern *pattern, const octavo_json_field *field)
{
    const octavo_json_field expression = octavo_json_member(field, "Regex"), literal = octavo_json_member(field, "String");
    const char *text;
    size_t bytes;
    OCTAVO_TRY(octavo_json_known(field, "Regex String"));
    if (expression.value) {
        OCTAVO_TRY(octavo_json_field_text(&expression, &text, &bytes));
        return octavo_pattern_init(pattern, text, bytes, &expression);
    }
    OCTAVO_TRY(octavo_json_field_text(&literal, &text, &bytes));
    return bytes ? octavo_pattern_init_literal(pattern, text, bytes) : octavo_json_fail(OCTAVO_E_UNSUPPORTED, &literal, "is empty");
}
