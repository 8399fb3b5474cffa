/* route_ref.c - the definition of top-k routing: which experts, with which weights, and in which row each choice lies. */
#include "ref/rows_ref.h"

/* Whether expert a comes before expert b, which has the higher index only if a < b. NaN comes after everything. */
static int comes_before(const float *logits, int64_t a, int64_t b)
{
    const int a_is_nan = isnan(logits[a]) != 0, b_is_nan = isnan(logits[b]) != 0;
    if (a_is_nan != b_is_nan) return b_is_nan;
    if (a_is_nan || logits[a] == logits[b]) return a < b;
    return logits[a] > logits[b];
}

static void choose(const octavo_route_params *p, int64_t t)
{
    const float *logits = (const float *)p->logits.data + t * p->logits.strides[0];
    const int64_t count = p->logits.shape[1];
    int32_t *experts = p->experts + t * p->choices;
    for (int64_t j = 0; j < p->choices; j++) {
        int64_t next = -1;
        for (int64_t e = 0; e < count; e++)
            if ((j == 0 || comes_before(logits, experts[j - 1], e)) && (next < 0 || comes_before(logits, e, next))) next = e;
        experts[j] = (int32_t)next;
    }
    const double most = (double)logits[experts[0]];
    double sum = 0.0;
    for (int64_t e = 0; e < count && p->weighting == OCTAVO_ROUTE_SOFTMAX; e++) sum += exp((double)logits[e] - most);
    for (int64_t j = 0; j < p->choices && p->weighting == OCTAVO_ROUTE_RENORMALISE; j++) sum += exp((double)logits[experts[j]] - most);
    for (int64_t e = 0; e < count; e++)
        if (isnan(logits[e])) sum = (double)NAN; /* even where no choice is one */
    for (int64_t j = 0; j < p->choices; j++)
        p->weights[t * p->choices + j] = (float)(exp((double)logits[experts[j]] - most) / sum);
}

octavo_status octavo_route_ref(const octavo_exec *exec, const octavo_route_params *p)
{
    (void)exec;
    const int64_t tokens = p->logits.shape[0];
    int32_t row = 0;
    for (int64_t t = 0; t < tokens; t++) choose(p, t);
    for (int64_t e = 0; e < p->logits.shape[1]; e++) {
        p->offsets[e] = row;
        for (int64_t i = 0; i < tokens * p->choices; i++) {
            if (p->experts[i] != e) continue;
            p->order[row] = (int32_t)(i / p->choices);
            p->slots[i] = row++;
        }
    }
    p->offsets[p->logits.shape[1]] = row;
    return OCTAVO_OK;
}
