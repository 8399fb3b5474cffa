/* tokenizer.h - what an open tokenizer holds. */
#ifndef OCTAVO_TOKENIZER_TOKENIZER_H
#define OCTAVO_TOKENIZER_TOKENIZER_H

#include "octavo/tokenizer.h"
#include "tokenizer/added_tokens.h"
#include "tokenizer/bpe.h"
#include "tokenizer/decoder.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/special_ids.h"

enum { TOKENIZER_LABEL_BYTES = 160 }; /* leaves most of an error's sentence to the error */

struct octavo_tokenizer {
    char label[TOKENIZER_LABEL_BYTES];
    octavo_vocab vocab;
    octavo_added_tokens added;
    octavo_normalizer normalizer;
    octavo_pre_tokenizer pre_tokenizer;
    octavo_bpe bpe;
    octavo_decoder decoder;
    octavo_special_ids ids;
};

/* Fills a zeroed tokenizer that has its label and its seed. */
octavo_status octavo_tokenizer_read(octavo_tokenizer *tokenizer, const void *data, size_t size);

#endif
