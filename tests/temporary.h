/* temporary.h - folders and files for what a test writes, below TMPDIR or /tmp. */
#ifndef OCTAVO_TESTS_TEMPORARY_H
#define OCTAVO_TESTS_TEMPORARY_H

#include <stdio.h>
#include <stdlib.h>

enum { TEMPORARY_BYTES = 512 };

/* A path that mkstemp and mkdtemp complete; longer ones are cut, and fail there. */
static inline char *temporary_name(char path[TEMPORARY_BYTES])
{
    const char *base = getenv("TMPDIR");
    snprintf(path, TEMPORARY_BYTES, "%.400s/octavo-test-XXXXXX", base && *base ? base : "/tmp");
    return path;
}

/* 0, or -1 where there is none. */
static inline int temporary_folder(char path[TEMPORARY_BYTES]) { return mkdtemp(temporary_name(path)) ? 0 : -1; }

#endif
