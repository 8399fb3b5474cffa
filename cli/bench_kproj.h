/* bench_kproj.h - what `octavo bench kproj` was asked to do, and what one number of tokens measured. */
#ifndef OCTAVO_CLI_BENCH_KPROJ_H
#define OCTAVO_CLI_BENCH_KPROJ_H

#include "bench_read_speed.h"
#include "octavo/kproj.h"

enum { KPROJ_TOKENS_MOST = 64 };

typedef struct kproj_settings {
    int64_t hidden, kv_heads, head_dim, repeat, threads;
    int64_t tokens[KPROJ_TOKENS_MOST];
    int token_count, json;
    octavo_dtype weights;
    octavo_k_format k_format;
    const char *device;
} kproj_settings;

typedef struct kproj_row {
    int64_t tokens, batch, bytes; /* of all sequences; how many those are; bytes of W and its scales */
    double ms, gbps, read_share, read_gbps;
    double gemm_ms;        /* the matrix product alone                                 */
    double unfused_ms;     /* the product, RoPE and octavo_kv_append, one after the other */
} kproj_row;

/* EXIT_REFUSED after a sentence. */
int kproj_measure(const kproj_settings *settings, const octavo_exec *exec, bench_read_speed *speed, int64_t tokens, kproj_row *row);

#endif
