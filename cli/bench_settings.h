/* bench_settings.h - what `octavo bench decode` was asked to do. */
#ifndef OCTAVO_CLI_BENCH_SETTINGS_H
#define OCTAVO_CLI_BENCH_SETTINGS_H

#include "cache_options.h"

enum { BENCH_LENGTHS_MOST = 256, BENCH_QUERIES_ALL = -1 };

typedef struct bench_synthetic {
    int64_t batch, q_heads, kv_heads, head_dim, tokens, seed;
    double hot;
} bench_synthetic;

typedef struct bench_settings {
    const char *file; /* a recording; NULL: synthetic */
    int64_t layer;
    bench_synthetic synthetic;
    cache_options cache;
    octavo_attention_precision attention; /* of what is measured; the baseline is exact */
    int64_t queries; /* the newest so many, or BENCH_QUERIES_ALL */
    int64_t batch;   /* 0: as the data have it                   */
    int64_t max_tokens; /* that calls are planned for; 0: as many as the cache has */
    int64_t repeat, threads;
    int64_t lengths[BENCH_LENGTHS_MOST];
    size_t length_count; /* 0: the whole data */
    const char *device, *out;
    int fresh, json;
} bench_settings;

/* 1: go on; 0: leave with *status (help was printed, or a refusal). */
int bench_settings_parse(int argc, char **argv, bench_settings *settings, int *status);

#endif
