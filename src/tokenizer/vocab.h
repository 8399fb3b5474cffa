/* vocab.h - all tokens of a file, found by text or by id: the model's vocabulary and the added tokens. */
#ifndef OCTAVO_TOKENIZER_VOCAB_H
#define OCTAVO_TOKENIZER_VOCAB_H

#include "tokenizer/byte_buffer.h"
#include <stdbool.h>

typedef struct octavo_token {
    size_t text_at;    /* in vocab.text: the token as the file spells it  */
    size_t decoded_at; /* in vocab.decoded: the bytes that it stands for */
    uint32_t text_bytes, decoded_bytes;
    int32_t id;
    bool in_model; /* of model.vocab  */
    bool added;    /* of added_tokens */
    bool special;
} octavo_token;

/* Starts zeroed but for the seed of its hashes. */
typedef struct octavo_vocab {
    uint64_t seed;
    octavo_token *tokens; /* [capacity] `count` of them in the file's order */
    size_t count, capacity;
    octavo_byte_buffer text, decoded;
    uint32_t *slots; /* [slot_count], a power of two: 1 + index into tokens, 0 where free */
    size_t slot_count;
    uint32_t *by_id; /* [count] indices in ascending order of ids, after _seal */
} octavo_vocab;

/* OCTAVO_E_NOMEM only; the text is copied and must not be in the vocabulary yet. *added holds until the next one. */
octavo_status octavo_vocab_add(octavo_vocab *vocab, const char *text, size_t bytes, int32_t id, octavo_token **added);
/* After the last one. *twice: an id that two tokens have, or -1. */
octavo_status octavo_vocab_seal(octavo_vocab *vocab, int32_t *twice);
void octavo_vocab_fini(octavo_vocab *vocab);

/* NULL: no such token. By id only after _seal. */
octavo_token *octavo_vocab_find(const octavo_vocab *vocab, const char *text, size_t bytes);
octavo_token *octavo_vocab_by_id(const octavo_vocab *vocab, int32_t id);
/* The id of a token of the model, or -1. */
int32_t octavo_vocab_model_id(const octavo_vocab *vocab, const char *text, size_t bytes);

#endif
