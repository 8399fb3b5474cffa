/* tokenizer_decode.c - ids to bytes: joined, and without what only the start of a text carries. */
#include "base/error.h"
#include "tokenizer/tokenizer.h"
#include <inttypes.h>
#include <string.h>

static octavo_status token_of(const octavo_tokenizer *t, int32_t id, const octavo_token **token)
{
    *token = octavo_vocab_by_id(&t->vocab, id);
    return *token ? OCTAVO_OK : octavo_fail(OCTAVO_E_RANGE, "%s: has no token with the id %" PRId32, t->label, id);
}

static octavo_status join(const octavo_tokenizer *t, const int32_t *ids, size_t count, unsigned flags, octavo_byte_buffer *out)
{
    bool first = true;
    for (size_t i = 0; i < count; i++) {
        const octavo_token *token;
        OCTAVO_TRY(token_of(t, ids[i], &token));
        if (token->special && (flags & OCTAVO_TOKENIZER_SKIP_SPECIAL)) continue;
        if (first) OCTAVO_TRY(octavo_decoder_first(&t->decoder, &t->vocab, token, out));
        else OCTAVO_TRY(octavo_byte_buffer_append(out, t->vocab.decoded.data + token->decoded_at, token->decoded_bytes));
        first = false;
    }
    return OCTAVO_OK;
}

/* How many bytes the decoder leaves out in front. */
static size_t stripped(const octavo_decoder *decoder, const octavo_byte_buffer *text)
{
    const octavo_byte_buffer *strip = &decoder->strip;
    size_t at = 0;
    for (size_t i = 0; i < decoder->strip_most; i++) {
        if (text->count - at < strip->count || memcmp(text->data + at, strip->data, strip->count) != 0) break;
        at += strip->count;
    }
    return at;
}

octavo_status octavo_tokenizer_decode(const octavo_tokenizer *tokenizer, const int32_t *ids, size_t count, unsigned flags, char *text,
                                      size_t *bytes)
{
    octavo_byte_buffer joined = { 0 };
    if (!tokenizer || !bytes) return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL", !tokenizer ? "tokenizer" : "bytes");
    if ((!ids && count) || (!text && *bytes))
        return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL, but its size is %zu", !ids && count ? "ids" : "text",
                           !ids && count ? count : *bytes);
    octavo_status status = join(tokenizer, ids, count, flags, &joined);
    if (status == OCTAVO_OK) {
        const size_t from = stripped(&tokenizer->decoder, &joined), made = joined.count - from, room = *bytes;
        const size_t given = made < room ? made : room;
        if (given) memcpy(text, joined.data + from, given);
        *bytes = made;
        if (text && given < made) status = octavo_fail(OCTAVO_E_RANGE, "argument 'text' has room for %zu bytes, but there are %zu", room, made);
    }
    octavo_byte_buffer_fini(&joined);
    return status;
}

octavo_status octavo_tokenizer_token_bytes(const octavo_tokenizer *tokenizer, int32_t id, const uint8_t **bytes, size_t *count)
{
    const octavo_token *token;
    if (!tokenizer || !bytes || !count)
        return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL", !tokenizer ? "tokenizer" : !bytes ? "bytes" : "count");
    OCTAVO_TRY(token_of(tokenizer, id, &token));
    *bytes = (const uint8_t *)(token->decoded_bytes ? tokenizer->vocab.decoded.data + token->decoded_at : "");
    *count = token->decoded_bytes;
    return OCTAVO_OK;
}
