/* cmd_bench_decode.c - `octavo bench decode`: speed and error of attention over a stored cache. */
#define _GNU_SOURCE
#include "bench_device.h"
#include "bench_measure.h"
#include "cli.h"
#include "machine.h"
#include "octavo/version.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void copy_text(char *target, size_t bytes, const char *source) { snprintf(target, bytes, "%s", source); }

/* A label must not bring control characters or half a character anywhere. */
static void copy_label(char *target, size_t bytes, const char *source)
{
    copy_text(target, bytes, source);
    for (char *c = target; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f) *c = '?';
}

static void describe(const bench_run *run, bench_result *result)
{
    const bench_settings *settings = run->settings;
    const bench_data *data = &run->data;
    const char *slash = settings->file ? strrchr(settings->file, '/') : NULL;
    copy_text(result->data, sizeof result->data, settings->file ? "recording" : "synthetic");
    copy_label(result->file, sizeof result->file, slash ? slash + 1 : settings->file ? settings->file : "");
    copy_text(result->data_hash, sizeof result->data_hash, data->hash);
    copy_text(result->dtype, sizeof result->dtype, octavo_dtype_name(data->dtype));
    copy_text(result->cache_k, sizeof result->cache_k, octavo_k_format_name(settings->cache.k_format));
    copy_text(result->cache_v, sizeof result->cache_v, octavo_v_format_name(settings->cache.v_format));
    copy_text(result->select, sizeof result->select, octavo_select_rule_name(settings->cache.select));
    copy_text(result->compensate, sizeof result->compensate, cache_compensation_name(settings->cache.compensate));
    copy_text(result->attention, sizeof result->attention, octavo_attention_precision_name(settings->attention));
    copy_text(result->splits, sizeof result->splits, octavo_decode_splits_name(settings->cache.splits));
    copy_text(result->device, sizeof result->device, octavo_device_name(run->exec.device));
    copy_text(result->isa, sizeof result->isa, octavo_device_isa(run->exec.device));
    copy_text(result->version, sizeof result->version, octavo_version());
    copy_text(result->build_id, sizeof result->build_id, octavo_build_id());
    copy_label(result->build_options, sizeof result->build_options, octavo_build_options());
    machine_label(run->exec.device, result->cpu);
    result->llc_bytes = machine_llc_bytes();
    result->layer = settings->layer;
    result->hot = settings->synthetic.hot;
    result->seed = settings->synthetic.seed;
    result->tokens = data->tokens;
    result->delta = settings->cache.delta;
    result->epsilon = settings->cache.epsilon;
    result->block = settings->cache.block;
    result->sub_block = settings->cache.sub_block;
    result->q_heads = data->q_heads;
    result->kv_heads = data->kv_heads;
    result->head_dim = data->head_dim;
    result->v_dim = data->v_dim;
    result->queries = settings->queries == BENCH_QUERIES_ALL ? data->queries : settings->queries;
    result->batch = run->sequences;
    result->max_tokens = settings->max_tokens;
    result->repeat = settings->repeat;
    result->threads = settings->threads;
}

static int check_lengths(bench_settings *settings, const bench_data *data, int64_t *longest)
{
    if (settings->length_count == 0) settings->lengths[settings->length_count++] = data->tokens;
    *longest = 0;
    for (size_t i = 0; i < settings->length_count; i++) {
        if (settings->lengths[i] > data->tokens)
            return cli_refuse("option --lengths asks for %" PRId64 " tokens, more than the data's %" PRId64, settings->lengths[i], data->tokens);
        if (settings->queries > settings->lengths[i])
            return cli_refuse("option --queries asks for %" PRId64 " queries, more than the %" PRId64 " tokens of a length", settings->queries,
                              settings->lengths[i]);
        if (settings->lengths[i] > *longest) *longest = settings->lengths[i];
    }
    if (settings->max_tokens && settings->max_tokens < *longest)
        return cli_refuse("option --max-tokens is %" PRId64 ", fewer than the %" PRId64 " of a length", settings->max_tokens, *longest);
    if (settings->queries > data->queries)
        return cli_refuse("option --queries asks for %" PRId64 " queries, more than the data's %" PRId64, settings->queries, data->queries);
    return EXIT_DONE;
}

/* Creates the folder if need be and finds out now, not after minutes, whether a file can appear in it. */
static int check_folder(const char *folder)
{
    char probe[4096];
    if (snprintf(probe, sizeof probe, "%s/.probe-XXXXXX", folder) >= (int)sizeof probe) return cli_refuse("option --out is too long a path");
    if (mkdir(folder, 0777) != 0 && errno != EEXIST) return cli_refuse("the folder '%s' cannot be made: %s", folder, strerror(errno));
    const int descriptor = mkstemp(probe);
    if (descriptor < 0) return cli_refuse("the folder '%s' cannot be written to: %s", folder, strerror(errno));
    close(descriptor);
    unlink(probe);
    return EXIT_DONE;
}

/* 1: *result is now what an earlier run measured. */
static int read_back(const char *path, const bench_settings *settings, bench_result *result)
{
    bench_result found;
    char reason[160];
    const int status = bench_result_load(path, &found, reason, sizeof reason);
    if (status > 0) return 0;
    int same = status == 0 && strcmp(found.key, result->key) == 0 && found.row_count == settings->length_count;
    for (size_t i = 0; same && i < found.row_count; i++) same = found.rows[i].tokens == settings->lengths[i];
    if (!same) {
        cli_say("%s: %s; measuring again", path, status < 0 ? reason : "holds another measurement than its name says");
        bench_result_fini(&found);
        return 0;
    }
    *result = found;
    result->cached = 1;
    cli_say("%s: read back; --fresh measures again", path);
    return 1;
}

static int measure_all(bench_run *run, bench_result *result)
{
    const bench_settings *settings = run->settings;
    int status = bench_read_speed_init(&run->speed, (int)settings->threads);
    result->rows = calloc(settings->length_count, sizeof *result->rows);
    if (!result->rows && status == EXIT_DONE) status = cli_refuse("there is no memory for the results");
    for (size_t i = 0; status == EXIT_DONE && i < settings->length_count; i++) {
        status = bench_measure(run, settings->lengths[i], &result->rows[i]);
        result->row_count = i + 1;
        result->read_gbps += result->rows[i].read_gbps / (double)settings->length_count;
    }
    bench_read_speed_fini(&run->speed);
    return status;
}

static int print_result(const bench_result *result, const char *text, int json)
{
    if (json)
        printf("%s\n", text);
    else
        bench_result_print(result, stdout);
    return cli_finish_output();
}

static int run_with_data(bench_run *run, bench_settings *settings, bench_result *result)
{
    char path[4096] = "";
    int64_t longest;
    run->sequences = settings->batch ? settings->batch : run->data.sequences;
    int status = check_lengths(settings, &run->data, &longest);
    if (status == EXIT_DONE) status = bench_check(run, longest);
    if (status == EXIT_DONE && settings->out) status = check_folder(settings->out);
    if (status != EXIT_DONE) return status;
    describe(run, result);
    bench_result_set_key(result, settings->lengths, settings->length_count);
    if (settings->out && snprintf(path, sizeof path, "%s/decode-%s.json", settings->out, result->key) >= (int)sizeof path)
        return cli_refuse("option --out is too long a path");
    if (!settings->out || settings->fresh || !read_back(path, settings, result)) status = measure_all(run, result);
    if (status != EXIT_DONE) return status;
    char *text = bench_result_format(result);
    if (!text) {
        cli_refuse("a result is not a finite number, so nothing was written");
        return EXIT_CHECK_FAILED;
    }
    if (settings->out && !result->cached) status = bench_result_store(path, text);
    if (status == EXIT_DONE) status = print_result(result, text, settings->json);
    free(text);
    return status;
}

int cmd_bench_decode(int argc, char **argv)
{
    bench_settings settings;
    bench_run run = { .settings = &settings, .exec = OCTAVO_EXEC_INIT };
    bench_result result = { 0 };
    octavo_context *context = NULL;
    octavo_device *cpu = NULL;
    int status;
    if (!bench_settings_parse(argc, argv, &settings, &status)) return status;
    if (octavo_context_create(NULL, &context) != OCTAVO_OK) return cli_refuse_last();
    if (octavo_device_open(context, "cpu", &cpu) == OCTAVO_OK && octavo_device_open(context, settings.device, &run.exec.device) == OCTAVO_OK &&
        octavo_device_stream_create(run.exec.device, &run.exec.stream) == OCTAVO_OK) {
        run.exec.threads = (int32_t)settings.threads;
        run.encoder = (octavo_exec)OCTAVO_EXEC_INIT;
        run.encoder.device = cpu, run.encoder.threads = run.exec.threads;
        const int64_t chunk = (BENCH_CHUNK_TOKENS + settings.cache.block - 1) / settings.cache.block * settings.cache.block;
        status = bench_data_open(&settings, chunk, &run.data);
        if (status == EXIT_DONE) {
            status = run_with_data(&run, &settings, &result);
            bench_data_close(&run.data);
        }
        octavo_device_stream_destroy(run.exec.device, run.exec.stream);
    } else {
        status = cli_refuse_last();
    }
    octavo_device_close(run.exec.device);
    octavo_device_close(cpu);
    bench_result_fini(&result);
    octavo_context_destroy(context);
    return status;
}
