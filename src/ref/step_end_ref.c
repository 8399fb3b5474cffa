/* step_end_ref.c - the definition of the end of a decode step: its record, and what the next step begins with. */
#include "kernel/random.h"
#include "ref/install_ref.h"

static octavo_step_record record_of(const octavo_step_end_params *p)
{
    octavo_step_record record = { 0 };
    for (int64_t layer = 0; layer < p->layers; layer++)
        for (int64_t i = layer * p->stride; i < layer * p->stride + p->values; i++)
            record.bytes_read += p->bytes_read[i], record.skip_sum += (double)p->skip_ratio[i];
    return record;
}

octavo_status octavo_step_end_ref(const octavo_exec *exec, const octavo_step_end_params *p)
{
    (void)exec;
    const int32_t step = *p->count;
    if (step < 0 || step >= p->capacity) return OCTAVO_E_RANGE;
    p->records[step] = record_of(p);
    for (int64_t b = 0; b < p->batch && p->tokens; b++) {
        p->draws[step * p->batch + b] = (octavo_drawn_token){ p->tokens[b], p->sampled_logprob ? p->sampled_logprob[b] : 0.0f,
                                                              p->logprob ? p->logprob[b] : 0.0f };
        if (p->ids) p->ids[b] = p->tokens[b];
        if (p->rows) p->rows[b].uniform = octavo_random_number(p->random[b], (uint64_t)step + 1);
    }
    *p->count = step + 1;
    return OCTAVO_OK;
}
