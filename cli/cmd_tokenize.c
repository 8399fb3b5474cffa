/* cmd_tokenize.c - `octavo tokenize`: the standard input as token ids, or ids as text. */
#define _GNU_SOURCE
#include "cli.h"
#include "model_stream.h"
#include "model_text.h"
#include "octavo/tokenizer.h"
#include "options.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TOKENIZE_SCHEMA "octavo-tokenize-1"
#define BLANKS " \t\r\n"

enum { WORD_BYTES = 24 };

typedef struct tokenize_settings {
    const char *model;
    int json, decode, plain, bos;
} tokenize_settings;

typedef struct id_list {
    int32_t *ids; /* [capacity] */
    size_t count, capacity;
} id_list;

static int print_object(json_t *root)
{
    char *text = root ? json_dumps(root, JSON_ENSURE_ASCII | JSON_COMPACT) : NULL;
    json_decref(root);
    if (!text) return cli_refuse("there is no memory for the JSON text");
    puts(text);
    free(text);
    return cli_finish_output();
}

/* ---- text to ids ------------------------------------------------------------------------------------------------- */

static int encode(const octavo_tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags, id_list *list)
{
    octavo_status status = OCTAVO_E_RANGE;
    list->count = bytes + 1; /* a guess; the second try knows the number */
    for (int i = 0; i < 2 && status == OCTAVO_E_RANGE; i++) {
        free(list->ids);
        list->capacity = list->count;
        list->ids = malloc(list->capacity * sizeof *list->ids);
        if (!list->ids) return cli_refuse("there is no memory for %zu token ids", list->count);
        status = octavo_tokenizer_encode(tokenizer, text, bytes, flags, list->ids, &list->count);
    }
    return status == OCTAVO_OK ? EXIT_DONE : cli_refuse("standard input: %s", octavo_last_error());
}

static int print_ids(const tokenize_settings *settings, const id_list *list, size_t bytes)
{
    if (settings->json) {
        json_t *ids = json_array();
        int failed = !ids;
        for (size_t i = 0; !failed && i < list->count; i++) failed = json_array_append_new(ids, json_integer(list->ids[i])) != 0;
        json_t *root = failed ? NULL : json_pack("{s:s, s:O, s:I, s:I}", "schema", TOKENIZE_SCHEMA, "ids", ids, "tokens",
                                                 (json_int_t)list->count, "bytes", (json_int_t)bytes);
        json_decref(ids);
        return print_object(root);
    }
    for (size_t i = 0; i < list->count; i++) printf("%s%" PRId32, i ? " " : "", list->ids[i]);
    putchar('\n');
    return cli_finish_output();
}

static int tokenize(const tokenize_settings *settings, const octavo_tokenizer *tokenizer, const char *text, size_t bytes)
{
    const unsigned flags = (settings->plain ? OCTAVO_TOKENIZER_PLAIN : OCTAVO_TOKENIZER_PARSE_SPECIAL) |
                           (settings->bos ? OCTAVO_TOKENIZER_ADD_BOS : 0u);
    id_list list = { 0 };
    if (settings->bos && octavo_tokenizer_bos_id(tokenizer) < 0) return cli_refuse("%s: names no token that begins a text", settings->model);
    int status = encode(tokenizer, text, bytes, flags, &list);
    if (status == EXIT_DONE) status = print_ids(settings, &list, bytes);
    free(list.ids);
    return status;
}

/* ---- ids to text ------------------------------------------------------------------------------------------------- */

static int add_id(id_list *list, int64_t id)
{
    if (list->count == list->capacity) {
        const size_t capacity = list->capacity ? 2 * list->capacity : 1024;
        int32_t *grown = realloc(list->ids, capacity * sizeof *grown);
        if (!grown) return cli_refuse("there is no memory for %zu token ids", capacity);
        list->ids = grown;
        list->capacity = capacity;
    }
    list->ids[list->count++] = (int32_t)id;
    return EXIT_DONE;
}

static int parse_words(const char *text, size_t bytes, id_list *list)
{
    for (size_t at = 0, length; at < bytes; at += length) {
        char word[WORD_BYTES] = "";
        int64_t id;
        for (length = 0; at + length < bytes && !memchr(BLANKS, text[at + length], strlen(BLANKS)); length++)
            if (length + 1 < WORD_BYTES) word[length] = text[at + length];
        if (!length) {
            length = 1;
            continue;
        }
        if (length >= WORD_BYTES || !options_integer(word, 0, INT32_MAX, &id))
            return cli_refuse("standard input: '%s' at byte %zu is no token id", word, at);
        const int status = add_id(list, id);
        if (status != EXIT_DONE) return status;
    }
    return EXIT_DONE;
}

/* A list of ids, or an object that has it as "ids". */
static int parse_json(const char *text, size_t bytes, id_list *list)
{
    json_error_t error;
    json_t *root = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root) return cli_refuse("standard input: line %d: %s", error.line, error.text);
    const json_t *ids = json_is_array(root) ? root : json_object_get(root, "ids");
    int status = json_is_array(ids) ? EXIT_DONE : cli_refuse("standard input: 'ids' is not a list");
    for (size_t i = 0; status == EXIT_DONE && i < json_array_size(ids); i++) {
        const json_t *id = json_array_get(ids, i);
        if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX)
            status = cli_refuse("standard input: ids[%zu] is no token id", i);
        else
            status = add_id(list, json_integer_value(id));
    }
    json_decref(root);
    return status;
}

/* Whole characters for JSON and for terminals; what is no UTF-8 is replaced there, and kept in a pipe. */
static int print_text(const tokenize_settings *settings, const char *text, size_t bytes, size_t tokens)
{
    const int terminal = isatty(STDOUT_FILENO);
    text_stream stream = { 0 };
    int status;
    if (!settings->json && !terminal) {
        fwrite(text, 1, bytes, stdout);
        return cli_finish_output();
    }
    text_stream_add(&stream, (const unsigned char *)text, bytes);
    if (text_stream_end(&stream) == STREAM_FAILED) {
        status = cli_refuse("there is no memory for a text of %zu bytes", bytes);
    } else if (settings->json) {
        status = print_object(json_pack("{s:s, s:s%, s:I, s:I}", "schema", TOKENIZE_SCHEMA, "text", stream.bytes ? stream.text : "", stream.bytes,
                                        "tokens", (json_int_t)tokens, "bytes", (json_int_t)bytes));
    } else {
        text_write(stdout, terminal, stream.text, stream.bytes);
        status = cli_finish_output();
    }
    text_stream_fini(&stream);
    return status;
}

static int decode(const tokenize_settings *settings, const octavo_tokenizer *tokenizer, const id_list *list)
{
    size_t bytes = 0;
    if (octavo_tokenizer_decode(tokenizer, list->ids, list->count, OCTAVO_TOKENIZER_PLAIN, NULL, &bytes) != OCTAVO_OK) return cli_refuse_last();
    char *text = malloc(bytes + 1);
    if (!text) return cli_refuse("there is no memory for a text of %zu bytes", bytes);
    int status;
    if (octavo_tokenizer_decode(tokenizer, list->ids, list->count, OCTAVO_TOKENIZER_PLAIN, text, &bytes) != OCTAVO_OK) status = cli_refuse_last();
    else status = print_text(settings, text, bytes, list->count);
    free(text);
    return status;
}

static int detokenize(const tokenize_settings *settings, const octavo_tokenizer *tokenizer, const char *text, size_t bytes)
{
    id_list list = { 0 };
    size_t first = 0;
    while (first < bytes && memchr(BLANKS, text[first], strlen(BLANKS))) first++;
    const int json = first < bytes && (text[first] == '{' || text[first] == '[');
    int status = json ? parse_json(text, bytes, &list) : parse_words(text, bytes, &list);
    if (status == EXIT_DONE) status = decode(settings, tokenizer, &list);
    free(list.ids);
    return status;
}

int cmd_tokenize(int argc, char **argv)
{
    tokenize_settings settings = { 0 };
    octavo_tokenizer *tokenizer = NULL;
    char *text = NULL;
    size_t bytes = 0;
    int status;
    const option options[] = {
        { "model", 'm', OPTION_TEXT, "PATH", "a Hugging Face checkpoint's folder, or its tokenizer.json", &settings.model, 0, 0 },
        { "decode", 0, OPTION_FLAG, NULL, "reads ids, or what --json printed, and prints the text", &settings.decode, 0, 0 },
        { "no-parse-special", 0, OPTION_FLAG, NULL, "what looks like a special token is ordinary text", &settings.plain, 0, 0 },
        { "add-bos", 0, OPTION_FLAG, NULL, "begins with the token that begins a text", &settings.bos, 0, 0 },
        { "json", 0, OPTION_FLAG, NULL, "prints JSON", &settings.json, 0, 0 },
        { 0 },
    };
    const command_line line = {
        .usage = "octavo tokenize -m PATH [OPTIONS]",
        .about = "The standard input, UTF-8, as the ids of a model's tokens, with blanks between them; no\n"
                 "token is added unless it is asked for. With --decode the way back.\n",
        .options = options,
    };
    if (options_parse(&line, argc, argv, &status) == OPTIONS_STOP) return status;
    if (!settings.model) return cli_refuse("option --model is missing");
    if (octavo_tokenizer_open(settings.model, &tokenizer) != OCTAVO_OK) return cli_refuse_last();
    status = model_read_text("-", &text, &bytes);
    if (status == EXIT_DONE)
        status = settings.decode ? detokenize(&settings, tokenizer, text, bytes) : tokenize(&settings, tokenizer, text, bytes);
    free(text);
    octavo_tokenizer_close(tokenizer);
    return status;
}
