/* checked.h - sums and products of sizes that say when they do not fit. */
#ifndef OCTAVO_BASE_CHECKED_H
#define OCTAVO_BASE_CHECKED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Each returns true when the exact result fits and is in *result; after false *result must not be used. */

static inline bool octavo_checked_add_size(size_t a, size_t b, size_t *result)
{
    return !__builtin_add_overflow(a, b, result);
}

static inline bool octavo_checked_mul_size(size_t a, size_t b, size_t *result)
{
    return !__builtin_mul_overflow(a, b, result);
}

static inline bool octavo_checked_add_int64(int64_t a, int64_t b, int64_t *result)
{
    return !__builtin_add_overflow(a, b, result);
}

static inline bool octavo_checked_mul_int64(int64_t a, int64_t b, int64_t *result)
{
    return !__builtin_mul_overflow(a, b, result);
}

/* A count or a file offset as a size: false where it is negative or too wide. */
static inline bool octavo_checked_size_from_int64(int64_t a, size_t *result)
{
    return !__builtin_add_overflow(a, 0, result);
}

#endif
