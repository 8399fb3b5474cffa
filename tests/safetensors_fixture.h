/* safetensors_fixture.h - safetensors files in memory, made from the text of a header. */
#ifndef OCTAVO_TESTS_SAFETENSORS_FIXTURE_H
#define OCTAVO_TESTS_SAFETENSORS_FIXTURE_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct fixture {
    uint8_t *bytes; /* [size] on the heap, exactly as long as the file, so that a sanitizer sees a read past its end */
    size_t size;
} fixture;

/* Data bytes count up from 0. The header gets spaces up to a multiple of `alignment`. */
static inline fixture fixture_make_aligned(const char *header, size_t data_bytes, size_t alignment)
{
    const size_t length = strlen(header), padded = (length + alignment - 1) / alignment * alignment;
    fixture f = { malloc(8 + padded + data_bytes), 8 + padded + data_bytes };
    for (size_t i = 0; i < 8; i++) f.bytes[i] = (uint8_t)((uint64_t)padded >> (8 * i));
    memcpy(f.bytes + 8, header, length);
    memset(f.bytes + 8 + length, ' ', padded - length);
    for (size_t i = 0; i < data_bytes; i++) f.bytes[8 + padded + i] = (uint8_t)i;
    return f;
}

static inline fixture fixture_make(const char *header, size_t data_bytes) { return fixture_make_aligned(header, data_bytes, 8); }

#endif
