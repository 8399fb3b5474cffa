/* utf8.h - UTF-8 to code points and back. */
#ifndef OCTAVO_TOKENIZER_UTF8_H
#define OCTAVO_TOKENIZER_UTF8_H

#include <stddef.h>
#include <stdint.h>

enum { UTF8_BYTES_MOST = 4 };

/* Bytes of a character, from its first byte; the text is known to be valid. */
static inline size_t octavo_utf8_bytes(char first)
{
    const uint8_t byte = (uint8_t)first;
    return byte < 0x80 ? 1 : byte < 0xe0 ? 2 : byte < 0xf0 ? 3 : 4;
}

/* The code point at `text`, which is known to be valid. */
static inline uint32_t octavo_utf8_decode(const char *text)
{
    const uint8_t *b = (const uint8_t *)text;
    switch (octavo_utf8_bytes(*text)) {
    case 1:  return b[0];
    case 2:  return (b[0] & 0x1fu) << 6 | (b[1] & 0x3fu);
    case 3:  return (b[0] & 0x0fu) << 12 | (b[1] & 0x3fu) << 6 | (b[2] & 0x3fu);
    default: return (b[0] & 0x07u) << 18 | (b[1] & 0x3fu) << 12 | (b[2] & 0x3fu) << 6 | (b[3] & 0x3fu);
    }
}

/* Writes at most UTF8_BYTES_MOST bytes and returns how many. */
static inline size_t octavo_utf8_encode(uint32_t point, char *text)
{
    if (point < 0x80) {
        text[0] = (char)point;
        return 1;
    }
    const size_t bytes = point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
    for (size_t i = bytes; i-- > 1; point >>= 6) text[i] = (char)(0x80 | (point & 0x3f));
    text[0] = (char)((bytes == 2 ? 0xc0 : bytes == 3 ? 0xe0 : 0xf0) | point);
    return bytes;
}

/* How many bytes from the start are whole, valid characters: `bytes` for valid text. Overlong forms, surrogates and what lies
 * past U+10FFFF are invalid. */
static inline size_t octavo_utf8_valid_bytes(const char *text, size_t bytes)
{
    static const uint32_t LEAST[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t at = 0;
    while (at < bytes) {
        const uint8_t first = (uint8_t)text[at];
        const size_t length = octavo_utf8_bytes(text[at]);
        if (first < 0x80) {
            at++;
            continue;
        }
        if (first < 0xc2 || first > 0xf4 || length > bytes - at) return at;
        for (size_t i = 1; i < length; i++)
            if (((uint8_t)text[at + i] & 0xc0) != 0x80) return at;
        const uint32_t point = octavo_utf8_decode(text + at);
        if (point < LEAST[length] || point > 0x10ffff || (point >= 0xd800 && point < 0xe000)) return at;
        at += length;
    }
    return at;
}

#endif
