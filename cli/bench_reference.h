/* bench_reference.h - exact attention in float64 on the unquantised inputs, which errors are measured against. */
#ifndef OCTAVO_CLI_BENCH_REFERENCE_H
#define OCTAVO_CLI_BENCH_REFERENCE_H

#include "octavo/tensor.h"

/* The queries of one sequence, each of which sees the first lengths[row] tokens. */
typedef struct bench_reference {
    int64_t rows, q_heads, kv_heads, head_dim, v_dim, chunk_tokens;
    int threads;
    const int64_t *lengths; /* [rows] borrowed */
    double scale;
    int64_t k_stride, v_stride; /* head_dim and v_dim rounded up to whole vectors, the rest zero */
    double *q, *out;        /* [rows, q_heads, k_stride or v_stride] */
    double *largest, *sum;  /* [rows, q_heads] running maximum and denominator */
    float *k, *v;           /* [kv_heads, chunk_tokens, stride] of the chunk   */
} bench_reference;

/* EXIT_REFUSED after a sentence: no memory. */
int bench_reference_init(bench_reference *reference, int64_t rows, const int64_t *lengths);
void bench_reference_fini(bench_reference *reference);

/* q: [q_heads, head_dim] of row `row`. */
void bench_reference_set_query(bench_reference *reference, int64_t row, const void *q, octavo_dtype dtype);
/* The tokens from `first` on, in ascending order: k and v are [1, tokens, kv_heads, dim]. */
void bench_reference_add(bench_reference *reference, int64_t first, const octavo_tensor *k, const octavo_tensor *v);
/* After the last token: out holds the outputs. */
void bench_reference_finish(bench_reference *reference);

/* Errors of outputs against the reference, gathered over queries and kv heads. */
typedef struct bench_error {
    double square_sum, worst, cosine_sum, largest;
    int64_t count;
} bench_error;
/* out: [q_heads, v_dim] of one row. */
void bench_error_add(bench_error *error, const bench_reference *reference, int64_t row, const float *out);

#endif
