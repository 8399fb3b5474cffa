/* parallel.c - the default pool. */
#include "base/parallel.h"
#ifdef _OPENMP
#include <omp.h>
#endif

int octavo_parallel_threads(const octavo_exec *exec)
{
    if (exec && exec->parallel_for) return 0;
#ifdef _OPENMP
    return exec && exec->threads > 0 ? exec->threads : omp_get_max_threads();
#else
    return 1;
#endif
}

void octavo_parallel(const octavo_exec *exec, int64_t count, octavo_task task, void *argument)
{
    if (exec && exec->parallel_for && count > 1) {
        exec->parallel_for(exec->parallel_user, count, task, argument);
        return;
    }
#ifdef _OPENMP
    const int threads = octavo_parallel_threads(exec);
    if (threads > 1 && count > 1) {
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads)
        for (int64_t i = 0; i < count; i++) task(argument, i);
        return;
    }
#endif
    for (int64_t i = 0; i < count; i++) task(argument, i);
}
