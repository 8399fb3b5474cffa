/* cmd_bench_prefill.c - `octavo bench prefill`: speed and error of attention of many queries. */
#define _GNU_SOURCE
#include "bench_prefill.h"
#include "bench_result.h"
#include "cache_options.h"
#include "cli.h"
#include "machine.h"
#include "progress.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SIZE_MOST = 1 << 20, HEADS_MOST = 1024, PATH_BYTES = 4096 };

typedef struct prefill_words {
    const char *tokens, *precision, *mask, *scales, *layout, *k, *v;
    int no_smooth, smooth_v, rotate, f16_sums;
} prefill_words;

enum { WORD_BYTES = 16 };

/* The word before the next comma, cut to its room; returns how long it is in the text. */
static size_t list_word(const char *text, char word[WORD_BYTES])
{
    const size_t length = strcspn(text, ",");
    snprintf(word, WORD_BYTES, "%.*s", length < WORD_BYTES ? (int)length : WORD_BYTES - 1, text);
    return length;
}

static int parse_precisions(const char *text, prefill_settings *settings)
{
    for (const char *rest = text;;) {
        char word[WORD_BYTES];
        const size_t length = list_word(rest, word);
        if (settings->precision_count == PREFILL_PRECISIONS) return cli_refuse("option --precision names more than %d precisions", PREFILL_PRECISIONS);
        if (octavo_attention_precision_parse(word, &settings->precisions[settings->precision_count++]) != OCTAVO_OK)
            return cli_refuse("option --precision: %s", octavo_last_error());
        if (!rest[length]) return EXIT_DONE;
        rest += length + 1;
    }
}

static int parse_layouts(const char *text, prefill_settings *settings)
{
    for (const char *rest = text;;) {
        char word[WORD_BYTES];
        const size_t length = list_word(rest, word);
        int layout = PREFILL_PAGES;
        while (layout < PREFILL_LAYOUTS && strcmp(word, prefill_layout_name((prefill_layout)layout)) != 0) layout++;
        if (layout == PREFILL_LAYOUTS) return cli_refuse("option --layout names '%s', expected pages, nhd or hnd", word);
        if (settings->layout_count == PREFILL_LAYOUTS) return cli_refuse("option --layout names more than %d layouts", PREFILL_LAYOUTS);
        if (layout != PREFILL_PAGES && (settings->k_format != OCTAVO_K_BF16 || settings->v_format != OCTAVO_V_BF16))
            return cli_refuse("option --layout names %s, expected pages where K or V is not bf16", word);
        settings->layouts[settings->layout_count++] = (prefill_layout)layout;
        if (!rest[length]) return EXIT_DONE;
        rest += length + 1;
    }
}

static int parse_words(const prefill_words *words, prefill_settings *settings)
{
    settings->token_count = options_integers(words->tokens, 1, SIZE_MOST, settings->tokens, PREFILL_LENGTHS_MOST);
    if (settings->token_count < 1)
        return cli_refuse("option --tokens is '%s', expected up to %d whole numbers from 1 to %d", words->tokens, PREFILL_LENGTHS_MOST, SIZE_MOST);
    const int status = parse_precisions(words->precision, settings);
    if (status != EXIT_DONE) return status;
    if (octavo_prefill_scales_parse(words->scales, &settings->scales) != OCTAVO_OK) return cli_refuse("option --scales: %s", octavo_last_error());
    if (strcmp(words->mask, "causal") != 0 && strcmp(words->mask, "full") != 0)
        return cli_refuse("option --mask is '%s', expected causal or full", words->mask);
    settings->mask = strcmp(words->mask, "full") == 0 ? OCTAVO_MASK_FULL : OCTAVO_MASK_CAUSAL;
    if (octavo_k_format_parse(words->k, &settings->k_format) != OCTAVO_OK) return cli_refuse("option --cache-k: %s", octavo_last_error());
    if (octavo_v_format_parse(words->v, &settings->v_format) != OCTAVO_OK) return cli_refuse("option --cache-v: %s", octavo_last_error());
    settings->flags = (words->no_smooth ? OCTAVO_PREFILL_NO_SMOOTH : 0u) | (words->smooth_v ? OCTAVO_PREFILL_SMOOTH_V : 0u) |
                      (words->rotate ? OCTAVO_PREFILL_ROTATE : 0u) | (words->f16_sums ? OCTAVO_PREFILL_F16_SUMS : 0u);
    if (settings->q_heads % settings->kv_heads)
        return cli_refuse("option --q-heads is %lld, expected a multiple of --kv-heads %lld", (long long)settings->q_heads, (long long)settings->kv_heads);
    if (settings->head_dim % 2) return cli_refuse("option --head-dim is %lld, expected an even number", (long long)settings->head_dim);
    return parse_layouts(words->layout, settings);
}

/* 1: go on; 0: leave with *status. */
static int parse(int argc, char **argv, prefill_settings *settings, int *status)
{
    prefill_words words = { "2048", "exact,fp8,sage1,sage2", "causal", "block", "pages", "bf16", "bf16", 0, 0, 0, 0 };
    *settings = (prefill_settings){ .batch = 1, .q_heads = 32, .kv_heads = 8, .head_dim = 128, .seed = 1, .samples = 16, .repeat = 7,
                                    .threads = machine_threads(), .device = "cpu" };
    const option options[] = {
        { "batch", 0, OPTION_INTEGER, "N", "sequences (default 1)", &settings->batch, 1, 4096 },
        { "q-heads", 0, OPTION_INTEGER, "N", "default 32", &settings->q_heads, 1, HEADS_MOST },
        { "kv-heads", 0, OPTION_INTEGER, "N", "default 8", &settings->kv_heads, 1, HEADS_MOST },
        { "head-dim", 0, OPTION_INTEGER, "N", "default 128", &settings->head_dim, 2, 4096 },
        { "tokens", 0, OPTION_TEXT, "LIST", "queries of a sequence (default 2048)", &words.tokens, 0, 0 },
        { "keys", 0, OPTION_INTEGER, "N", "keys of a sequence, of which the last are the queries' own\n(default: as many as queries)", &settings->keys, 1, SIZE_MOST },
        { "mask", 0, OPTION_TEXT, "M", "causal full (default causal)", &words.mask, 0, 0 },
        { "window", 0, OPTION_INTEGER, "N", "keys that a query sees (default: all)", &settings->window, 1, SIZE_MOST },
        { "soft-cap", 0, OPTION_NUMBER, "X", "cap * tanh(score / cap) instead of scores (default: none)", &settings->soft_cap, 0, 0 },
        { "precision", 0, OPTION_TEXT, "LIST", "exact fp8 sage1 sage2 (default all four)", &words.precision, 0, 0 },
        { "scales", 0, OPTION_TEXT, "WHAT", "what shares a scale: block head tensor, in sage token warp\nthread too (default block)", &words.scales, 0, 0 },
        { "no-smooth", 0, OPTION_FLAG, NULL, "sage: leaves K's mean where it is", &words.no_smooth, 0, 0 },
        { "smooth-v", 0, OPTION_FLAG, NULL, "sage2: takes the mean off V", &words.smooth_v, 0, 0 },
        { "rotate", 0, OPTION_FLAG, NULL, "fp8: rotates Q and K", &words.rotate, 0, 0 },
        { "f16-sums", 0, OPTION_FLAG, NULL, "sage1: weights and V in f16, 64 products summed up in f16, where\nthe device has kernels that do", &words.f16_sums, 0, 0 },
        { "cache-k", 0, OPTION_TEXT, "FORMAT", CACHE_K_NAMES "\n(default bf16)", &words.k, 0, 0 },
        { "cache-v", 0, OPTION_TEXT, "FORMAT", CACHE_V_NAMES " (default bf16)", &words.v, 0, 0 },
        { "layout", 0, OPTION_TEXT, "LIST", "pages of 64 tokens, nhd hnd: tensors (default pages)", &words.layout, 0, 0 },
        { "bias", 0, OPTION_NUMBER, "X", "is added to four channels of K of each 128 (default 0)", &settings->bias, 0, 0 },
        { "seed", 0, OPTION_INTEGER, "N", "of the normal data (default 1)", &settings->seed, 0, INT32_MAX },
        { "samples", 0, OPTION_INTEGER, "N", "queries that are compared with float64, 0: none (default 16)", &settings->samples, 0, SIZE_MOST },
        { "repeat", 0, OPTION_INTEGER, "N", "timed calls, of which the median is reported (default 7)", &settings->repeat, 1, 100000 },
        { "threads", 't', OPTION_INTEGER, "N", "default: as many as OpenMP uses", &settings->threads, 1, 4096 },
        { "device", 0, OPTION_TEXT, "NAME", "cpu or cuda:N (default cpu)", &settings->device, 0, 0 },
        { "out", 0, OPTION_TEXT, "DIR", "keeps the result there, for octavo plot", &settings->out, 0, 0 },
        { "json", 0, OPTION_FLAG, NULL, "prints JSON instead of a table", &settings->json, 0, 0 },
        { 0 },
    };
    const command_line line = {
        .usage = "octavo bench prefill [OPTIONS]",
        .about = "Times attention of many queries over normal data, in each precision: the whole call,\n"
                 "and without the time that the same call takes for a single query, which is what is\n"
                 "done to K and V first. The error is that of a sample of queries against float64.\n",
        .options = options,
    };
    if (options_parse(&line, argc, argv, status) == OPTIONS_STOP) return 0;
    *status = parse_words(&words, settings);
    return *status == EXIT_DONE;
}

static int report(const prefill_settings *settings, const octavo_device *device, const prefill_row *rows, size_t count)
{
    char key[17], path[PATH_BYTES];
    char *text = prefill_format(settings, device, rows, count, key);
    int status = EXIT_DONE;
    if (!text) {
        cli_refuse("a result is not a finite number, so nothing was written");
        return EXIT_CHECK_FAILED;
    }
    if (settings->out) {
        if (mkdir(settings->out, 0777) != 0 && errno != EEXIST) status = cli_refuse("the folder '%s' cannot be made: %s", settings->out, strerror(errno));
        else if (snprintf(path, sizeof path, "%s/prefill-%s.json", settings->out, key) >= (int)sizeof path)
            status = cli_refuse("option --out is too long a path");
        else
            status = bench_result_store(path, text);
    }
    if (status == EXIT_DONE && settings->json) printf("%s\n", text);
    if (status == EXIT_DONE && !settings->json) prefill_print(settings, device, rows, count, stdout);
    free(text);
    return status == EXIT_DONE ? cli_finish_output() : status;
}

static int measure_all(const prefill_settings *settings, const octavo_exec *exec, const octavo_exec *cpu)
{
    const int64_t calls = settings->token_count * settings->layout_count;
    prefill_row rows[PREFILL_ROWS_MOST];
    progress_bar bar;
    int status = EXIT_DONE;
    progress_start(&bar, "bench prefill", calls);
    for (int64_t i = 0; status == EXIT_DONE && i < calls; i++) {
        const int64_t length = i / settings->layout_count, layout = i % settings->layout_count;
        status = prefill_measure(settings, exec, cpu, settings->tokens[length], settings->layouts[layout], rows + i * settings->precision_count);
        progress_step(&bar, i + 1);
    }
    progress_end(&bar);
    return status == EXIT_DONE ? report(settings, exec->device, rows, (size_t)(calls * settings->precision_count)) : status;
}

int cmd_bench_prefill(int argc, char **argv)
{
    prefill_settings settings;
    octavo_exec exec = OCTAVO_EXEC_INIT, encoder = OCTAVO_EXEC_INIT;
    octavo_context *context = NULL;
    int status;
    if (!parse(argc, argv, &settings, &status)) return status;
    if (octavo_context_create(NULL, &context) != OCTAVO_OK) return cli_refuse_last();
    if (octavo_device_open(context, "cpu", &encoder.device) == OCTAVO_OK && octavo_device_open(context, settings.device, &exec.device) == OCTAVO_OK &&
        octavo_device_stream_create(exec.device, &exec.stream) == OCTAVO_OK) {
        exec.threads = encoder.threads = (int32_t)settings.threads;
        status = measure_all(&settings, &exec, &encoder);
        octavo_device_stream_destroy(exec.device, exec.stream);
    } else {
        status = cli_refuse_last();
    }
    octavo_device_close(exec.device);
    octavo_device_close(encoder.device);
    octavo_context_destroy(context);
    return status;
}
