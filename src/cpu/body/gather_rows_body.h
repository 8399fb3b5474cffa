/* gather_rows_body.h - rows by index, alone or as sums of two; included after a level's vocabulary. */
#include "base/parallel.h"
#include "cpu/body/float_rows_body.h"
#include "kernel/kernels.h"

octavo_status SIMD(gather_rows)(const octavo_exec *exec, const octavo_gather_rows_params *p);

typedef struct gather_job {
    const octavo_gather_rows_params *p;
    int64_t band; /* rows of a task */
} gather_job;

static void gather_row(const octavo_gather_rows_params *p, int64_t r)
{
    const int64_t width = p->y.shape[1], from = p->rows[r] * p->table.strides[0], to = r * p->y.strides[0];
    if (!p->add.data && p->table.dtype == p->y.dtype) { /* bits, those of a NaN, too */
        const size_t bytes = octavo_dtype_bytes(p->y.dtype);
        memcpy((uint8_t *)p->y.data + bytes * (size_t)to, (const uint8_t *)p->table.data + bytes * (size_t)from, bytes * (size_t)width);
        return;
    }
    float buffer[ROWS_CHUNK], add_buffer[ROWS_CHUNK];
    for (int64_t c = 0; c < width; c += ROWS_CHUNK) {
        const int64_t n = width - c < ROWS_CHUNK ? width - c : ROWS_CHUNK;
        rows_load(buffer, &p->table, from + c, n);
        if (p->add.data) {
            const float *add = rows_at(add_buffer, &p->add, p->add_rows[r] * p->add.strides[0] + c, n);
#pragma omp simd
            for (int64_t i = 0; i < n; i++) buffer[i] += add[i];
        }
        rows_store(&p->y, to + c, buffer, n);
    }
}

static void gather_task(void *argument, int64_t index)
{
    const gather_job *job = argument;
    for (int64_t r = index * job->band; r < (index + 1) * job->band && r < job->p->y.shape[0]; r++) gather_row(job->p, r);
}

octavo_status SIMD(gather_rows)(const octavo_exec *exec, const octavo_gather_rows_params *p)
{
    gather_job job = { .p = p, .band = ROWS_GRAIN / p->y.shape[1] + 1 };
    octavo_parallel(exec, (p->y.shape[0] - 1) / job.band + 1, gather_task, &job);
    return OCTAVO_OK;
}
