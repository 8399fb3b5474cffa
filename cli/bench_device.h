/* bench_device.h - a GPU's side of `octavo bench decode`: copies of the pages, the arrays of a call, graphs that are timed. */
#ifndef OCTAVO_CLI_BENCH_DEVICE_H
#define OCTAVO_CLI_BENCH_DEVICE_H

#include "octavo/attention.h"

/* 1: work runs on a GPU. */
int bench_on_gpu(const octavo_exec *exec);

/* The same pages several times over: together 64 times the second-level cache, so that calls in turn find none of theirs in it. Four times would do
 * where a cache forgets what is oldest, but what is copied to leave first leaves the older in place. A GPU without room for them has at least four. */
typedef struct bench_pools {
    octavo_device *device;
    void **pools; /* [count] */
    int64_t count;
} bench_pools;

/* EXIT_REFUSED after a sentence. A zeroed one is fine for fini. */
int bench_pools_send(bench_pools *pools, const octavo_exec *exec, const void *pool, size_t bytes);
void bench_pools_fini(bench_pools *pools);

/* The arrays of one call on the device. */
enum { THERE_Q, THERE_OUT, THERE_SKIP, THERE_SKIP_FIRST, THERE_MASS, THERE_BYTES, THERE_LENGTHS, THERE_PAGES, THERE_ARRAYS };
typedef struct bench_there {
    octavo_device *device;
    void *arrays[THERE_ARRAYS];
    size_t bytes[THERE_ARRAYS];
    void *graph;
    int64_t calls; /* in the graph */
} bench_there;

int bench_there_init(bench_there *there, octavo_device *device, const size_t bytes[THERE_ARRAYS]);
void bench_there_fini(bench_there *there);
/* Copies host[i] to the device for the inputs, or back for the outputs, waiting for them. */
int bench_there_send(const bench_there *there, const octavo_exec *exec, void *const host[THERE_ARRAYS]);
int bench_there_fetch(const bench_there *there, const octavo_exec *exec, void *const host[THERE_ARRAYS]);

/* Milliseconds of one call in a graph of calls that take the pools in turn; the graph is made at the first time. `config` and `view`
 * as the call has them. */
int bench_there_time(bench_there *there, const octavo_exec *exec, const octavo_decode_params *params, const octavo_page_config *config,
                     const bench_pools *pools, int64_t pages, double *ms);

/* Seconds of a replay that begins while the device is at work with the replays before it: a device that had nothing to do runs slower
 * for the first milliseconds. */
octavo_status bench_graph_time(const octavo_exec *exec, void *graph, double *seconds);

/* The read speed of the device in GB/s: the fastest of several passes over more than its caches hold. */
int bench_device_read_speed(const octavo_exec *exec, double *gbps);

#endif
