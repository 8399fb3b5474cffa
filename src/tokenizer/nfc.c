/* nfc.c - decomposes, puts marks into order, composes, as Unicode's annex 15 says. */
#include "tokenizer/nfc.h"
#include "base/checked.h"
#include "base/error.h"
#include "tokenizer/nfc_table.h"
#include "tokenizer/utf8.h"
#include <stdlib.h>
#include <string.h>

enum {
    FIRST_OF_INTEREST = 0x300, /* below, every text is normalised already */
    POINTS_A_CHARACTER = 4,    /* no decomposition has more */
    CLASSES = 256,
    SHORT_ROW = 16,            /* marks that are put into order by insertion */
    HANGUL = 0xac00, LEADING = 0x1100, VOWEL = 0x1161, TRAILING = 0x11a7,
    LEADINGS = 19, VOWELS = 21, TRAILINGS = 28, SYLLABLES = LEADINGS * VOWELS * TRAILINGS
};

/* A character with its class above it: its low 24 bits are the code point. */
typedef uint32_t mark;
#define POINT(m) ((m) & 0xffffff)
#define CLASS(m) ((m) >> 24)

typedef struct row {
    mark *marks;
    size_t count;
} row;

static uint32_t class_of(uint32_t point)
{
    size_t low = 0, high = NFC_CLASS_COUNT;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (OCTAVO_NFC_CLASSES[middle].last < point) low = middle + 1;
        else high = middle;
    }
    return low < NFC_CLASS_COUNT && OCTAVO_NFC_CLASSES[low].first <= point ? OCTAVO_NFC_CLASSES[low].value : 0;
}

static const octavo_nfc_split *split_of(uint32_t point)
{
    size_t low = 0, high = NFC_SPLIT_COUNT;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (OCTAVO_NFC_SPLITS[middle].point < point) low = middle + 1;
        else high = middle;
    }
    return low < NFC_SPLIT_COUNT && OCTAVO_NFC_SPLITS[low].point == point ? &OCTAVO_NFC_SPLITS[low] : NULL;
}

static void add(row *out, uint32_t point) { out->marks[out->count++] = class_of(point) << 24 | point; }

static void decompose(row *out, uint32_t point)
{
    uint32_t after[POINTS_A_CHARACTER]; /* second parts on the way down */
    size_t held = 0;
    if (point >= HANGUL && point < HANGUL + SYLLABLES) {
        const uint32_t index = point - HANGUL, trailing = index % TRAILINGS;
        add(out, LEADING + index / (VOWELS * TRAILINGS));
        add(out, VOWEL + index / TRAILINGS % VOWELS);
        if (trailing) add(out, TRAILING + trailing);
        return;
    }
    for (const octavo_nfc_split *split; (split = split_of(point)) != NULL; point = split->first)
        if (split->second) after[held++] = split->second;
    add(out, point);
    while (held) add(out, after[--held]);
}

/* Stable, by class. A long row is counted, or a text of marks alone would take quadratic time. */
static octavo_status sort_marks(mark *marks, size_t count)
{
    if (count <= SHORT_ROW) {
        for (size_t i = 1; i < count; i++) {
            const mark moved = marks[i];
            size_t at = i;
            for (; at > 0 && CLASS(marks[at - 1]) > CLASS(moved); at--) marks[at] = marks[at - 1];
            marks[at] = moved;
        }
        return OCTAVO_OK;
    }
    size_t starts[CLASSES + 1] = { 0 };
    mark *copy = malloc(count * sizeof *copy);
    if (!copy) return octavo_fail(OCTAVO_E_NOMEM, "no memory to normalise a text");
    memcpy(copy, marks, count * sizeof *copy);
    for (size_t i = 0; i < count; i++) starts[CLASS(copy[i]) + 1]++;
    for (size_t i = 0; i < CLASSES; i++) starts[i + 1] += starts[i];
    for (size_t i = 0; i < count; i++) marks[starts[CLASS(copy[i])]++] = copy[i];
    free(copy);
    return OCTAVO_OK;
}

/* 0: the two do not compose. */
static uint32_t compose_pair(uint32_t first, uint32_t second)
{
    if (first >= LEADING && first < LEADING + LEADINGS && second >= VOWEL && second < VOWEL + VOWELS)
        return HANGUL + ((first - LEADING) * VOWELS + (second - VOWEL)) * TRAILINGS;
    if (first >= HANGUL && first < HANGUL + SYLLABLES && (first - HANGUL) % TRAILINGS == 0 && second > TRAILING && second < TRAILING + TRAILINGS)
        return first + (second - TRAILING);
    for (size_t low = 0, high = NFC_PAIR_COUNT; low < high;) {
        const size_t middle = (low + high) / 2;
        const octavo_nfc_split *split = &OCTAVO_NFC_SPLITS[OCTAVO_NFC_PAIRS[middle]];
        if (split->first == first && split->second == second) return split->point;
        if (split->first < first || (split->first == first && split->second < second)) low = middle + 1;
        else high = middle;
    }
    return 0;
}

static void compose(row *text)
{
    size_t starter = SIZE_MAX, kept = 0;
    uint32_t class_before = 0; /* of the last mark that stays behind the starter; 0: none does */
    for (size_t i = 0; i < text->count; i++) {
        const mark next = text->marks[i];
        const bool reachable = starter != SIZE_MAX && (kept == starter + 1 || class_before < CLASS(next));
        const uint32_t whole = reachable ? compose_pair(POINT(text->marks[starter]), POINT(next)) : 0;
        if (whole) {
            text->marks[starter] = whole; /* a composed character starts, too */
            continue;
        }
        if (CLASS(next) == 0) starter = kept;
        class_before = CLASS(next);
        text->marks[kept++] = next;
    }
    text->count = kept;
}

static octavo_status normalise(row *text)
{
    for (size_t begin = 0; begin < text->count;) {
        size_t end = begin;
        while (end < text->count && CLASS(text->marks[end])) end++;
        if (end > begin) OCTAVO_TRY(sort_marks(text->marks + begin, end - begin));
        begin = end + 1;
    }
    compose(text);
    return OCTAVO_OK;
}

octavo_status octavo_nfc_append(octavo_byte_buffer *out, const char *text, size_t bytes)
{
    row points = { 0 };
    size_t characters = 0, room;
    bool plain = true;
    for (size_t at = 0; at < bytes; at += octavo_utf8_bytes(text[at]), characters++)
        plain = plain && octavo_utf8_decode(text + at) < FIRST_OF_INTEREST;
    if (plain) return octavo_byte_buffer_append(out, text, bytes);
    if (octavo_checked_mul_size(characters, POINTS_A_CHARACTER * sizeof *points.marks, &room)) points.marks = malloc(room);
    if (!points.marks) return octavo_fail(OCTAVO_E_NOMEM, "no memory to normalise a text of %zu bytes", bytes);
    for (size_t at = 0; at < bytes; at += octavo_utf8_bytes(text[at])) decompose(&points, octavo_utf8_decode(text + at));
    octavo_status status = normalise(&points);
    for (size_t i = 0; status == OCTAVO_OK && i < points.count; i++) {
        char character[UTF8_BYTES_MOST];
        status = octavo_byte_buffer_append(out, character, octavo_utf8_encode(POINT(points.marks[i]), character));
    }
    free(points.marks);
    return status;
}
