/* cmd_bench_model.c - `octavo bench model`: a whole model's prompts and single tokens, beside what the machine's memory allows. */
#include "bench_device.h"
#include "bench_median.h"
#include "bench_peak.h"
#include "bench_read_speed.h"
#include "cli.h"
#include "model_text.h"
#include <stdio.h>
#include <stdlib.h>

#define MODEL_SCHEMA "octavo-bench-model-1"

enum { ROUNDS = 7, SIDES = 2, PROMPTS = 3, LONG_PROMPT = 8192, BATCH_MOST = 256 };

typedef struct model_bench_settings {
    const char *text;
    int64_t tokens, steps, batch;
    int json;
    model_options model;
} model_bench_settings;

/* Exact attention over the exact cache, and what the options ask for. */
typedef enum bench_side { SIDE_EXACT = 0, SIDE_ASKED = 1 } bench_side;

typedef struct side_result {
    double prefill_tokens_per_second, tokens_per_second, cache_bytes, skip_ratio;
    double attention_ms; /* of a step; not on a GPU, which does not wait for the clock */
    double read_share; /* of reading weights and cache once a token at the machine's speed */
} side_result;

typedef struct model_bench {
    const model_run *run;
    const model_bench_settings *settings;
    const int32_t *ids;
    octavo_session *sessions[SIDES];
    int32_t sequences[SIDES][BATCH_MOST];
    double seconds[SIDES][ROUNDS], attention[SIDES][ROUNDS]; /* a step */
    side_result results[SIDES];
    double read_gbps, peak_tflops, prefill_product_tflops; /* the products of the side asked for */
} model_bench;

static int parse(int argc, char **argv, model_bench_settings *settings, int *status)
{
    option rows[MODEL_OPTION_ROWS + 1];
    *settings = (model_bench_settings){ .model = MODEL_OPTIONS_INIT, .tokens = 2048, .steps = 16, .batch = 1 };
    const option options[] = {
        { "text", 0, OPTION_TEXT, "FILE", "the prompt, UTF-8; - is the standard input", &settings->text, 0, 0 },
        { "tokens", 0, OPTION_INTEGER, "N", "of the prompt (default 2048)", &settings->tokens, 2, INT32_MAX },
        { "steps", 0, OPTION_INTEGER, "N", "tokens of a timed run, of which there are seven (default 16)", &settings->steps, 1, 4096 },
        { "batch", 0, OPTION_INTEGER, "N", "sequences, each with a cache of its own (default 1)", &settings->batch, 1, BATCH_MOST },
        { "json", 0, OPTION_FLAG, NULL, "prints JSON (docs/JSON.md)", &settings->json, 0, 0 },
        { 0 },
    };
    const command_line line = {
        .usage = "octavo bench model --model DIR --text FILE [OPTIONS]",
        .about = "Times a prompt and the single tokens behind it, both twice, in turns: with exact\n"
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

/* The prompt into an empty sequence; the fastest of a side's counts, the last one stays. */
static int prefill(model_bench *bench, bench_side side, int32_t sequence)
{
    octavo_session *session = bench->sessions[side];
    side_result *result = &bench->results[side];
    octavo_session_stats stats;
    if (octavo_session_truncate(session, sequence, 0) != OCTAVO_OK) return cli_refuse_last();
    octavo_session_stats_reset(session);
    const int status = model_run_prefill(bench->run, session, sequence, bench->ids, bench->settings->tokens, NULL);
    if (status != EXIT_DONE) return status;
    octavo_session_stats_of(session, &stats);
    const double rate = (double)stats.prefill_tokens / stats.prefill_seconds;
    const double tflops = stats.prefill_product_seconds > 0.0 ? 1e-12 * stats.prefill_product_flop / stats.prefill_product_seconds : 0.0;
    if (rate > result->prefill_tokens_per_second) result->prefill_tokens_per_second = rate;
    if (side == SIDE_ASKED && tflops > bench->prefill_product_tflops) bench->prefill_product_tflops = tflops;
    return EXIT_DONE;
}

static octavo_generate_next go_on(void *user, int64_t step, const octavo_drawn_token *tokens)
{
    (void)user, (void)step, (void)tokens;
    return OCTAVO_GENERATE_ON;
}

/* `steps` tokens that the model likes best, then rolled back. */
static int decode(model_bench *bench, bench_side side, int round)
{
    static const octavo_sample_row greedy[BATCH_MOST];
    static const uint64_t random[BATCH_MOST];
    const int64_t tokens = bench->settings->tokens, batch = bench->settings->batch;
    octavo_session *session = bench->sessions[side];
    octavo_session_stats stats;
    octavo_generate_params generate = OCTAVO_GENERATE_PARAMS_INIT;
    int32_t ids[BATCH_MOST];
    for (int64_t b = 0; b < batch; b++) ids[b] = bench->ids[tokens];
    generate.batch = batch;
    generate.steps = bench->settings->steps;
    generate.sequences = bench->sequences[side];
    generate.ids = ids;
    generate.sample = greedy;
    generate.random = random;
    generate.drawn = go_on;
    octavo_session_stats_reset(session);
    if (octavo_session_generate(session, &generate) != OCTAVO_OK) return cli_refuse_last();
    octavo_session_stats_of(session, &stats);
    const double steps = (double)generate.steps;
    bench->seconds[side][round] = stats.decode_seconds / steps;
    bench->attention[side][round] = stats.decode_attention_seconds / steps;
    bench->results[side].cache_bytes = (double)stats.decode_cache_bytes / steps;
    bench->results[side].skip_ratio = stats.skip_ratio;
    for (int64_t b = 0; b < batch; b++)
        if (octavo_session_truncate(session, bench->sequences[side][b], tokens) != OCTAVO_OK) return cli_refuse_last();
    return EXIT_DONE;
}

static int open_sides(model_bench *bench)
{
    const int64_t room = bench->settings->tokens + bench->settings->steps;
    const model_options *asked = bench->run->options;
    model_options exact = *asked;
    const cache_options plain = CACHE_OPTIONS_INIT;
    exact.cache = plain;
    exact.attention = OCTAVO_ATTENTION_EXACT;
    exact.decode_attention = OCTAVO_ATTENTION_EXACT;
    exact.dense_count = 0;
    model_run run = *bench->run;
    for (int side = 0; side < SIDES; side++) {
        run.options = side == SIDE_EXACT ? &exact : asked;
        const int status = model_run_session(&run, room, (int32_t)bench->settings->batch, 0, &bench->sessions[side]);
        if (status != EXIT_DONE) return status;
        for (int64_t b = 0; b < bench->settings->batch; b++)
            if (octavo_session_sequence(bench->sessions[side], &bench->sequences[side][b]) != OCTAVO_OK) return cli_refuse_last();
    }
    return EXIT_DONE;
}

static int on_gpu(const model_bench *bench) { return octavo_device_kind_of(bench->run->device) == OCTAVO_DEVICE_CUDA; }

/* Every sequence of both sides, the first ones in turns several times unless that takes long. */
static int prefill_all(model_bench *bench)
{
    const int times = on_gpu(bench) || bench->settings->tokens <= LONG_PROMPT ? PROMPTS : 1;
    int status = EXIT_DONE;
    for (int64_t b = 0; b < bench->settings->batch; b++)
        for (int i = 0; i < (b == 0 ? times : 1); i++)
            for (int side = 0; side < SIDES && status == EXIT_DONE; side++) status = prefill(bench, (bench_side)side, bench->sequences[side][b]);
    return status;
}

static int decode_sides(model_bench *bench, int round)
{
    int status = EXIT_DONE;
    for (int side = 0; side < SIDES && status == EXIT_DONE; side++) status = decode(bench, (bench_side)side, round);
    return status;
}

/* The read speed of what holds weights and cache, between the rounds. */
static int decode_on_cpu(model_bench *bench, double weights)
{
    bench_read_speed speed;
    double rates[ROUNDS];
    const int threads = (int)bench->settings->model.threads;
    int status = bench_read_speed_init_warm(&speed, (size_t)(weights + bench->results[SIDE_EXACT].cache_bytes), threads);
    if (status != EXIT_DONE) return status;
    for (int round = 0; round < ROUNDS && status == EXIT_DONE; round++) {
        status = decode_sides(bench, round);
        rates[round] = bench_read_speed_measure(&speed);
    }
    bench_read_speed_fini(&speed);
    bench->read_gbps = bench_median(rates, ROUNDS);
    bench->peak_tflops = bench_peak_measure(octavo_device_isa(bench->run->device), octavo_model_linear(bench->run->model), threads);
    return status;
}

static int decode_on_gpu(model_bench *bench)
{
    double rates[ROUNDS];
    octavo_exec exec = OCTAVO_EXEC_INIT;
    exec.device = bench->run->device;
    int status = octavo_device_stream_create(exec.device, &exec.stream) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
    for (int round = 0; round < ROUNDS && status == EXIT_DONE; round++) {
        status = decode_sides(bench, round);
        if (status == EXIT_DONE) status = bench_device_read_speed(&exec, &rates[round]);
    }
    octavo_device_stream_destroy(exec.device, exec.stream);
    bench->read_gbps = status == EXIT_DONE ? bench_median(rates, ROUNDS) : 0.0;
    return status;
}

/* The first round warms up. */
static int measure(model_bench *bench)
{
    const double weights = (double)octavo_model_bytes_per_token(bench->run->model);
    int status = open_sides(bench);
    if (status == EXIT_DONE) status = prefill_all(bench);
    if (status == EXIT_DONE) status = decode_sides(bench, 0);
    if (status == EXIT_DONE) status = on_gpu(bench) ? decode_on_gpu(bench) : decode_on_cpu(bench, weights);
    if (status != EXIT_DONE) return status;
    for (int side = 0; side < SIDES; side++) {
        side_result *result = &bench->results[side];
        const double seconds = bench_median(bench->seconds[side], ROUNDS);
        result->tokens_per_second = (double)bench->settings->batch / seconds;
        result->attention_ms = 1e3 * bench_median(bench->attention[side], ROUNDS);
        result->read_share = (weights + result->cache_bytes) / (bench->read_gbps * 1e9) / seconds;
    }
    return EXIT_DONE;
}

/* A number that only the CPU's clock gives; null on a GPU. */
static json_t *timed_there(const model_bench *bench, double number) { return on_gpu(bench) ? json_null() : json_real(number); }

static json_t *side_object(const model_bench *bench, bench_side side)
{
    const side_result *result = &bench->results[side];
    return json_pack("{s:f s:f s:o s:f s:f s:f}", "prefill_tokens_per_second", result->prefill_tokens_per_second, "tokens_per_second",
                     result->tokens_per_second, "attention_ms", timed_there(bench, result->attention_ms), "cache_bytes_per_token", result->cache_bytes / (double)bench->settings->batch,
                     "skip_ratio", result->skip_ratio, "read_share", result->read_share);
}

static int print_json(const model_bench *bench)
{
    const side_result *exact = &bench->results[SIDE_EXACT], *asked = &bench->results[SIDE_ASKED];
    return model_print_json(json_pack("{s:s s:I s:I s:I s:f s:o s:o s:o s:f s:o s:o s:f s:f s:o s:f s:o}", "schema", MODEL_SCHEMA,
        "tokens", (json_int_t)bench->settings->tokens, "batch", (json_int_t)bench->settings->batch,
        "weight_bytes_per_token", (json_int_t)octavo_model_bytes_per_token(bench->run->model),
        "prefill_tokens_per_second", asked->prefill_tokens_per_second, "prefill_product_tflops", timed_there(bench, bench->prefill_product_tflops),
        "peak_tflops", timed_there(bench, bench->peak_tflops),
        "prefill_product_share", timed_there(bench, bench->prefill_product_tflops / bench->peak_tflops),
        "read_gbps", bench->read_gbps, "exact", side_object(bench, SIDE_EXACT), "asked", side_object(bench, SIDE_ASKED),
        "speedup", asked->tokens_per_second / exact->tokens_per_second,
        "prefill_speedup", asked->prefill_tokens_per_second / exact->prefill_tokens_per_second,
        "attention_speedup", timed_there(bench, exact->attention_ms / asked->attention_ms),
        "cache_share", asked->cache_bytes / exact->cache_bytes, "settings", model_run_settings(bench->run)));
}

/* What the CPU's clock sees of the prompt's products and of attention. */
static void print_parts(const model_bench *bench)
{
    const side_result *exact = &bench->results[SIDE_EXACT], *asked = &bench->results[SIDE_ASKED];
    printf("\nproducts of the prompt %.2f TFLOP/s (%.0f%% of %.2f); attention %.3f ms, exact %.3f: %.2f times\n", bench->prefill_product_tflops,
           100.0 * bench->prefill_product_tflops / bench->peak_tflops, bench->peak_tflops, asked->attention_ms, exact->attention_ms,
           exact->attention_ms / asked->attention_ms);
}

static int print_text(const model_bench *bench)
{
    static const char *const NAMES[SIDES] = { "exact", "as asked" };
    const side_result *exact = &bench->results[SIDE_EXACT], *asked = &bench->results[SIDE_ASKED];
    printf("a prompt of %lld tokens, then single ones; read speed %.1f GB/s\n\n", (long long)bench->settings->tokens, bench->read_gbps);
    printf("%10s %15s %15s %10s %8s %6s\n", "", "prompt tokens/s", "single tokens/s", "cache MB", "skipped", "share");
    for (int side = 0; side < SIDES; side++) {
        const side_result *result = &bench->results[side];
        printf("%10s %15.0f %15.1f %10.1f %7.1f%% %5.0f%%\n", NAMES[side], result->prefill_tokens_per_second, result->tokens_per_second,
               result->cache_bytes * 1e-6, 100.0 * result->skip_ratio, 100.0 * result->read_share);
    }
    printf("\n%.2f times the prompt's tokens/s, %.2f times the single tokens'\n", asked->prefill_tokens_per_second / exact->prefill_tokens_per_second,
           asked->tokens_per_second / exact->tokens_per_second);
    if (!on_gpu(bench)) print_parts(bench);
    return cli_finish_output();
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
