/* bench_result_read.c - reads the JSON of a measurement, which may come from anywhere. */
#include "bench_result.h"
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TEXT(struct_type, member, when) \
    { #member, FIELD_TEXT, when, offsetof(struct_type, member), sizeof(((struct_type *)0)->member), 0, 0 }
#define INTEGER(struct_type, member, when, least, most) { #member, FIELD_INTEGER, when, offsetof(struct_type, member), 0, least, most }
#define NUMBER(struct_type, member, when, least, most) { #member, FIELD_NUMBER, when, offsetof(struct_type, member), 0, least, most }
#define END_OF_FIELDS { NULL, FIELD_TEXT, FIELD_ALWAYS, 0, 0, 0, 0 }

enum { COUNT_MOST = 1 << 30 };
#define LARGEST 1e300        /* any finite measurement */
#define LARGEST_EXACT 9.0e15 /* integers that a double holds */

const result_field RESULT_SETTINGS[] = {
    TEXT(bench_result, data, FIELD_ALWAYS),
    TEXT(bench_result, file, FIELD_RECORDING),
    INTEGER(bench_result, layer, FIELD_RECORDING, 0, COUNT_MOST),
    NUMBER(bench_result, hot, FIELD_SYNTHETIC, 0, 1),
    INTEGER(bench_result, seed, FIELD_SYNTHETIC, 0, LARGEST_EXACT),
    INTEGER(bench_result, tokens, FIELD_ALWAYS, 1, LARGEST_EXACT),
    TEXT(bench_result, data_hash, FIELD_ALWAYS),
    TEXT(bench_result, dtype, FIELD_ALWAYS),
    TEXT(bench_result, cache_k, FIELD_ALWAYS),
    TEXT(bench_result, cache_v, FIELD_ALWAYS),
    TEXT(bench_result, select, FIELD_ALWAYS),
    TEXT(bench_result, compensate, FIELD_ALWAYS),
    TEXT(bench_result, attention, FIELD_ALWAYS),
    TEXT(bench_result, splits, FIELD_ALWAYS),
    NUMBER(bench_result, delta, FIELD_ALWAYS, 0, LARGEST),
    NUMBER(bench_result, epsilon, FIELD_ALWAYS, 0, 1),
    INTEGER(bench_result, block, FIELD_ALWAYS, 1, COUNT_MOST),
    INTEGER(bench_result, sub_block, FIELD_ALWAYS, 1, COUNT_MOST),
    INTEGER(bench_result, q_heads, FIELD_ALWAYS, 1, COUNT_MOST),
    INTEGER(bench_result, kv_heads, FIELD_ALWAYS, 1, COUNT_MOST),
    INTEGER(bench_result, head_dim, FIELD_ALWAYS, 1, COUNT_MOST),
    INTEGER(bench_result, v_dim, FIELD_ALWAYS, 1, COUNT_MOST),
    INTEGER(bench_result, queries, FIELD_ALWAYS, 1, COUNT_MOST),
    INTEGER(bench_result, batch, FIELD_ALWAYS, 1, COUNT_MOST),
    INTEGER(bench_result, max_tokens, FIELD_ALWAYS, 0, LARGEST_EXACT),
    INTEGER(bench_result, repeat, FIELD_ALWAYS, 1, COUNT_MOST),
    INTEGER(bench_result, threads, FIELD_ALWAYS, 1, COUNT_MOST),
    TEXT(bench_result, device, FIELD_ALWAYS),
    END_OF_FIELDS
};

const result_field RESULT_MACHINE[] = {
    TEXT(bench_result, cpu, FIELD_ALWAYS),
    TEXT(bench_result, isa, FIELD_ALWAYS),
    INTEGER(bench_result, llc_bytes, FIELD_ALWAYS, 0, LARGEST_EXACT),
    TEXT(bench_result, version, FIELD_ALWAYS),
    TEXT(bench_result, build_id, FIELD_ALWAYS),
    TEXT(bench_result, build_options, FIELD_ALWAYS),
    END_OF_FIELDS
};

const result_field RESULT_ROW[] = {
    INTEGER(bench_row, tokens, FIELD_ALWAYS, 1, LARGEST_EXACT),
    NUMBER(bench_row, ms, FIELD_ALWAYS, 0, LARGEST),
    INTEGER(bench_row, bytes, FIELD_ALWAYS, 0, LARGEST_EXACT),
    NUMBER(bench_row, gbps, FIELD_ALWAYS, 0, LARGEST),
    NUMBER(bench_row, read_share, FIELD_ALWAYS, 0, LARGEST),
    NUMBER(bench_row, read_gbps, FIELD_ALWAYS, 0, LARGEST),
    NUMBER(bench_row, skip_ratio, FIELD_ALWAYS, 0, 1),
    NUMBER(bench_row, skip_ratio_first, FIELD_ALWAYS, 0, 1),
    NUMBER(bench_row, dropped_mass_bound, FIELD_ALWAYS, 0, LARGEST),
    NUMBER(bench_row, bytes_token_head, FIELD_ALWAYS, 0, LARGEST),
    NUMBER(bench_row, rel_error, FIELD_ALWAYS, 0, LARGEST),
    NUMBER(bench_row, rel_error_max, FIELD_ALWAYS, 0, LARGEST),
    NUMBER(bench_row, cosine, FIELD_ALWAYS, -1.000001, 1.000001),
    NUMBER(bench_row, max_error, FIELD_ALWAYS, 0, LARGEST),
    NUMBER(bench_row, baseline_ms, FIELD_ALWAYS, 0, LARGEST),
    INTEGER(bench_row, baseline_bytes, FIELD_ALWAYS, 0, LARGEST_EXACT),
    NUMBER(bench_row, baseline_gbps, FIELD_ALWAYS, 0, LARGEST),
    NUMBER(bench_row, baseline_read_share, FIELD_ALWAYS, 0, LARGEST),
    NUMBER(bench_row, baseline_rel_error, FIELD_ALWAYS, 0, LARGEST),
    END_OF_FIELDS
};

int result_field_applies(const result_field *field, const char *data)
{
    if (field->presence == FIELD_RECORDING) return strcmp(data, "recording") == 0;
    if (field->presence == FIELD_SYNTHETIC) return strcmp(data, "synthetic") == 0;
    return 1;
}

/* Texts end up in labels and on terminals: printable, and short enough to be kept whole. */
static int read_text(const json_t *value, char *text, size_t bytes)
{
    if (!json_is_string(value) || json_string_length(value) >= bytes) return -1;
    const char *content = json_string_value(value);
    for (size_t i = 0; i < json_string_length(value); i++)
        if ((unsigned char)content[i] < 0x20 || content[i] == 0x7f) return -1;
    memcpy(text, content, json_string_length(value) + 1);
    return 0;
}

static int read_field(const json_t *object, const result_field *field, void *base)
{
    const json_t *value = json_object_get(object, field->name);
    char *at = (char *)base + field->offset;
    if (field->kind == FIELD_TEXT) return read_text(value, at, field->bytes);
    if (!json_is_number(value) || (field->kind == FIELD_INTEGER && !json_is_integer(value))) return -1;
    const double number = json_number_value(value);
    if (!(number >= field->least && number <= field->most)) return -1;
    if (field->kind == FIELD_NUMBER)
        memcpy(at, &number, sizeof number);
    else
        memcpy(at, &(int64_t){ json_integer_value(value) }, sizeof(int64_t));
    return 0;
}

static int read_fields(const json_t *object, const char *where, const result_field *fields, const char *data, void *base, char *reason,
                       size_t reason_bytes)
{
    if (!json_is_object(object)) {
        snprintf(reason, reason_bytes, "'%s' is missing or no object", where);
        return -1;
    }
    for (const result_field *field = fields; field->name; field++)
        if (result_field_applies(field, data) && read_field(object, field, base) != 0) {
            snprintf(reason, reason_bytes, "'%s.%s' is missing, of the wrong type or out of range", where, field->name);
            return -1;
        }
    return 0;
}

static int read_rows(const json_t *list, bench_result *result, char *reason, size_t reason_bytes)
{
    if (!json_is_array(list) || json_array_size(list) == 0 || json_array_size(list) > RESULT_ROWS_MOST) {
        snprintf(reason, reason_bytes, "'results' is no list of 1 to %d lengths", RESULT_ROWS_MOST);
        return -1;
    }
    result->rows = calloc(json_array_size(list), sizeof *result->rows);
    if (!result->rows) {
        snprintf(reason, reason_bytes, "there is no memory for its results");
        return -1;
    }
    result->row_count = json_array_size(list);
    for (size_t i = 0; i < result->row_count; i++)
        if (read_fields(json_array_get(list, i), "results", RESULT_ROW, "", &result->rows[i], reason, reason_bytes) != 0) return -1;
    return 0;
}

static int read_document(const json_t *root, bench_result *result, char *reason, size_t reason_bytes)
{
    const json_t *schema = json_object_get(root, "schema"), *settings = json_object_get(root, "settings");
    const json_t *rate = json_object_get(root, "read_gbps");
    if (!json_is_string(schema) || strcmp(json_string_value(schema), BENCH_SCHEMA) != 0) {
        snprintf(reason, reason_bytes, "'schema' is not \"%s\"", BENCH_SCHEMA);
        return -1;
    }
    if (read_text(json_object_get(root, "key"), result->key, sizeof result->key) != 0) {
        snprintf(reason, reason_bytes, "'key' is missing or no short text");
        return -1;
    }
    if (!json_is_number(rate) || !(json_number_value(rate) >= 0) || !isfinite(json_number_value(rate))) {
        snprintf(reason, reason_bytes, "'read_gbps' is missing or out of range");
        return -1;
    }
    result->read_gbps = json_number_value(rate);
    result->cached = json_is_true(json_object_get(root, "cached"));
    /* which other settings there are depends on this one */
    const json_t *data = json_object_get(settings, "data");
    const char *kind = json_is_string(data) ? json_string_value(data) : "";
    if (strcmp(kind, "recording") != 0 && strcmp(kind, "synthetic") != 0) {
        snprintf(reason, reason_bytes, "'settings.data' is neither \"recording\" nor \"synthetic\"");
        return -1;
    }
    if (read_fields(settings, "settings", RESULT_SETTINGS, kind, result, reason, reason_bytes) != 0) return -1;
    if (read_fields(json_object_get(root, "machine"), "machine", RESULT_MACHINE, kind, result, reason, reason_bytes) != 0) return -1;
    return read_rows(json_object_get(root, "results"), result, reason, reason_bytes);
}

int bench_result_parse(const char *text, size_t size, bench_result *result, char *reason, size_t reason_bytes)
{
    json_error_t error;
    memset(result, 0, sizeof *result);
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (!root) {
        snprintf(reason, reason_bytes, "line %d: %s", error.line, error.text);
        return -1;
    }
    const int status = read_document(root, result, reason, reason_bytes);
    json_decref(root);
    if (status != 0) bench_result_fini(result);
    return status;
}

void bench_result_fini(bench_result *result)
{
    free(result->rows);
    memset(result, 0, sizeof *result);
}
