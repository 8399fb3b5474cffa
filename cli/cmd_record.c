/* cmd_record.c - `octavo record`: layers of a model over a text, as a file that `octavo bench decode` reads. */
#include "cli.h"
#include "model_recorder.h"
#include "model_text.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

typedef struct record_settings {
    const char *text, *ids, *layers, *out, *dtype;
    int64_t tokens, queries, h_tokens; /* 0: all */
    int with_h, with_unrotated;
    model_options model;
} record_settings;

static int parse(int argc, char **argv, record_settings *settings, int *status)
{
    option rows[MODEL_OPTION_ROWS + 1];
    *settings = (record_settings){ .queries = 256, .dtype = "bf16", .model = MODEL_OPTIONS_INIT };
    const option options[] = {
        { "text", 0, OPTION_TEXT, "FILE", "the text, UTF-8; - is the standard input", &settings->text, 0, 0 },
        { "ids", 0, OPTION_TEXT, "FILE", "instead: a safetensors file with input_ids, one text a row", &settings->ids, 0, 0 },
        { "tokens", 0, OPTION_INTEGER, "N", "the first N of the text (default: all)", &settings->tokens, 1, INT32_MAX },
        { "layers", 0, OPTION_TEXT, "N,N", "the layers, from 0", &settings->layers, 0, 0 },
        { "queries", 0, OPTION_INTEGER, "N", "queries of the last N positions (default 256)", &settings->queries, 1, INT32_MAX },
        { "out", 0, OPTION_TEXT, "FILE", "the file; it appears when it is complete", &settings->out, 0, 0 },
        { "dtype", 0, OPTION_TEXT, "TYPE", "of the file: bf16 f32 (default bf16)", &settings->dtype, 0, 0 },
        { "with-h", 0, OPTION_FLAG, NULL, "also the input of the projections", &settings->with_h, 0, 0 },
        { "h-tokens", 0, OPTION_INTEGER, "N", "of it only the first N positions", &settings->h_tokens, 1, INT32_MAX },
        { "with-unrotated", 0, OPTION_FLAG, NULL, "also queries and keys before RoPE", &settings->with_unrotated, 0, 0 },
        { 0 },
    };
    const command_line line = {
        .usage = "octavo record --model DIR (--text FILE | --ids FILE) --layers N,N --out FILE [OPTIONS]",
        .about = "Records queries, keys and values of layers while a model reads a text. The file is\n"
                 "for octavo bench decode --data; octavo/recording.h tells its tensors.\n",
        .options = options,
        .more = rows,
    };
    model_options_rows(&settings->model, rows);
    if (options_parse(&line, argc, argv, status) == OPTIONS_STOP) return 0;
    if (!settings->text == !settings->ids)
        *status = cli_refuse(settings->text ? "options --text and --ids exclude each other"
                                            : "one of the options --text FILE and --ids FILE is needed");
    else if (!settings->layers || !settings->out)
        *status = cli_refuse("option --%s is needed", settings->layers ? "out FILE" : "layers N,N");
    else if (settings->h_tokens && !settings->with_h)
        *status = cli_refuse("option --h-tokens belongs to --with-h");
    if (*status == EXIT_DONE) *status = model_options_check(&settings->model);
    return *status == EXIT_DONE;
}

static int parse_layers(const model_run *run, const record_settings *settings, recorder_config *config)
{
    const int64_t count = options_integers(settings->layers, 0, INT32_MAX, config->layers, RECORDER_LAYERS_MOST);
    if (count < 0) return cli_refuse("option --layers is '%s', expected at most %d layers as N,N", settings->layers, RECORDER_LAYERS_MOST);
    config->layer_count = (int32_t)count;
    for (int32_t i = 0; i < config->layer_count; i++) {
        if (config->layers[i] >= run->config->layers)
            return cli_refuse("option --layers names layer %d, but the model's layers are 0 to %d", config->layers[i], run->config->layers - 1);
        for (int32_t k = 0; k < i; k++)
            if (config->layers[k] == config->layers[i]) return cli_refuse("option --layers names layer %d twice", config->layers[i]);
    }
    return EXIT_DONE;
}

static int make_config(const model_run *run, const record_settings *settings, const model_ids *ids, recorder_config *config)
{
    *config = (recorder_config){ .rows = ids->rows, .tokens = settings->tokens ? settings->tokens : ids->tokens, .queries = settings->queries,
                                 .unrotated = settings->with_unrotated };
    if (config->tokens < 1 || config->tokens > ids->tokens)
        return cli_refuse("option --tokens asks for %" PRId64 " tokens, but the text has %" PRId64, config->tokens, ids->tokens);
    if (config->queries > config->tokens) config->queries = config->tokens;
    if (settings->with_h) config->h_tokens = settings->h_tokens && settings->h_tokens < config->tokens ? settings->h_tokens : config->tokens;
    if (strcmp(settings->dtype, "bf16") == 0)
        config->dtype = OCTAVO_BF16;
    else if (strcmp(settings->dtype, "f32") == 0)
        config->dtype = OCTAVO_F32;
    else
        return cli_refuse("option --dtype is '%s', expected bf16 or f32", settings->dtype);
    return parse_layers(run, settings, config);
}

static int record_row(const model_run *run, octavo_session *session, recorder *to, const int32_t *ids, progress_bar *bar)
{
    int32_t sequence;
    if (octavo_session_sequence(session, &sequence) != OCTAVO_OK) return cli_refuse_last();
    for (int64_t first = 0; first < to->config.tokens;) {
        octavo_forward_params forward = OCTAVO_FORWARD_PARAMS_INIT;
        forward.batch = 1;
        forward.tokens = model_run_piece(run, to->config.tokens - first);
        forward.sequences = &sequence;
        forward.ids = ids + first;
        forward.record = recorder_take;
        forward.record_user = to;
        if (octavo_session_forward(session, &forward) != OCTAVO_OK) return to->status != EXIT_DONE ? to->status : cli_refuse_last();
        first += forward.tokens;
        progress_step(bar, to->row * to->config.tokens + first);
    }
    return octavo_session_free(session, sequence) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

static int record_ids(const model_run *run, const record_settings *settings, const model_ids *ids)
{
    recorder_config config;
    recorder to = { 0 };
    octavo_session *session = NULL;
    progress_bar bar;
    int status = make_config(run, settings, ids, &config);
    if (status == EXIT_DONE) status = model_check_out(settings->out);
    if (status == EXIT_DONE) status = recorder_init(&to, run, &config);
    if (status == EXIT_DONE) status = model_run_session(run, config.tokens, 1, 0, &session);
    progress_start(&bar, "tokens", config.rows * config.tokens);
    for (to.row = 0; to.row < config.rows && status == EXIT_DONE; to.row++)
        status = record_row(run, session, &to, ids->ids + to.row * ids->tokens, &bar);
    progress_end(&bar);
    octavo_session_destroy(session);
    if (status == EXIT_DONE) status = recorder_write(&to, settings->out);
    recorder_fini(&to);
    return status;
}

int cmd_record(int argc, char **argv)
{
    record_settings settings;
    model_run run;
    model_ids ids;
    int status;
    if (!parse(argc, argv, &settings, &status)) return status;
    status = model_run_open(&run, &settings.model);
    if (status == EXIT_DONE) status = model_read_ids(&run, settings.text, settings.ids, &ids);
    if (status == EXIT_DONE) {
        status = record_ids(&run, &settings, &ids);
        free(ids.ids);
    }
    model_run_close(&run);
    return status;
}
