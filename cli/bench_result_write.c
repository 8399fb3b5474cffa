/* bench_result_write.c - a measurement as JSON and as a table, and its key. */
#include "bench_result.h"
#include "fnv.h"
#include <inttypes.h>
#include <jansson.h>
#include <string.h>

static json_t *field_value(const result_field *field, const void *base)
{
    const char *at = (const char *)base + field->offset;
    int64_t integer;
    double number;
    if (field->kind == FIELD_TEXT) return json_string(at);
    if (field->kind == FIELD_NUMBER) {
        memcpy(&number, at, sizeof number);
        return json_real(number); /* NULL where it is not finite */
    }
    memcpy(&integer, at, sizeof integer);
    return json_integer(integer);
}

static json_t *fields_object(const result_field *fields, const char *data, const void *base)
{
    json_t *object = json_object();
    for (const result_field *field = fields; object && field->name; field++)
        if (result_field_applies(field, data) && json_object_set_new(object, field->name, field_value(field, base)) != 0) {
            json_decref(object);
            return NULL;
        }
    return object;
}

char *bench_result_format(const bench_result *result)
{
    char *text = NULL;
    json_t *root = json_object(), *list = json_array();
    int failed = !root || !list;
    for (size_t i = 0; !failed && i < result->row_count; i++)
        failed = json_array_append_new(list, fields_object(RESULT_ROW, "", &result->rows[i])) != 0;
    if (!failed) failed = json_object_set_new(root, "schema", json_string(BENCH_SCHEMA)) != 0;
    if (!failed) failed = json_object_set_new(root, "key", json_string(result->key)) != 0;
    if (!failed) failed = json_object_set_new(root, "cached", json_boolean(result->cached)) != 0;
    if (!failed) failed = json_object_set_new(root, "settings", fields_object(RESULT_SETTINGS, result->data, result)) != 0;
    if (!failed) failed = json_object_set_new(root, "machine", fields_object(RESULT_MACHINE, result->data, result)) != 0;
    if (!failed) failed = json_object_set_new(root, "read_gbps", json_real(result->read_gbps)) != 0;
    if (!failed) failed = json_object_set(root, "results", list) != 0;
    if (!failed) text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(list);
    json_decref(root);
    return text;
}

static void hash_fields(fnv_hash *hash, const result_field *fields, const bench_result *result)
{
    for (const result_field *field = fields; field->name; field++) {
        if (!result_field_applies(field, result->data)) continue;
        if (strcmp(field->name, "file") == 0) continue; /* the content counts, not what it is called */
        const char *at = (const char *)result + field->offset;
        fnv_add(hash, field->name, strlen(field->name) + 1);
        fnv_add(hash, at, field->kind == FIELD_TEXT ? strlen(at) + 1 : 8);
    }
}

void bench_result_set_key(bench_result *result, const int64_t *lengths, size_t length_count)
{
    fnv_hash hash = FNV_START;
    fnv_add(&hash, BENCH_SCHEMA, sizeof BENCH_SCHEMA);
    hash_fields(&hash, RESULT_SETTINGS, result);
    hash_fields(&hash, RESULT_MACHINE, result);
    fnv_add(&hash, lengths, length_count * sizeof *lengths);
    snprintf(result->key, sizeof result->key, "%016" PRIx64, hash);
}

void bench_result_print(const bench_result *result, FILE *stream)
{
    fprintf(stream, "K %s, V %s, %s, select %s", result->cache_k, result->cache_v, result->attention, result->select);
    if (strcmp(result->select, "delta") == 0) fprintf(stream, " %g nats", result->delta);
    if (strcmp(result->select, "mass") == 0 || strcmp(result->select, "certified") == 0) fprintf(stream, " %g", result->epsilon);
    if (strcmp(result->splits, "fill") != 0) fprintf(stream, ", %s splits", result->splits);
    fprintf(stream, ", compensate %s; %" PRId64 "/%" PRId64 " heads of %" PRId64 ", block %" PRId64 "/%" PRId64 ", %" PRId64 " queries\n",
            result->compensate, result->q_heads, result->kv_heads, result->head_dim, result->block, result->sub_block, result->queries);
    fprintf(stream, "%s, %s, %" PRId64 " threads, read speed %.1f GB/s\n\n", result->cpu, result->isa, result->threads, result->read_gbps);
    fprintf(stream, "%8s %9s %7s %6s %7s %8s %7s %9s %9s %10s %9s %9s %7s\n", "tokens", "ms", "GB/s", "share", "skipped", "bound", "B/t/h",
            "error", "worst", "1-cosine", "max", "bf16 ms", "times");
    for (size_t i = 0; i < result->row_count; i++) {
        const bench_row *row = &result->rows[i];
        fprintf(stream, "%8" PRId64 " %9.3f %7.2f %5.0f%% %6.1f%% %8.2g %7.1f %9.2e %9.2e %10.2e %9.2e %9.3f %6.2fx\n", row->tokens, row->ms,
                row->gbps, 100 * row->read_share, 100 * row->skip_ratio, row->dropped_mass_bound, row->bytes_token_head, row->rel_error,
                row->rel_error_max, 1 - row->cosine, row->max_error, row->baseline_ms, row->ms > 0 ? row->baseline_ms / row->ms : 0);
    }
}
