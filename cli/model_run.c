/* model_run.c - opens models and sessions as the options ask, and says what they are. */
#include "model_run.h"
#include "cli.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int model_run_open(model_run *run, const model_options *options)
{
    *run = (model_run){ .options = options };
    octavo_model_options open = OCTAVO_MODEL_OPTIONS_INIT;
    open.linear = options->linear;
    open.threads = (int32_t)options->threads;
    if (octavo_context_create(NULL, &run->context) != OCTAVO_OK || octavo_device_open(run->context, options->device, &run->device) != OCTAVO_OK ||
        octavo_model_open(run->device, options->model, &open, &run->model) != OCTAVO_OK)
        return cli_refuse_last();
    run->config = octavo_model_config_of(run->model);
    run->chunk = options->chunk ? options->chunk : octavo_session_chunk_default(run->model);
    for (int32_t i = 0; i < options->dense_count; i++)
        if (options->dense_layers[i] >= run->config->layers)
            return cli_refuse("option --dense-layers names layer %d, but the model's layers are 0 to %d", options->dense_layers[i],
                              run->config->layers - 1);
    return EXIT_DONE;
}

int model_run_open_tokenizer(model_run *run)
{
    return octavo_tokenizer_open(run->options->model, &run->tokenizer) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

void model_run_close(model_run *run)
{
    octavo_tokenizer_close(run->tokenizer);
    octavo_model_close(run->model);
    octavo_device_close(run->device);
    octavo_context_destroy(run->context);
    *run = (model_run){ 0 };
}

static octavo_k_format k_format(const model_run *run)
{
    if (run->options->cache.k_format) return run->options->cache.k_format;
    return octavo_model_linear(run->model) == OCTAVO_LINEAR_F32 ? OCTAVO_K_F32 : OCTAVO_K_BF16;
}

static octavo_v_format v_format(const model_run *run)
{
    if (run->options->cache.v_format) return run->options->cache.v_format;
    return octavo_model_linear(run->model) == OCTAVO_LINEAR_F32 ? OCTAVO_V_F32 : OCTAVO_V_BF16;
}

int model_run_session(const model_run *run, int64_t tokens, int32_t sequences, int64_t pool_tokens, octavo_session **session)
{
    const model_options *options = run->options;
    const cache_options *cache = &options->cache;
    if (tokens > run->config->max_tokens)
        return cli_refuse("%" PRId64 " tokens are asked for, but the model was made for %" PRId64, tokens, run->config->max_tokens);
    octavo_session_config config = OCTAVO_SESSION_CONFIG_INIT;
    config.max_tokens = tokens;
    config.max_sequences = sequences;
    config.pool_tokens = pool_tokens;
    config.cache_k = k_format(run);
    config.cache_v = v_format(run);
    config.block_tokens = (int32_t)cache->block;
    config.sub_block_tokens = (int32_t)cache->sub_block;
    config.attention = options->attention;
    config.attention_scales = options->attention_scales;
    config.decode_attention = options->decode_attention;
    config.select = (octavo_session_select){
        .rule = cache->select, .compensate = cache->compensate, .splits = cache->splits, .delta = (float)cache->delta, .epsilon = (float)cache->epsilon,
        .dense_layers = options->dense_layers, .dense_count = options->dense_count,
    };
    config.chunk_tokens = (int32_t)run->chunk;
    config.threads = (int32_t)options->threads;
    return octavo_session_create(run->model, &config, session) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}

int64_t model_run_piece(const model_run *run, int64_t left)
{
    return left <= run->chunk + 1 ? left : run->chunk;
}

int model_run_prefill(const model_run *run, octavo_session *session, int32_t sequence, const int32_t *ids, int64_t count, progress_bar *bar)
{
    for (int64_t first = 0; first < count;) {
        octavo_forward_params forward = OCTAVO_FORWARD_PARAMS_INIT;
        forward.batch = 1;
        forward.tokens = model_run_piece(run, count - first);
        forward.sequences = &sequence;
        forward.ids = ids + first;
        if (octavo_session_forward(session, &forward) != OCTAVO_OK) return cli_refuse_last();
        first += forward.tokens;
        if (bar) progress_step(bar, first);
    }
    return EXIT_DONE;
}

int model_run_is_eos(const model_run *run, int32_t id)
{
    for (int32_t i = 0; i < run->config->eos_count; i++)
        if (run->config->eos[i] == id) return 1;
    return 0;
}

const char *model_path_name(const char *path)
{
    const char *name = path;
    for (const char *c = path; *c; c++)
        if (*c == '/' && c[1] && c[1] != '/') name = c + 1;
    return name;
}

static json_t *dense_list(const model_options *options)
{
    json_t *list = json_array();
    for (int32_t i = 0; i < options->dense_count; i++)
        if (json_array_append_new(list, json_integer(options->dense_layers[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}

json_t *model_run_settings(const model_run *run)
{
    const model_options *options = run->options;
    const cache_options *cache = &options->cache;
    char name[256];
    snprintf(name, sizeof name, "%s", model_path_name(options->model));
    for (char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f) *c = '?'; /* a path need not be UTF-8 */
    return json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:f, s:f, s:I, s:I, s:o, s:I, s:I, s:s, s:s}",
                     "model", name, "linear", octavo_linear_precision_name(octavo_model_linear(run->model)),
                     "cache_k", octavo_k_format_name(k_format(run)), "cache_v", octavo_v_format_name(v_format(run)),
                     "attention", octavo_attention_precision_name(options->attention), "attention_scales", octavo_prefill_scales_name(options->attention_scales),
                     "decode_attention", octavo_attention_precision_name(options->decode_attention),
                     "select", octavo_select_rule_name(cache->select), "compensate", cache_compensation_name(cache->compensate),
                     "splits", octavo_decode_splits_name(cache->splits),
                     "delta", cache->delta, "epsilon", cache->epsilon, "block", (json_int_t)cache->block, "sub_block", (json_int_t)cache->sub_block,
                     "dense_layers", dense_list(options), "chunk", (json_int_t)run->chunk, "threads", (json_int_t)options->threads,
                     "device", octavo_device_name(run->device), "isa", octavo_device_isa(run->device));
}

int model_print_json(json_t *root)
{
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    if (!text) {
        cli_refuse("there is no memory for the result, or it is not a finite number");
        return EXIT_CHECK_FAILED;
    }
    puts(text);
    free(text);
    return cli_finish_output();
}
