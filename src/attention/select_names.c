/* select_names.c - rules and splits as people write them. */
#include "base/error.h"
#include "octavo/attention.h"
#include <string.h>

static const char *const NAMES[] = { "none", "base", "delta", "mass", "certified" };
static const char *const SPLITS[] = { "fill", "fixed" };
enum { RULE_COUNT = sizeof NAMES / sizeof *NAMES, SPLITS_COUNT = sizeof SPLITS / sizeof *SPLITS };

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

const char *octavo_decode_splits_name(octavo_decode_splits splits)
{
    return (unsigned)splits < SPLITS_COUNT ? SPLITS[splits] : "unknown";
}

octavo_status octavo_decode_splits_parse(const char *name, octavo_decode_splits *splits)
{
    for (int i = 0; name && i < SPLITS_COUNT; i++)
        if (!strcmp(name, SPLITS[i])) {
            *splits = (octavo_decode_splits)i;
            return OCTAVO_OK;
        }
    return octavo_fail(OCTAVO_E_ARGUMENT, "splits is '%s', expected fill or fixed", name ? name : "NULL");
}
