/* tokenizer_fixture.h - small tokenizer.json files: a vocabulary of all bytes, in which a byte's id is its value. */
#ifndef OCTAVO_TESTS_TOKENIZER_FIXTURE_H
#define OCTAVO_TESTS_TOKENIZER_FIXTURE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "tokenizer/byte_chars.h"
#include "tokenizer/utf8.h"

enum { TOKENIZER_FIXTURE_BYTES = 1 << 16 };

/* JSON texts of the parts; NULL: the plain byte-level ones. */
typedef struct tokenizer_parts {
    const char *added, *normalizer, *pre, *post, *decoder;
    const char *vocab;  /* members behind the bytes, beginning with a comma */
    const char *merges; /* elements of the list */
    const char *model;  /* members of the model, beginning with a comma */
} tokenizer_parts;

#define FIXTURE_BYTES_ONLY "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"trim_offsets\":true,\"use_regex\":false}"
#define FIXTURE_SPLIT(regex) "{\"type\":\"Sequence\",\"pretokenizers\":[{\"type\":\"Split\",\"pattern\":{\"Regex\":\"" regex "\"}," \
                             "\"behavior\":\"Isolated\",\"invert\":false}," FIXTURE_BYTES_ONLY "]}"
#define FIXTURE_ADDED(id, text, special, switches) "{\"id\":" #id ",\"content\":\"" text "\",\"special\":" #special "," switches "}"
#define FIXTURE_SWITCHES(word, left, right, normalized) \
    "\"single_word\":" #word ",\"lstrip\":" #left ",\"rstrip\":" #right ",\"normalized\":" #normalized

static inline const char *fixture_or(const char *text, const char *otherwise) { return text ? text : otherwise; }

static inline void fixture_vocabulary(char *out)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        char character[8];
        const size_t length = octavo_utf8_encode(octavo_byte_char(byte), character);
        out += sprintf(out, "%s\"%s%.*s\":%u", byte ? "," : "", byte == '"' || byte == '\\' ? "\\" : "", (int)length, character, (unsigned)byte);
    }
}

/* A static text, until the next call. */
static inline const char *fixture_tokenizer(const tokenizer_parts *parts)
{
    static char text[TOKENIZER_FIXTURE_BYTES], vocabulary[8192];
    fixture_vocabulary(vocabulary);
    snprintf(text, sizeof text, "{\"version\":\"1.0\",\"added_tokens\":[%s],\"normalizer\":%s,\"pre_tokenizer\":%s,\"post_processor\":%s,"
             "\"decoder\":%s,\"model\":{\"type\":\"BPE\"%s,\"vocab\":{%s%s},\"merges\":[%s]}}", fixture_or(parts->added, ""),
             fixture_or(parts->normalizer, "null"), fixture_or(parts->pre, FIXTURE_BYTES_ONLY), fixture_or(parts->post, "null"),
             fixture_or(parts->decoder, "{\"type\":\"ByteLevel\"}"), fixture_or(parts->model, ""), vocabulary,
             fixture_or(parts->vocab, ""), fixture_or(parts->merges, ""));
    return text;
}

#endif
