/* k_project_steps.h - the K projection, step by step: a level's `linear` into the workspace, RoPE there, the level's `kv_append`. */
#ifndef OCTAVO_CPU_BODY_K_PROJECT_STEPS_H
#define OCTAVO_CPU_BODY_K_PROJECT_STEPS_H

#include "base/parallel.h"
#include "cpu/body/k_project_turn.h"

enum { PROJECT_TURN_TOKENS = 16 }; /* of a task */

typedef struct project_job {
    const octavo_k_project_params *p;
    octavo_project_sizes sizes;
    float *y, *turns; /* [tokens, rows]; [tokens, rotary] */
} project_job;

static void project_rotate_task(void *argument, int64_t index)
{
    const project_job *job = argument;
    const octavo_project_sizes *sizes = &job->sizes;
    for (int64_t t = index * PROJECT_TURN_TOKENS; t < (index + 1) * PROJECT_TURN_TOKENS && t < sizes->tokens; t++)
        project_rotate_token(job->p, sizes->rotary, t, job->y + t * sizes->rows, job->turns + t * sizes->rotary);
}

static inline octavo_status project_by(const octavo_exec *exec, const octavo_k_project_params *p,
                                       octavo_status (*linear)(const octavo_exec *, const octavo_linear_params *),
                                       octavo_status (*kv_append)(const octavo_exec *, const octavo_kv_append_params *))
{
    const octavo_project_layout at = octavo_project_layout_of(p);
    uint8_t *workspace = exec->workspace;
    project_job job = { .p = p, .sizes = octavo_project_sizes_of(p), .y = (float *)(void *)(workspace + at.y),
                        .turns = (float *)(void *)(workspace + at.turns) };
    const octavo_linear_params product = octavo_project_linear_params(p, job.y);
    octavo_exec inner = *exec;
    inner.workspace = workspace + at.linear;
    inner.workspace_bytes = at.bytes - at.linear;
    const octavo_status status = linear(&inner, &product);
    if (status != OCTAVO_OK) return status;
    if (job.sizes.rotary > 0) octavo_parallel(exec, (job.sizes.tokens + PROJECT_TURN_TOKENS - 1) / PROJECT_TURN_TOKENS, project_rotate_task, &job);
    const octavo_kv_append_params append = octavo_project_append_params(p, job.y);
    return kv_append(exec, &append);
}

#endif
