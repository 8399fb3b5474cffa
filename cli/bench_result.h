/* bench_result.h - what one run of `octavo bench decode` measured, and its JSON form: docs/JSON.md. */
#ifndef OCTAVO_CLI_BENCH_RESULT_H
#define OCTAVO_CLI_BENCH_RESULT_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define BENCH_SCHEMA "octavo-bench-decode-1"

enum { RESULT_TEXT_BYTES = 192, RESULT_NAME_BYTES = 16, RESULT_ROWS_MOST = 4096 };

/* One length. */
typedef struct bench_row {
    int64_t tokens, bytes, baseline_bytes;
    double ms, gbps, read_share, read_gbps;
    double skip_ratio, skip_ratio_first, dropped_mass_bound, bytes_token_head;
    double rel_error, rel_error_max, cosine, max_error;
    double baseline_ms, baseline_gbps, baseline_read_share, baseline_rel_error;
} bench_row;

typedef struct bench_result {
    char key[RESULT_NAME_BYTES + 1]; /* sixteen hexadecimal digits of settings, machine and data */
    /* settings */
    char data[RESULT_NAME_BYTES];      /* "recording" or "synthetic" */
    char file[RESULT_TEXT_BYTES];      /* recording: the file's name without folders */
    int64_t layer;                     /* recording */
    double hot;                        /* synthetic */
    int64_t seed, tokens;              /* seed: synthetic; tokens that the data hold */
    char data_hash[RESULT_NAME_BYTES + 1];
    char dtype[RESULT_NAME_BYTES];
    char cache_k[RESULT_NAME_BYTES], cache_v[RESULT_NAME_BYTES], select[RESULT_NAME_BYTES], compensate[RESULT_NAME_BYTES];
    char attention[RESULT_NAME_BYTES], splits[RESULT_NAME_BYTES];
    double delta, epsilon;
    int64_t block, sub_block, q_heads, kv_heads, head_dim, v_dim, queries, batch, max_tokens, repeat, threads;
    char device[RESULT_NAME_BYTES];
    /* machine */
    char cpu[RESULT_TEXT_BYTES], isa[RESULT_NAME_BYTES], version[RESULT_NAME_BYTES * 2], build_id[RESULT_NAME_BYTES * 2],
        build_options[RESULT_TEXT_BYTES];
    int64_t llc_bytes;

    double read_gbps;
    int cached;
    bench_row *rows; /* [row_count] owned, see bench_result_fini */
    size_t row_count;
} bench_result;

typedef enum field_kind { FIELD_TEXT, FIELD_INTEGER, FIELD_NUMBER } field_kind;
typedef enum field_presence { FIELD_ALWAYS, FIELD_RECORDING, FIELD_SYNTHETIC } field_presence;

/* Where a JSON member lives in the struct: reader and writer both go by these tables, which a field without a name ends. */
typedef struct result_field {
    const char *name;
    field_kind kind;
    field_presence presence;
    size_t offset, bytes; /* bytes: of a text's array, its end included */
    double least, most;
} result_field;
extern const result_field RESULT_SETTINGS[], RESULT_MACHINE[], RESULT_ROW[];

/* 1 where `data` ("recording", "synthetic") has the field. */
int result_field_applies(const result_field *field, const char *data);

/* Reads `size` bytes of text that may hold anything. 0: *result is filled and the caller's to fini. -1: *result is zeroed and
 * `reason` says in a few words what is wrong. */
int bench_result_parse(const char *text, size_t size, bench_result *result, char *reason, size_t reason_bytes);
/* The same from a file; 1: there is no such file. */
int bench_result_load(const char *path, bench_result *result, char *reason, size_t reason_bytes);
void bench_result_fini(bench_result *result);

/* The text of the JSON document, to be freed by the caller; NULL: no memory, or a number that is not finite. */
char *bench_result_format(const bench_result *result);
/* Fills result->key from the settings, the machine and the lengths. */
void bench_result_set_key(bench_result *result, const int64_t *lengths, size_t length_count);
/* A table for people. */
void bench_result_print(const bench_result *result, FILE *stream);
/* Writes `text` to `path` so that it appears whole or not at all; EXIT_REFUSED after a sentence. */
int bench_result_store(const char *path, const char *text);

#endif
