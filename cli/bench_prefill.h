/* bench_prefill.h - what `octavo bench prefill` was asked to do, and what one length in one precision measured. */
#ifndef OCTAVO_CLI_BENCH_PREFILL_H
#define OCTAVO_CLI_BENCH_PREFILL_H

#include "octavo/prefill.h"
#include <stdio.h>

#define PREFILL_SCHEMA "octavo-bench-prefill-1"

typedef enum prefill_layout {
    PREFILL_PAGES = 0,
    PREFILL_NHD   = 1, /* K, V and q as [batch, tokens, heads, dim] */
    PREFILL_HND   = 2  /* [batch, heads, tokens, dim]               */
} prefill_layout;

enum { PREFILL_LENGTHS_MOST = 32, PREFILL_PRECISIONS = 4, PREFILL_LAYOUTS = 3 };
enum { PREFILL_ROWS_MOST = PREFILL_LENGTHS_MOST * PREFILL_LAYOUTS * PREFILL_PRECISIONS };

typedef struct prefill_settings {
    int64_t batch, q_heads, kv_heads, head_dim, keys, window, seed, samples, repeat, threads; /* keys 0: as many as tokens */
    double bias, soft_cap; /* 0: none */
    int32_t tokens[PREFILL_LENGTHS_MOST];
    octavo_attention_precision precisions[PREFILL_PRECISIONS];
    prefill_layout layouts[PREFILL_LAYOUTS];
    int64_t token_count, precision_count, layout_count;
    octavo_mask mask;
    octavo_prefill_scales scales;
    uint32_t flags;
    octavo_k_format k_format;
    octavo_v_format v_format;
    const char *device, *out;
    int json;
} prefill_settings;

typedef struct prefill_row {
    int64_t tokens, keys;
    prefill_layout layout;
    octavo_attention_precision precision;
    double ms, prepare_ms;
    double tflops, tflops_with_quantisation;
    double rel_error, rel_error_max, lse_error;
} prefill_row;

const char *prefill_layout_name(prefill_layout layout);

/* All precisions of one length in one layout into rows [precision_count]. EXIT_REFUSED after a sentence. `cpu` encodes. */
int prefill_measure(const prefill_settings *settings, const octavo_exec *exec, const octavo_exec *cpu, int64_t tokens, prefill_layout layout,
                    prefill_row *rows);

/* The operands of a call as they were before anything was rounded but to bf16. */
typedef struct prefill_data {
    int64_t batch, tokens, keys, q_heads, kv_heads, dim;
    double soft_cap;
    uint16_t *q, *k, *v; /* [batch, tokens, heads, dim] bf16 */
} prefill_data;

/* Pairs of a query and a key that it sees, in one head of all sequences. */
double prefill_pairs(const prefill_settings *settings, int64_t tokens, int64_t keys);

/* Error of out [batch, tokens, q_heads, dim] bf16 and lse [batch, q_heads, tokens] against float64 attention of `samples` queries. */
int prefill_compare(const prefill_settings *settings, const prefill_data *data, const uint16_t *out, const float *lse, prefill_row *row);

/* The JSON document, to be freed by the caller, and sixteen hexadecimal digits of settings and machine; NULL: no memory, or a number
 * that is not finite. */
char *prefill_format(const prefill_settings *settings, const octavo_device *device, const prefill_row *rows, size_t count, char key[17]);
void prefill_print(const prefill_settings *settings, const octavo_device *device, const prefill_row *rows, size_t count, FILE *stream);

#endif
