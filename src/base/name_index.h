/* name_index.h - names that people write for the values of an enumeration. */
#ifndef OCTAVO_BASE_NAME_INDEX_H
#define OCTAVO_BASE_NAME_INDEX_H

#include <string.h>

/* Index of `name` among names[0..count), of which some may be NULL; -1: it is none of them, or NULL. */
static inline int octavo_name_index(const char *const *names, int count, const char *name)
{
    for (int i = 0; name && i < count; i++)
        if (names[i] && !strcmp(name, names[i])) return i;
    return -1;
}

/* The name of a value; "unknown" for one that has none. */
static inline const char *octavo_name_at(const char *const *names, int count, int value)
{
    return value >= 0 && value < count && names[value] ? names[value] : "unknown";
}

#endif
