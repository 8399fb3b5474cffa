/* fuzz_answers.c - a file that a run would continue is refused with a reason, or names answers of this run once each, up to a place
 * where a line ends. Reads with cli/jsonl_answers.c. */
#define _GNU_SOURCE
#include "jsonl_answers.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { PROMPTS = 3, SAMPLES = 2 };

static void require(int condition)
{
    if (!condition) abort();
}

static void scan(char *copy, size_t size, const json_t *header)
{
    char reason[JSONL_REASON_BYTES] = "";
    unsigned char done[PROMPTS * SAMPLES] = { 0 };
    rollout_done found = { .prompts = PROMPTS, .samples = SAMPLES, .done = done };
    int64_t keep = -1, count = 0;
    FILE *file = fmemopen(copy, size, "rb");
    require(file != NULL);
    const int status = rollout_scan(file, header, &found, &keep, reason);
    fclose(file);
    for (int i = 0; i < PROMPTS * SAMPLES; i++) count += done[i];
    require(count == found.count && keep >= 0 && keep <= (int64_t)size && (keep == 0 || copy[keep - 1] == '\n'));
    require(status == 0 || reason[0]);
    require(count == 0 || keep > 0);
}

/* Line 1 of the input may be anything; with an @ in front the right header stands there. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *header = json_pack("{s:s, s:{s:f, s:i}}", "schema", "octavo-rollout-1", "settings", "epsilon", 0.1, "samples", SAMPLES);
    char *text = header ? json_dumps(header, ANSWER_FLAGS) : NULL;
    require(text != NULL);
    const int with_header = size > 0 && data[0] == '@';
    const size_t front = with_header ? strlen(text) + 1 : 0, rest = size - (size_t)with_header;
    char *copy = malloc(front + rest + 1);
    require(copy != NULL);
    if (with_header) {
        memcpy(copy, text, front - 1);
        copy[front - 1] = '\n';
    }
    if (rest) memcpy(copy + front, data + with_header, rest);
    if (front + rest) scan(copy, front + rest, header);
    free(copy);
    free(text);
    json_decref(header);
    return 0;
}
