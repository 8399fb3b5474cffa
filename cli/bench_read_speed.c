/* bench_read_speed.c - streaming reads in several access patterns over a buffer that no cache holds. */
#include "bench_read_speed.h"
#include "cli.h"
#include "machine.h"
#include <inttypes.h>
#include <string.h>

enum { PATTERNS = 4, CACHES_LONG = 8, CACHE_LEAST = 32 << 20, LINE = 64, STEP = 4 * LINE, PAGE = 4096 };

typedef uint64_t wide __attribute__((vector_size(64), aligned(64))); /* as many registers as it takes */

static uint64_t fold(const wide *sums, int count)
{
    uint64_t total = 0;
    for (int s = 0; s < count; s++)
        for (int i = 0; i < 8; i++) total ^= sums[s][i];
    return total;
}

/* `streams` runs of a slice are read side by side, each asked for `ahead` bytes before it is read (0: left to the hardware).
 * Past a slice's end that asks for what follows it, which no prefetch can fault on. */
static inline __attribute__((always_inline)) uint64_t read_streams(const uint8_t *data, size_t bytes, size_t streams, size_t ahead)
{
    const size_t run = bytes / streams / STEP * STEP;
    wide sums[STEP / LINE] = { { 0 } };
    for (size_t at = 0; at < run; at += STEP)
        for (size_t s = 0; s < streams; s++) {
            const uint8_t *step = data + s * run + at;
            if (ahead)
                for (size_t i = 0; i < STEP / LINE; i++) __builtin_prefetch(step + ahead + i * LINE, 0, 2 /* into L2, whose queue is longer */);
            for (size_t i = 0; i < STEP / LINE; i++) sums[i] ^= ((const wide *)step)[i];
        }
    return fold(sums, STEP / LINE);
}

static uint64_t read_pattern(int pattern, const uint8_t *data, size_t bytes)
{
    switch (pattern) {
    case 0: return read_streams(data, bytes, 4, 0);
    case 1: return read_streams(data, bytes, 1, 16384);
    case 2: return read_streams(data, bytes, 4, 4096);
    default: return read_streams(data, bytes, 8, 2048);
    }
}

/* Maps speed->bytes. */
static int map_buffer(bench_read_speed *speed, int threads)
{
    speed->threads = threads;
    if (machine_available_bytes() > (int64_t)speed->bytes) speed->buffer = machine_map(speed->bytes);
    if (!speed->buffer)
        return cli_refuse("measuring the read speed takes %zu MiB, of which %" PRId64 " MiB are available", speed->bytes >> 20,
                          machine_available_bytes() >> 20);
    /* Untouched pages would all be the one page of zeros. */
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t page = 0; page < (int64_t)(speed->bytes / PAGE); page++) speed->buffer[page * PAGE] = 1;
    return EXIT_DONE;
}

int bench_read_speed_init(bench_read_speed *speed, int threads)
{
    const int64_t llc = machine_llc_bytes();
    memset(speed, 0, sizeof *speed);
    speed->window = (size_t)(llc > CACHE_LEAST ? llc : CACHE_LEAST) / PAGE * PAGE;
    speed->bytes = CACHES_LONG * speed->window;
    return map_buffer(speed, threads);
}

int bench_read_speed_init_warm(bench_read_speed *speed, size_t bytes, int threads)
{
    memset(speed, 0, sizeof *speed);
    speed->window = speed->bytes = (bytes / PAGE + 1) * PAGE;
    return map_buffer(speed, threads);
}

void bench_read_speed_fini(bench_read_speed *speed)
{
    machine_unmap(speed->buffer, speed->bytes);
    memset(speed, 0, sizeof *speed);
}

double bench_read_speed_measure(bench_read_speed *speed)
{
    double best = 0;
    for (int pattern = 0; pattern < PATTERNS; pattern++) {
        uint64_t checksum = 0;
        const uint8_t *data = speed->buffer + speed->next;
        const size_t slice = speed->window / (size_t)speed->threads / STEP * STEP;
        const double start = machine_seconds();
#pragma omp parallel for num_threads(speed->threads) schedule(static) reduction(^ : checksum)
        for (int thread = 0; thread < speed->threads; thread++)
            checksum ^= read_pattern(pattern, data + (size_t)thread * slice, slice);
        const double rate = (double)slice * speed->threads / (machine_seconds() - start) * 1e-9;
        if (rate > best) best = rate;
        speed->checksum ^= checksum;
        speed->next = (speed->next + speed->window) % speed->bytes;
    }
    return best;
}
