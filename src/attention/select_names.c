/* select_names.c - the rules as people write them. */
#include "base/error.h"
#include "octavo/attention.h"
#include <string.h>

static const char *const NAMES[] = { "none", "base", "delta", "mass", "certified" };
enum { RULE_COUNT = sizeof NAMES / sizeof *NAMES };

const char *octavo_select_rule_name(octavo_select_rule rule)
{
    return (unsigned)rule < RULE_COUNT ? NAMES[rule] : "unknown";
}

octavo_status octavo_select_rule_parse(const char *name, octavo_select_rule *rule)
{
    for (int i = 0; name && i < RULE_COUNT; i++)
        if (!strcmp(name, NAMES[i])) {
            *rule = (octavo_select_rule)i;
            return OCTAVO_OK;
        }
    return octavo_fail(OCTAVO_E_ARGUMENT, "select is '%s', expected none, base, delta, mass or certified", name ? name : "NULL");
}
