/* decoder.h - from tokens back to bytes. */
#ifndef OCTAVO_TOKENIZER_DECODER_H
#define OCTAVO_TOKENIZER_DECODER_H

#include "tokenizer/json_field.h"
#include "tokenizer/vocab.h"

enum { DECODER_REPLACES_MOST = 4 };

typedef struct octavo_decoder_replace {
    octavo_byte_buffer from, to;
} octavo_decoder_replace;

/* Starts zeroed. What happens to a token, in this order; then what is left out where a text begins. */
typedef struct octavo_decoder {
    octavo_decoder_replace replaces[DECODER_REPLACES_MOST];
    size_t replace_count;
    bool byte_fallback; /* "<0x0A>" is a byte */
    bool byte_level;    /* characters stand for bytes */
    bool fused;         /* the file says that tokens join; what strips comes behind that */
    octavo_byte_buffer strip; /* a text that may begin a text up to strip_most times; those are left out */
    size_t strip_most;
    octavo_byte_buffer first_mark; /* Metaspace: left out of the first token, wherever it is */
} octavo_decoder;

octavo_status octavo_decoder_init(octavo_decoder *decoder, const octavo_json_field *field);
void octavo_decoder_fini(octavo_decoder *decoder);

/* Fills vocab->decoded and the places of all tokens in it; `field` is named in refusals. */
octavo_status octavo_decoder_apply(const octavo_decoder *decoder, octavo_vocab *vocab, const octavo_json_field *field);

/* A token's bytes where it begins a text. Appends to `out`. */
octavo_status octavo_decoder_first(const octavo_decoder *decoder, const octavo_vocab *vocab, const octavo_token *token, octavo_byte_buffer *out);

#endif
