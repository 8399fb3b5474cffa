/* bpe.h - byte pair encoding of one piece of text: characters become tokens, neighbours merge by rank. */
#ifndef OCTAVO_TOKENIZER_BPE_H
#define OCTAVO_TOKENIZER_BPE_H

#include "tokenizer/json_field.h"
#include "tokenizer/vocab.h"

enum { BPE_DIRECT_POINTS = 0x180 }; /* holds ASCII and every character that stands for a byte */

typedef struct octavo_bpe_merge {
    int32_t left, right; /* ids; left is -1 in a free slot */
    int32_t rank, id;    /* id: of what they become */
} octavo_bpe_merge;

/* Starts zeroed. */
typedef struct octavo_bpe {
    octavo_vocab *vocab;     /* borrowed */
    octavo_bpe_merge *slots; /* [slot_count], a power of two */
    size_t slot_count;
    int32_t unknown; /* the token of what has none; -1: that is left out */
    bool fuse_unknown, byte_fallback, ignore_merges;
    int32_t byte_ids[256];                 /* of "<0x00>" ... "<0xFF>", or -1 */
    int32_t point_ids[BPE_DIRECT_POINTS];  /* of the token that is this character alone, or -1 */
} octavo_bpe;

typedef struct octavo_id_list {
    int32_t *ids; /* [capacity] */
    size_t count, capacity;
} octavo_id_list;

/* One encoding's memory, kept from piece to piece; starts zeroed. */
typedef struct octavo_bpe_work {
    struct octavo_bpe_symbol *symbols;
    struct octavo_bpe_candidate *heap;
    size_t symbol_count, symbol_capacity, heap_count, heap_capacity;
} octavo_bpe_work;

/* Reads `model`: adds its vocabulary to `vocab`, which stays borrowed, then its merges. */
octavo_status octavo_bpe_init(octavo_bpe *bpe, octavo_vocab *vocab, const octavo_json_field *model);
void octavo_bpe_fini(octavo_bpe *bpe);

/* Appends the ids of a piece of valid UTF-8. */
octavo_status octavo_bpe_encode(const octavo_bpe *bpe, octavo_bpe_work *work, const char *text, size_t bytes, octavo_id_list *out);
octavo_status octavo_id_list_append(octavo_id_list *list, int32_t id);
void octavo_bpe_work_fini(octavo_bpe_work *work);

/* NULL: the two do not merge. */
const octavo_bpe_merge *octavo_bpe_find_merge(const octavo_bpe *bpe, int32_t left, int32_t right);

#endif
