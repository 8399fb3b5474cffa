/* precision_names.c - the precisions of attention as people write them. */
#include "base/error.h"
#include "octavo/attention.h"
#include <string.h>

static const char *const NAMES[] = { "exact", "fp8", "sage1", "sage2" };
enum { PRECISION_COUNT = sizeof NAMES / sizeof *NAMES };

const char *octavo_attention_precision_name(octavo_attention_precision precision)
{
    return (unsigned)precision < PRECISION_COUNT ? NAMES[precision] : "unknown";
}

octavo_status octavo_attention_precision_parse(const char *name, octavo_attention_precision *precision)
{
    if (!precision) return octavo_fail(OCTAVO_E_ARGUMENT, "precision is NULL, expected where to put the value");
    if (name && !strcmp(name, "sage")) name = NAMES[OCTAVO_ATTENTION_SAGE2];
    for (int i = 0; name && i < PRECISION_COUNT; i++)
        if (!strcmp(name, NAMES[i])) {
            *precision = (octavo_attention_precision)i;
            return OCTAVO_OK;
        }
    return octavo_fail(OCTAVO_E_ARGUMENT, "attention precision is '%s', expected exact, fp8, sage1, sage2 or sage", name ? name : "NULL");
}
