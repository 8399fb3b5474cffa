/* cmd_verify.c - `octavo verify`: a model's logits against those that another implementation gave. */
#include "cli.h"
#include "model_text.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct verify_settings {
    const char *golden;
    double tolerance; /* negative: by the precision */
    int decode, json;
    model_options model;
} verify_settings;

/* ||ours - theirs||^2 and so on, summed over all logits. */
typedef struct verify_sums {
    double error, theirs, max_error;
    int64_t same_top, tokens;
} verify_sums;

static int parse(int argc, char **argv, verify_settings *settings, int *status)
{
    option rows[MODEL_OPTION_ROWS + 1];
    *settings = (verify_settings){ .tolerance = -1, .model = MODEL_OPTIONS_INIT };
    settings->model.linear_word = "f32";
    const option options[] = {
        { "golden", 0, OPTION_TEXT, "FILE", "input_ids [batch, tokens] I32 and logits [batch, tokens, vocab] F32\n(default: DIR/golden.safetensors)",
          &settings->golden, 0, 0 },
        { "tolerance", 0, OPTION_NUMBER, "E", "largest relative error that passes (default 1e-5 where\neverything is float32, else 0.1)",
          &settings->tolerance, 0, 0 },
        { "decode", 0, OPTION_FLAG, NULL, "every token goes through decode, one after the other", &settings->decode, 0, 0 },
        { "json", 0, OPTION_FLAG, NULL, "prints JSON", &settings->json, 0, 0 },
        { 0 },
    };
    const command_line line = {
        .usage = "octavo verify --model DIR [--golden FILE] [OPTIONS]",
        .about = "Compares a model's logits with a file of them. Linear layers and cache are float32\n"
                 "unless told otherwise; eight-bit weights are multiplied out. Exit status 1: the\n"
                 "error is larger than the tolerance.\n",
        .options = options,
        .more = rows,
    };
    model_options_rows(&settings->model, rows);
    if (options_parse(&line, argc, argv, status) == OPTIONS_STOP) return 0;
    *status = model_options_check(&settings->model);
    return *status == EXIT_DONE;
}

static double default_tolerance(const model_run *run)
{
    const cache_options *cache = &run->options->cache;
    const int exact = octavo_model_linear(run->model) == OCTAVO_LINEAR_F32 && run->options->attention == OCTAVO_ATTENTION_EXACT &&
                      run->options->decode_attention == OCTAVO_ATTENTION_EXACT &&
                      cache->select == OCTAVO_SELECT_NONE && (!cache->k_format || cache->k_format == OCTAVO_K_F32) &&
                      (!cache->v_format || cache->v_format == OCTAVO_V_F32);
    return exact ? 1e-5 : 0.1;
}

static int64_t largest(const float *logits, int64_t vocab)
{
    int64_t best = 0;
    for (int64_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

static void compare(const float *ours, const float *theirs, int64_t tokens, int64_t vocab, verify_sums *sums)
{
    for (int64_t i = 0; i < tokens * vocab; i++) {
        const double difference = (double)ours[i] - (double)theirs[i];
        sums->error += difference * difference;
        sums->theirs += (double)theirs[i] * (double)theirs[i];
        if (!(fabs(difference) <= sums->max_error)) sums->max_error = fabs(difference); /* NaN stays */
    }
    for (int64_t t = 0; t < tokens; t++) sums->same_top += largest(ours + t * vocab, vocab) == largest(theirs + t * vocab, vocab);
    sums->tokens += tokens;
}

/* One sequence, in pieces, so that the logits of a piece are all that is held. */
static int verify_sequence(const model_run *run, const verify_settings *settings, octavo_session *session, const int32_t *ids,
                           const float *theirs, int64_t tokens, float *ours, verify_sums *sums)
{
    const int64_t vocab = run->config->vocab;
    int32_t sequence;
    if (octavo_session_sequence(session, &sequence) != OCTAVO_OK) return cli_refuse_last();
    for (int64_t first = 0; first < tokens;) {
        octavo_forward_params forward = OCTAVO_FORWARD_PARAMS_INIT;
        forward.batch = 1;
        forward.tokens = model_run_piece(run, tokens - first);
        forward.sequences = &sequence;
        forward.ids = ids + first;
        forward.path = settings->decode ? OCTAVO_PATH_DECODE : OCTAVO_PATH_AUTO;
        forward.all_logits = ours;
        if (octavo_session_forward(session, &forward) != OCTAVO_OK) return cli_refuse_last();
        compare(ours, theirs + first * vocab, forward.tokens, vocab, sums);
        first += forward.tokens;
    }
    return octavo_session_free(session, sequence) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

static int verify_all(const model_run *run, const verify_settings *settings, const model_ids *ids, const float *theirs, verify_sums *sums)
{
    const int64_t vocab = run->config->vocab, piece = ids->tokens < run->chunk + 1 ? ids->tokens : run->chunk + 1;
    octavo_session *session = NULL;
    progress_bar bar;
    float *ours = malloc((size_t)(piece * vocab) * sizeof *ours);
    if (!ours) return cli_refuse("there is no memory for the logits of %" PRId64 " tokens", piece);
    int status = model_run_session(run, settings->model.context ? settings->model.context : ids->tokens, 1, 0, &session);
    progress_start(&bar, "sequences", ids->rows);
    for (int64_t row = 0; row < ids->rows && status == EXIT_DONE; row++) {
        status = verify_sequence(run, settings, session, ids->ids + row * ids->tokens, theirs + row * ids->tokens * vocab, ids->tokens, ours, sums);
        progress_step(&bar, row + 1);
    }
    progress_end(&bar);
    octavo_session_destroy(session);
    free(ours);
    return status;
}

static int report(const model_run *run, const verify_settings *settings, const model_ids *ids, const char *golden, const verify_sums *sums)
{
    const double tolerance = settings->tolerance < 0 ? default_tolerance(run) : settings->tolerance;
    const double rel_error = sqrt(sums->error / sums->theirs), agreement = (double)sums->same_top / (double)sums->tokens;
    const int passed = rel_error <= tolerance;
    if (!isfinite(rel_error)) {
        cli_refuse("the model's logits are not finite");
        return EXIT_CHECK_FAILED;
    }
    int status;
    if (settings->json) {
        status = model_print_json(json_pack("{s:s, s:f, s:f, s:f, s:f, s:b, s:I, s:I, s:I, s:b, s:o}", "schema", "octavo-verify-1", "rel_error",
                                            rel_error, "max_error", sums->max_error, "top1_agreement", agreement, "tolerance", tolerance,
                                            "passed", passed, "batch", (json_int_t)ids->rows, "tokens", (json_int_t)ids->tokens, "vocab",
                                            (json_int_t)run->config->vocab, "decode", settings->decode, "settings", model_run_settings(run)));
    } else {
        printf("%s\nrelative error %.3e, tolerance %.3g: %s\nlargest error  %.3e\nsame top token %.2f%% of %" PRId64 "\n", model_path_name(golden),
               rel_error, tolerance, passed ? "passed" : "FAILED", sums->max_error, 100 * agreement, sums->tokens);
        status = cli_finish_output();
    }
    return status == EXIT_DONE && !passed ? EXIT_CHECK_FAILED : status;
}

static int find_logits(const model_run *run, const octavo_safetensors *file, const char *path, const model_ids *ids, const float **logits)
{
    octavo_tensor tensor;
    double norm = 0;
    if (octavo_safetensors_find(file, "logits", &tensor) != OCTAVO_OK) return cli_refuse_last();
    if (tensor.dtype != OCTAVO_F32 || tensor.ndim != 3 || tensor.shape[0] != ids->rows || tensor.shape[1] != ids->tokens)
        return cli_refuse("%s: 'logits' is not F32 [%" PRId64 ", %" PRId64 ", vocabulary] as 'input_ids' has it", path, ids->rows, ids->tokens);
    if (tensor.shape[2] != run->config->vocab)
        return cli_refuse("%s: 'logits' has a vocabulary of %" PRId64 ", the model has %" PRId32, path, tensor.shape[2], run->config->vocab);
    *logits = tensor.data;
    for (int64_t i = 0; i < ids->rows * ids->tokens * tensor.shape[2]; i++) norm += (double)(*logits)[i] * (double)(*logits)[i];
    if (!isfinite(norm) || norm == 0) return cli_refuse("%s: 'logits' are all zero, or not finite", path);
    return EXIT_DONE;
}

static int verify_file(const model_run *run, const verify_settings *settings, const octavo_safetensors *file, const char *path)
{
    model_ids ids;
    const float *theirs = NULL;
    verify_sums sums = { 0 };
    int status = model_ids_of_file(run, file, path, "input_ids", &ids);
    if (status != EXIT_DONE) return status;
    status = find_logits(run, file, path, &ids, &theirs);
    if (status == EXIT_DONE) status = verify_all(run, settings, &ids, theirs, &sums);
    if (status == EXIT_DONE) status = report(run, settings, &ids, path, &sums);
    free(ids.ids);
    return status;
}

int cmd_verify(int argc, char **argv)
{
    verify_settings settings;
    model_run run;
    octavo_safetensors *file = NULL;
    char path[4096];
    int status;
    if (!parse(argc, argv, &settings, &status)) return status;
    if (snprintf(path, sizeof path, "%s%s", settings.golden ? settings.golden : settings.model.model,
                 settings.golden ? "" : "/golden.safetensors") >= (int)sizeof path)
        return cli_refuse("option --%s is too long a path", settings.golden ? "golden" : "model");
    if (octavo_safetensors_open(path, &file) != OCTAVO_OK) return cli_refuse_last();
    status = model_run_open(&run, &settings.model);
    if (status == EXIT_DONE) status = verify_file(&run, &settings, file, path);
    model_run_close(&run);
    octavo_safetensors_close(file);
    return status;
}
