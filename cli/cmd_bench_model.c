/* cmd_bench_model.c - `octavo bench model`: a whole model's prompts and single tokens, beside what the machine's memory allows. */
#include "bench_median.h"
#include "bench_peak.h"
#include "bench_read_speed.h"
#include "cli.h"
#include "model_text.h"
#include <stdio.h>
#include <stdlib.h>

#define MODEL_SCHEMA "octavo-bench-model-1"

enum { ROUNDS = 7, SIDES = 2, PROMPTS = 3, LONG_PROMPT = 8192 };

typedef struct model_bench_settings {
    const char *text;
    int64_t tokens, steps;
    int json;
    model_options model;
} model_bench_settings;

/* Exact attention over the exact cache, and what the options ask for. */
typedef enum bench_side { SIDE_EXACT = 0, SIDE_ASKED = 1 } bench_side;

typedef struct side_result {
    double tokens_per_second, attention_ms, cache_bytes, skip_ratio;
    double read_share; /* of reading weights and cache once a token at the machine's speed */
} side_result;

typedef struct model_bench {
    const model_run *run;
    const model_bench_settings *settings;
    const int32_t *ids;
    octavo_session *sessions[SIDES];
    int32_t sequences[SIDES];
    double seconds[SIDES][ROUNDS], attention[SIDES][ROUNDS]; /* a token */
    side_result results[SIDES];
    double read_gbps, peak_tflops, prefill_tokens_per_second, prefill_product_tflops;
} model_bench;

static int parse(int argc, char **argv, model_bench_settings *settings, int *status)
{
    option rows[MODEL_OPTION_ROWS + 1];
    *settings = (model_bench_settings){ .model = MODEL_OPTIONS_INIT, .tokens = 2048, .steps = 16 };
    const option options[] = {
        { "text", 0, OPTION_TEXT, "FILE", "the prompt, UTF-8; - is the standard input", &settings->text, 0, 0 },
        { "tokens", 0, OPTION_INTEGER, "N", "of the prompt (default 2048)", &settings->tokens, 2, INT32_MAX },
        { "steps", 0, OPTION_INTEGER, "N", "tokens of a timed run, of which there are seven (default 16)", &settings->steps, 1, 4096 },
        { "json", 0, OPTION_FLAG, NULL, "prints JSON (docs/JSON.md)", &settings->json, 0, 0 },
        { 0 },
    };
    const command_line line = {
        .usage = "octavo bench model --model DIR --text FILE [OPTIONS]",
        .about = "Times a prompt and the single tokens behind it, the latter twice, in turns: with exact\n"
                 "attention over an exact cache, and as the options ask. The speed at which the machine\n"
                 "reads as many bytes again and again is measured in between.\n",
        .options = options,
        .more = rows,
    };
    model_options_rows(&settings->model, rows);
    if (options_parse(&line, argc, argv, status) == OPTIONS_STOP) return 0;
    if (!settings->text) *status = cli_refuse("option --text FILE is needed");
    if (*status == EXIT_DONE) *status = model_options_check(&settings->model);
    return *status == EXIT_DONE;
}

/* The prompt, if it is short several times, into an empty sequence: the fastest counts; the last one stays. */
static int prefill(model_bench *bench, bench_side side)
{
    octavo_session *session = bench->sessions[side];
    double best = 0.0, best_flops = 0.0;
    for (int i = 0; i < (side == SIDE_ASKED && bench->settings->tokens <= LONG_PROMPT ? PROMPTS : 1); i++) {
        octavo_session_stats stats;
        if (octavo_session_truncate(session, bench->sequences[side], 0) != OCTAVO_OK) return cli_refuse_last();
        octavo_session_stats_reset(session);
        const int status = model_run_prefill(bench->run, session, bench->sequences[side], bench->ids, bench->settings->tokens, NULL);
        if (status != EXIT_DONE) return status;
        octavo_session_stats_of(session, &stats);
        const double rate = (double)stats.prefill_tokens / stats.prefill_seconds;
        const double flops = stats.prefill_product_seconds > 0.0 ? stats.prefill_product_flop / stats.prefill_product_seconds : 0.0;
        if (rate > best) best = rate;
        if (flops > best_flops) best_flops = flops;
    }
    bench->prefill_tokens_per_second = best;
    bench->prefill_product_tflops = best_flops * 1e-12;
    return EXIT_DONE;
}

/* `steps` tokens through decode, then rolled back. */
static int decode(model_bench *bench, bench_side side, int round)
{
    octavo_session *session = bench->sessions[side];
    octavo_session_stats stats;
    octavo_session_stats_reset(session);
    for (int64_t i = 0; i < bench->settings->steps; i++) {
        octavo_forward_params forward = OCTAVO_FORWARD_PARAMS_INIT;
        const octavo_sample_row greedy = { 0 };
        int32_t sampled;
        forward.batch = forward.tokens = 1;
        forward.sequences = &bench->sequences[side];
        forward.ids = bench->ids + bench->settings->tokens + i;
        forward.sample = &greedy;
        forward.sampled = &sampled;
        if (octavo_session_forward(session, &forward) != OCTAVO_OK) return cli_refuse_last();
    }
    octavo_session_stats_of(session, &stats);
    const double steps = (double)stats.decode_tokens;
    bench->seconds[side][round] = stats.decode_seconds / steps;
    bench->attention[side][round] = stats.decode_attention_seconds / steps;
    bench->results[side].cache_bytes = (double)stats.decode_cache_bytes / steps;
    bench->results[side].skip_ratio = stats.skip_ratio;
    return octavo_session_truncate(session, bench->sequences[side], bench->settings->tokens) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

static int open_sides(model_bench *bench)
{
    const int64_t room = bench->settings->tokens + bench->settings->steps;
    const model_options *asked = bench->run->options;
    model_options exact = *asked;
    const cache_options plain = CACHE_OPTIONS_INIT;
    exact.cache = plain;
    exact.dense_count = 0;
    model_run run = *bench->run;
    for (int side = 0; side < SIDES; side++) {
        run.options = side == SIDE_EXACT ? &exact : asked;
        const int status = model_run_session(&run, room, 1, 0, &bench->sessions[side]);
        if (status != EXIT_DONE) return status;
        if (octavo_session_sequence(bench->sessions[side], &bench->sequences[side]) != OCTAVO_OK) return cli_refuse_last();
    }
    return EXIT_DONE;
}

/* The first round warms up. */
static int measure(model_bench *bench)
{
    bench_read_speed speed;
    const double weights = (double)octavo_model_bytes_per_token(bench->run->model);
    const int threads = (int)bench->settings->model.threads;
    int status = open_sides(bench);
    for (int side = 0; side < SIDES && status == EXIT_DONE; side++) status = prefill(bench, (bench_side)side);
    for (int side = 0; side < SIDES && status == EXIT_DONE; side++) status = decode(bench, (bench_side)side, 0);
    if (status == EXIT_DONE) status = bench_read_speed_init_warm(&speed, (size_t)(weights + bench->results[SIDE_EXACT].cache_bytes), threads);
    if (status != EXIT_DONE) return status;
    double rates[ROUNDS];
    for (int round = 0; round < ROUNDS && status == EXIT_DONE; round++) {
        for (int side = 0; side < SIDES && status == EXIT_DONE; side++) status = decode(bench, (bench_side)side, round);
        rates[round] = bench_read_speed_measure(&speed);
    }
    bench_read_speed_fini(&speed);
    if (status != EXIT_DONE) return status;
    bench->read_gbps = bench_median(rates, ROUNDS);
    bench->peak_tflops = bench_peak_measure(octavo_device_isa(bench->run->device), octavo_model_linear(bench->run->model), threads);
    for (int side = 0; side < SIDES; side++) {
        side_result *result = &bench->results[side];
        const double seconds = bench_median(bench->seconds[side], ROUNDS);
        result->tokens_per_second = 1.0 / seconds;
        result->attention_ms = 1e3 * bench_median(bench->attention[side], ROUNDS);
        result->read_share = (weights + result->cache_bytes) / (bench->read_gbps * 1e9) / seconds;
    }
    return EXIT_DONE;
}

static json_t *side_object(const side_result *result)
{
    return json_pack("{s:f s:f s:f s:f s:f}", "tokens_per_second", result->tokens_per_second, "attention_ms", result->attention_ms,
                     "cache_bytes_per_token", result->cache_bytes, "skip_ratio", result->skip_ratio, "read_share", result->read_share);
}

static int print_json(const model_bench *bench)
{
    const side_result *exact = &bench->results[SIDE_EXACT], *asked = &bench->results[SIDE_ASKED];
    return model_print_json(json_pack("{s:s s:I s:I s:f s:f s:f s:f s:f s:o s:o s:f s:f s:f s:o}", "schema", MODEL_SCHEMA,
        "tokens", (json_int_t)bench->settings->tokens, "weight_bytes_per_token", (json_int_t)octavo_model_bytes_per_token(bench->run->model),
        "prefill_tokens_per_second", bench->prefill_tokens_per_second, "prefill_product_tflops", bench->prefill_product_tflops,
        "peak_tflops", bench->peak_tflops, "prefill_product_share", bench->prefill_product_tflops / bench->peak_tflops,
        "read_gbps", bench->read_gbps, "exact", side_object(exact), "asked", side_object(asked),
        "speedup", asked->tokens_per_second / exact->tokens_per_second, "attention_speedup", exact->attention_ms / asked->attention_ms,
        "cache_share", asked->cache_bytes / exact->cache_bytes, "settings", model_run_settings(bench->run)));
}

static int print_text(const model_bench *bench)
{
    static const char *const NAMES[SIDES] = { "exact", "as asked" };
    printf("prompt of %lld tokens: %.0f tokens/s, products %.2f TFLOP/s (%.0f%% of %.2f)\n", (long long)bench->settings->tokens,
           bench->prefill_tokens_per_second, bench->prefill_product_tflops,
           100.0 * bench->prefill_product_tflops / bench->peak_tflops, bench->peak_tflops);
    printf("read speed %.1f GB/s\n\n%10s %10s %13s %12s %8s %6s\n", bench->read_gbps, "decode", "tokens/s", "attention ms", "cache MB", "skipped", "share");
    for (int side = 0; side < SIDES; side++) {
        const side_result *result = &bench->results[side];
        printf("%10s %10.1f %13.3f %12.1f %7.1f%% %5.0f%%\n", NAMES[side], result->tokens_per_second, result->attention_ms, result->cache_bytes * 1e-6,
               100.0 * result->skip_ratio, 100.0 * result->read_share);
    }
    printf("\n%.2f times the tokens/s, %.2f times in attention\n", bench->results[SIDE_ASKED].tokens_per_second / bench->results[SIDE_EXACT].tokens_per_second,
           bench->results[SIDE_EXACT].attention_ms / bench->results[SIDE_ASKED].attention_ms);
    return EXIT_DONE;
}

static int run_bench(model_run *run, const model_bench_settings *settings)
{
    model_ids ids;
    int status = model_read_ids(run, settings->text, NULL, &ids);
    if (status != EXIT_DONE) return status;
    if (ids.tokens < settings->tokens + settings->steps) {
        status = cli_refuse("the text has %lld tokens, expected at least %lld: the prompt and the steps behind it", (long long)ids.tokens,
                            (long long)(settings->tokens + settings->steps));
    } else {
        model_bench bench = { .run = run, .settings = settings, .ids = ids.ids };
        status = measure(&bench);
        if (status == EXIT_DONE) status = settings->json ? print_json(&bench) : print_text(&bench);
        for (int side = 0; side < SIDES; side++) octavo_session_destroy(bench.sessions[side]);
    }
    free(ids.ids);
    return status;
}

int cmd_bench_model(int argc, char **argv)
{
    model_bench_settings settings;
    model_run run = { 0 };
    int status = EXIT_DONE;
    if (!parse(argc, argv, &settings, &status)) return status;
    status = model_run_open(&run, &settings.model);
    if (status == EXIT_DONE) status = run_bench(&run, &settings);
    model_run_close(&run);
    return status;
}
