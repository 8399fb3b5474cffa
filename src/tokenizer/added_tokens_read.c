/* added_tokens_read.c - reads added_tokens and sorts their texts for the search. */
#define _GNU_SOURCE 1
#include "base/error.h"
#include "tokenizer/added_tokens.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { TEXT_BYTES_MOST = 1024 };

static octavo_status enter(octavo_vocab *vocab, const octavo_json_field *field, const octavo_added_token *token, const char *text, size_t bytes)
{
    octavo_token *entry = octavo_vocab_find(vocab, text, bytes);
    if (!entry) OCTAVO_TRY(octavo_vocab_add(vocab, text, bytes, token->id, &entry));
    if (entry->id != token->id)
        return octavo_json_fail(OCTAVO_E_FORMAT, field, "gives '%.40s' the id %" PRId32 ", elsewhere it is %" PRId32, text, token->id, entry->id);
    entry->added = true;
    entry->special = entry->special || token->special;
    return OCTAVO_OK;
}

static octavo_status read_token(octavo_added_tokens *added, octavo_vocab *vocab, const octavo_json_field *field)
{
    const octavo_json_field id = octavo_json_member(field, "id"), content = octavo_json_member(field, "content");
    octavo_added_token token = { 0 };
    const struct {
        const char *name;
        bool *value;
    } SWITCHES[] = {
        { "single_word", &token.single_word }, { "lstrip", &token.lstrip }, { "rstrip", &token.rstrip },
        { "normalized", &token.normalized }, { "special", &token.special },
    };
    const char *text;
    size_t bytes;
    int64_t number = 0;
    OCTAVO_TRY(octavo_json_known(field, "id content single_word lstrip rstrip normalized special"));
    OCTAVO_TRY(octavo_json_whole(&id, 0, INT32_MAX - 1, &number));
    OCTAVO_TRY(octavo_json_field_text(&content, &text, &bytes));
    for (size_t i = 0; i < sizeof SWITCHES / sizeof *SWITCHES; i++) {
        const octavo_json_field value = octavo_json_member(field, SWITCHES[i].name);
        OCTAVO_TRY(octavo_json_bool(&value, OCTAVO_JSON_NEEDED, SWITCHES[i].value));
    }
    if (bytes > TEXT_BYTES_MOST)
        return octavo_json_fail(OCTAVO_E_UNSUPPORTED, &content, "has %zu bytes, expected at most %d", bytes, TEXT_BYTES_MOST);
    if (!bytes) return OCTAVO_OK; /* nothing that could be found */
    token.id = (int32_t)number;
    added->tokens[added->count++] = token;
    return enter(vocab, field, &token, text, bytes);
}

octavo_status octavo_added_tokens_init(octavo_added_tokens *added, octavo_vocab *vocab, const octavo_json_field *list)
{
    size_t count;
    if (octavo_json_absent(list)) return OCTAVO_OK;
    OCTAVO_TRY(octavo_json_field_list(list, &count));
    added->tokens = calloc(count + 1, sizeof *added->tokens);
    if (!added->tokens) return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for %zu added tokens", list->label, count);
    for (size_t i = 0; i < count; i++) {
        const octavo_json_field field = octavo_json_element(list, i);
        OCTAVO_TRY(read_token(added, vocab, &field));
    }
    return OCTAVO_OK;
}

/* ---- the search's order ------------------------------------------------------------------------------------------ */

static octavo_status add_text(octavo_added_set *set, const octavo_byte_buffer *text, size_t index)
{
    void *items = set->items;
    if (!text->count) return OCTAVO_OK;
    const octavo_status status = octavo_array_grow(&items, &set->capacity, set->count + 1, sizeof *set->items);
    set->items = items;
    OCTAVO_TRY(status);
    set->items[set->count++] = (octavo_added_text){ set->text.count, text->count, index };
    set->begins[(uint8_t)text->data[0]] = true;
    return octavo_byte_buffer_append(&set->text, text->data, text->count);
}

static int compare_texts(const void *a, const void *b, void *base)
{
    const octavo_added_text *x = a, *y = b;
    const char *text = base;
    const int order = memcmp(text + x->at, text + y->at, x->bytes < y->bytes ? x->bytes : y->bytes);
    if (order) return order;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return (x->index > y->index) - (x->index < y->index);
}

octavo_status octavo_added_tokens_index(octavo_added_tokens *added, const octavo_vocab *vocab, const octavo_normalizer *normalizer,
                                        octavo_pattern_work *work)
{
    octavo_byte_buffer text = { 0 }, spare = { 0 };
    octavo_status status = OCTAVO_OK;
    bool words = false;
    for (size_t i = 0; status == OCTAVO_OK && i < added->count; i++) {
        const octavo_added_token *token = &added->tokens[i];
        const octavo_token *entry = octavo_vocab_by_id(vocab, token->id);
        const octavo_normalizer none = { 0 };
        words = words || token->single_word;
        status = octavo_normalizer_apply(token->normalized ? normalizer : &none, work, vocab->text.data + entry->text_at, entry->text_bytes,
                                         &text, &spare);
        if (status == OCTAVO_OK) status = add_text(token->normalized ? &added->normalized : &added->raw, &text, i);
    }
    octavo_byte_buffer_fini(&text);
    octavo_byte_buffer_fini(&spare);
    OCTAVO_TRY(status);
    octavo_added_set *const sets[] = { &added->raw, &added->normalized };
    for (size_t i = 0; i < 2; i++)
        if (sets[i]->count) qsort_r(sets[i]->items, sets[i]->count, sizeof *sets[i]->items, compare_texts, sets[i]->text.data);
    const octavo_json_field nowhere = { .label = work->label };
    return words ? octavo_pattern_init(&added->word, "\\w", 2, &nowhere) : OCTAVO_OK;
}

void octavo_added_tokens_fini(octavo_added_tokens *added)
{
    octavo_added_set *const sets[] = { &added->raw, &added->normalized };
    for (size_t i = 0; i < 2; i++) {
        octavo_byte_buffer_fini(&sets[i]->text);
        free(sets[i]->items);
    }
    octavo_pattern_fini(&added->word);
    free(added->tokens);
}
