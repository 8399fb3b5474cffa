/* added_tokens.c - finds the leftmost, longest added token in a text. */
#include "tokenizer/added_tokens.h"
#include "base/error.h"
#include "tokenizer/utf8.h"
#include <string.h>

/* The range of items whose byte at `depth` is `byte`, out of a range that agrees on all bytes before. */
static void narrow(const octavo_added_set *set, size_t depth, uint8_t byte, size_t *low, size_t *high)
{
    size_t edges[2];
    for (int upper = 0; upper < 2; upper++) {
        size_t from = *low, to = *high;
        while (from < to) {
            const size_t middle = from + (to - from) / 2;
            const octavo_added_text *item = &set->items[middle];
            const int value = item->bytes <= depth ? -1 : (uint8_t)set->text.data[item->at + depth]; /* a prefix comes first */
            if (value < byte + upper) from = middle + 1;
            else to = middle;
        }
        edges[upper] = from;
    }
    *low = edges[0];
    *high = edges[1];
}

/* The longest item that text[at...] begins with, the first of equal ones; NULL: none. */
static const octavo_added_text *longest_at(const octavo_added_set *set, const char *text, size_t bytes, size_t at)
{
    const octavo_added_text *best = NULL;
    size_t low = 0, high = set->count;
    for (size_t depth = 0; at + depth < bytes; depth++) {
        narrow(set, depth, (uint8_t)text[at + depth], &low, &high);
        if (low == high) break;
        if (set->items[low].bytes == depth + 1) best = &set->items[low];
    }
    return best;
}

/* Unicode's White_Space. */
static bool is_space(uint32_t point)
{
    return (point >= 0x09 && point <= 0x0d) || point == ' ' || point == 0x85 || point == 0xa0 || point == 0x1680 ||
           (point >= 0x2000 && point <= 0x200a) || point == 0x2028 || point == 0x2029 || point == 0x202f || point == 0x205f || point == 0x3000;
}

static size_t previous(const char *text, size_t at)
{
    do at--;
    while (((uint8_t)text[at] & 0xc0) == 0x80);
    return at;
}

static octavo_status is_word(const octavo_added_tokens *added, octavo_pattern_work *work, const char *text, size_t at, bool *result)
{
    octavo_span found;
    OCTAVO_TRY(octavo_pattern_find(&added->word, work, text + at, octavo_utf8_bytes(text[at]), 0, &found));
    *result = found.begin == 0;
    return OCTAVO_OK;
}

/* Whether no word goes on at either end. */
static octavo_status stands_alone(const octavo_added_tokens *added, octavo_pattern_work *work, const char *text, size_t bytes,
                                  const octavo_span *span, bool *result)
{
    bool before = false, after = false;
    if (span->begin > 0) OCTAVO_TRY(is_word(added, work, text, previous(text, span->begin), &before));
    if (span->end < bytes) OCTAVO_TRY(is_word(added, work, text, span->end, &after));
    *result = !before && !after;
    return OCTAVO_OK;
}

static void take_blanks(const octavo_added_token *token, const char *text, size_t bytes, size_t from, octavo_span *span)
{
    while (token->lstrip && span->begin > from) {
        const size_t at = previous(text, span->begin);
        if (!is_space(octavo_utf8_decode(text + at))) break;
        span->begin = at;
    }
    if (token->rstrip)
        while (span->end < bytes && is_space(octavo_utf8_decode(text + span->end))) span->end += octavo_utf8_bytes(text[span->end]);
}

octavo_status octavo_added_tokens_find(const octavo_added_tokens *added, const octavo_added_set *set, octavo_pattern_work *work,
                                       const char *text, size_t bytes, size_t from, bool parse_special, octavo_span *found,
                                       const octavo_added_token **token)
{
    *token = NULL;
    for (size_t at = from; set->count && at < bytes;) {
        const octavo_added_text *item = set->begins[(uint8_t)text[at]] ? longest_at(set, text, bytes, at) : NULL;
        if (!item) {
            at++;
            continue;
        }
        const octavo_added_token *candidate = &added->tokens[item->index];
        bool alone = true;
        *found = (octavo_span){ at, at + item->bytes };
        at += item->bytes;
        if (candidate->special && !parse_special) continue;
        if (candidate->single_word) OCTAVO_TRY(stands_alone(added, work, text, bytes, found, &alone));
        if (!alone) continue;
        take_blanks(candidate, text, bytes, from, found);
        *token = candidate;
        return OCTAVO_OK;
    }
    return OCTAVO_OK;
}
