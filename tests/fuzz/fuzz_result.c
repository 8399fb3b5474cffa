/* fuzz_result.c - whatever JSON claims to be a measurement is refused with a reason, or is within its limits and comes back
 * from its own text unchanged. Reads with cli/bench_result_read.c. */
#include "bench_result.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition) abort();
}

static void require_printable(const char *text, size_t bytes)
{
    require(memchr(text, 0, bytes) != NULL);
    for (; *text; text++) require((unsigned char)*text >= 0x20 && *text != 0x7f);
}

static void check_fields(const result_field *fields, const bench_result *result, const void *base)
{
    for (const result_field *field = fields; field->name; field++) {
        const char *at = (const char *)base + field->offset;
        int64_t integer;
        double number;
        if (!result_field_applies(field, result->data)) continue;
        if (field->kind == FIELD_TEXT) {
            require_printable(at, field->bytes);
            continue;
        }
        memcpy(&integer, at, sizeof integer);
        memcpy(&number, at, sizeof number);
        if (field->kind == FIELD_INTEGER) number = (double)integer;
        require(number >= field->least && number <= field->most);
    }
}

static void check_result(const bench_result *result)
{
    check_fields(RESULT_SETTINGS, result, result);
    check_fields(RESULT_MACHINE, result, result);
    require(result->row_count >= 1 && result->row_count <= RESULT_ROWS_MOST && result->read_gbps >= 0);
    for (size_t i = 0; i < result->row_count; i++) check_fields(RESULT_ROW, result, &result->rows[i]);
}

/* Numbers are written with nine digits, so the second text is the first that must repeat. */
static void check_round_trip(const bench_result *result)
{
    char reason[160];
    char *first = bench_result_format(result), *second = NULL;
    bench_result again;
    require(first != NULL);
    if (bench_result_parse(first, strlen(first), &again, reason, sizeof reason) == 0) {
        second = bench_result_format(&again);
        require(second && strcmp(first, second) == 0);
        bench_result_fini(&again);
    } else {
        require(strstr(reason, "out of range") != NULL); /* rounded past a limit */
    }
    free(first);
    free(second);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char reason[160] = "";
    bench_result result;
    char *copy = malloc(size ? size : 1); /* exactly as long as the input */
    require(copy != NULL);
    if (size) memcpy(copy, data, size);
    if (bench_result_parse(copy, size, &result, reason, sizeof reason) == 0) {
        check_result(&result);
        check_round_trip(&result);
        bench_result_fini(&result);
    } else {
        require(reason[0] && result.row_count == 0 && !result.rows);
    }
    free(copy);
    return 0;
}
