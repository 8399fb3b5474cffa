/* jsonl_answers.h - the file of answers that an earlier `octavo rollout` left. */
#ifndef OCTAVO_CLI_JSONL_ANSWERS_H
#define OCTAVO_CLI_JSONL_ANSWERS_H

#include "jsonl.h"

enum { ANSWER_FLAGS = JSON_COMPACT | JSON_REAL_PRECISION(9) }; /* of json_dumps, for a line */

/* Which answers there are. */
typedef struct rollout_done {
    int64_t prompts, samples, count;
    unsigned char *done; /* [prompts, samples] */
} rollout_done;

/* Reads what an earlier run wrote: the first line must say the same as `header`, the others name answers, none twice. *keep
 * becomes the bytes of the complete lines; what a run left half-written is behind them. 0, or -1 and a reason. */
int rollout_scan(FILE *file, const json_t *header, rollout_done *done, int64_t *keep, char reason[JSONL_REASON_BYTES]);

#endif
