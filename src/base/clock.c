/* clock.c - a clock for durations. */
#define _GNU_SOURCE 1
#include "base/clock.h"
#include <time.h>

double octavo_clock_seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}
