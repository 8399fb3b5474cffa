/* clock.h - a clock for durations. */
#ifndef OCTAVO_BASE_CLOCK_H
#define OCTAVO_BASE_CLOCK_H

/* Seconds since some fixed moment; never goes back. */
double octavo_clock_seconds(void);

#endif
