/* cmd_rollout.c - `octavo rollout`: several sampled answers a prompt, with their log-probabilities. */
#include "cli.h"
#include "fnv.h"
#include "jsonl_prompts.h"
#include "model_hash.h"
#include "model_rollout.h"
#include "model_text.h"
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { SAMPLES_MOST = 4096 };

typedef struct rollout_settings {
    const char *prompts, *out, *score;
    int64_t samples, max_tokens;
    int bos, no_bos, ids, ignore_eos;
    option_list stops;
    model_sampling sampling;
    model_options model;
} rollout_settings;

static int check(const rollout_settings *settings)
{
    if (!settings->prompts || !settings->out) return cli_refuse("option --%s FILE is needed", settings->prompts ? "out" : "prompts");
    if (strcmp(settings->score, "none") != 0 && strcmp(settings->score, "bf16") != 0 && strcmp(settings->score, "f32") != 0)
        return cli_refuse("option --score is '%s', expected none, bf16 or f32", settings->score);
    for (size_t i = 0; i < settings->stops.count; i++)
        if (!text_is_utf8(settings->stops.texts[i], strlen(settings->stops.texts[i])))
            return cli_refuse("option --stop is '%s', which is not UTF-8", settings->stops.texts[i]);
    if (settings->bos && settings->no_bos) return cli_refuse("options --bos and --no-bos exclude each other");
    if (settings->ids && settings->stops.count > 0) return cli_refuse("options --ids and --stop exclude each other");
    return model_sampling_check(&settings->sampling);
}

static int parse(int argc, char **argv, rollout_settings *settings, int *status)
{
    static const char *const SAMPLING_HELP[SAMPLING_OPTION_ROWS] = {
        "0 takes the likeliest token (default 1)", "only the K likeliest tokens; 0: all (default 0)",
        "only the likeliest that reach P together (default 1)", "only those with P times the largest probability (default 0)",
        "of SplitMix64, for each prompt and sample another stream (default 1)",
    };
    option rows[MODEL_OPTION_ROWS + 1];
    *settings = (rollout_settings){ .samples = 8, .max_tokens = 256, .score = "none", .model = MODEL_OPTIONS_INIT,
                                    .sampling = { .temperature = 1, .top_p = 1, .seed = 1 } };
    const option own[] = {
        { "prompts", 0, OPTION_TEXT, "FILE", "a JSON object a line: \"prompt\" (text) or \"ids\", optionally \"id\"", &settings->prompts, 0, 0 },
        { "samples", 0, OPTION_INTEGER, "N", "answers a prompt, decoded together (default 8)", &settings->samples, 1, SAMPLES_MOST },
        { "max-tokens", 'n', OPTION_INTEGER, "N", "of an answer (default 256)", &settings->max_tokens, 1, INT32_MAX },
        { "out", 0, OPTION_TEXT, "FILE", "gets a line an answer, as it ends; taken up again if it exists", &settings->out, 0, 0 },
        { "score", 0, OPTION_TEXT, "TYPE",
          "also log-probabilities with exact attention and cache and linear\nlayers of this type: none bf16 f32 (default none)", &settings->score, 0,
          0 },
        { "stop", 0, OPTION_LIST, "TEXT", "ends an answer before this text; may be given several times", &settings->stops, 0, 0 },
        { "ignore-eos", 0, OPTION_FLAG, NULL, "a token that ends a text does not end an answer", &settings->ignore_eos, 0, 0 },
        { "bos", 0, OPTION_FLAG, NULL, "puts the token that begins a text in front of text prompts; without\nit, the model's tokenizer decides",
          &settings->bos, 0, 0 },
        { "no-bos", 0, OPTION_FLAG, NULL, "puts nothing there", &settings->no_bos, 0, 0 },
        { "ids", 0, OPTION_FLAG, NULL, "leaves the texts out; needs no tokenizer where prompts are ids", &settings->ids, 0, 0 },
    };
    enum { OWN = sizeof own / sizeof *own };
    option options[OWN + SAMPLING_OPTION_ROWS + 1] = { 0 };
    memcpy(options, own, sizeof own);
    model_sampling_rows(&settings->sampling, SAMPLING_HELP, options + OWN);
    const command_line line = {
        .usage = "octavo rollout --model DIR --prompts FILE.jsonl --out FILE.jsonl [OPTIONS]",
        .about = "Samples answers for reinforcement learning: token ids, text and the log-probability\n"
                 "of every token (docs/JSON.md). A prompt's cache is computed once and shared. A run that\n"
                 "was stopped goes on where it was, with the same answers.\n",
        .options = options,
        .more = rows,
    };
    model_options_rows(&settings->model, rows);
    if (options_parse(&line, argc, argv, status) == OPTIONS_STOP) return 0;
    *status = check(settings);
    if (*status == EXIT_DONE) *status = model_options_check(&settings->model);
    return *status == EXIT_DONE;
}

/* ---- the prompts ---- */

static int read_prompts(const rollout_settings *settings, prompt_list *list)
{
    char reason[JSONL_REASON_BYTES];
    int64_t line;
    FILE *file = fopen(settings->prompts, "rb");
    if (!file) return cli_refuse("'%s' cannot be opened: %s", settings->prompts, strerror(errno));
    const int status = prompts_read(file, list, &line, reason);
    fclose(file);
    return status == 0 ? EXIT_DONE : cli_refuse("'%s', line %" PRId64 ": %s", settings->prompts, line, reason);
}

/* Texts become ids. `longest`: tokens of the longest prompt. */
static int encode_prompts(model_run *run, const rollout_settings *settings, prompt_list *list, int64_t *longest)
{
    const bos_rule rule = settings->bos ? BOS_ALWAYS : settings->no_bos ? BOS_NEVER : BOS_AS_TOKENIZER;
    const int64_t most = settings->model.context ? settings->model.context : run->config->max_tokens;
    *longest = 0;
    for (int64_t i = 0; i < list->count; i++) {
        prompt *p = &list->prompts[i];
        char what[64];
        int status = EXIT_DONE;
        snprintf(what, sizeof what, "the prompt of line %" PRId64, p->line);
        if (p->text) {
            model_ids ids;
            status = model_encode_prompt(run, what, p->text, p->bytes, rule, &ids);
            if (status != EXIT_DONE) return status;
            p->ids = ids.ids;
            p->count = ids.tokens;
            free(p->text);
            p->text = NULL;
        } else {
            status = model_check_ids(run, what, p->ids, p->count);
            if (status != EXIT_DONE) return status;
        }
        if (p->count == 0) return cli_refuse("%s gives no token", what);
        if (p->count > most) return cli_refuse("%s has %" PRId64 " tokens, the context has room for %" PRId64, what, p->count, most);
        if (p->count > *longest) *longest = p->count;
    }
    return EXIT_DONE;
}

/* ---- the first line of the file ---- */

static void hash_prompts(const prompt_list *list, char text[MODEL_HASH_BYTES])
{
    fnv_hash hash = FNV_START;
    for (int64_t i = 0; i < list->count; i++) {
        const prompt *p = &list->prompts[i];
        char *id = p->id ? json_dumps(p->id, JSON_ENCODE_ANY) : NULL;
        if (id) fnv_add(&hash, id, strlen(id) + 1);
        free(id);
        fnv_add(&hash, &p->count, sizeof p->count);
        fnv_add(&hash, p->ids, (size_t)p->count * sizeof *p->ids);
    }
    snprintf(text, MODEL_HASH_BYTES, "%016" PRIx64, hash);
}

/* Everything that decides about the answers; how many threads compute them does not. */
static json_t *make_header(const model_run *run, const rollout_settings *settings, const prompt_list *list, const char *model_hash)
{
    char prompts_hash[MODEL_HASH_BYTES];
    json_t *all = model_run_settings(run), *stops = json_array();
    hash_prompts(list, prompts_hash);
    for (size_t i = 0; i < settings->stops.count; i++) json_array_append_new(stops, json_string(settings->stops.texts[i]));
    json_t *own = json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:s, s:o, s:b, s:b, s:b, s:o}", "model_hash", model_hash, "prompts_hash", prompts_hash,
                            "prompts", (json_int_t)list->count, "samples", (json_int_t)settings->samples, "max_tokens",
                            (json_int_t)settings->max_tokens, "context", (json_int_t)settings->model.context, "score", settings->score, "stop", stops,
                            "ignore_eos", settings->ignore_eos, "bos", settings->bos, "ids", settings->ids, "sampling",
                            model_sampling_json(&settings->sampling));
    if (!all || !own || json_object_update(all, own) != 0) {
        json_decref(all);
        all = NULL;
    } else {
        json_object_del(all, "threads");
        json_object_del(all, "isa");
    }
    json_decref(own);
    return json_pack("{s:s, s:o}", "schema", "octavo-rollout-1", "settings", all);
}

/* ---- the run ---- */

/* Room for the prompt once and for every answer, with the pages that they fill in part only. */
static int64_t pool_tokens(const rollout_settings *settings, int64_t longest)
{
    const int64_t block = settings->model.cache.block;
    return longest + block + settings->samples * (settings->max_tokens + 2 * block);
}

static int open_exact(const model_run *run, const rollout_settings *settings, int64_t context, model_run *exact, model_options *options,
                      octavo_session **session)
{
    octavo_model_options open = OCTAVO_MODEL_OPTIONS_INIT;
    *options = settings->model;
    options->linear_word = settings->score;
    options->cache = (cache_options)CACHE_OPTIONS_INIT;
    options->attention = options->decode_attention = OCTAVO_ATTENTION_EXACT;
    options->dense_count = 0;
    int status = cache_options_check(&options->cache);
    if (status != EXIT_DONE) return status;
    open.linear = strcmp(settings->score, "f32") == 0 ? OCTAVO_LINEAR_F32 : OCTAVO_LINEAR_BF16;
    open.threads = (int32_t)settings->model.threads;
    *exact = (model_run){ .options = options, .device = run->device, .config = run->config };
    if (octavo_model_open(run->device, options->model, &open, &exact->model) != OCTAVO_OK) return cli_refuse_last();
    return model_run_session(exact, context, 2, 0, session);
}

static int run_prompts(rollout *r, const prompt_list *list)
{
    progress_bar bar;
    int status = rollout_init(r);
    r->bar = &bar;
    progress_start(&bar, "answers", r->file->done.prompts * r->file->done.samples - r->found);
    for (int64_t i = 0; i < list->count && status == EXIT_DONE; i++) {
        const prompt *p = &list->prompts[i];
        status = rollout_run(r, &(rollout_prompt){ .index = i, .id = p->id, .ids = p->ids, .count = p->count });
    }
    progress_end(&bar);
    rollout_fini(r);
    return status;
}

static void say_figures(const rollout *r)
{
    octavo_session_stats stats;
    octavo_session_stats_of(r->session, &stats);
    const double decoded = (double)stats.decode_tokens;
    cli_say("%" PRId64 " answers, %" PRId64 " of them from before; prefill %.1f tokens/s, decode %.1f tokens/s, %.0f bytes of cache a token, "
            "%.1f%% skipped",
            r->file->done.count, r->found, stats.prefill_seconds > 0 ? (double)stats.prefill_tokens / stats.prefill_seconds : 0,
            stats.decode_seconds > 0 ? decoded / stats.decode_seconds : 0, decoded > 0 ? (double)stats.decode_cache_bytes / decoded : 0,
            100 * stats.skip_ratio);
}

static int run_with_prompts(model_run *run, const rollout_settings *settings, prompt_list *list, const char *model_hash)
{
    int64_t longest;
    model_run exact = { 0 };
    model_options exact_options;
    rollout_file file = { 0 };
    rollout r = { .run = run, .sampling = &settings->sampling, .samples = settings->samples, .max_tokens = settings->max_tokens,
                  .ids_only = settings->ids, .ignore_eos = settings->ignore_eos, .stops = &settings->stops, .file = &file };
    int status = encode_prompts(run, settings, list, &longest);
    if (status == EXIT_DONE && !settings->ids && !run->tokenizer) status = model_run_open_tokenizer(run);
    if (status != EXIT_DONE) return status;
    const int64_t most = settings->model.context ? settings->model.context : run->config->max_tokens;
    r.context = longest + settings->max_tokens - 1 < most ? longest + settings->max_tokens - 1 : most;
    json_t *header = make_header(run, settings, list, model_hash);
    status = header ? rollout_file_open(&file, settings->out, header, list->count, settings->samples)
                    : cli_refuse("there is no memory for the settings");
    json_decref(header);
    r.found = file.done.count;
    if (status == EXIT_DONE) status = model_run_session(run, r.context, (int32_t)settings->samples + 1, pool_tokens(settings, longest), &r.session);
    if (status == EXIT_DONE && strcmp(settings->score, "none") != 0)
        status = open_exact(run, settings, r.context, &exact, &exact_options, &r.exact);
    if (status == EXIT_DONE) status = run_prompts(&r, list);
    if (status == EXIT_DONE) say_figures(&r);
    octavo_session_destroy(r.exact);
    octavo_session_destroy(r.session);
    octavo_model_close(exact.model);
    rollout_file_close(&file);
    return status;
}

int cmd_rollout(int argc, char **argv)
{
    rollout_settings settings;
    model_run run = { 0 };
    prompt_list list = { 0 };
    char model_hash[MODEL_HASH_BYTES];
    int status;
    if (!parse(argc, argv, &settings, &status)) return status;
    status = read_prompts(&settings, &list);
    if (status == EXIT_DONE) status = model_run_open(&run, &settings.model);
    if (status == EXIT_DONE) status = model_hash_folder(settings.model.model, model_hash);
    if (status == EXIT_DONE) status = run_with_prompts(&run, &settings, &list, model_hash);
    prompts_fini(&list);
    model_run_close(&run);
    return status;
}
