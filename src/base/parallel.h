/* parallel.h - runs independent tasks on the caller's pool, or on OpenMP. */
#ifndef OCTAVO_BASE_PARALLEL_H
#define OCTAVO_BASE_PARALLEL_H

#include "base/sibling.h"
#include "octavo/context.h"

/* Calls task(argument, i) once for every i in [0, count); returns when all have returned. */
OCTAVO_SIBLING void octavo_parallel(const octavo_exec *exec, int64_t count, octavo_task task, void *argument);

/* Threads that share the tasks; 0: the caller's pool, whose number is not known. */
int octavo_parallel_threads(const octavo_exec *exec);

#endif
