/* model_text.c - reads texts and encodes them. */
#define _GNU_SOURCE
#include "model_text.h"
#include "cli.h"
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const size_t TEXT_BYTES_MOST = (size_t)1 << 30, FIRST_BYTES = 1 << 16;

static int read_stream(FILE *file, const char *path, char **text, size_t *bytes)
{
    size_t capacity = FIRST_BYTES, size = 0;
    char *content = malloc(capacity);
    while (content) {
        size += fread(content + size, 1, capacity - size, file);
        if (size < capacity) break;
        char *grown = capacity < TEXT_BYTES_MOST ? realloc(content, 2 * capacity) : NULL;
        if (!grown) {
            free(content);
            content = NULL;
        } else {
            content = grown;
            capacity *= 2;
        }
    }
    if (!content) return cli_refuse("'%s' is longer than %zu MiB or than there is memory for", path, TEXT_BYTES_MOST >> 20);
    if (ferror(file)) {
        free(content);
        return cli_refuse("'%s' cannot be read: %s", path, strerror(errno));
    }
    *text = content;
    *bytes = size;
    return EXIT_DONE;
}

int model_read_text(const char *path, char **text, size_t *bytes)
{
    if (strcmp(path, "-") == 0) return read_stream(stdin, "standard input", text, bytes);
    FILE *file = fopen(path, "rb");
    if (!file) return cli_refuse("'%s' cannot be opened: %s", path, strerror(errno));
    const int status = read_stream(file, path, text, bytes);
    fclose(file);
    return status;
}

int model_check_ids(const model_run *run, const char *what, const int32_t *ids, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= run->config->vocab)
            return cli_refuse("%s: token %" PRId64 " is %" PRId32 ", but the model's vocabulary ends at %" PRId32, what, i, ids[i],
                              run->config->vocab - 1);
    return EXIT_DONE;
}

int model_encode(model_run *run, const char *what, const char *text, size_t bytes, unsigned flags, model_ids *ids)
{
    if (!run->tokenizer) {
        const int status = model_run_open_tokenizer(run);
        if (status != EXIT_DONE) return status;
    }
    /* No token is shorter than a byte, but one may be added in front. */
    size_t count = bytes + 1;
    int32_t *list = malloc(count * sizeof *list);
    if (!list) return cli_refuse("there is no memory for the tokens of %s", what);
    int status = EXIT_DONE;
    octavo_status encoded = octavo_tokenizer_encode(run->tokenizer, text, bytes, flags, list, &count);
    if (encoded == OCTAVO_E_RANGE) { /* a vocabulary without bytes may give more tokens than the text has of them */
        free(list);
        list = malloc(count * sizeof *list);
        if (!list) return cli_refuse("there is no memory for the tokens of %s", what);
        encoded = octavo_tokenizer_encode(run->tokenizer, text, bytes, flags, list, &count);
    }
    if (encoded != OCTAVO_OK)
        status = cli_refuse("%s: %s", what, octavo_last_error());
    else
        status = model_check_ids(run, what, list, (int64_t)count);
    if (status != EXIT_DONE) {
        free(list);
        return status;
    }
    *ids = (model_ids){ .ids = list, .rows = 1, .tokens = (int64_t)count };
    return EXIT_DONE;
}

int model_encode_prompt(model_run *run, const char *what, const char *text, size_t bytes, bos_rule rule, model_ids *ids)
{
    int status = run->tokenizer ? EXIT_DONE : model_run_open_tokenizer(run);
    if (status != EXIT_DONE) return status;
    const int adds = rule == BOS_ALWAYS || (rule == BOS_AS_TOKENIZER && octavo_tokenizer_adds_bos(run->tokenizer));
    const int32_t bos = octavo_tokenizer_bos_id(run->tokenizer);
    status = model_encode(run, what, text, bytes, OCTAVO_TOKENIZER_PARSE_SPECIAL | (adds ? OCTAVO_TOKENIZER_ADD_BOS : 0u), ids);
    if (status == EXIT_DONE && adds && rule == BOS_AS_TOKENIZER && ids->tokens > 1 && ids->ids[0] == bos && ids->ids[1] == bos)
        memmove(ids->ids, ids->ids + 1, (size_t)--ids->tokens * sizeof *ids->ids);
    return status;
}

/* 0: one of them does not fit into an int32. */
static int narrow_ids(const octavo_tensor *tensor, int32_t *ids, int64_t count)
{
    if (tensor->dtype == OCTAVO_INT32) {
        memcpy(ids, tensor->data, (size_t)count * sizeof *ids);
        return 1;
    }
    const int64_t *wide = tensor->data;
    for (int64_t i = 0; i < count; i++) {
        if (wide[i] < INT32_MIN || wide[i] > INT32_MAX) return 0;
        ids[i] = (int32_t)wide[i];
    }
    return 1;
}

int model_ids_of_file(const model_run *run, const octavo_safetensors *file, const char *path, const char *name, model_ids *ids)
{
    octavo_tensor tensor;
    if (octavo_safetensors_find(file, name, &tensor) != OCTAVO_OK) return cli_refuse_last();
    if ((tensor.dtype != OCTAVO_INT32 && tensor.dtype != OCTAVO_INT64) || tensor.ndim < 1 || tensor.ndim > 2)
        return cli_refuse("%s: '%s' has dtype %s and %d axes, expected I32 or I64 with 1 or 2 axes", path, name,
                          octavo_dtype_name(tensor.dtype), tensor.ndim);
    const int64_t rows = tensor.ndim == 2 ? tensor.shape[0] : 1, tokens = tensor.shape[tensor.ndim - 1], count = rows * tokens;
    if (count == 0) return cli_refuse("%s: '%s' is empty", path, name);
    int32_t *list = malloc((size_t)count * sizeof *list);
    if (!list) return cli_refuse("there is no memory for the %" PRId64 " tokens of %s", count, path);
    int status = narrow_ids(&tensor, list, count) ? model_check_ids(run, path, list, count)
                                                  : cli_refuse("%s: '%s' holds a number that is no token id", path, name);
    if (status != EXIT_DONE) {
        free(list);
        return status;
    }
    *ids = (model_ids){ .ids = list, .rows = rows, .tokens = tokens };
    return EXIT_DONE;
}

int model_read_ids(model_run *run, const char *text_path, const char *ids_path, model_ids *ids)
{
    if (text_path) {
        char *text;
        size_t bytes;
        int status = model_read_text(text_path, &text, &bytes);
        if (status != EXIT_DONE) return status;
        status = model_encode(run, text_path, text, bytes, OCTAVO_TOKENIZER_PARSE_SPECIAL, ids);
        free(text);
        return status;
    }
    octavo_safetensors *file;
    if (octavo_safetensors_open(ids_path, &file) != OCTAVO_OK) return cli_refuse_last();
    const int status = model_ids_of_file(run, file, ids_path, "input_ids", ids);
    octavo_safetensors_close(file);
    return status;
}

int model_check_out(const char *path)
{
    char probe[4096];
    if (snprintf(probe, sizeof probe, "%s.XXXXXX", path) >= (int)sizeof probe) return cli_refuse("option --out is too long a path");
    const int descriptor = mkstemp(probe);
    if (descriptor < 0) return cli_refuse("'%s' cannot be written: %s", path, strerror(errno));
    close(descriptor);
    unlink(probe);
    return EXIT_DONE;
}
