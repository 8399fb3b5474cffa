/* cache_options.c - reads the options of cache and selection. */
#include "cache_options.h"
#include "cli.h"
#include <inttypes.h>
#include <string.h>

void cache_options_rows(cache_options *cache, const char *k_help, const char *v_help, option rows[CACHE_OPTION_ROWS])
{
    const option all[CACHE_OPTION_ROWS] = {
        { "cache-k", 0, OPTION_TEXT, "FORMAT", k_help, &cache->k_word, 0, 0 },
        { "cache-v", 0, OPTION_TEXT, "FORMAT", v_help, &cache->v_word, 0, 0 },
        { "select", 0, OPTION_TEXT, "RULE", "none base delta mass certified (default none)", &cache->select_word, 0, 0 },
        { "delta", 0, OPTION_NUMBER, "NATS", "of the rule delta (default 5.545, 8 ln 2)", &cache->delta, 0, 0 },
        { "epsilon", 0, OPTION_NUMBER, "E", "of the rules mass and certified (default 0.1)", &cache->epsilon, 0, 0 },
        { "compensate", 0, OPTION_TEXT, "HOW", "none mean (default none)", &cache->compensate_word, 0, 0 },
        { "splits", 0, OPTION_TEXT, "HOW", "of a sequence on a GPU: fill it, or fixed: the same bits in any\nbatch and every run (default fill)", &cache->splits_word, 0, 0 },
        { "block", 0, OPTION_INTEGER, "TOKENS", "a block of the cache (default 64)", &cache->block, 1, 65536 },
        { "sub-block", 0, OPTION_INTEGER, "TOKENS", "what is kept or dropped (default: the block)", &cache->sub_block, 1, 65536 },
    };
    memcpy(rows, all, sizeof all);
}

const char *cache_compensation_name(octavo_compensation compensation)
{
    return compensation == OCTAVO_COMPENSATE_MEAN ? "mean" : "none";
}

int cache_options_check(cache_options *cache)
{
    if (cache->k_word && octavo_k_format_parse(cache->k_word, &cache->k_format) != OCTAVO_OK)
        return cli_refuse("option --cache-k: %s", octavo_last_error());
    if (cache->v_word && octavo_v_format_parse(cache->v_word, &cache->v_format) != OCTAVO_OK)
        return cli_refuse("option --cache-v: %s", octavo_last_error());
    if (octavo_select_rule_parse(cache->select_word, &cache->select) != OCTAVO_OK) return cli_refuse("option --select: %s", octavo_last_error());
    if (octavo_decode_splits_parse(cache->splits_word, &cache->splits) != OCTAVO_OK) return cli_refuse("option --splits: %s", octavo_last_error());
    if (strcmp(cache->compensate_word, "mean") == 0)
        cache->compensate = OCTAVO_COMPENSATE_MEAN;
    else if (strcmp(cache->compensate_word, "none") == 0)
        cache->compensate = OCTAVO_COMPENSATE_NONE;
    else
        return cli_refuse("option --compensate is '%s', expected none or mean", cache->compensate_word);
    if (cache->delta < 0) return cli_refuse("option --delta is %g, expected a number of nats that is not negative", cache->delta);
    if (!(cache->epsilon > 0 && cache->epsilon < 1))
        return cli_refuse("option --epsilon is %g, expected a share between 0 and 1", cache->epsilon);
    if (cache->sub_block == 0) cache->sub_block = cache->block;
    if (cache->block % cache->sub_block != 0)
        return cli_refuse("option --sub-block is %" PRId64 ", expected a divisor of the block, %" PRId64, cache->sub_block, cache->block);
    return EXIT_DONE;
}
