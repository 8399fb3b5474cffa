/* combine_rows_body.h - weighted rows are added to y in order of the choices; included after a level's vocabulary. */
#include "base/parallel.h"
#include "cpu/body/float_rows_body.h"
#include "kernel/kernels.h"

octavo_status SIMD(combine_rows)(const octavo_exec *exec, const octavo_combine_rows_params *p);

typedef struct combine_job {
    const octavo_combine_rows_params *p;
    int64_t band; /* tokens of a task */
} combine_job;

static void combine_add(float *y, const float *x, float weight, int64_t n)
{
    const vf32 factor = v_splat(weight);
    int64_t i = 0;
    for (; i + SIMD_F32 <= n; i += SIMD_F32) v_store(y + i, v_fma(factor, v_load(x + i), v_load(y + i)));
    if (i < n) v_store_part(y + i, v_fma(factor, v_load_part(x + i, n - i), v_load_part(y + i, n - i)), n - i);
}

static void combine_token(const octavo_combine_rows_params *p, int64_t t)
{
    const int64_t width = p->y.shape[1];
    float buffer[ROWS_CHUNK], *y = (float *)p->y.data + t * p->y.strides[0];
    for (int64_t c = 0; c < width; c += ROWS_CHUNK) {
        const int64_t n = width - c < ROWS_CHUNK ? width - c : ROWS_CHUNK;
        for (int64_t j = t * p->choices; j < (t + 1) * p->choices; j++)
            if (p->slots[j] >= 0) combine_add(y + c, rows_at(buffer, &p->x, p->slots[j] * p->x.strides[0] + c, n), p->weights[j], n);
    }
}

static void combine_task(void *argument, int64_t index)
{
    const combine_job *job = argument;
    for (int64_t t = index * job->band; t < (index + 1) * job->band && t < job->p->y.shape[0]; t++) combine_token(job->p, t);
}

octavo_status SIMD(combine_rows)(const octavo_exec *exec, const octavo_combine_rows_params *p)
{
    combine_job job = { .p = p, .band = ROWS_GRAIN / p->y.shape[1] / p->choices + 1 };
    octavo_parallel(exec, (p->y.shape[0] - 1) / job.band + 1, combine_task, &job);
    return OCTAVO_OK;
}
