/* bench_measure.h - everything that is measured at one length. */
#ifndef OCTAVO_CLI_BENCH_MEASURE_H
#define OCTAVO_CLI_BENCH_MEASURE_H

#include "bench_data.h"
#include "bench_read_speed.h"
#include "bench_result.h"

enum { BENCH_CHUNK_TOKENS = 1024 };

typedef struct bench_run {
    const bench_settings *settings;
    octavo_exec exec;    /* device and threads            */
    octavo_exec encoder; /* of the CPU, which makes the pages */
    bench_data data;
    int64_t sequences; /* of a timed call */
    bench_read_speed speed;
} bench_run;

/* Refuses what the library will not decode and what the memory will not hold, before anything is computed. */
int bench_check(const bench_run *run, int64_t longest);
/* Fills *row for a cache of `length` tokens. */
int bench_measure(bench_run *run, int64_t length, bench_row *row);

#endif
