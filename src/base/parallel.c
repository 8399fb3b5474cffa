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

#ifdef _OPENMP
enum { SHARES_MAX = 64 };

/* A thread's share of the tasks: a run of them, so that calls over the same rows find them in the cache of the same core. */
typedef struct share {
    int64_t next __attribute__((aligned(64)));
} share;

/* Each thread takes from its own share first, then from the others'. */
static void run_shares(int64_t count, int threads, octavo_task task, void *argument)
{
    const int shares = threads < SHARES_MAX ? threads : SHARES_MAX;
    share all[SHARES_MAX];
    for (int s = 0; s < shares; s++) all[s].next = count * s / shares;
#pragma omp parallel num_threads(threads)
    for (int i = 0, s = omp_get_thread_num() % shares; i < shares; i++, s = s + 1 < shares ? s + 1 : 0) {
        const int64_t end = count * (s + 1) / shares;
        for (int64_t at; (at = __atomic_fetch_add(&all[s].next, 1, __ATOMIC_RELAXED)) < end;) task(argument, at);
    }
}
#endif

void octavo_parallel(const octavo_exec *exec, int64_t count, octavo_task task, void *argument)
{
    if (exec && exec->parallel_for && count > 1) {
        exec->parallel_for(exec->parallel_user, count, task, argument);
        return;
    }
#ifdef _OPENMP
    const int threads = octavo_parallel_threads(exec);
    if (threads > 1 && count > 1) {
        run_shares(count, threads, task, argument);
        return;
    }
#endif
    for (int64_t i = 0; i < count; i++) task(argument, i);
}
