/* jsonl_answers.c - reads what there is of a file of answers, whoever wrote it. */
#include "jsonl_answers.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_FLAGS = ANSWER_FLAGS | JSON_ENCODE_ANY };

/* "epsilon is 0.1 there, 0.03 here", for the first member that differs. */
static int refuse_header(const json_t *theirs, const json_t *ours, char reason[JSONL_REASON_BYTES])
{
    const char *name;
    json_t *here;
    const json_t *there = json_object_get(theirs, "settings");
    json_object_foreach(json_object_get(ours, "settings"), name, here) {
        const json_t *other = json_object_get(there, name);
        if (other && json_equal(other, here)) continue;
        char *was = other ? json_dumps(other, VALUE_FLAGS) : NULL, *is = json_dumps(here, VALUE_FLAGS);
        snprintf(reason, JSONL_REASON_BYTES, "it was made with other settings: '%s' is %.60s there, %.60s here", name, was ? was : "missing",
                 is ? is : "?");
        free(was);
        free(is);
        return -1;
    }
    snprintf(reason, JSONL_REASON_BYTES, "it was made with other settings or is no file of octavo rollout");
    return -1;
}

/* The header as it reads after it was written: numbers lose digits. */
static json_t *as_written(const json_t *header)
{
    char *text = json_dumps(header, ANSWER_FLAGS);
    json_t *again = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    return again;
}

/* 1: a run died while it wrote the header. */
static int is_begun(const jsonl_reader *reader, const json_t *header)
{
    char *text = json_dumps(header, ANSWER_FLAGS);
    const int begun = text && reader->bytes <= strlen(text) && memcmp(text, reader->text, reader->bytes) == 0;
    free(text);
    return begun;
}

static int scan_header(const jsonl_reader *reader, const json_t *header, char reason[JSONL_REASON_BYTES])
{
    json_t *theirs = jsonl_object(reader, reason), *ours = as_written(header);
    int status = -1;
    if (theirs && !ours) snprintf(reason, JSONL_REASON_BYTES, "there is no memory to compare its settings");
    if (theirs && ours) status = json_equal(theirs, ours) ? 0 : refuse_header(theirs, ours, reason);
    json_decref(theirs);
    json_decref(ours);
    return status;
}

static int scan_answer(const jsonl_reader *reader, rollout_done *done, char reason[JSONL_REASON_BYTES])
{
    json_t *object = jsonl_object(reader, reason);
    if (!object) return -1;
    const json_t *prompt = json_object_get(object, "prompt"), *sample = json_object_get(object, "sample");
    const json_int_t p = json_integer_value(prompt), s = json_integer_value(sample);
    const int good = json_is_integer(prompt) && json_is_integer(sample) && p >= 0 && p < done->prompts && s >= 0 && s < done->samples;
    json_decref(object);
    if (!good || done->done[p * done->samples + s]) {
        snprintf(reason, JSONL_REASON_BYTES, good ? "it repeats an answer" : "it names no answer of this run");
        return -1;
    }
    done->done[p * done->samples + s] = 1;
    done->count++;
    return 0;
}

int rollout_scan(FILE *file, const json_t *header, rollout_done *done, int64_t *keep, char reason[JSONL_REASON_BYTES])
{
    jsonl_reader reader = { .file = file };
    char why[JSONL_REASON_BYTES];
    int status;
    *keep = 0;
    while ((status = jsonl_next(&reader, why)) > 0) {
        if (!reader.ended && reader.line > 1) { /* half-written */
            status = 0;
            break;
        }
        if (!reader.ended && is_begun(&reader, header)) {
            status = 0;
            break;
        }
        status = reader.line == 1 ? scan_header(&reader, header, why) : scan_answer(&reader, done, why);
        if (status != 0) break;
        *keep = reader.offset;
    }
    if (status != 0) snprintf(reason, JSONL_REASON_BYTES, "line %" PRId64 ": %.200s", reader.line, why);
    jsonl_fini(&reader);
    return status;
}
