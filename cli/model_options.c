/* model_options.c - reads the options that every command with a model shares. */
#include "model_options.h"
#include "cli.h"
#include "machine.h"
#include <string.h>

void model_options_rows(model_options *options, option rows[MODEL_OPTION_ROWS + 1])
{
    const option own[] = {
        { "model", 'm', OPTION_TEXT, "DIR", "a Hugging Face checkpoint: config.json, *.safetensors,\ntokenizer.json", &options->model, 0, 0 },
        { "device", 0, OPTION_TEXT, "NAME", "default cpu", &options->device, 0, 0 },
        { "threads", 't', OPTION_INTEGER, "N", "default: as many as OpenMP uses", &options->threads, 1, 4096 },
        { "context", 'c', OPTION_INTEGER, "TOKENS", "room of a sequence (default: what is needed)", &options->context, 1, INT32_MAX },
        { "chunk", 0, OPTION_INTEGER, "TOKENS", "prompts run in pieces of so many (default 1024,\non a GPU 4096)", &options->chunk, 1, 1 << 20 },
        { "linear", 0, OPTION_TEXT, "TYPE", "as-stored f32 bf16 fp8 int8", &options->linear_word, 0, 0 },
        { "attention", 0, OPTION_TEXT, "TYPE", "of prompts: exact fp8 sage sage1 (default exact)", &options->attention_word, 0, 0 },
        { "decode-attention", 0, OPTION_TEXT, "TYPE", "of single tokens: exact fp8 (default exact)", &options->decode_word, 0, 0 },
        { "attention-scales", 0, OPTION_TEXT, "WHAT", "what shares a scale in prompts: block head tensor, in sage\ntoken warp thread too (default block)",
          &options->scales_word, 0, 0 },
        { "dense-layers", 0, OPTION_TEXT, "N,N", "layers whose decode reads every block", &options->dense_word, 0, 0 },
    };
    _Static_assert(sizeof own / sizeof *own + CACHE_OPTION_ROWS == MODEL_OPTION_ROWS, "count the rows");
    options->threads = machine_threads();
    memcpy(rows, own, sizeof own);
    cache_options_rows(&options->cache, CACHE_K_NAMES "\n(default: exact, f32 or bf16 as the linear layers)",
                       CACHE_V_NAMES "\n(default: exact)", rows + sizeof own / sizeof *own);
    rows[MODEL_OPTION_ROWS] = (option){ 0 };
}

static int parse_linear(model_options *options)
{
    octavo_linear_precision precision;
    options->linear = OCTAVO_LINEAR_AS_STORED;
    if (strcmp(options->linear_word, "as-stored") == 0) return EXIT_DONE;
    if (octavo_linear_precision_parse(options->linear_word, &precision) != OCTAVO_OK)
        return cli_refuse("option --linear is '%s', expected as-stored, f32, bf16, fp8 or int8", options->linear_word);
    options->linear = (int32_t)precision;
    return EXIT_DONE;
}

static int parse_scales(model_options *options)
{
    if (octavo_prefill_scales_parse(options->scales_word, &options->attention_scales) == OCTAVO_OK) return EXIT_DONE;
    return cli_refuse("option --attention-scales: %s", octavo_last_error());
}

static int parse_dense_layers(model_options *options)
{
    options->dense_count = 0;
    if (!options->dense_word) return EXIT_DONE;
    const int64_t count = options_integers(options->dense_word, 0, INT32_MAX, options->dense_layers, MODEL_DENSE_MOST);
    if (count < 0) return cli_refuse("option --dense-layers is '%s', expected at most %d layers as N,N", options->dense_word, MODEL_DENSE_MOST);
    options->dense_count = (int32_t)count;
    return EXIT_DONE;
}

int model_options_check(model_options *options)
{
    if (!options->model) return cli_refuse("option --model DIR is needed");
    int status = parse_linear(options);
    if (status == EXIT_DONE) status = parse_scales(options);
    if (status == EXIT_DONE) status = parse_dense_layers(options);
    if (status == EXIT_DONE) status = cache_options_check(&options->cache);
    if (status == EXIT_DONE && octavo_attention_precision_parse(options->attention_word, &options->attention) != OCTAVO_OK)
        status = cli_refuse("option --attention: %s", octavo_last_error());
    if (status == EXIT_DONE && octavo_attention_precision_parse(options->decode_word, &options->decode_attention) != OCTAVO_OK)
        status = cli_refuse("option --decode-attention: %s", octavo_last_error());
    return status;
}
