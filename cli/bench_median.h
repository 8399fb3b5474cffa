/* bench_median.h - the figure that a benchmark reports of its repetitions. */
#ifndef OCTAVO_CLI_BENCH_MEDIAN_H
#define OCTAVO_CLI_BENCH_MEDIAN_H

#include <stdint.h>

/* Sorts `values`, of which there is at least one. */
double bench_median(double *values, int64_t count);

#endif
