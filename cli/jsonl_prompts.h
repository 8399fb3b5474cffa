/* jsonl_prompts.h - prompts from a file of JSON lines: {"prompt": TEXT} or {"ids": [N, ...]}, each with an optional "id". */
#ifndef OCTAVO_CLI_JSONL_PROMPTS_H
#define OCTAVO_CLI_JSONL_PROMPTS_H

#include "jsonl.h"
#include <stdint.h>

typedef struct prompt {
    int64_t line;
    json_t *id;    /* a string or an integer; NULL: none       */
    char *text;    /* [bytes], and a zero; NULL where ids are  */
    size_t bytes;
    int32_t *ids;  /* [count], none negative; NULL where text is */
    int64_t count;
} prompt;

typedef struct prompt_list {
    prompt *prompts; /* [count] */
    int64_t count, capacity;
} prompt_list;

/* Reads all prompts; blank lines do not count. 0: done; else *reason says what is wrong with line *line, and *list is empty. */
int prompts_read(FILE *file, prompt_list *list, int64_t *line, char reason[JSONL_REASON_BYTES]);
void prompts_fini(prompt_list *list);

#endif
