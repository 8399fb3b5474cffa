/* tokenizer_encode.c - a text, top to bottom: added tokens, normalisation, pieces, byte pair encoding. */
#include "base/error.h"
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"
#include <stdlib.h>
#include <string.h>

/* One call's memory. */
typedef struct encoder {
    const octavo_tokenizer *tokenizer;
    bool parse_special;
    octavo_pattern_work patterns;
    octavo_pre_tokenizer_work pieces;
    octavo_bpe_work bpe;
    octavo_byte_buffer normalized, spare;
    octavo_id_list ids;
} encoder;

static octavo_status take_piece(void *context, const char *text, size_t bytes)
{
    encoder *e = context;
    return octavo_bpe_encode(&e->tokenizer->bpe, &e->bpe, text, bytes, &e->ids);
}

/* What encodes the text between the tokens of a set. */
typedef octavo_status (*between)(encoder *e, const char *text, size_t bytes, bool first);

static octavo_status encode_around(encoder *e, const octavo_added_set *set, const char *text, size_t bytes, bool first, between encode)
{
    for (size_t at = 0; at < bytes;) {
        const octavo_added_token *token;
        octavo_span found;
        OCTAVO_TRY(octavo_added_tokens_find(&e->tokenizer->added, set, &e->patterns, text, bytes, at, e->parse_special, &found, &token));
        const size_t upto = token ? found.begin : bytes;
        if (upto > at) OCTAVO_TRY(encode(e, text + at, upto - at, first && at == 0));
        if (token) OCTAVO_TRY(octavo_id_list_append(&e->ids, token->id));
        at = token ? found.end : bytes;
    }
    return OCTAVO_OK;
}

static octavo_status encode_pieces(encoder *e, const char *text, size_t bytes, bool first)
{
    return octavo_pre_tokenizer_run(&e->tokenizer->pre_tokenizer, &e->pieces, text, bytes, first);
}

static octavo_status encode_raw(encoder *e, const char *text, size_t bytes, bool first)
{
    const octavo_tokenizer *t = e->tokenizer;
    if (t->normalizer.count) {
        OCTAVO_TRY(octavo_normalizer_apply(&t->normalizer, &e->patterns, text, bytes, &e->normalized, &e->spare));
        text = e->normalized.data;
        bytes = e->normalized.count;
    }
    return encode_around(e, &t->added.normalized, text, bytes, first, encode_pieces);
}

static octavo_status encode_text(encoder *e, const char *text, size_t bytes, unsigned flags)
{
    const octavo_tokenizer *t = e->tokenizer;
    OCTAVO_TRY(octavo_pattern_work_init(&e->patterns, t->label, bytes));
    if ((flags & OCTAVO_TOKENIZER_ADD_BOS) && t->ids.bos >= 0) OCTAVO_TRY(octavo_id_list_append(&e->ids, t->ids.bos));
    return encode_around(e, &t->added.raw, text, bytes, true, encode_raw);
}

static void fini(encoder *e)
{
    octavo_pattern_work_fini(&e->patterns);
    octavo_pre_tokenizer_work_fini(&e->pieces);
    octavo_bpe_work_fini(&e->bpe);
    octavo_byte_buffer_fini(&e->normalized);
    octavo_byte_buffer_fini(&e->spare);
    free(e->ids.ids);
}

/* *count held the room. */
static octavo_status give_ids(const octavo_id_list *list, int32_t *ids, size_t *count)
{
    const size_t room = *count, given = list->count < room ? list->count : room;
    if (given) memcpy(ids, list->ids, given * sizeof *ids);
    *count = list->count;
    if (ids && given < list->count)
        return octavo_fail(OCTAVO_E_RANGE, "argument 'ids' has room for %zu ids, but the text has %zu", room, list->count);
    return OCTAVO_OK;
}

octavo_status octavo_tokenizer_encode(const octavo_tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags, int32_t *ids,
                                      size_t *count)
{
    if (!tokenizer || !count) return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL", !tokenizer ? "tokenizer" : "count");
    if ((!text && bytes) || (!ids && *count))
        return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL, but its size is %zu", !text && bytes ? "text" : "ids",
                           !text && bytes ? bytes : *count);
    const size_t valid = octavo_utf8_valid_bytes(text, bytes);
    if (valid < bytes) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'text' is not UTF-8 at byte %zu", valid);
    encoder e = { .tokenizer = tokenizer, .parse_special = (flags & OCTAVO_TOKENIZER_PARSE_SPECIAL) != 0 };
    e.pieces.patterns = &e.patterns;
    e.pieces.take = take_piece;
    e.pieces.context = &e;
    octavo_status status = encode_text(&e, text, bytes, flags);
    if (status == OCTAVO_OK) status = give_ids(&e.ids, ids, count);
    fini(&e);
    return status;
}
