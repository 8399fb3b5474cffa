/* bench_call.h - decode calls over a store, ready to run. */
#ifndef OCTAVO_CLI_BENCH_CALL_H
#define OCTAVO_CLI_BENCH_CALL_H

#include "bench_settings.h"
#include "bench_store.h"

/* How the blocks are chosen, and what is multiplied; zero is exact attention. */
typedef struct bench_rule {
    octavo_select_rule select;
    octavo_compensation compensate;
    float delta, epsilon;
    octavo_attention_precision precision;
    octavo_decode_splits splits;
} bench_rule;

/* A batch of queries with everything that a call returns. Owns its arrays, borrows the store. */
typedef struct bench_call {
    octavo_exec exec;
    octavo_decode_params params;
    octavo_kv_view view;
    int64_t rows, q_heads, head_dim, kv_heads, v_dim;
    octavo_dtype dtype;
    void *q;                    /* [rows, q_heads, head_dim]       */
    float *out;                 /* [rows, q_heads, v_dim]          */
    float *skip_ratio;          /* [rows, kv_heads]                */
    float *skip_ratio_first;    /* [rows, kv_heads]                */
    float *dropped_mass;        /* [rows, q_heads]                 */
    int64_t *bytes_read;        /* [rows, kv_heads]                */
    int32_t *lengths, *page_table; /* [rows], [rows, table_pages] */
    int64_t pages_per_sequence, table_pages;
    const bench_store *store;
    bench_there there; /* on a GPU: the arrays above, copied before and after a call */
} bench_call;

/* EXIT_REFUSED after a sentence, also where the library has no such decode. A zeroed call may be given to fini. */
int bench_call_init(bench_call *call, const octavo_exec *exec, const bench_store *store, const bench_rule *rule, int64_t rows,
                    int64_t q_heads, octavo_dtype dtype);
void bench_call_fini(bench_call *call);

/* Row `row` sees the first `length` tokens of a sequence. */
void bench_call_set_row(bench_call *call, const bench_store *store, int64_t row, int64_t sequence, int64_t length);
/* Where the row's query goes. */
void *bench_call_query(bench_call *call, int64_t row);
/* Runs with the first `rows` rows, and with all outputs or with `out` alone, as an engine would. */
int bench_call_run(bench_call *call, int64_t rows);
int bench_call_run_bare(bench_call *call);

/* On a GPU: milliseconds of one bare call, caches cold, as part of a graph. */
int bench_call_time_there(bench_call *call, double *ms);

/* 1 / sqrt(head_dim), the same for library and reference. */
float bench_softmax_scale(int64_t head_dim);

#endif
