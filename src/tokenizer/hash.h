/* hash.h - seeded hashes, so that a file cannot be written to make its own tables slow. */
#ifndef OCTAVO_TOKENIZER_HASH_H
#define OCTAVO_TOKENIZER_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

__extension__ typedef unsigned __int128 octavo_uint128;

/* Both halves of the product: every bit of a and b reaches every bit of the result. */
static inline uint64_t octavo_hash_mix(uint64_t a, uint64_t b)
{
    const octavo_uint128 product = (octavo_uint128)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

static inline uint64_t octavo_hash_number(uint64_t seed, uint64_t number)
{
    return octavo_hash_mix(octavo_hash_mix(number ^ seed, 0x9e3779b97f4a7c15u) ^ seed, 0xd6e8feb86659fd93u);
}

static inline uint64_t octavo_hash_bytes(uint64_t seed, const char *bytes, size_t count)
{
    uint64_t hash = seed ^ count;
    for (; count >= 8; bytes += 8, count -= 8) {
        uint64_t word;
        memcpy(&word, bytes, 8);
        hash = octavo_hash_mix(hash ^ word, 0x9e3779b97f4a7c15u) ^ seed;
    }
    uint64_t rest = 0;
    for (size_t i = 0; i < count; i++) rest = rest << 8 | (uint8_t)bytes[i];
    return octavo_hash_number(hash, rest);
}

#endif
