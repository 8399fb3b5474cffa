/* precision_names.c - the precisions of attention as people write them. */
#include "base/error.h"
#include "base/name_index.h"
#include "octavo/attention.h"
#include <string.h>

static const char *const NAMES[] = { "exact", "fp8", "sage1", "sage2" };
enum { PRECISION_COUNT = sizeof NAMES / sizeof *NAMES };

const char *octavo_attention_precision_name(octavo_attention_precision precision)
{
    return octavo_name_at(NAMES, PRECISION_COUNT, (int)precision);
}

octavo_status octavo_attention_precision_parse(const char *name, octavo_attention_precision *precision)
{
    if (!precision) return octavo_fail(OCTAVO_E_ARGUMENT, "precision is NULL, expected where to put the value");
    if (name && !strcmp(name, "sage")) name = NAMES[OCTAVO_ATTENTION_SAGE2];
    const int index = octavo_name_index(NAMES, PRECISION_COUNT, name);
    if (index < 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "attention precision is '%s', expected exact, fp8, sage1, sage2 or sage", name ? name : "NULL");
    *precision = (octavo_attention_precision)index;
    return OCTAVO_OK;
}
