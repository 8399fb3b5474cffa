/* bench_read_speed.h - how fast this machine reads memory, and how operands are put out of its caches. */
#ifndef OCTAVO_CLI_BENCH_READ_SPEED_H
#define OCTAVO_CLI_BENCH_READ_SPEED_H

#include <stddef.h>
#include <stdint.h>

typedef struct bench_read_speed {
    uint8_t *buffer;      /* in huge pages                                                    */
    size_t bytes, window; /* a measurement reads the next `window` bytes of the buffer, cold  */
    size_t next;
    int threads;
    uint64_t checksum;    /* keeps the reads alive                                            */
} bench_read_speed;

/* The buffer is 8 times the last-level cache. EXIT_REFUSED after a sentence: there is no memory for it. */
int bench_read_speed_init(bench_read_speed *speed, int threads);
/* Instead: the same `bytes` again and again, from whichever cache holds them, as a program that repeats its work reads them. */
int bench_read_speed_init_warm(bench_read_speed *speed, size_t bytes, int threads);
void bench_read_speed_fini(bench_read_speed *speed);

/* GB/s (1e9) of the fastest access pattern: every pattern reads one window. */
double bench_read_speed_measure(bench_read_speed *speed);

/* Puts the bytes out of all caches. */
void bench_evict(bench_read_speed *speed, const void *data, size_t bytes);

#endif
