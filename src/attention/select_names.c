/* select_names.c - rules and splits as people write them. */
#include "base/error.h"
#include "base/name_index.h"
#include "octavo/attention.h"

static const char *const RULES[] = { "none", "base", "delta", "mass", "certified" };
static const char *const SPLITS[] = { "fill", "fixed" };
enum { RULE_COUNT = sizeof RULES / sizeof *RULES, SPLITS_COUNT = sizeof SPLITS / sizeof *SPLITS };

const char *octavo_select_rule_name(octavo_select_rule rule) { return octavo_name_at(RULES, RULE_COUNT, (int)rule); }

octavo_status octavo_select_rule_parse(const char *name, octavo_select_rule *rule)
{
    const int index = octavo_name_index(RULES, RULE_COUNT, name);
    if (index < 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "select is '%s', expected none, base, delta, mass or certified", name ? name : "NULL");
    *rule = (octavo_select_rule)index;
    return OCTAVO_OK;
}

const char *octavo_decode_splits_name(octavo_decode_splits splits) { return octavo_name_at(SPLITS, SPLITS_COUNT, (int)splits); }

octavo_status octavo_decode_splits_parse(const char *name, octavo_decode_splits *splits)
{
    const int index = octavo_name_index(SPLITS, SPLITS_COUNT, name);
    if (index < 0) return octavo_fail(OCTAVO_E_ARGUMENT, "splits is '%s', expected fill or fixed", name ? name : "NULL");
    *splits = (octavo_decode_splits)index;
    return OCTAVO_OK;
}
