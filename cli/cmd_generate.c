/* cmd_generate.c - `octavo generate`: continues a text. */
#define _GNU_SOURCE
#include "cli.h"
#include "model_sampling.h"
#include "model_stream.h"
#include "model_text.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PROMPT_IDS_MOST = 65536 };

typedef struct generate_settings {
    const char *prompt, *prompt_file, *prompt_ids;
    int64_t tokens;
    int bos, no_bos, ids, json, ignore_eos;
    option_list stops;
    model_sampling sampling;
    model_options model;
} generate_settings;

typedef struct generation {
    model_run *run;
    const generate_settings *settings;
    octavo_session *session;
    int32_t sequence;
    model_ids prompt;
    int32_t *ids;    /* [room] the answer */
    float *logprob;  /* [room]            */
    int64_t count, room;
    uint64_t random;
    text_stream stream;
    size_t printed;  /* of stream.text */
    int terminal;    /* the standard output is one */
    const char *finish;
    int status;      /* of what was done with drawn tokens */
} generation;

static int check(const generate_settings *settings)
{
    if (!settings->prompt + !settings->prompt_file + !settings->prompt_ids != 2)
        return cli_refuse("one of the options --prompt TEXT, --prompt-file FILE and --prompt-ids N,N is needed");
    for (size_t i = 0; i < settings->stops.count; i++)
        if (!text_is_utf8(settings->stops.texts[i], strlen(settings->stops.texts[i])))
            return cli_refuse("option --stop is '%s', which is not UTF-8", settings->stops.texts[i]);
    if (settings->bos && settings->no_bos) return cli_refuse("options --bos and --no-bos exclude each other");
    if (settings->ids && settings->stops.count > 0) return cli_refuse("options --ids and --stop exclude each other");
    return model_sampling_check(&settings->sampling);
}

static int parse(int argc, char **argv, generate_settings *settings, int *status)
{
    static const char *const SAMPLING_HELP[SAMPLING_OPTION_ROWS] = {
        "0 takes the likeliest token (default: the model's\ngeneration_config.json, else 0.8)", "only the K likeliest tokens; 0: all (else 40)",
        "only the likeliest that reach P together (else 0.95)", "only those with P times the largest probability (else 0.05)",
        "of SplitMix64 (default 1); the same seed gives the same text,\non a GPU with --select if splits are fixed",
    };
    option rows[MODEL_OPTION_ROWS + 1];
    *settings = (generate_settings){ .tokens = 256, .model = MODEL_OPTIONS_INIT,
                                     .sampling = SAMPLING_NOT_GIVEN };
    const option own[] = {
        { "prompt", 'p', OPTION_TEXT, "TEXT", "what is continued; special tokens count as such", &settings->prompt, 0, 0 },
        { "prompt-file", 0, OPTION_TEXT, "FILE", "the same from a file; - is the standard input", &settings->prompt_file, 0, 0 },
        { "prompt-ids", 0, OPTION_TEXT, "N,N", "the same as token ids", &settings->prompt_ids, 0, 0 },
        { "predict", 'n', OPTION_INTEGER, "N", "at most N new tokens (default 256)", &settings->tokens, 1, INT32_MAX },
        { "stop", 0, OPTION_LIST, "TEXT", "ends the answer before this text; may be given several times", &settings->stops, 0, 0 },
        { "ignore-eos", 0, OPTION_FLAG, NULL, "a token that ends a text does not end the answer", &settings->ignore_eos, 0, 0 },
        { "bos", 0, OPTION_FLAG, NULL, "puts the token that begins a text in front of a text; without it,\nthe model's tokenizer decides", &settings->bos,
          0, 0 },
        { "no-bos", 0, OPTION_FLAG, NULL, "puts nothing there", &settings->no_bos, 0, 0 },
        { "ids", 0, OPTION_FLAG, NULL, "prints token ids instead of text; needs no tokenizer", &settings->ids, 0, 0 },
        { "json", 0, OPTION_FLAG, NULL, "prints one object (docs/JSON.md) at the end", &settings->json, 0, 0 },
    };
    enum { OWN = sizeof own / sizeof *own };
    option options[OWN + SAMPLING_OPTION_ROWS + 1] = { 0 };
    memcpy(options, own, sizeof own);
    model_sampling_rows(&settings->sampling, SAMPLING_HELP, options + OWN);
    const command_line line = {
        .usage = "octavo generate --model DIR (-p TEXT | --prompt-file FILE | --prompt-ids N,N) [OPTIONS]",
        .about = "Continues a text, token by token, to the standard output. The filters of sampling\n"
                 "apply in the order top-k, top-p, min-p.\n",
        .options = options,
        .more = rows,
    };
    model_options_rows(&settings->model, rows);
    if (options_parse(&line, argc, argv, status) == OPTIONS_STOP) return 0;
    *status = check(settings);
    if (*status == EXIT_DONE) *status = model_options_check(&settings->model);
    return *status == EXIT_DONE;
}

/* ---- the prompt ---- */

static int parse_ids(const generation *g, const char *text, model_ids *ids)
{
    int32_t *list = malloc(PROMPT_IDS_MOST * sizeof *list);
    if (!list) return cli_refuse("there is no memory for the prompt");
    const int64_t count = options_integers(text, 0, INT32_MAX, list, PROMPT_IDS_MOST);
    int status = count < 0 ? cli_refuse("option --prompt-ids is not a list of at most %d token ids as N,N", PROMPT_IDS_MOST) : EXIT_DONE;
    if (status == EXIT_DONE) status = model_check_ids(g->run, "option --prompt-ids", list, count);
    if (status != EXIT_DONE) {
        free(list);
        return status;
    }
    *ids = (model_ids){ .ids = list, .rows = 1, .tokens = count };
    return EXIT_DONE;
}

static int read_prompt(generation *g)
{
    const generate_settings *settings = g->settings;
    const bos_rule rule = settings->bos ? BOS_ALWAYS : settings->no_bos ? BOS_NEVER : BOS_AS_TOKENIZER;
    const char *path = settings->prompt_file;
    char *text = NULL;
    size_t bytes;
    int status;
    if (settings->prompt_ids) {
        status = parse_ids(g, settings->prompt_ids, &g->prompt);
    } else if (settings->prompt) {
        status = model_encode_prompt(g->run, "option --prompt", settings->prompt, strlen(settings->prompt), rule, &g->prompt);
    } else {
        status = model_read_text(path, &text, &bytes);
        if (status == EXIT_DONE) status = model_encode_prompt(g->run, path, text, bytes, rule, &g->prompt);
        free(text);
    }
    if (status == EXIT_DONE && g->prompt.tokens == 0) status = cli_refuse("the prompt is empty, expected one token or more");
    if (status == EXIT_DONE && !settings->ids && !g->run->tokenizer) status = model_run_open_tokenizer(g->run);
    return status;
}

/* The last token drawn is not read any more, so it needs no room. */
static int make_room(generation *g)
{
    const int64_t most = g->settings->model.context ? g->settings->model.context : g->run->config->max_tokens;
    if (g->prompt.tokens > most)
        return cli_refuse("the prompt has %" PRId64 " tokens, the context has room for %" PRId64, g->prompt.tokens, most);
    g->room = most - g->prompt.tokens + 1 < g->settings->tokens ? most - g->prompt.tokens + 1 : g->settings->tokens;
    g->ids = malloc((size_t)g->room * sizeof *g->ids);
    g->logprob = malloc((size_t)g->room * sizeof *g->logprob);
    if (!g->ids || !g->logprob) return cli_refuse("there is no memory for %" PRId64 " tokens", g->room);
    const int64_t tokens = g->settings->model.context ? g->settings->model.context : g->prompt.tokens + g->room - 1;
    const int status = model_run_session(g->run, tokens, 1, 0, &g->session);
    if (status != EXIT_DONE) return status;
    return octavo_session_sequence(g->session, &g->sequence) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

/* ---- the answer ---- */

/* Runs the end of the prompt and draws the token after it. */
static int draw_first(generation *g, const int32_t *ids, int64_t count)
{
    const octavo_sample_row row = model_sampling_row(&g->settings->sampling, octavo_random_uniform(g->random, 0));
    octavo_forward_params forward = OCTAVO_FORWARD_PARAMS_INIT;
    forward.batch = 1;
    forward.tokens = count;
    forward.sequences = &g->sequence;
    forward.ids = ids;
    forward.sample = &row;
    forward.sampled = g->ids;
    forward.sampled_exact_logprob = g->logprob;
    if (octavo_session_forward(g->session, &forward) != OCTAVO_OK) return cli_refuse_last();
    g->count = 1;
    return EXIT_DONE;
}

/* Prints what has become certain. */
static int show(generation *g)
{
    if (g->settings->json || g->stream.released == g->printed) return EXIT_DONE;
    text_write(stdout, g->terminal, g->stream.text + g->printed, g->stream.released - g->printed);
    g->printed = g->stream.released;
    return cli_finish_output();
}

/* Takes the newest token into the answer; finish is set where it was the last. */
static int take(generation *g)
{
    const int32_t id = g->ids[g->count - 1];
    const uint8_t *bytes;
    size_t count;
    const int ended = model_run_is_eos(g->run, id) && !g->settings->ignore_eos;
    if (ended) g->finish = "eos";
    else if (g->count == g->room) g->finish = g->room == g->settings->tokens ? "length" : "context";
    if (g->settings->ids) {
        if (!g->settings->json) printf("%s%" PRId32, g->count > 1 ? " " : "", id);
        return g->settings->json ? EXIT_DONE : cli_finish_output();
    }
    /* A vocabulary may be padded with ids that are no token. */
    if (ended || octavo_tokenizer_is_special(g->run->tokenizer, id) || octavo_tokenizer_token_bytes(g->run->tokenizer, id, &bytes, &count) != OCTAVO_OK)
        return EXIT_DONE;
    const stream_state state = text_stream_add(&g->stream, bytes, count);
    if (state == STREAM_FAILED) return cli_refuse("there is no memory for the text");
    if (state == STREAM_STOPPED) g->finish = "stop";
    return show(g);
}

static octavo_generate_next take_drawn(void *user, int64_t step, const octavo_drawn_token *drawn)
{
    generation *g = user;
    (void)step;
    g->ids[g->count] = drawn->token;
    g->logprob[g->count++] = drawn->logprob;
    g->status = take(g);
    return g->status == EXIT_DONE && !g->finish ? OCTAVO_GENERATE_ON : OCTAVO_GENERATE_STOP;
}

/* All tokens behind the first. */
static int draw_others(generation *g)
{
    const octavo_sample_row row = model_sampling_row(&g->settings->sampling, 0.0f);
    octavo_generate_params params = OCTAVO_GENERATE_PARAMS_INIT;
    params.batch = 1;
    params.steps = g->room - 1;
    params.sequences = &g->sequence;
    params.ids = g->ids;
    params.sample = &row;
    params.random = &g->random;
    params.first = 1;
    params.drawn = take_drawn;
    params.user = g;
    return octavo_session_generate(g->session, &params) == OCTAVO_OK ? g->status : cli_refuse_last();
}

static int generate(generation *g)
{
    progress_bar bar;
    progress_start(&bar, "prompt tokens", g->prompt.tokens);
    /* All but the last piece, which is drawn from. */
    int64_t first = 0;
    for (int64_t piece; (piece = model_run_piece(g->run, g->prompt.tokens - first)) < g->prompt.tokens - first;) first += piece;
    int status = model_run_prefill(g->run, g->session, g->sequence, g->prompt.ids, first, &bar);
    if (status == EXIT_DONE) status = draw_first(g, g->prompt.ids + first, g->prompt.tokens - first);
    progress_end(&bar);
    if (status == EXIT_DONE) status = take(g);
    if (status == EXIT_DONE && !g->finish) status = draw_others(g);
    if (status == EXIT_DONE && text_stream_end(&g->stream) == STREAM_FAILED) status = cli_refuse("there is no memory for the text");
    if (status == EXIT_DONE) status = show(g);
    if (status == EXIT_DONE && !g->settings->json && (g->terminal || g->settings->ids)) {
        putchar('\n');
        status = cli_finish_output();
    }
    return status;
}

/* ---- what it took ---- */

typedef struct figures {
    double prefill_rate, decode_rate, cache_bytes, skip_ratio;
    octavo_session_stats stats;
} figures;

static figures measure(const generation *g)
{
    figures f;
    octavo_session_stats_of(g->session, &f.stats);
    f.prefill_rate = f.stats.prefill_seconds > 0 ? (double)f.stats.prefill_tokens / f.stats.prefill_seconds : 0;
    f.decode_rate = f.stats.decode_seconds > 0 ? (double)f.stats.decode_tokens / f.stats.decode_seconds : 0;
    f.cache_bytes = f.stats.decode_tokens > 0 ? (double)f.stats.decode_cache_bytes / (double)f.stats.decode_tokens : 0;
    f.skip_ratio = f.stats.skip_ratio;
    return f;
}

static json_t *id_list(const int32_t *ids, int64_t count)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++) json_array_append_new(list, json_integer(ids[i]));
    return list;
}

static json_t *number_list(const float *numbers, int64_t count)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < count; i++) json_array_append_new(list, json_real((double)numbers[i]));
    return list;
}

static int report(const generation *g)
{
    const figures f = measure(g);
    if (!g->settings->json) {
        cli_say("prefill %" PRId64 " tokens, %.1f/s; decode %" PRId64 " tokens, %.1f/s, %.0f bytes of cache a token, %.1f%% skipped; ended by %s",
                f.stats.prefill_tokens, f.prefill_rate, f.stats.decode_tokens, f.decode_rate, f.cache_bytes, 100 * f.skip_ratio, g->finish);
        return EXIT_DONE;
    }
    json_t *root = json_pack("{s:s, s:s, s:o, s:o, s:o, s:I, s:I, s:f, s:I, s:f, s:f, s:f, s:I, s:f, s:o, s:o}", "schema", "octavo-generate-1",
                             "finish", g->finish, "prompt_ids", id_list(g->prompt.ids, g->prompt.tokens), "ids", id_list(g->ids, g->count),
                             "logprobs", number_list(g->logprob, g->count), "tokens", (json_int_t)g->count, "prefill_tokens", (json_int_t)f.stats.prefill_tokens,
                             "prefill_tokens_per_second", f.prefill_rate, "decode_tokens", (json_int_t)f.stats.decode_tokens,
                             "decode_tokens_per_second", f.decode_rate, "decode_attention_seconds", f.stats.decode_attention_seconds,
                             "cache_bytes_per_token", f.cache_bytes, "weight_bytes_per_token",
                             (json_int_t)octavo_model_bytes_per_token(g->run->model), "skip_ratio", f.skip_ratio, "sampling",
                             model_sampling_json(&g->settings->sampling), "settings", model_run_settings(g->run));
    if (root && !g->settings->ids) json_object_set_new(root, "text", json_stringn(g->stream.text ? g->stream.text : "", g->stream.released));
    return model_print_json(root);
}

int cmd_generate(int argc, char **argv)
{
    generate_settings settings;
    model_run run;
    int status;
    if (!parse(argc, argv, &settings, &status)) return status;
    generation g = { .run = &run, .settings = &settings, .random = octavo_random_derive((uint64_t)settings.sampling.seed, 0),
                     .stream = { .stops = &settings.stops }, .terminal = isatty(STDOUT_FILENO) };
    static const model_sampling DEFAULTS = { .temperature = 0.8, .top_k = 40, .top_p = 0.95, .min_p = 0.05 };
    status = model_run_open(&run, &settings.model);
    if (status == EXIT_DONE) model_sampling_fill(&settings.sampling, run.config, &DEFAULTS);
    if (status == EXIT_DONE) status = read_prompt(&g);
    if (status == EXIT_DONE) status = make_room(&g);
    if (status == EXIT_DONE) status = generate(&g);
    if (status == EXIT_DONE) status = report(&g);
    octavo_session_destroy(g.session);
    text_stream_fini(&g.stream);
    free(g.prompt.ids);
    free(g.ids);
    free(g.logprob);
    model_run_close(&run);
    return status;
}
