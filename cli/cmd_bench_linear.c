/* cmd_bench_linear.c - `octavo bench linear`: speed and error of a linear layer, weights cold. */
#include "bench_gemm.h"
#include "bench_linear.h"
#include "bench_peak.h"
#include "cli.h"
#include "machine.h"
#include "octavo/version.h"
#include "options.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINEAR_SCHEMA "octavo-bench-linear-1"

enum { SIZE_MOST = 1 << 20, WORD_BYTES = 24 };

/* Numbers between commas, at most `most` of them; *count is how many. */
static int parse_list(const char *of, const char *text, int64_t limit, int most, int64_t *numbers, int *count)
{
    *count = 0;
    for (const char *rest = text;;) {
        char word[WORD_BYTES];
        const size_t length = strcspn(rest, ",");
        if (*count == most) return cli_refuse("option --%s names more than %d numbers", of, most);
        snprintf(word, sizeof word, "%.*s", length < WORD_BYTES ? (int)length : WORD_BYTES - 1, rest);
        if (length >= WORD_BYTES || !options_integer(word, 1, limit, &numbers[*count]))
            return cli_refuse("option --%s has '%s', expected whole numbers from 1 to %" PRId64, of, word, limit);
        ++*count;
        if (!rest[length]) return EXIT_DONE;
        rest += length + 1;
    }
}

static int parse_dtype(const char *of, const char *name, const octavo_dtype *dtypes, int count, octavo_dtype *dtype)
{
    char known[64] = "";
    for (int i = 0; i < count; i++) {
        if (strcmp(name, octavo_dtype_name(dtypes[i])) == 0) {
            *dtype = dtypes[i];
            return EXIT_DONE;
        }
        strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
        strncat(known, octavo_dtype_name(dtypes[i]), sizeof known - strlen(known) - 1);
    }
    return cli_refuse("option --%s is '%s', expected one of %s", of, name, known);
}

/* What a precision's weights are where nothing is said. */
static const char *default_weight(octavo_linear_precision precision)
{
    static const char *const names[] = {
        [OCTAVO_LINEAR_F32] = "f32", [OCTAVO_LINEAR_BF16] = "bf16", [OCTAVO_LINEAR_FP8] = "e4m3", [OCTAVO_LINEAR_INT8] = "int8",
    };
    return names[precision];
}

static int parse_words(const char *tokens, const char *shape, const char *precision, const char *weight, const char *y, linear_settings *settings)
{
    static const octavo_dtype WEIGHTS[] = { OCTAVO_F32, OCTAVO_BF16, OCTAVO_E4M3, OCTAVO_INT8 }, OUTPUTS[] = { OCTAVO_F32, OCTAVO_BF16 };
    int64_t sizes[2];
    int count;
    int status = parse_list("tokens", tokens, INT32_MAX, LINEAR_TOKENS_MOST, settings->tokens, &settings->token_count);
    if (status == EXIT_DONE) status = parse_list("shape", shape, SIZE_MOST, 2, sizes, &count);
    if (status == EXIT_DONE && count != 2) status = cli_refuse("option --shape is '%s', expected two numbers: IN,OUT", shape);
    if (status == EXIT_DONE && octavo_linear_precision_parse(precision, &settings->precision) != OCTAVO_OK)
        status = cli_refuse("option --precision: %s", octavo_last_error());
    if (status != EXIT_DONE) return status;
    settings->in = sizes[0];
    settings->out = sizes[1];
    status = parse_dtype("weight", *weight ? weight : default_weight(settings->precision), WEIGHTS, sizeof WEIGHTS / sizeof *WEIGHTS, &settings->weight);
    return status == EXIT_DONE ? parse_dtype("output", y, OUTPUTS, sizeof OUTPUTS / sizeof *OUTPUTS, &settings->y) : status;
}

/* 1: go on; 0: leave with *status. */
static int parse(int argc, char **argv, linear_settings *settings, int *status)
{
    const char *tokens = "1,16,2048", *shape = "4096,4096", *precision = "bf16", *weight = "", *y = "f32";
    *settings = (linear_settings){ .repeat = 15, .threads = machine_threads() };
    const option options[] = {
        { "tokens", 0, OPTION_TEXT, "LIST", "tokens of a call (default 1,16,2048)", &tokens, 0, 0 },
        { "shape", 0, OPTION_TEXT, "IN,OUT", "columns and rows of the weight (default 4096,4096)", &shape, 0, 0 },
        { "precision", 0, OPTION_TEXT, "P", "f32 bf16 fp8 int8 (default bf16)", &precision, 0, 0 },
        { "weight", 0, OPTION_TEXT, "TYPE", "f32 bf16 e4m3 int8 (default: the precision's own)", &weight, 0, 0 },
        { "block", 0, OPTION_INTEGER, "N", "e4m3 and int8: N x N elements share a scale (default: a row)", &settings->block, 1, SIZE_MOST },
        { "output", 0, OPTION_TEXT, "TYPE", "f32 bf16 (default f32)", &y, 0, 0 },
        { "unpacked", 0, OPTION_FLAG, NULL, "reads the weight as a checkpoint stores it", &settings->unpacked, 0, 0 },
        { "repeat", 0, OPTION_INTEGER, "N", "timed calls, of which the median is reported (default 15)", &settings->repeat, 1, 100000 },
        { "threads", 't', OPTION_INTEGER, "N", "default: as many as OpenMP uses", &settings->threads, 1, 4096 },
        { "json", 0, OPTION_FLAG, NULL, "prints JSON instead of a table", &settings->json, 0, 0 },
        { 0 },
    };
    const command_line line = {
        .usage = "octavo bench linear [OPTIONS]",
        .about = "Times a linear layer, weights cold: beside the speed at which this machine reads\n"
                 "memory, the speed at which it multiplies in registers, and a matrix product of the\n"
                 "same shape (oneDNN's where it was found) in bf16, or in f32 for precision f32. The\n"
                 "error is that of a sample against float64 products of x and the weight before it\n"
                 "was rounded or quantised.\n",
        .options = options,
    };
    if (options_parse(&line, argc, argv, status) == OPTIONS_STOP) return 0;
    *status = parse_words(tokens, shape, precision, weight, y, settings);
    return *status == EXIT_DONE;
}

static json_t *row_object(const linear_row *row)
{
    return json_pack("{s:I s:f s:I s:f s:f s:f s:f s:f s:f s:f s:f s:f}", "tokens", (json_int_t)row->tokens, "ms", row->ms, "bytes",
                     (json_int_t)row->bytes, "gbps", row->gbps, "read_share", row->read_share, "read_gbps", row->read_gbps, "tflops",
                     row->tflops, "peak_share", row->peak_share, "peak_tflops", row->peak_tflops, "gemm_ms", row->gemm_ms, "gemm_ratio",
                     row->ms / row->gemm_ms, "rel_error", row->rel_error);
}

static int print_json(const linear_settings *settings, const octavo_device *device, const linear_row *rows)
{
    char cpu[MACHINE_LABEL_BYTES];
    machine_label(device, cpu);
    json_t *results = json_array();
    int failed = !results;
    for (int i = 0; !failed && i < settings->token_count; i++) failed = json_array_append_new(results, row_object(&rows[i])) != 0;
    json_t *root = failed ? NULL : json_pack("{s:s s:{s:I s:I s:s s:s s:I s:s s:b s:s s:s s:I s:I} s:{s:s s:s s:s s:s s:s s:I} s:O}",
        "schema", LINEAR_SCHEMA, "settings", "in", (json_int_t)settings->in, "out", (json_int_t)settings->out, "precision",
        octavo_linear_precision_name(settings->precision), "weight", octavo_dtype_name(settings->weight), "block", (json_int_t)settings->block,
        "output", octavo_dtype_name(settings->y), "packed", !settings->unpacked, "gemm", bench_gemm_name(), "peak",
        bench_peak_name(octavo_device_isa(device), settings->precision), "repeat", (json_int_t)settings->repeat, "threads",
        (json_int_t)settings->threads, "machine", "cpu", cpu, "isa", octavo_device_isa(device), "version", octavo_version(), "build_id",
        octavo_build_id(), "build_options", octavo_build_options(), "llc_bytes", (json_int_t)machine_llc_bytes(), "results", results);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(results);
    json_decref(root);
    if (!text) return cli_refuse("there is no memory for the results");
    printf("%s\n", text);
    free(text);
    return cli_finish_output();
}

static int print_table(const linear_settings *settings, const octavo_device *device, const linear_row *rows)
{
    printf("%" PRId64 " -> %" PRId64 ", precision %s, weight %s%s, output %s; %s, %" PRId64 " threads, read speed %.1f GB/s, peak %.2f TFLOP/s "
           "(%s); product: %s\n\n",
           settings->in, settings->out, octavo_linear_precision_name(settings->precision), octavo_dtype_name(settings->weight),
           settings->unpacked ? " unpacked" : "", octavo_dtype_name(settings->y), octavo_device_isa(device), settings->threads, rows[0].read_gbps,
           rows[0].peak_tflops, bench_peak_name(octavo_device_isa(device), settings->precision), bench_gemm_name());
    printf("%8s %9s %7s %6s %9s %6s %11s %7s %10s\n", "tokens", "ms", "GB/s", "share", "TFLOP/s", "share", "product ms", "ratio", "error");
    for (int i = 0; i < settings->token_count; i++)
        printf("%8" PRId64 " %9.3f %7.2f %5.0f%% %9.3f %5.0f%% %11.3f %7.2f %10.2e\n", rows[i].tokens, rows[i].ms, rows[i].gbps,
               100 * rows[i].read_share, rows[i].tflops, 100 * rows[i].peak_share, rows[i].gemm_ms, rows[i].ms / rows[i].gemm_ms, rows[i].rel_error);
    return cli_finish_output();
}

static int measure_all(const linear_settings *settings, octavo_device *device)
{
    linear_row rows[LINEAR_TOKENS_MOST];
    bench_read_speed speed;
    octavo_exec exec = OCTAVO_EXEC_INIT;
    exec.device = device;
    exec.threads = (int32_t)settings->threads;
    int status = bench_read_speed_init(&speed, (int)settings->threads);
    if (status != EXIT_DONE) return status;
    for (int i = 0; status == EXIT_DONE && i < settings->token_count; i++)
        status = linear_measure(settings, &exec, &speed, settings->tokens[i], &rows[i]);
    bench_read_speed_fini(&speed);
    if (status != EXIT_DONE) return status;
    return settings->json ? print_json(settings, device, rows) : print_table(settings, device, rows);
}

int cmd_bench_linear(int argc, char **argv)
{
    linear_settings settings;
    octavo_context *context = NULL;
    octavo_device *device = NULL;
    int status;
    if (!parse(argc, argv, &settings, &status)) return status;
    if (octavo_context_create(NULL, &context) != OCTAVO_OK) return cli_refuse_last();
    if (octavo_device_open(context, "cpu", &device) == OCTAVO_OK) {
        status = measure_all(&settings, device);
        octavo_device_close(device);
    } else {
        status = cli_refuse_last();
    }
    octavo_context_destroy(context);
    return status;
}
