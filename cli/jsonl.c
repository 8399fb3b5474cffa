/* jsonl.c - reads lines of limited length and the objects on them. */
#include "jsonl.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int grow(jsonl_reader *reader)
{
    const size_t capacity = reader->capacity ? 2 * reader->capacity : 4096;
    char *text = capacity <= JSONL_LINE_BYTES_MOST ? realloc(reader->text, capacity) : NULL;
    if (!text) return 0;
    reader->text = text;
    reader->capacity = capacity;
    return 1;
}

int jsonl_next(jsonl_reader *reader, char reason[JSONL_REASON_BYTES])
{
    int c;
    reader->bytes = 0;
    reader->ended = 0;
    reader->line++;
    while ((c = getc(reader->file)) != EOF && c != '\n') {
        if (reader->bytes == reader->capacity && !grow(reader)) {
            snprintf(reason, JSONL_REASON_BYTES, "it is longer than %d MiB or than there is memory for", JSONL_LINE_BYTES_MOST >> 20);
            return -1;
        }
        reader->text[reader->bytes++] = (char)c;
    }
    if (ferror(reader->file)) {
        snprintf(reason, JSONL_REASON_BYTES, "it cannot be read: %s", strerror(errno));
        return -1;
    }
    reader->ended = c == '\n';
    reader->offset += (int64_t)reader->bytes + reader->ended;
    return reader->ended || reader->bytes > 0;
}

int jsonl_is_blank(const jsonl_reader *reader)
{
    for (size_t i = 0; i < reader->bytes; i++)
        if (!strchr(" \t\r", reader->text[i]) || !reader->text[i]) return 0;
    return 1;
}

json_t *jsonl_object(const jsonl_reader *reader, char reason[JSONL_REASON_BYTES])
{
    json_error_t error;
    json_t *root = json_loadb(reader->text ? reader->text : "", reader->bytes, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        snprintf(reason, JSONL_REASON_BYTES, "it is not JSON: %s", error.text);
        return NULL;
    }
    if (!json_is_object(root)) {
        snprintf(reason, JSONL_REASON_BYTES, "it is not an object");
        json_decref(root);
        return NULL;
    }
    return root;
}

void jsonl_fini(jsonl_reader *reader)
{
    free(reader->text);
    *reader = (jsonl_reader){ .file = reader->file };
}
