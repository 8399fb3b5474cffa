/* model_sampling.h - the options that say how a token is drawn. */
#ifndef OCTAVO_CLI_MODEL_SAMPLING_H
#define OCTAVO_CLI_MODEL_SAMPLING_H

#include "octavo/model.h"
#include "options.h"
#include <jansson.h>
#include <math.h>

typedef struct model_sampling {
    double temperature, top_p, min_p;
    int64_t top_k, seed;
} model_sampling;

enum { SAMPLING_OPTION_ROWS = 5 };

/* The rows of an option table that fill *sampling, which holds the defaults; `defaults` is their help, a text a row. */
void model_sampling_rows(model_sampling *sampling, const char *const defaults[SAMPLING_OPTION_ROWS], option rows[SAMPLING_OPTION_ROWS]);
/* What no option gave: NAN, and -1 for top_k. */
#define SAMPLING_NOT_GIVEN { .temperature = NAN, .top_p = NAN, .min_p = NAN, .top_k = -1, .seed = 1 }
/* Fills in what no option gave: as the model's generation_config.json has it, else as `otherwise` has it. */
void model_sampling_fill(model_sampling *sampling, const octavo_model_config *config, const model_sampling *otherwise);

/* EXIT_DONE, or EXIT_REFUSED after a sentence. */
int model_sampling_check(const model_sampling *sampling);

octavo_sample_row model_sampling_row(const model_sampling *sampling, float uniform);
json_t *model_sampling_json(const model_sampling *sampling);

#endif
