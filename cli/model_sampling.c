/* model_sampling.c - reads the options of sampling. */
#include "model_sampling.h"
#include "cli.h"
#include <string.h>

void model_sampling_rows(model_sampling *sampling, const char *const defaults[SAMPLING_OPTION_ROWS], option rows[SAMPLING_OPTION_ROWS])
{
    const option all[SAMPLING_OPTION_ROWS] = {
        { "temperature", 0, OPTION_NUMBER, "T", defaults[0], &sampling->temperature, 0, 0 },
        { "top-k", 0, OPTION_INTEGER, "K", defaults[1], &sampling->top_k, 0, INT32_MAX },
        { "top-p", 0, OPTION_NUMBER, "P", defaults[2], &sampling->top_p, 0, 0 },
        { "min-p", 0, OPTION_NUMBER, "P", defaults[3], &sampling->min_p, 0, 0 },
        { "seed", 's', OPTION_INTEGER, "N", defaults[4], &sampling->seed, 0, INT64_MAX },
    };
    memcpy(rows, all, sizeof all);
}

static double one_of(double given, float of_model, double otherwise) { return !isnan(given) ? given : of_model >= 0 ? (double)of_model : otherwise; }

void model_sampling_fill(model_sampling *sampling, const octavo_model_config *config, const model_sampling *otherwise)
{
    sampling->temperature = one_of(sampling->temperature, config->temperature, otherwise->temperature);
    sampling->top_p = one_of(sampling->top_p, config->top_p, otherwise->top_p);
    sampling->min_p = one_of(sampling->min_p, config->min_p, otherwise->min_p);
    if (sampling->top_k < 0) sampling->top_k = config->top_k >= 0 ? config->top_k : otherwise->top_k;
}

int model_sampling_check(const model_sampling *sampling)
{
    if (sampling->temperature < 0 || sampling->temperature > 1e6)
        return cli_refuse("option --temperature is %g, expected a number from 0 to 1e6", sampling->temperature);
    if (sampling->top_p < 0 || sampling->top_p > 1) return cli_refuse("option --top-p is %g, expected a share from 0 to 1", sampling->top_p);
    if (sampling->min_p < 0 || sampling->min_p > 1) return cli_refuse("option --min-p is %g, expected a share from 0 to 1", sampling->min_p);
    return EXIT_DONE;
}

octavo_sample_row model_sampling_row(const model_sampling *sampling, float uniform)
{
    return (octavo_sample_row){ .temperature = (float)sampling->temperature, .top_k = (int32_t)sampling->top_k,
                                .top_p = (float)sampling->top_p, .min_p = (float)sampling->min_p, .uniform = uniform };
}

json_t *model_sampling_json(const model_sampling *sampling)
{
    return json_pack("{s:f, s:I, s:f, s:f, s:I}", "temperature", sampling->temperature, "top_k", (json_int_t)sampling->top_k,
                     "top_p", sampling->top_p, "min_p", sampling->min_p, "seed", (json_int_t)sampling->seed);
}
