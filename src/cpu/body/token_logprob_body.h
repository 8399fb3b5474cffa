/* token_logprob_body.h - log-probabilities of tokens; included after a level's vocabulary. A row stays on one thread. */
#include "base/parallel.h"
#include "cpu/body/logit_rows_body.h"
#include "kernel/kernels.h"

octavo_status SIMD(token_logprob)(const octavo_exec *exec, const octavo_token_logprob_params *p);

typedef struct logprob_job {
    const octavo_token_logprob_params *p;
    int64_t band; /* rows of a task */
} logprob_job;

/* A row with a NaN, +Inf or nothing finite has no distribution; the largest that is no NaN is found all the same. */
static int32_t logprob_find_odd(const float *x, int64_t n)
{
    float most = -INFINITY;
    int32_t top = 0;
    for (int64_t i = 0; i < n; i++)
        if (x[i] > most) most = x[i], top = (int32_t)i;
    return top;
}

static void logprob_row(const octavo_token_logprob_params *p, int64_t r)
{
    const int64_t vocab = p->logits.shape[1];
    const float *x = (const float *)p->logits.data + r * p->logits.strides[0];
    int odd;
    const float most = logits_most(x, vocab, &odd);
    if (odd || most == -INFINITY) {
        p->logprob[r] = NAN;
        if (p->top) p->top[r] = logprob_find_odd(x, vocab);
        return;
    }
    p->logprob[r] = (float)((double)x[p->tokens[r]] - (double)most - log(logits_mass(x, vocab, most, 1.0f)));
    if (p->top) p->top[r] = logits_find(x, vocab, most);
}

static void logprob_task(void *argument, int64_t index)
{
    const logprob_job *job = argument;
    for (int64_t r = index * job->band; r < (index + 1) * job->band && r < job->p->logits.shape[0]; r++) logprob_row(job->p, r);
}

octavo_status SIMD(token_logprob)(const octavo_exec *exec, const octavo_token_logprob_params *p)
{
    logprob_job job = { .p = p, .band = ROWS_GRAIN / p->logits.shape[1] + 1 };
    octavo_parallel(exec, (p->logits.shape[0] - 1) / job.band + 1, logprob_task, &job);
    return OCTAVO_OK;
}
