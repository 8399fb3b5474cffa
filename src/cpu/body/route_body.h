/* route_body.h - top-k routing; included after a level's vocabulary.
 *
 * Phase 1 chooses for each token by itself. Phase 2 counts and places the choices, in order of the tokens, on the calling thread: a
 * few loads and stores each, beside the products of an expert. */
#include "base/parallel.h"
#include "cpu/body/logit_rows_body.h"
#include "kernel/kernels.h"

octavo_status SIMD(route)(const octavo_exec *exec, const octavo_route_params *p);

typedef struct route_job {
    const octavo_route_params *p;
    int64_t band; /* tokens of a task */
} route_job;

/* Puts expert e, whose logit is above that of the last of `count` chosen ones or of a place that is free, where it belongs. */
static inline void route_insert(int32_t *chosen, int64_t count, int64_t choices, const float *logits, int64_t e)
{
    int64_t at = count < choices ? count : choices - 1;
    for (; at > 0 && logits[chosen[at - 1]] < logits[e]; at--) chosen[at] = chosen[at - 1];
    chosen[at] = (int32_t)e;
}

/* Rows without NaN. */
static void route_choose(int32_t *chosen, int64_t choices, const float *logits, int64_t experts)
{
    int64_t e = 0;
    for (; e < choices; e++) route_insert(chosen, e, choices, logits, e);
    while (e < experts) {
        const float least = logits[chosen[choices - 1]];
        if (e + LOGITS_BLOCK <= experts && logits_block_most(logits + e) <= least) {
            e += LOGITS_BLOCK;
            continue;
        }
        const int64_t end = e + LOGITS_BLOCK < experts ? e + LOGITS_BLOCK : experts;
        for (; e < end; e++)
            if (logits[e] > logits[chosen[choices - 1]]) route_insert(chosen, choices, choices, logits, e);
    }
}

/* A NaN comes after everything, and leaves no weight. */
static void route_choose_odd(int32_t *chosen, int64_t choices, const float *logits, int64_t experts)
{
    int64_t count = 0;
    for (int64_t e = 0; e < experts; e++)
        if (!isnan(logits[e]) && (count < choices || logits[e] > logits[chosen[choices - 1]])) {
            route_insert(chosen, count, choices, logits, e);
            count += count < choices;
        }
    for (int64_t e = 0; e < experts && count < choices; e++)
        if (isnan(logits[e])) chosen[count++] = (int32_t)e;
}

static void route_token(const octavo_route_params *p, int64_t t)
{
    const int64_t experts = p->logits.shape[1], choices = p->choices;
    const float *logits = (const float *)p->logits.data + t * p->logits.strides[0];
    int32_t *chosen = p->experts + t * choices;
    float *weights = p->weights + t * choices;
    int odd;
    const float most = logits_most(logits, experts, &odd);
    if (odd || most == -INFINITY) {
        route_choose_odd(chosen, choices, logits, experts);
        for (int64_t j = 0; j < choices; j++) weights[j] = NAN;
        return;
    }
    route_choose(chosen, choices, logits, experts);
    double sum = 0.0;
    for (int64_t j = 0; j < choices; j++) {
        weights[j] = v_exp_one(logits[chosen[j]] - most);
        sum += (double)weights[j];
    }
    if (p->weighting == OCTAVO_ROUTE_SOFTMAX) sum = logits_mass(logits, experts, most, 1.0f);
    for (int64_t j = 0; j < choices; j++) weights[j] = (float)((double)weights[j] / sum);
}

static void route_task(void *argument, int64_t index)
{
    const route_job *job = argument;
    for (int64_t t = index * job->band; t < (index + 1) * job->band && t < job->p->logits.shape[0]; t++) route_token(job->p, t);
}

static void route_place(const octavo_route_params *p)
{
    const int64_t rows = p->logits.shape[0] * p->choices, experts = p->logits.shape[1];
    int32_t *offsets = p->offsets, before = 0;
    memset(offsets, 0, (size_t)(experts + 1) * sizeof *offsets);
    for (int64_t i = 0; i < rows; i++) offsets[p->experts[i]]++;
    for (int64_t e = 0; e <= experts; e++) {
        const int32_t count = offsets[e];
        offsets[e] = before;
        before += count;
    }
    for (int64_t i = 0; i < rows; i++) { /* each offset moves on to the end of its expert */
        const int32_t row = offsets[p->experts[i]]++;
        p->order[row] = (int32_t)(i / p->choices);
        p->slots[i] = row;
    }
    for (int64_t e = experts; e > 0; e--) offsets[e] = offsets[e - 1];
    offsets[0] = 0;
}

octavo_status SIMD(route)(const octavo_exec *exec, const octavo_route_params *p)
{
    route_job job = { .p = p, .band = (ROWS_GRAIN >> 2) / p->logits.shape[1] + 1 };
    octavo_parallel(exec, (p->logits.shape[0] - 1) / job.band + 1, route_task, &job);
    route_place(p);
    return OCTAVO_OK;
}
