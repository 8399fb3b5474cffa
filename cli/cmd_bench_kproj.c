/* cmd_bench_kproj.c - `octavo bench kproj`: speed of the fused K projection, weights cold. */
#include "bench_device.h"
#include "bench_gemm.h"
#include "bench_kproj_device.h"
#include "cli.h"
#include "machine.h"
#include "octavo/version.h"
#include "options.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KPROJ_SCHEMA "octavo-bench-kproj-1"

enum { DIM_MOST = 1 << 20, HEADS_MOST = 65536, WORD_BYTES = 24 };

static int parse_tokens(const char *text, kproj_settings *settings)
{
    for (const char *rest = text;;) {
        char word[WORD_BYTES];
        const size_t length = strcspn(rest, ",");
        if (settings->token_count == KPROJ_TOKENS_MOST) return cli_refuse("option --tokens names more than %d numbers", KPROJ_TOKENS_MOST);
        snprintf(word, sizeof word, "%.*s", length < WORD_BYTES ? (int)length : WORD_BYTES - 1, rest);
        if (length >= WORD_BYTES || !options_integer(word, 1, INT32_MAX, &settings->tokens[settings->token_count]))
            return cli_refuse("option --tokens has '%s', expected whole numbers from 1 to %d", word, INT32_MAX);
        settings->token_count++;
        if (!rest[length]) return EXIT_DONE;
        rest += length + 1;
    }
}

static int parse_weights(const char *name, octavo_dtype *dtype)
{
    static const octavo_dtype DTYPES[] = { OCTAVO_BF16, OCTAVO_E4M3, OCTAVO_INT8, OCTAVO_F32 };
    for (size_t i = 0; i < sizeof DTYPES / sizeof *DTYPES; i++)
        if (strcmp(name, octavo_dtype_name(DTYPES[i])) == 0) {
            *dtype = DTYPES[i];
            return EXIT_DONE;
        }
    return cli_refuse("option --weights is '%s', expected bf16, e4m3, int8 or f32", name);
}

/* 1: go on; 0: leave with *status. */
static int parse(int argc, char **argv, kproj_settings *settings, int *status)
{
    const char *tokens = "1,16,512", *weights = "bf16", *cache_k = "e4m3x2";
    *settings = (kproj_settings){ .hidden = 4096, .kv_heads = 8, .head_dim = 128, .repeat = 15, .threads = machine_threads(), .device = "cpu" };
    const option options[] = {
        { "hidden", 0, OPTION_INTEGER, "N", "elements of a token's state (default 4096)", &settings->hidden, 1, DIM_MOST },
        { "kv-heads", 0, OPTION_INTEGER, "N", "default 8", &settings->kv_heads, 1, HEADS_MOST },
        { "head-dim", 0, OPTION_INTEGER, "N", "default 128", &settings->head_dim, 2, HEADS_MOST },
        { "tokens", 0, OPTION_TEXT, "LIST", "new tokens of a call (default 1,16,512)", &tokens, 0, 0 },
        { "weights", 0, OPTION_TEXT, "TYPE", "bf16 e4m3 int8 f32 (default bf16)", &weights, 0, 0 },
        { "cache-k", 0, OPTION_TEXT, "FORMAT", "f32 bf16 f16 e4m3 e5m2 int8 e4m3x2 e5m2x2 int8x2 int4x2\n(default e4m3x2)", &cache_k, 0, 0 },
        { "repeat", 0, OPTION_INTEGER, "N", "timed calls, of which the median is reported (default 15)", &settings->repeat, 1, 100000 },
        { "device", 0, OPTION_TEXT, "NAME", "cpu or cuda:N (default cpu)", &settings->device, 0, 0 },
        { "threads", 't', OPTION_INTEGER, "N", "default: as many as OpenMP uses", &settings->threads, 1, 4096 },
        { "json", 0, OPTION_FLAG, NULL, "prints JSON instead of a table", &settings->json, 0, 0 },
        { 0 },
    };
    const command_line line = {
        .usage = "octavo bench kproj [OPTIONS]",
        .about = "Times the K projection with RoPE and encoding in one call, weights cold, beside the\n"
                 "matrix product alone (oneDNN's where it was found, over the same weights as they lie in\n"
                 "a checkpoint; over bf16 ones where they have eight bits) and beside the product, RoPE\n"
                 "and encoding one after the other. On a GPU up to 64 tokens are one each of as many\n"
                 "sequences, the product is octavo_linear over the same weights, and calls are replayed\n"
                 "as a graph in which they take many weights in turn.\n",
        .options = options,
    };
    if (options_parse(&line, argc, argv, status) == OPTIONS_STOP) return 0;
    *status = parse_tokens(tokens, settings);
    if (*status == EXIT_DONE) *status = parse_weights(weights, &settings->weights);
    if (*status == EXIT_DONE && octavo_k_format_parse(cache_k, &settings->k_format) != OCTAVO_OK)
        *status = cli_refuse("option --cache-k: %s", octavo_last_error());
    if (*status == EXIT_DONE && settings->head_dim % 2) *status = cli_refuse("option --head-dim is %" PRId64 ", expected an even number", settings->head_dim);
    return *status == EXIT_DONE;
}

static json_t *row_object(const kproj_row *row)
{
    return json_pack("{s:I s:I s:f s:I s:f s:f s:f s:f s:f s:f s:f}", "tokens", (json_int_t)row->tokens, "batch", (json_int_t)row->batch, "ms", row->ms, "bytes",
                     (json_int_t)row->bytes, "gbps", row->gbps, "read_share", row->read_share, "read_gbps", row->read_gbps, "gemm_ms",
                     row->gemm_ms, "unfused_ms", row->unfused_ms, "gemm_ratio", row->ms / row->gemm_ms, "unfused_ratio",
                     row->ms / row->unfused_ms);
}

static const char *gemm_name(const octavo_device *device)
{
    return octavo_device_kind_of(device) == OCTAVO_DEVICE_CUDA ? "linear" : bench_gemm_name();
}

static int print_json(const kproj_settings *settings, const octavo_device *device, const kproj_row *rows, double read_gbps)
{
    char cpu[MACHINE_LABEL_BYTES];
    machine_label(device, cpu);
    json_t *results = json_array();
    int failed = !results;
    for (int i = 0; !failed && i < settings->token_count; i++) failed = json_array_append_new(results, row_object(&rows[i])) != 0;
    json_t *root = failed ? NULL : json_pack("{s:s s:{s:I s:I s:I s:s s:s s:s s:I s:I s:s} s:{s:s s:s s:s s:s s:s s:I} s:f s:O}",
        "schema", KPROJ_SCHEMA, "settings", "hidden", (json_int_t)settings->hidden, "kv_heads", (json_int_t)settings->kv_heads, "head_dim",
        (json_int_t)settings->head_dim, "weights", octavo_dtype_name(settings->weights), "cache_k", octavo_k_format_name(settings->k_format),
        "gemm", gemm_name(device), "repeat", (json_int_t)settings->repeat, "threads", (json_int_t)settings->threads, "device",
        settings->device, "machine", "cpu", cpu,
        "isa", octavo_device_isa(device), "version", octavo_version(), "build_id", octavo_build_id(), "build_options",
        octavo_build_options(), "llc_bytes", (json_int_t)machine_llc_bytes(), "read_gbps", read_gbps, "results", results);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(results);
    json_decref(root);
    if (!text) return cli_refuse("there is no memory for the results");
    printf("%s\n", text);
    free(text);
    return cli_finish_output();
}

static int print_table(const kproj_settings *settings, const octavo_device *device, const kproj_row *rows, double read_gbps)
{
    printf("hidden %" PRId64 ", %" PRId64 " heads of %" PRId64 ", weights %s, K %s; %s, %" PRId64 " threads, read speed %.1f GB/s; product: %s\n\n",
           settings->hidden, settings->kv_heads, settings->head_dim, octavo_dtype_name(settings->weights),
           octavo_k_format_name(settings->k_format), octavo_device_isa(device), settings->threads, read_gbps, gemm_name(device));
    printf("%8s %9s %7s %6s %11s %7s %11s %7s\n", "tokens", "ms", "GB/s", "share", "product ms", "ratio", "unfused ms", "ratio");
    for (int i = 0; i < settings->token_count; i++)
        printf("%8" PRId64 " %9.4f %7.2f %5.0f%% %11.4f %7.2f %11.4f %7.2f\n", rows[i].tokens, rows[i].ms, rows[i].gbps,
               100 * rows[i].read_share, rows[i].gemm_ms, rows[i].ms / rows[i].gemm_ms, rows[i].unfused_ms, rows[i].ms / rows[i].unfused_ms);
    return cli_finish_output();
}

static int measure_on_cpu(const kproj_settings *settings, const octavo_exec *exec, kproj_row *rows, double *read_gbps)
{
    bench_read_speed speed;
    int status = bench_read_speed_init(&speed, (int)settings->threads);
    *read_gbps = 0;
    if (status != EXIT_DONE) return status;
    for (int i = 0; status == EXIT_DONE && i < settings->token_count; i++) {
        status = kproj_measure(settings, exec, &speed, settings->tokens[i], &rows[i]);
        if (status == EXIT_DONE) *read_gbps += rows[i].read_gbps / settings->token_count;
    }
    bench_read_speed_fini(&speed);
    return status;
}

static int measure_on_gpu(const kproj_settings *settings, const octavo_exec *exec, kproj_row *rows, double *read_gbps)
{
    int status = bench_device_read_speed(exec, read_gbps);
    for (int i = 0; status == EXIT_DONE && i < settings->token_count; i++)
        status = kproj_device_measure(settings, exec, *read_gbps, settings->tokens[i], &rows[i]);
    return status;
}

static int measure_all(const kproj_settings *settings, const octavo_exec *exec)
{
    kproj_row rows[KPROJ_TOKENS_MOST];
    double read_gbps;
    const int status = bench_on_gpu(exec) ? measure_on_gpu(settings, exec, rows, &read_gbps) : measure_on_cpu(settings, exec, rows, &read_gbps);
    if (status != EXIT_DONE) return status;
    return settings->json ? print_json(settings, exec->device, rows, read_gbps) : print_table(settings, exec->device, rows, read_gbps);
}

int cmd_bench_kproj(int argc, char **argv)
{
    kproj_settings settings;
    octavo_context *context = NULL;
    octavo_exec exec = OCTAVO_EXEC_INIT;
    int status;
    if (!parse(argc, argv, &settings, &status)) return status;
    if (octavo_context_create(NULL, &context) != OCTAVO_OK) return cli_refuse_last();
    exec.threads = (int32_t)settings.threads;
    if (octavo_device_open(context, settings.device, &exec.device) == OCTAVO_OK && octavo_device_stream_create(exec.device, &exec.stream) == OCTAVO_OK) {
        status = measure_all(&settings, &exec);
        octavo_device_stream_destroy(exec.device, exec.stream);
    } else {
        status = cli_refuse_last();
    }
    octavo_device_close(exec.device);
    octavo_context_destroy(context);
    return status;
}
