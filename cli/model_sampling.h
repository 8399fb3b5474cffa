/* model_sampling.h - the options that say how a token is drawn. */
#ifndef OCTAVO_CLI_MODEL_SAMPLING_H
#define OCTAVO_CLI_MODEL_SAMPLING_H

#include "octavo/layer.h"
#include "options.h"
#include <jansson.h>

typedef struct model_sampling {
    double temperature, top_p, min_p;
    int64_t top_k, seed;
} model_sampling;

enum { SAMPLING_OPTION_ROWS = 5 };

/* The rows of an option table that fill *sampling, which holds the defaults; `defaults` is their help, a text a row. */
void model_sampling_rows(model_sampling *sampling, const char *const defaults[SAMPLING_OPTION_ROWS], option rows[SAMPLING_OPTION_ROWS]);
/* EXIT_DONE, or EXIT_REFUSED after a sentence. */
int model_sampling_check(const model_sampling *sampling);

octavo_sample_row model_sampling_row(const model_sampling *sampling, float uniform);
json_t *model_sampling_json(const model_sampling *sampling);

#endif
