/* bench_linear.h - what `octavo bench linear` was asked to do, and what one number of tokens measured. */
#ifndef OCTAVO_CLI_BENCH_LINEAR_H
#define OCTAVO_CLI_BENCH_LINEAR_H

#include "bench_read_speed.h"
#include "octavo/linear.h"
#include "octavo/quant.h"

enum { LINEAR_TOKENS_MOST = 64 };

typedef struct linear_settings {
    int64_t in, out, block, repeat, threads; /* block: rows and columns that share a scale, 0: a row has one */
    int64_t tokens[LINEAR_TOKENS_MOST];
    int token_count, json, unpacked;
    octavo_linear_precision precision;
    octavo_dtype weight, y;
} linear_settings;

typedef struct linear_row {
    int64_t tokens, bytes; /* bytes: of W and its scales, packed where it is                       */
    double ms, gbps, read_share, read_gbps;
    double tflops, peak_share, peak_tflops;
    double gemm_ms;        /* the matrix product alone: oneDNN's where it was found                */
    double rel_error;      /* against float64 products of x and W before they were rounded for it  */
} linear_row;

/* EXIT_REFUSED after a sentence. */
int linear_measure(const linear_settings *settings, const octavo_exec *exec, bench_read_speed *speed, int64_t tokens, linear_row *row);

#endif
