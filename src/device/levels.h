/* levels.h - the CPU levels of this build, weakest first; level 0 is the reference. */
#ifndef OCTAVO_DEVICE_LEVELS_H
#define OCTAVO_DEVICE_LEVELS_H

#include "kernel/kernels.h"

typedef struct octavo_level {
    const char *name;
    void (*install)(octavo_kernels *kernels); /* leaves the table alone where the machine lacks the level */
    int (*pays)(void);                        /* NULL, or 0: it is taken only where it is asked for, or below a stronger one */
} octavo_level;

extern const octavo_level octavo_levels[];
extern const int octavo_level_count;

/* 1: installing this level changes something here. */
int octavo_level_available(int index);

#endif
