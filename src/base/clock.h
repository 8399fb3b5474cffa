/* clock.h - a clock for durations. */
#ifndef OCTAVO_BASE_CLOCK_H
#define OCTAVO_BASE_CLOCK_H

#include "base/sibling.h"

/* Seconds since some fixed moment; never goes back. */
OCTAVO_SIBLING double octavo_clock_seconds(void);

#endif
