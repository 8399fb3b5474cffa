/* cache_options.h - the options that say how K and V are stored and which blocks a decode reads, the same in every command. */
#ifndef OCTAVO_CLI_CACHE_OPTIONS_H
#define OCTAVO_CLI_CACHE_OPTIONS_H

#include "octavo/attention.h"
#include "options.h"

typedef struct cache_options {
    const char *k_word, *v_word, *select_word, *compensate_word, *splits_word; /* as given; K and V may be NULL: the format stays as it was */
    octavo_k_format k_format;
    octavo_v_format v_format;
    octavo_select_rule select;
    octavo_compensation compensate;
    octavo_decode_splits splits;
    double delta, epsilon;
    int64_t block, sub_block;
} cache_options;

#define CACHE_OPTIONS_INIT \
    { .select_word = "none", .compensate_word = "none", .splits_word = "fill", .delta = 5.545177444479562 /* 8 ln 2 */, .epsilon = 0.1, .block = 64 }

#define CACHE_K_NAMES "f32 bf16 f16 e4m3 e5m2 int8 e4m3x2 e5m2x2 int8x2 int4x2"
#define CACHE_V_NAMES "f32 bf16 f16 e4m3 int8"

enum { CACHE_OPTION_ROWS = 9 };

/* The rows of an option table that fill *cache; the help of --cache-k and --cache-v tells their defaults. */
void cache_options_rows(cache_options *cache, const char *k_help, const char *v_help, option rows[CACHE_OPTION_ROWS]);

/* Reads the words and checks the numbers: EXIT_DONE, or EXIT_REFUSED after a sentence. */
int cache_options_check(cache_options *cache);

/* "none" or "mean". */
const char *cache_compensation_name(octavo_compensation compensation);

#endif
