/* byte_chars.h - the printable characters that stand for bytes in byte-level vocabularies: a byte that is printable Latin-1 is
 * itself, the others are U+0100 and up, in order. */
#ifndef OCTAVO_TOKENIZER_BYTE_CHARS_H
#define OCTAVO_TOKENIZER_BYTE_CHARS_H

#include <stdint.h>

static inline int octavo_byte_is_itself(uint32_t byte)
{
    return (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte <= 0xff && byte != 0xad);
}

static inline uint32_t octavo_byte_char(uint32_t byte)
{
    if (octavo_byte_is_itself(byte)) return byte;
    if (byte <= ' ') return 0x100 + byte;
    return byte == 0xad ? 0x143 : 0x121 + (byte - 0x7f);
}

/* -1: it stands for no byte. */
static inline int32_t octavo_char_byte(uint32_t point)
{
    if (point < 0x100) return octavo_byte_is_itself(point) ? (int32_t)point : -1;
    if (point <= 0x120) return (int32_t)point - 0x100;
    if (point < 0x143) return (int32_t)point - 0x121 + 0x7f;
    return point == 0x143 ? 0xad : -1;
}

#endif
