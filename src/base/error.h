/* error.h - how every layer reports a failure: a status, and one sentence kept for this thread. */
#ifndef OCTAVO_BASE_ERROR_H
#define OCTAVO_BASE_ERROR_H

#include "base/sibling.h"
#include "octavo/status.h"

/* Keeps the sentence for octavo_last_error() and returns `status`, so that failures read `return octavo_fail(...)`.
 * Control characters in the result are replaced by '?' (names come from files). */
OCTAVO_SIBLING octavo_status octavo_fail(octavo_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define OCTAVO_TRY(expression)                               \
    do {                                                     \
        const octavo_status octavo_try_ = (expression);      \
        if (octavo_try_ != OCTAVO_OK) return octavo_try_;    \
    } while (0)

/* The same with a cleanup label; `status` is the enclosing function's variable. */
#define OCTAVO_TRY_GOTO(status, expression, label)           \
    do {                                                     \
        (status) = (expression);                             \
        if ((status) != OCTAVO_OK) goto label;               \
    } while (0)

#endif
