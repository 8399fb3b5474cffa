/* fuzz_prompts.c - whatever claims to be a file of prompts is refused with a line and a reason, or is a list of prompts that each
 * have text or ids. Reads with cli/jsonl_prompts.c. */
#define _GNU_SOURCE
#include "jsonl_prompts.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition) abort();
}

static void check_prompt(const prompt *p, int64_t lines)
{
    require(p->line >= 1 && p->line <= lines && !p->text != !p->ids);
    require(!p->id || json_is_string(p->id) || json_is_integer(p->id));
    if (p->text) require(p->bytes > 0 && strlen(p->text) == p->bytes);
    if (p->ids) require(p->count > 0);
    for (int64_t i = 0; p->ids && i < p->count; i++) require(p->ids[i] >= 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char reason[JSONL_REASON_BYTES] = "";
    prompt_list list;
    int64_t line = 0;
    if (size == 0) return 0;
    char *copy = malloc(size); /* exactly as long as the input */
    require(copy != NULL);
    memcpy(copy, data, size);
    FILE *file = fmemopen(copy, size, "rb");
    require(file != NULL);
    if (prompts_read(file, &list, &line, reason) == 0) {
        require(list.count >= 1);
        for (int64_t i = 0; i < list.count; i++) check_prompt(&list.prompts[i], line);
    } else {
        require(reason[0] && line >= 1 && list.count == 0 && !list.prompts);
    }
    prompts_fini(&list);
    fclose(file);
    free(copy);
    return 0;
}
