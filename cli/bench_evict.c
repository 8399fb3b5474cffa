/* bench_evict.c - puts memory out of the caches: line by line where the processor can, else by reading other memory. */
#include "bench_read_speed.h"

#if defined(__x86_64__)
#include <cpuid.h>

enum { LINE = 64 };

static int has_clflushopt(void)
{
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (b >> 23 & 1);
}

static void flush_lines(const uint8_t *first, const uint8_t *end, int optimised)
{
    if (optimised)
        for (const uint8_t *line = first; line < end; line += LINE) __asm__ volatile("clflushopt (%0)" ::"r"(line) : "memory");
    else
        for (const uint8_t *line = first; line < end; line += LINE) __asm__ volatile("clflush (%0)" ::"r"(line) : "memory");
    __asm__ volatile("mfence" ::: "memory");
}

void bench_evict(bench_read_speed *speed, const void *data, size_t bytes)
{
    const int optimised = has_clflushopt();
    const uint8_t *start = data, *end = start + bytes;
    const size_t part = (bytes / (size_t)speed->threads / LINE + 1) * LINE;
#pragma omp parallel for num_threads(speed->threads) schedule(static)
    for (int thread = 0; thread < speed->threads; thread++) {
        const size_t from = (size_t)thread * part;
        if (from < bytes) flush_lines(start + from, from + part < bytes ? start + from + part : end, optimised);
    }
}

#else

void bench_evict(bench_read_speed *speed, const void *data, size_t bytes)
{
    (void)data;
    (void)bytes;
    bench_read_speed_measure(speed); /* reads four times the last-level cache */
}

#endif
