/* bench_peak.h - how fast this machine multiplies when nothing has to be fetched. */
#ifndef OCTAVO_CLI_BENCH_PEAK_H
#define OCTAVO_CLI_BENCH_PEAK_H

#include "octavo/linear.h"

/* TFLOP/s (1e12, int8 operations likewise) of `threads` threads that multiply random numbers in registers, with what the level `isa`
 * has for products of this precision. The level must be one that a device was opened with. */
double bench_peak_measure(const char *isa, octavo_linear_precision precision, int threads);

/* "amx bf16", "fma f32", ...: what bench_peak_measure multiplies with. */
const char *bench_peak_name(const char *isa, octavo_linear_precision precision);

#endif
