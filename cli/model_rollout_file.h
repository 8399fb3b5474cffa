/* model_rollout_file.h - the answers of `octavo rollout`, written line by line and taken up again. */
#ifndef OCTAVO_CLI_MODEL_ROLLOUT_FILE_H
#define OCTAVO_CLI_MODEL_ROLLOUT_FILE_H

#include "jsonl_answers.h"

typedef struct rollout_file {
    FILE *file;
    const char *path;
    rollout_done done;
} rollout_file;

/* Opens or creates the file for this run alone and cuts off a half-written line; a new file gets the header. EXIT_DONE, or
 * EXIT_REFUSED after a sentence. A zeroed file may be given to close. */
int rollout_file_open(rollout_file *file, const char *path, const json_t *header, int64_t prompts, int64_t samples);
void rollout_file_close(rollout_file *file);

int rollout_file_has(const rollout_file *file, int64_t prompt, int64_t sample);
/* Writes one line to the disk; `line` is released, NULL stands for a lack of memory. */
int rollout_file_write(rollout_file *file, json_t *line);

#endif
