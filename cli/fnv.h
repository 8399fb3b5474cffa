/* fnv.h - the FNV-1a hash of 64 bits: tells contents apart, does not resist an attacker. */
#ifndef OCTAVO_CLI_FNV_H
#define OCTAVO_CLI_FNV_H

#include <stddef.h>
#include <stdint.h>

typedef uint64_t fnv_hash;
#define FNV_START UINT64_C(0xcbf29ce484222325)

static inline void fnv_add(fnv_hash *hash, const void *data, size_t bytes)
{
    const uint8_t *byte = data;
    uint64_t state = *hash;
    for (size_t i = 0; i < bytes; i++) state = (state ^ byte[i]) * UINT64_C(0x100000001b3);
    *hash = state;
}

#endif
