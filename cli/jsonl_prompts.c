/* jsonl_prompts.c - reads prompts, which may come from anywhere. */
#include "jsonl_prompts.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static int refuse(char reason[JSONL_REASON_BYTES], const char *text)
{
    snprintf(reason, JSONL_REASON_BYTES, "%s", text);
    return -1;
}

static int read_ids(const json_t *list, prompt *to, char reason[JSONL_REASON_BYTES])
{
    const size_t count = json_array_size(list);
    if (!json_is_array(list) || count == 0) return refuse(reason, "'ids' is not a list of token ids with at least one");
    to->ids = malloc(count * sizeof *to->ids);
    if (!to->ids) return refuse(reason, "there is no memory for its ids");
    for (size_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, i);
        if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > INT32_MAX) {
            snprintf(reason, JSONL_REASON_BYTES, "'ids' has no token id at place %zu", i);
            return -1;
        }
        to->ids[i] = (int32_t)json_integer_value(value);
    }
    to->count = (int64_t)count;
    return 0;
}

static int read_text(const json_t *value, prompt *to, char reason[JSONL_REASON_BYTES])
{
    const size_t bytes = json_string_length(value);
    if (!json_is_string(value) || bytes == 0) return refuse(reason, "'prompt' is not a text with at least one character");
    to->text = malloc(bytes + 1);
    if (!to->text) return refuse(reason, "there is no memory for its text");
    memcpy(to->text, json_string_value(value), bytes + 1);
    to->bytes = bytes;
    return 0;
}

static int read_prompt(const json_t *object, prompt *to, char reason[JSONL_REASON_BYTES])
{
    const json_t *text = json_object_get(object, "prompt"), *ids = json_object_get(object, "ids");
    json_t *id = json_object_get(object, "id");
    if (!text == !ids) return refuse(reason, text ? "it has both 'prompt' and 'ids'" : "it has neither 'prompt' nor 'ids'");
    if (id && !json_is_string(id) && !json_is_integer(id)) return refuse(reason, "'id' is neither a text nor a whole number");
    to->id = json_incref(id); /* NULL stays NULL */
    return text ? read_text(text, to, reason) : read_ids(ids, to, reason);
}

static int add_prompt(prompt_list *list, const jsonl_reader *reader, char reason[JSONL_REASON_BYTES])
{
    if (list->count == list->capacity) {
        const int64_t capacity = 2 * list->capacity + 16;
        prompt *prompts = realloc(list->prompts, (size_t)capacity * sizeof *prompts);
        if (!prompts) return refuse(reason, "there is no memory for so many prompts");
        list->prompts = prompts;
        list->capacity = capacity;
    }
    json_t *object = jsonl_object(reader, reason);
    if (!object) return -1;
    list->prompts[list->count] = (prompt){ .line = reader->line };
    const int status = read_prompt(object, &list->prompts[list->count++], reason);
    json_decref(object);
    return status;
}

int prompts_read(FILE *file, prompt_list *list, int64_t *line, char reason[JSONL_REASON_BYTES])
{
    jsonl_reader reader = { .file = file };
    int status;
    *list = (prompt_list){ 0 };
    while ((status = jsonl_next(&reader, reason)) > 0)
        if (!jsonl_is_blank(&reader) && (status = add_prompt(list, &reader, reason)) != 0) break;
    if (status == 0 && list->count == 0) status = refuse(reason, "the file has no prompt");
    *line = reader.line;
    jsonl_fini(&reader);
    if (status != 0) prompts_fini(list);
    return status;
}

void prompts_fini(prompt_list *list)
{
    for (int64_t i = 0; i < list->count; i++) {
        json_decref(list->prompts[i].id);
        free(list->prompts[i].text);
        free(list->prompts[i].ids);
    }
    free(list->prompts);
    *list = (prompt_list){ 0 };
}
