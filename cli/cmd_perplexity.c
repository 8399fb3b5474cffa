/* cmd_perplexity.c - `octavo perplexity`: how well a model predicts a text, with any precision switched on. */
#include "cli.h"
#include "machine.h"
#include "model_text.h"
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct perplexity_settings {
    const char *text, *ids;
    int64_t tokens, last; /* 0: all */
    int decode, json;
    model_options model;
} perplexity_settings;

typedef struct perplexity_run {
    const model_run *run;
    const perplexity_settings *settings;
    octavo_session *session;
    octavo_path path;      /* of scored tokens */
    int64_t window;        /* tokens           */
    float *logprob;        /* [run->chunk + 1] */
    double loss;           /* sum              */
    int64_t predictions, windows, processed, top;
    double seconds, cache_bytes, skip_ratio;
    octavo_session_stats stats;
    progress_bar bar;
} perplexity_run;

static int parse(int argc, char **argv, perplexity_settings *settings, int *status)
{
    option rows[MODEL_OPTION_ROWS + 1];
    *settings = (perplexity_settings){ .model = MODEL_OPTIONS_INIT };
    const option options[] = {
        { "text", 0, OPTION_TEXT, "FILE", "the text, UTF-8; - is the standard input", &settings->text, 0, 0 },
        { "ids", 0, OPTION_TEXT, "FILE", "instead: a safetensors file with input_ids, one text a row", &settings->ids, 0, 0 },
        { "tokens", 0, OPTION_INTEGER, "N", "the first N of each text (default: all)", &settings->tokens, 2, INT32_MAX },
        { "last", 0, OPTION_INTEGER, "N", "scores the last N tokens of each window only", &settings->last, 1, INT32_MAX },
        { "decode", 0, OPTION_FLAG, NULL, "scores through decode, as a selection does anyway", &settings->decode, 0, 0 },
        { "json", 0, OPTION_FLAG, NULL, "prints JSON (docs/JSON.md)", &settings->json, 0, 0 },
        { 0 },
    };
    const command_line line = {
        .usage = "octavo perplexity --model DIR (--text FILE | --ids FILE) [OPTIONS]",
        .about = "Mean loss in nats and perplexity of a text, which is encoded without added tokens.\n"
                 "--context cuts it into independent windows of so many tokens; N tokens give N - 1\n"
                 "predictions. With --select every scored token goes through decode, one at a time.\n",
        .options = options,
        .more = rows,
    };
    model_options_rows(&settings->model, rows);
    if (options_parse(&line, argc, argv, status) == OPTIONS_STOP) return 0;
    if (!settings->text == !settings->ids)
        *status = cli_refuse(settings->text ? "options --text and --ids exclude each other"
                                            : "one of the options --text FILE and --ids FILE is needed");
    if (*status == EXIT_DONE) *status = model_options_check(&settings->model);
    return *status == EXIT_DONE;
}

/* Scores the predictions of ids[first + 1 .. count - 1]; what is before `first` is in the cache. */
static int score(perplexity_run *p, int32_t sequence, const int32_t *ids, int64_t first, int64_t count)
{
    while (first < count - 1) {
        octavo_forward_params forward = OCTAVO_FORWARD_PARAMS_INIT;
        const int64_t left = count - 1 - first;
        forward.batch = 1;
        forward.tokens = p->path == OCTAVO_PATH_DECODE ? 1 : model_run_piece(p->run, left); /* so that progress shows */
        forward.sequences = &sequence;
        forward.ids = ids + first;
        forward.path = p->path;
        forward.targets = ids + first + 1;
        forward.logprob = p->logprob;
        if (octavo_session_forward(p->session, &forward) != OCTAVO_OK) return cli_refuse_last();
        for (int64_t i = 0; i < forward.tokens; i++) p->loss -= (double)p->logprob[i];
        first += forward.tokens;
        p->predictions += forward.tokens;
        p->processed += forward.tokens;
        progress_step(&p->bar, p->processed);
    }
    return EXIT_DONE;
}

/* What decode would read: the window's last token, which nothing follows, goes through it, once. */
static int probe_decode(perplexity_run *p, int32_t sequence, const int32_t *id)
{
    octavo_session_stats stats;
    octavo_forward_params forward = OCTAVO_FORWARD_PARAMS_INIT;
    forward.batch = forward.tokens = 1;
    forward.sequences = &sequence;
    forward.ids = id;
    forward.path = OCTAVO_PATH_DECODE;
    octavo_session_stats_of(p->session, &p->stats);
    octavo_session_stats_reset(p->session);
    if (octavo_session_forward(p->session, &forward) != OCTAVO_OK) return cli_refuse_last();
    octavo_session_stats_of(p->session, &stats);
    p->cache_bytes = (double)stats.decode_cache_bytes;
    p->skip_ratio = stats.skip_ratio;
    octavo_session_stats_reset(p->session);
    return EXIT_DONE;
}

static int run_window(perplexity_run *p, const int32_t *ids, int64_t count, int is_last)
{
    const int64_t last = p->settings->last, first = last && last < count - 1 ? count - 1 - last : 0;
    const double start = machine_seconds();
    int32_t sequence;
    if (octavo_session_sequence(p->session, &sequence) != OCTAVO_OK) return cli_refuse_last();
    int status = model_run_prefill(p->run, p->session, sequence, ids, first, NULL);
    p->processed += first;
    progress_step(&p->bar, p->processed);
    if (status == EXIT_DONE) status = score(p, sequence, ids, first, count);
    p->seconds += machine_seconds() - start;
    p->windows++;
    if (status == EXIT_DONE && is_last && p->path != OCTAVO_PATH_DECODE) status = probe_decode(p, sequence, ids + count - 1);
    if (status == EXIT_DONE && octavo_session_free(p->session, sequence) != OCTAVO_OK) status = cli_refuse_last();
    return status;
}

/* The last window of a text may be shorter; one of a single token predicts nothing. */
static int run_windows(perplexity_run *p, const model_ids *ids, int64_t tokens)
{
    const int64_t leftover = tokens % p->window, scored = leftover == 1 ? tokens - 1 : tokens;
    progress_start(&p->bar, "tokens", ids->rows * (scored - (scored - 1) / p->window - 1));
    int status = EXIT_DONE;
    for (int64_t row = 0; row < ids->rows; row++)
        for (int64_t first = 0; first < scored && status == EXIT_DONE; first += p->window) {
            const int64_t count = scored - first < p->window ? scored - first : p->window;
            status = run_window(p, ids->ids + row * ids->tokens + first, count, row == ids->rows - 1 && first + count == scored);
        }
    progress_end(&p->bar);
    return status;
}

static int report(const perplexity_run *p, int64_t tokens)
{
    const double mean_loss = p->loss / (double)p->predictions, rate = p->seconds > 0 ? (double)p->processed / p->seconds : 0;
    const octavo_session_stats *stats = &p->stats;
    if (!isfinite(mean_loss)) {
        cli_refuse("the loss is not a finite number");
        return EXIT_CHECK_FAILED;
    }
    if (!p->settings->json) {
        printf("loss %.5f, perplexity %.4f over %" PRId64 " predictions in %" PRId64 " window%s\n", mean_loss, exp(mean_loss), p->predictions,
               p->windows, p->windows == 1 ? "" : "s");
        printf("%.1f tokens/s, decode reads %.0f bytes of cache a token, %.1f%% skipped\n", rate, p->cache_bytes, 100 * p->skip_ratio);
        return cli_finish_output();
    }
    json_t *settings = model_run_settings(p->run);
    if (settings && json_object_set_new(settings, "context", json_integer(p->window)) == 0)
        json_object_set_new(settings, "last", json_integer(p->settings->last));
    return model_print_json(json_pack(
        "{s:s, s:f, s:f, s:I, s:I, s:I, s:f, s:f, s:f, s:s, s:I, s:f, s:I, s:f, s:f, s:I, s:o}", "schema", "octavo-perplexity-1", "mean_loss",
        mean_loss, "perplexity", exp(mean_loss), "tokens", (json_int_t)tokens, "predictions", (json_int_t)p->predictions, "windows",
        (json_int_t)p->windows, "tokens_per_second", rate, "cache_bytes_per_token", p->cache_bytes, "skip_ratio", p->skip_ratio, "path",
        p->path == OCTAVO_PATH_DECODE ? "decode" : "prefill", "prefill_tokens", (json_int_t)stats->prefill_tokens, "prefill_seconds",
        stats->prefill_seconds, "decode_tokens", (json_int_t)stats->decode_tokens, "decode_seconds", stats->decode_seconds,
        "decode_attention_seconds", stats->decode_attention_seconds, "weight_bytes_per_token",
        (json_int_t)octavo_model_bytes_per_token(p->run->model), "settings", settings));
}

static int check_lengths(const model_run *run, const perplexity_settings *settings, const model_ids *ids, int64_t *tokens, int64_t *window)
{
    *tokens = settings->tokens ? settings->tokens : ids->tokens;
    if (*tokens > ids->tokens)
        return cli_refuse("option --tokens asks for %" PRId64 " tokens, but the text has %" PRId64, *tokens, ids->tokens);
    if (*tokens < 2) return cli_refuse("the text has %" PRId64 " token, expected two or more: one predicts the next", *tokens);
    *window = settings->model.context && settings->model.context < *tokens ? settings->model.context : *tokens;
    if (*window < 2) return cli_refuse("option --context is %" PRId64 ", expected two tokens or more", *window);
    if (*window > run->config->max_tokens)
        return cli_refuse("%" PRId64 " tokens are more than the %" PRId64 " that the model was made for; --context N cuts them into windows", *window,
                          run->config->max_tokens);
    return EXIT_DONE;
}

static int run_text(const model_run *run, const perplexity_settings *settings, const model_ids *ids)
{
    int64_t tokens;
    perplexity_run p = { .run = run, .settings = settings };
    int status = check_lengths(run, settings, ids, &tokens, &p.window);
    if (status != EXIT_DONE) return status;
    p.path = settings->decode || settings->model.cache.select != OCTAVO_SELECT_NONE ? OCTAVO_PATH_DECODE : OCTAVO_PATH_AUTO;
    p.logprob = malloc((size_t)(run->chunk + 1) * sizeof *p.logprob);
    if (!p.logprob) return cli_refuse("there is no memory for %" PRId64 " predictions", run->chunk);
    status = model_run_session(run, p.window, 1, 0, &p.session);
    if (status == EXIT_DONE) status = run_windows(&p, ids, tokens);
    if (status == EXIT_DONE && p.path == OCTAVO_PATH_DECODE) {
        octavo_session_stats_of(p.session, &p.stats);
        p.cache_bytes = p.stats.decode_tokens ? (double)p.stats.decode_cache_bytes / (double)p.stats.decode_tokens : 0;
        p.skip_ratio = p.stats.skip_ratio;
    }
    if (status == EXIT_DONE) status = report(&p, tokens);
    octavo_session_destroy(p.session);
    free(p.logprob);
    return status;
}

int cmd_perplexity(int argc, char **argv)
{
    perplexity_settings settings;
    model_run run;
    model_ids ids;
    int status;
    if (!parse(argc, argv, &settings, &status)) return status;
    status = model_run_open(&run, &settings.model);
    if (status == EXIT_DONE) status = model_read_ids(&run, settings.text, settings.ids, &ids);
    if (status == EXIT_DONE) {
        status = run_text(&run, &settings, &ids);
        free(ids.ids);
    }
    model_run_close(&run);
    return status;
}
