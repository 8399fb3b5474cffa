/* bench_kproj_device.h - `octavo bench kproj` on a GPU. */
#ifndef OCTAVO_CLI_BENCH_KPROJ_DEVICE_H
#define OCTAVO_CLI_BENCH_KPROJ_DEVICE_H

#include "bench_kproj.h"

/* As kproj_measure, for `tokens` sequences with a new token each up to KPROJ_BATCH_MOST, for one with all of them beyond. Every call of a
 * graph has its own copy of the weights, together more than the device's caches hold. */
enum { KPROJ_BATCH_MOST = 64 };
int kproj_device_measure(const kproj_settings *settings, const octavo_exec *exec, double read_gbps, int64_t tokens, kproj_row *row);

#endif
