/* added_tokens.h - tokens that are found in a text before anything else is done with it. */
#ifndef OCTAVO_TOKENIZER_ADDED_TOKENS_H
#define OCTAVO_TOKENIZER_ADDED_TOKENS_H

#include "tokenizer/normalizer.h"
#include "tokenizer/vocab.h"

typedef struct octavo_added_token {
    int32_t id;
    bool special, single_word, lstrip, rstrip, normalized;
} octavo_added_token;

typedef struct octavo_added_text {
    size_t at;    /* in octavo_added_set.text */
    size_t bytes;
    size_t index; /* into octavo_added_tokens.tokens */
} octavo_added_text;

/* Texts that are looked for together. */
typedef struct octavo_added_set {
    octavo_byte_buffer text;
    octavo_added_text *items; /* [capacity] `count` of them, ascending by their bytes */
    size_t count, capacity;
    bool begins[256]; /* some text begins with this byte */
} octavo_added_set;

/* Starts zeroed. */
typedef struct octavo_added_tokens {
    octavo_added_token *tokens; /* [count] */
    size_t count;
    octavo_added_set raw, normalized; /* looked for in the text as it came, and after normalisation */
    octavo_pattern word;              /* a character of a word */
} octavo_added_tokens;

/* Reads added_tokens: those that the vocabulary lacks are added to it. */
octavo_status octavo_added_tokens_init(octavo_added_tokens *added, octavo_vocab *vocab, const octavo_json_field *list);
/* Prepares the search, once normalizer and vocabulary are known. */
octavo_status octavo_added_tokens_index(octavo_added_tokens *added, const octavo_vocab *vocab, const octavo_normalizer *normalizer,
                                        octavo_pattern_work *work);
void octavo_added_tokens_fini(octavo_added_tokens *added);

/* The first token of `set` in text[from...], with the blanks that it takes in; *token is NULL where there is none. Special ones
 * are passed over unless `parse_special`. */
octavo_status octavo_added_tokens_find(const octavo_added_tokens *added, const octavo_added_set *set, octavo_pattern_work *work,
                                       const char *text, size_t bytes, size_t from, bool parse_special, octavo_span *found,
                                       const octavo_added_token **token);

#endif
