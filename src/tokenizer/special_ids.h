/* special_ids.h - which tokens begin and end a text. */
#ifndef OCTAVO_TOKENIZER_SPECIAL_IDS_H
#define OCTAVO_TOKENIZER_SPECIAL_IDS_H

#include "tokenizer/json_field.h"
#include "tokenizer/vocab.h"

typedef struct octavo_special_ids {
    int32_t bos, eos; /* -1: not known                                 */
    int adds_bos;     /* 1: the post_processor puts bos in front of a text */
} octavo_special_ids;

/* From a post_processor, else from the usual names. OCTAVO_E_FORMAT: it names what is no token. */
octavo_status octavo_special_ids_read(octavo_special_ids *ids, const octavo_vocab *vocab, const octavo_json_field *post_processor);

#endif
