/* model_options.h - the options that every command with a model shares. */
#ifndef OCTAVO_CLI_MODEL_OPTIONS_H
#define OCTAVO_CLI_MODEL_OPTIONS_H

#include "cache_options.h"
#include "octavo/model.h"

enum { MODEL_DENSE_MOST = 1024 };

typedef struct model_options {
    const char *model; /* a folder */
    const char *device, *linear_word, *attention_word, *decode_word, *scales_word, *dense_word;
    int32_t linear; /* octavo_linear_precision, or OCTAVO_LINEAR_AS_STORED */
    octavo_attention_precision attention, decode_attention;
    octavo_prefill_scales attention_scales;
    cache_options cache; /* formats 0: exact */
    int32_t dense_layers[MODEL_DENSE_MOST], dense_count;
    int64_t context; /* tokens; 0: the command decides */
    int64_t chunk, threads;
} model_options;

#define MODEL_OPTIONS_INIT                                                                                                  \
    { .device = "cpu", .linear_word = "as-stored", .attention_word = "exact", .decode_word = "exact", .scales_word = "block",  \
      .cache = CACHE_OPTIONS_INIT }

enum { MODEL_OPTION_ROWS = 10 + CACHE_OPTION_ROWS };

/* The rows of an option table that fill *options, ended; fills in the default of threads. */
void model_options_rows(model_options *options, option rows[MODEL_OPTION_ROWS + 1]);

/* Reads the words and checks the numbers: EXIT_DONE, or EXIT_REFUSED after a sentence. */
int model_options_check(model_options *options);

#endif
