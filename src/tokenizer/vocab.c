/* vocab.c - tokens by text through a hash table, by id through the order of the file or a binary search. */
#define _GNU_SOURCE 1
#include "tokenizer/vocab.h"
#include "base/error.h"
#include "tokenizer/hash.h"
#include <stdlib.h>
#include <string.h>

enum { LEAST_SLOTS = 256 };

/* Where the text is, or the free slot where it belongs. */
static uint32_t *slot_of(const octavo_vocab *vocab, const char *text, size_t bytes)
{
    const size_t mask = vocab->slot_count - 1;
    for (size_t at = octavo_hash_bytes(vocab->seed, text, bytes) & mask;; at = (at + 1) & mask) {
        uint32_t *slot = &vocab->slots[at];
        if (!*slot) return slot;
        const octavo_token *token = &vocab->tokens[*slot - 1];
        if (token->text_bytes == bytes && memcmp(vocab->text.data + token->text_at, text, bytes) == 0) return slot;
    }
}

static octavo_status grow_slots(octavo_vocab *vocab)
{
    const size_t wanted = vocab->slot_count ? vocab->slot_count * 2 : LEAST_SLOTS;
    uint32_t *slots = wanted <= UINT32_MAX ? calloc(wanted, sizeof *slots) : NULL;
    if (!slots) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a vocabulary of more than %zu tokens", vocab->count);
    free(vocab->slots);
    vocab->slots = slots;
    vocab->slot_count = wanted;
    for (size_t i = 0; i < vocab->count; i++) {
        const octavo_token *token = &vocab->tokens[i];
        *slot_of(vocab, vocab->text.data + token->text_at, token->text_bytes) = (uint32_t)i + 1;
    }
    return OCTAVO_OK;
}

octavo_status octavo_vocab_add(octavo_vocab *vocab, const char *text, size_t bytes, int32_t id, octavo_token **added)
{
    void *tokens = vocab->tokens;
    if (bytes > UINT32_MAX) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a token of %zu bytes", bytes);
    const octavo_status status = octavo_array_grow(&tokens, &vocab->capacity, vocab->count + 1, sizeof *vocab->tokens);
    vocab->tokens = tokens;
    OCTAVO_TRY(status);
    if (vocab->count >= vocab->slot_count / 2) OCTAVO_TRY(grow_slots(vocab));
    const size_t text_at = vocab->text.count;
    OCTAVO_TRY(octavo_byte_buffer_append(&vocab->text, text, bytes));
    *slot_of(vocab, text, bytes) = (uint32_t)vocab->count + 1;
    *added = &vocab->tokens[vocab->count++];
    **added = (octavo_token){ .text_at = text_at, .text_bytes = (uint32_t)bytes, .id = id };
    return OCTAVO_OK;
}

static int compare_ids(const void *a, const void *b, void *tokens)
{
    const octavo_token *list = tokens;
    const int32_t x = list[*(const uint32_t *)a].id, y = list[*(const uint32_t *)b].id;
    return (x > y) - (x < y);
}

octavo_status octavo_vocab_seal(octavo_vocab *vocab, int32_t *twice)
{
    *twice = -1;
    vocab->by_id = malloc((vocab->count + 1) * sizeof *vocab->by_id);
    if (!vocab->by_id) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a vocabulary of %zu tokens", vocab->count);
    for (size_t i = 0; i < vocab->count; i++) vocab->by_id[i] = (uint32_t)i;
    qsort_r(vocab->by_id, vocab->count, sizeof *vocab->by_id, compare_ids, vocab->tokens);
    for (size_t i = 1; i < vocab->count; i++)
        if (vocab->tokens[vocab->by_id[i]].id == vocab->tokens[vocab->by_id[i - 1]].id) *twice = vocab->tokens[vocab->by_id[i]].id;
    return OCTAVO_OK;
}

void octavo_vocab_fini(octavo_vocab *vocab)
{
    free(vocab->tokens);
    free(vocab->slots);
    free(vocab->by_id);
    octavo_byte_buffer_fini(&vocab->text);
    octavo_byte_buffer_fini(&vocab->decoded);
}

octavo_token *octavo_vocab_find(const octavo_vocab *vocab, const char *text, size_t bytes)
{
    const uint32_t *slot = vocab->slot_count ? slot_of(vocab, text, bytes) : NULL;
    return slot && *slot ? &vocab->tokens[*slot - 1] : NULL;
}

int32_t octavo_vocab_model_id(const octavo_vocab *vocab, const char *text, size_t bytes)
{
    const octavo_token *token = octavo_vocab_find(vocab, text, bytes);
    return token && token->in_model ? token->id : -1;
}

octavo_token *octavo_vocab_by_id(const octavo_vocab *vocab, int32_t id)
{
    if (id < 0) return NULL;
    if ((size_t)id < vocab->count && vocab->tokens[id].id == id) return &vocab->tokens[id]; /* most files are in this order */
    for (size_t low = 0, high = vocab->count; low < high;) {
        const size_t middle = low + (high - low) / 2;
        octavo_token *token = &vocab->tokens[vocab->by_id[middle]];
        if (token->id == id) return token;
        if (token->id < id) low = middle + 1;
        else high = middle;
    }
    return NULL;
}
