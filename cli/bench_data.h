/* bench_data.h - the unquantised inputs: a recorded layer, or made-up data. */
#ifndef OCTAVO_CLI_BENCH_DATA_H
#define OCTAVO_CLI_BENCH_DATA_H

#include "bench_settings.h"
#include "octavo/recording.h"

typedef struct bench_data {
    int64_t sequences, q_heads, kv_heads, head_dim, v_dim, tokens, queries;
    octavo_dtype dtype;
    char hash[17]; /* of the content, or of what made-up data are made from */
    octavo_recording recording;
    const bench_synthetic *synthetic; /* NULL: a recording                  */
    float *directions;                /* synthetic: [sequences, kv_heads, head_dim] unit vectors */
    uint16_t *k_chunk, *v_chunk;      /* synthetic: [chunk_tokens, kv_heads, head_dim] */
    int64_t chunk_tokens;
    int threads;
} bench_data;

/* `settings` must outlive *data. EXIT_REFUSED after a sentence: *data holds nothing. */
int bench_data_open(const bench_settings *settings, int64_t chunk_tokens, bench_data *data);
void bench_data_close(bench_data *data);

/* Tokens [first, first + count) of the `length` tokens that a cache of that length holds: a recording's last ones, while
 * made-up data are made for each length. k and v are [1, count, kv_heads, dim], borrowed until the next call; count is at
 * most chunk_tokens. */
void bench_data_chunk(bench_data *data, int64_t sequence, int64_t length, int64_t first, int64_t count, octavo_tensor *k, octavo_tensor *v);

/* The query that sees all but the newest `age` of the tokens: [q_heads, head_dim] of data->dtype. */
void bench_data_query(const bench_data *data, int64_t sequence, int64_t age, void *q);

/* Made-up data, bench_synthetic.c. */
int bench_synthetic_init(bench_data *data);
void bench_synthetic_fini(bench_data *data);
void bench_synthetic_chunk(bench_data *data, int64_t sequence, int64_t length, int64_t first, int64_t count);
void bench_synthetic_query(const bench_data *data, int64_t sequence, uint16_t *q);

#endif
