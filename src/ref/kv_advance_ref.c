/* kv_advance_ref.c - the definition of a step's place: positions from the lengths before, which then grow. */
#include "ref/install_ref.h"

static int is_refused(const octavo_kv_advance_params *p, int64_t b)
{
    const int64_t row = p->sequences[b];
    if (row < 0 || row >= p->rows) return 1;
    for (int64_t layer = 0; layer < p->layers; layer++) {
        const int64_t length = p->lengths[layer * p->rows + row];
        if (length < 0 || length > p->max_tokens - p->tokens) return 1;
    }
    return 0;
}

octavo_status octavo_kv_advance_ref(const octavo_exec *exec, const octavo_kv_advance_params *p)
{
    (void)exec;
    for (int64_t b = 0; b < p->batch; b++)
        if (is_refused(p, b)) return OCTAVO_E_RANGE;
    for (int64_t b = 0; b < p->batch; b++) {
        const int32_t length = p->lengths[p->sequences[b]];
        if (p->first) p->first[b] = length;
        for (int64_t t = 0; t < p->tokens && p->positions; t++) p->positions[b * p->tokens + t] = length + (int32_t)t;
        for (int64_t layer = 0; layer < p->layers; layer++) p->lengths[layer * p->rows + p->sequences[b]] += (int32_t)p->tokens;
    }
    return OCTAVO_OK;
}
