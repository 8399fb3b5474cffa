/* decoder.c - reads a decoder and turns every token into its bytes once, when the file is opened. */
#include "tokenizer/decoder.h"
#include "base/error.h"
#include "tokenizer/byte_chars.h"
#include "tokenizer/utf8.h"
#include <inttypes.h>
#include <string.h>

enum { DEPTH_MOST = 8, GROWTH_MOST = 16, GROWTH_LEAST = 256, STRIP_MOST = 64 };

#define BYTE_TOKEN_BYTES 6 /* "<0x0A>" */

/* ---- reading ----------------------------------------------------------------------------------------------------- */

static octavo_status read_text(octavo_byte_buffer *out, const octavo_json_field *field)
{
    const char *text;
    size_t bytes;
    OCTAVO_TRY(octavo_json_field_text(field, &text, &bytes));
    return octavo_byte_buffer_append(out, text, bytes);
}

static octavo_status add_replace(octavo_decoder *decoder, const octavo_json_field *field, octavo_decoder_replace **replace)
{
    if (decoder->byte_fallback || decoder->byte_level || decoder->fused)
        return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "replaces after another kind of step");
    if (decoder->replace_count == DECODER_REPLACES_MOST)
        return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "is one replacement too many, expected at most %d", DECODER_REPLACES_MOST);
    *replace = &decoder->replaces[decoder->replace_count++];
    return OCTAVO_OK;
}

static octavo_status read_replace(octavo_decoder *decoder, const octavo_json_field *field)
{
    const octavo_json_field pattern = octavo_json_member(field, "pattern"), content = octavo_json_member(field, "content");
    const octavo_json_field literal = octavo_json_member(&pattern, "String");
    octavo_decoder_replace *replace = NULL;
    OCTAVO_TRY(octavo_json_known(field, "type pattern content"));
    OCTAVO_TRY(octavo_json_known(&pattern, "String"));
    OCTAVO_TRY(add_replace(decoder, field, &replace));
    OCTAVO_TRY(read_text(&replace->from, &literal));
    if (!replace->from.count) return octavo_json_fail(OCTAVO_E_UNSUPPORTED, &literal, "is empty");
    return read_text(&replace->to, &content);
}

static octavo_status read_metaspace(octavo_decoder *decoder, const octavo_json_field *field)
{
    const octavo_json_field mark = octavo_json_member(field, "replacement"), prefix = octavo_json_member(field, "add_prefix_space");
    const octavo_json_field scheme = octavo_json_member(field, "prepend_scheme");
    bool strips = true;
    octavo_decoder_replace *replace = NULL;
    OCTAVO_TRY(octavo_json_known(field, "type replacement add_prefix_space prepend_scheme split str_rep"));
    OCTAVO_TRY(octavo_json_bool(&prefix, OCTAVO_JSON_OPTIONAL, &strips));
    if (!octavo_json_absent(&scheme)) {
        const char *name;
        size_t bytes;
        OCTAVO_TRY(octavo_json_field_text(&scheme, &name, &bytes));
        strips = strcmp(name, "never") != 0;
    }
    OCTAVO_TRY(add_replace(decoder, field, &replace));
    OCTAVO_TRY(read_text(&replace->from, &mark));
    if (!replace->from.count) return octavo_json_fail(OCTAVO_E_FORMAT, &mark, "is empty");
    OCTAVO_TRY(octavo_byte_buffer_append(&replace->to, " ", 1));
    return strips ? read_text(&decoder->first_mark, &mark) : OCTAVO_OK;
}

static octavo_status read_strip(octavo_decoder *decoder, const octavo_json_field *field)
{
    const octavo_json_field content = octavo_json_member(field, "content"), start = octavo_json_member(field, "start");
    const octavo_json_field stop = octavo_json_member(field, "stop");
    int64_t at_start = 0, at_stop = 0;
    OCTAVO_TRY(octavo_json_known(field, "type content start stop"));
    OCTAVO_TRY(octavo_json_whole(&start, 0, STRIP_MOST, &at_start));
    OCTAVO_TRY(octavo_json_whole(&stop, 0, STRIP_MOST, &at_stop));
    if (at_stop) return octavo_json_fail(OCTAVO_E_UNSUPPORTED, &stop, "is %" PRId64 ", expected 0", at_stop);
    if (!decoder->fused || decoder->strip.count)
        return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "does not come once and behind Fuse");
    decoder->strip_most = (size_t)at_start;
    OCTAVO_TRY(read_text(&decoder->strip, &content));
    if (!decoder->strip.count || decoder->strip.count != octavo_utf8_bytes(decoder->strip.data[0]))
        return octavo_json_fail(OCTAVO_E_FORMAT, &content, "is not one character");
    return OCTAVO_OK;
}

static octavo_status read_any(octavo_decoder *decoder, const octavo_json_field *field, int depth)
{
    const octavo_json_field name = octavo_json_member(field, "type"), list = octavo_json_member(field, "decoders");
    const char *type;
    size_t bytes, count;
    OCTAVO_TRY(octavo_json_object(field));
    OCTAVO_TRY(octavo_json_field_text(&name, &type, &bytes));
    if (strcmp(type, "Replace") == 0) return read_replace(decoder, field);
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(decoder, field);
    if (strcmp(type, "Strip") == 0) return read_strip(decoder, field);
    if (strcmp(type, "ByteFallback") == 0 || strcmp(type, "ByteLevel") == 0) {
        if (decoder->byte_fallback || decoder->byte_level || decoder->fused)
            return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "comes behind a step that has made the bytes");
        *(type[4] == 'F' ? &decoder->byte_fallback : &decoder->byte_level) = true;
        return OCTAVO_OK;
    }
    if (strcmp(type, "Fuse") == 0) {
        decoder->fused = true;
        return OCTAVO_OK;
    }
    if (strcmp(type, "Sequence") != 0)
        return octavo_json_fail(OCTAVO_E_UNSUPPORTED, &name, "is '%.40s', expected Sequence, ByteLevel, Metaspace, Replace, ByteFallback, "
                                "Fuse or Strip", type);
    OCTAVO_TRY(octavo_json_known(field, "type decoders"));
    OCTAVO_TRY(octavo_json_field_list(&list, &count));
    if (depth == DEPTH_MOST) return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "is a sequence within %d others", DEPTH_MOST);
    for (size_t i = 0; i < count; i++) {
        const octavo_json_field element = octavo_json_element(&list, i);
        OCTAVO_TRY(read_any(decoder, &element, depth + 1));
    }
    return OCTAVO_OK;
}

octavo_status octavo_decoder_init(octavo_decoder *decoder, const octavo_json_field *field)
{
    if (octavo_json_absent(field))
        return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "is missing or null, so that nobody can tell how tokens become text");
    return read_any(decoder, field, 0);
}

void octavo_decoder_fini(octavo_decoder *decoder)
{
    for (size_t i = 0; i < DECODER_REPLACES_MOST; i++) {
        octavo_byte_buffer_fini(&decoder->replaces[i].from);
        octavo_byte_buffer_fini(&decoder->replaces[i].to);
    }
    octavo_byte_buffer_fini(&decoder->strip);
    octavo_byte_buffer_fini(&decoder->first_mark);
}

/* ---- decoding ---------------------------------------------------------------------------------------------------- */

/* Appends text with every `from` as `to`. OCTAVO_E_UNSUPPORTED, without a sentence: it grows without measure. */
static octavo_status replace_all(const char *text, size_t bytes, const octavo_byte_buffer *from, const octavo_byte_buffer *to,
                                 octavo_byte_buffer *out)
{
    for (size_t at = 0; at < bytes;) {
        const bool match = bytes - at >= from->count && memcmp(text + at, from->data, from->count) == 0;
        if (match) OCTAVO_TRY(octavo_byte_buffer_append(out, to->data, to->count));
        else OCTAVO_TRY(octavo_byte_buffer_append(out, text + at, 1));
        at += match ? from->count : 1;
        if (out->count / GROWTH_MOST > bytes + GROWTH_LEAST) return OCTAVO_E_UNSUPPORTED;
    }
    return OCTAVO_OK;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The byte that "<0x0A>" stands for, or -1. */
static int byte_of(const char *text, size_t bytes)
{
    if (bytes != BYTE_TOKEN_BYTES || memcmp(text, "<0x", 3) != 0 || text[5] != '>') return -1;
    const int high = hex_digit(text[3]), low = hex_digit(text[4]);
    return high < 0 || low < 0 ? -1 : high << 4 | low;
}

/* A text with a character that stands for no byte stays as it is. */
static octavo_status append_byte_level(octavo_byte_buffer *out, const char *text, size_t bytes)
{
    const size_t before = out->count;
    OCTAVO_TRY(octavo_byte_buffer_reserve(out, bytes));
    for (size_t at = 0; at < bytes; at += octavo_utf8_bytes(text[at])) {
        const int32_t byte = octavo_char_byte(octavo_utf8_decode(text + at));
        if (byte < 0) {
            out->count = before;
            return octavo_byte_buffer_append(out, text, bytes);
        }
        out->data[out->count++] = (char)byte;
    }
    return OCTAVO_OK;
}

/* `text` is the token as the file spells it; both buffers are swapped from step to step. */
static octavo_status decode_token(const octavo_decoder *decoder, const octavo_token *token, octavo_byte_buffer *text, octavo_byte_buffer *spare,
                                  octavo_byte_buffer *out)
{
    for (size_t i = 0; i < decoder->replace_count; i++) {
        spare->count = 0;
        OCTAVO_TRY(replace_all(text->data, text->count, &decoder->replaces[i].from, &decoder->replaces[i].to, spare));
        const octavo_byte_buffer swapped = *text;
        *text = *spare;
        *spare = swapped;
    }
    const int byte = decoder->byte_fallback && text->count ? byte_of(text->data, text->count) : -1;
    if (byte >= 0) return octavo_byte_buffer_append(out, &(char){ (char)byte }, 1);
    if (decoder->byte_level && !token->added) return append_byte_level(out, text->data, text->count);
    return octavo_byte_buffer_append(out, text->data, text->count);
}

octavo_status octavo_decoder_apply(const octavo_decoder *decoder, octavo_vocab *vocab, const octavo_json_field *field)
{
    octavo_byte_buffer text = { 0 }, spare = { 0 };
    octavo_status status = OCTAVO_OK;
    for (size_t i = 0; status == OCTAVO_OK && i < vocab->count; i++) {
        octavo_token *token = &vocab->tokens[i];
        token->decoded_at = vocab->decoded.count;
        text.count = 0;
        status = octavo_byte_buffer_append(&text, vocab->text.data + token->text_at, token->text_bytes);
        if (status == OCTAVO_OK) status = decode_token(decoder, token, &text, &spare, &vocab->decoded);
        if (vocab->decoded.count - token->decoded_at > UINT32_MAX) status = octavo_fail(OCTAVO_E_NOMEM, "no memory for the bytes of a token");
        token->decoded_bytes = (uint32_t)(vocab->decoded.count - token->decoded_at);
    }
    octavo_byte_buffer_fini(&text);
    octavo_byte_buffer_fini(&spare);
    if (status != OCTAVO_E_UNSUPPORTED) return status;
    return octavo_json_fail(status, field, "makes tokens more than %d times as long", GROWTH_MOST);
}

octavo_status octavo_decoder_first(const octavo_decoder *decoder, const octavo_vocab *vocab, const octavo_token *token, octavo_byte_buffer *out)
{
    octavo_byte_buffer text = { 0 }, spare = { 0 };
    static const octavo_byte_buffer NOTHING = { 0 };
    if (!decoder->first_mark.count) return octavo_byte_buffer_append(out, vocab->decoded.data + token->decoded_at, token->decoded_bytes);
    octavo_status status = replace_all(vocab->text.data + token->text_at, token->text_bytes, &decoder->first_mark, &NOTHING, &text);
    if (status == OCTAVO_OK) status = decode_token(decoder, token, &text, &spare, out);
    octavo_byte_buffer_fini(&text);
    octavo_byte_buffer_fini(&spare);
    return status;
}
