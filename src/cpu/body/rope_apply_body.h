/* rope_apply_body.h - rotation in place; included after a level's vocabulary. Cosines and sines are found once a token. */
#include "base/parallel.h"
#include "cpu/body/float_rows_body.h"
#include "cpu/body/rope_turn.h"
#include "kernel/kernels.h"

octavo_status SIMD(rope_apply)(const octavo_exec *exec, const octavo_rope_apply_params *p);

typedef struct rope_job {
    const octavo_rope_apply_params *p;
    int64_t tokens, band, pairs; /* band: tokens of a task */
} rope_job;

/* Pairs [first, first + count) of one head, whose first element is `at`. */
static void rope_head(const octavo_rope_apply_params *p, int64_t at, int64_t first, int64_t count, int64_t pairs, const float *cosines,
                      const float *sines)
{
    float buffer[ROWS_CHUNK];
    float *data = p->x.data;
    const int is_float = p->x.dtype == OCTAVO_F32;
    if (p->rope.style == OCTAVO_ROPE_ROTATE_HALF) {
        const int64_t low = at + first, high = low + pairs;
        if (is_float) {
            rope_rotate_halves(data + low, data + high, cosines, sines, count);
            return;
        }
        rows_load(buffer, &p->x, low, count);
        rows_load(buffer + count, &p->x, high, count);
        rope_rotate_halves(buffer, buffer + count, cosines, sines, count);
        rows_store(&p->x, low, buffer, count);
        rows_store(&p->x, high, buffer + count, count);
    } else if (is_float) {
        rope_rotate_pairs(data + at + 2 * first, cosines, sines, count);
    } else {
        rows_load(buffer, &p->x, at + 2 * first, 2 * count);
        rope_rotate_pairs(buffer, cosines, sines, count);
        rows_store(&p->x, at + 2 * first, buffer, 2 * count);
    }
}

static void rope_task(void *argument, int64_t index)
{
    const rope_job *job = argument;
    const octavo_rope_apply_params *p = job->p;
    const int64_t *strides = p->x.strides;
    const float scale = p->rope.scale == 0.0f ? 1.0f : p->rope.scale;
    float cosines[ROWS_CHUNK / 2], sines[ROWS_CHUNK / 2];
    for (int64_t n = index * job->band; n < (index + 1) * job->band && n < job->tokens; n++)
        for (int64_t first = 0; first < job->pairs; first += ROWS_CHUNK / 2) {
            const int64_t left = job->pairs - first, count = left < ROWS_CHUNK / 2 ? left : ROWS_CHUNK / 2;
            rope_turns((float)p->positions[n], p->rope.inv_freq + first, scale, count, cosines, sines);
            const int64_t at = n / p->x.shape[1] * strides[0] + n % p->x.shape[1] * strides[1];
            for (int64_t head = 0; head < p->x.shape[2]; head++)
                rope_head(p, at + head * strides[2], first, count, job->pairs, cosines, sines);
        }
}

octavo_status SIMD(rope_apply)(const octavo_exec *exec, const octavo_rope_apply_params *p)
{
    rope_job job = { .p = p, .tokens = p->x.shape[0] * p->x.shape[1] };
    job.pairs = (p->rope.rotary_dim > 0 ? p->rope.rotary_dim : p->x.shape[3]) / 2;
    if (p->rope.style == OCTAVO_ROPE_NONE) return OCTAVO_OK;
    job.band = ROWS_GRAIN / (p->x.shape[2] * p->x.shape[3]) + 1;
    octavo_parallel(exec, (job.tokens + job.band - 1) / job.band, rope_task, &job);
    return OCTAVO_OK;
}
