/* token_logprob_ref.c - the definition of a token's log-probability. */
#include "ref/rows_ref.h"

octavo_status octavo_token_logprob_ref(const octavo_exec *exec, const octavo_token_logprob_params *p)
{
    (void)exec;
    const int64_t vocab = p->logits.shape[1];
    for (int64_t r = 0; r < p->logits.shape[0]; r++) {
        const float *logits = (const float *)p->logits.data + r * p->logits.strides[0];
        float most = -INFINITY;
        int32_t top = 0;
        for (int64_t i = 0; i < vocab; i++)
            if (logits[i] > most) most = logits[i], top = (int32_t)i;
        p->logprob[r] = (float)((double)logits[p->tokens[r]] - (double)most - octavo_ref_log_sum(logits, vocab, (double)most, 1.0));
        if (p->top) p->top[r] = top;
    }
    return OCTAVO_OK;
}
