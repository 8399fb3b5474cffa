/* model_stream.c - puts characters together, finds stop strings, keeps control characters from a terminal. */
#include "model_stream.h"
#include <stdlib.h>
#include <string.h>

static const char REPLACEMENT[] = "\xef\xbf\xbd"; /* U+FFFD */
enum { REPLACEMENT_BYTES = 3 };

/* Bytes of the character that `lead` begins; 0: none does. */
static size_t character_bytes(unsigned char lead)
{
    if (lead < 0x80) return 1;
    if (lead >= 0xc2 && lead <= 0xdf) return 2; /* c0 and c1 would be longer forms of ASCII */
    if (lead >= 0xe0 && lead <= 0xef) return 3;
    return lead >= 0xf0 && lead <= 0xf4 ? 4 : 0;
}

/* 1: `next` can follow the first `count` bytes of a character. */
static int continues(const unsigned char *start, size_t count, unsigned char next)
{
    unsigned char least = 0x80, most = 0xbf;
    if (count == 1 && start[0] == 0xe0) least = 0xa0; /* no longer forms,   */
    if (count == 1 && start[0] == 0xf0) least = 0x90;
    if (count == 1 && start[0] == 0xed) most = 0x9f; /* no surrogates,      */
    if (count == 1 && start[0] == 0xf4) most = 0x8f; /* nothing past U+10FFFF */
    return next >= least && next <= most;
}

int text_is_utf8(const char *text, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)text;
    for (size_t i = 0; i < bytes;) {
        const size_t length = character_bytes(at[i]);
        if (length == 0 || length > bytes - i) return 0;
        for (size_t k = 1; k < length; k++)
            if (!continues(at + i, k, at[i + k])) return 0;
        i += length;
    }
    return 1;
}

static void append(text_stream *stream, const void *bytes, size_t count)
{
    if (stream->capacity - stream->bytes < count) {
        const size_t capacity = 2 * stream->capacity + count + 256;
        char *text = realloc(stream->text, capacity);
        if (!text) {
            stream->state = STREAM_FAILED;
            return;
        }
        stream->text = text;
        stream->capacity = capacity;
    }
    memcpy(stream->text + stream->bytes, bytes, count);
    stream->bytes += count;
}

/* Looks at the last byte: every stop string ends there once, at the latest. Of those that do the longest counts, the one that
 * begins first. */
static void find_stop(text_stream *stream)
{
    size_t longest = 0;
    for (size_t i = 0; stream->stops && i < stream->stops->count; i++) {
        const size_t length = strlen(stream->stops->texts[i]);
        if (length > longest && length <= stream->bytes - stream->released &&
            memcmp(stream->text + stream->bytes - length, stream->stops->texts[i], length) == 0)
            longest = length;
    }
    if (longest == 0) return;
    stream->bytes -= longest;
    stream->released = stream->bytes;
    stream->state = STREAM_STOPPED;
}

/* Releases all but the longest end of the text that a stop string begins with. */
static void release(text_stream *stream)
{
    size_t held = 0;
    for (size_t i = 0; stream->stops && i < stream->stops->count; i++) {
        const char *stop = stream->stops->texts[i];
        size_t length = strlen(stop) - 1;
        if (length > stream->bytes - stream->released) length = stream->bytes - stream->released;
        for (; length > held; length--)
            if (memcmp(stream->text + stream->bytes - length, stop, length) == 0) held = length;
    }
    stream->released = stream->bytes - held;
}

static void add_character(text_stream *stream, const void *bytes, size_t count)
{
    if (stream->state != STREAM_OPEN) return;
    append(stream, bytes, count);
    if (stream->state == STREAM_OPEN) find_stop(stream);
    if (stream->state == STREAM_OPEN) release(stream);
}

/* What is pending was no character. */
static void replace_pending(text_stream *stream)
{
    if (stream->pending_bytes > 0) add_character(stream, REPLACEMENT, REPLACEMENT_BYTES);
    stream->pending_bytes = 0;
}

stream_state text_stream_add(text_stream *stream, const unsigned char *bytes, size_t count)
{
    for (size_t i = 0; i < count && stream->state == STREAM_OPEN; i++) {
        if (stream->pending_bytes > 0 && !continues(stream->pending, stream->pending_bytes, bytes[i])) replace_pending(stream);
        stream->pending[stream->pending_bytes++] = bytes[i];
        const size_t length = character_bytes(stream->pending[0]);
        if (length == 0) {
            replace_pending(stream);
        } else if (stream->pending_bytes == length) {
            add_character(stream, stream->pending, length);
            stream->pending_bytes = 0;
        }
    }
    return stream->state;
}

stream_state text_stream_end(text_stream *stream)
{
    replace_pending(stream);
    if (stream->state == STREAM_OPEN) stream->released = stream->bytes;
    return stream->state;
}

void text_stream_fini(text_stream *stream)
{
    free(stream->text);
    *stream = (text_stream){ .stops = stream->stops };
}

/* Of the character at `at`, which is complete: C0 but newline and tab, delete, C1. */
static int is_control(const unsigned char *at)
{
    return (at[0] < 0x20 && at[0] != '\n' && at[0] != '\t') || at[0] == 0x7f || (at[0] == 0xc2 && at[1] < 0xa0);
}

void text_write(FILE *file, int terminal, const char *text, size_t bytes)
{
    const unsigned char *at = (const unsigned char *)text;
    if (!terminal) {
        fwrite(text, 1, bytes, file);
        return;
    }
    for (size_t i = 0; i < bytes;) {
        const size_t length = character_bytes(at[i]);
        if (is_control(at + i))
            fwrite(REPLACEMENT, 1, REPLACEMENT_BYTES, file);
        else
            fwrite(at + i, 1, length, file);
        i += length;
    }
}
