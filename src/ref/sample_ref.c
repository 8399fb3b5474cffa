/* sample_ref.c - the definition of sampling: the row in order, filtered, and the token that `uniform` falls on. */
#include "kernel/sample_plan.h"
#include "ref/rows_ref.h"

/* One row, its ids in order of descending logit. */
typedef struct sample_row {
    const float *logits;
    int32_t *order;
    int64_t vocab;
    double most, temperature;
} sample_row;

static int comes_before(const float *logits, int32_t a, int32_t b)
{
    return logits[a] != logits[b] ? logits[a] > logits[b] : a < b;
}

/* Sinks order[at] in the heap of `count` ids whose root comes last. */
static void sink(const sample_row *row, int64_t at, int64_t count)
{
    int32_t *order = row->order;
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && comes_before(row->logits, order[child], order[child + 1])) child++;
        if (!comes_before(row->logits, order[at], order[child])) return;
        const int32_t id = order[at];
        order[at] = order[child], order[child] = id;
    }
}

static void sort(const sample_row *row)
{
    for (int64_t i = 0; i < row->vocab; i++) row->order[i] = (int32_t)i;
    for (int64_t i = row->vocab / 2; i-- > 0;) sink(row, i, row->vocab);
    for (int64_t last = row->vocab - 1; last > 0; last--) {
        const int32_t id = row->order[last];
        row->order[last] = row->order[0], row->order[0] = id;
        sink(row, 0, last);
    }
}

/* The weight of the i-th in order, over that of the first. */
static double weight(const sample_row *row, int64_t i)
{
    return exp(((double)row->logits[row->order[i]] - row->most) / row->temperature);
}

static double mass(const sample_row *row, int64_t count)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += weight(row, i);
    return sum;
}

/* How many of the first in order pass the filters. */
static int64_t filter(const sample_row *row, const octavo_sample_row *how)
{
    int64_t left = how->top_k > 0 && how->top_k < row->vocab ? how->top_k : row->vocab;
    if (how->top_p > 0.0f && how->top_p < 1.0f) {
        const double enough = (double)how->top_p * mass(row, left);
        int64_t n = 1;
        for (double sum = weight(row, 0); n < left && sum < enough; n++) sum += weight(row, n);
        left = n;
    }
    while (left > 1 && weight(row, left - 1) < (double)how->min_p) left--;
    return left;
}

static void sample(const octavo_sample_params *p, int64_t r, int32_t *order)
{
    const octavo_sample_row *how = &p->rows[r];
    sample_row row = { (const float *)p->logits.data + r * p->logits.strides[0], order, p->logits.shape[1], 0.0, 1.0 };
    sort(&row);
    const int greedy = how->temperature < OCTAVO_SAMPLE_COLDEST;
    row.most = (double)row.logits[order[0]], row.temperature = greedy ? 1.0 : (double)how->temperature;
    const int64_t left = greedy ? 1 : filter(&row, how);
    const double all = mass(&row, left);
    int64_t chosen = 0;
    for (double sum = weight(&row, 0); chosen + 1 < left && sum <= (double)how->uniform * all;) sum += weight(&row, ++chosen);
    while (weight(&row, chosen) == 0.0) chosen--; /* rounding may lead past the last that can be drawn */
    p->tokens[r] = order[chosen];
    if (p->sampled_logprob)
        p->sampled_logprob[r] = (float)(((double)row.logits[order[chosen]] - row.most) / row.temperature - log(all));
    if (p->logprob)
        p->logprob[r] = (float)((double)row.logits[order[chosen]] - row.most - octavo_ref_log_sum(row.logits, row.vocab, row.most, 1.0));
}

static int is_refused(const octavo_sample_params *p, int64_t r)
{
    const float *logits = (const float *)p->logits.data + r * p->logits.strides[0];
    int finite = 0;
    for (int64_t i = 0; i < p->logits.shape[1]; i++) {
        if (!(logits[i] < INFINITY)) return 1; /* NaN, too */
        finite |= logits[i] > -INFINITY;
    }
    return !finite;
}

octavo_status octavo_sample_ref(const octavo_exec *exec, const octavo_sample_params *p)
{
    for (int64_t r = 0; r < p->logits.shape[0]; r++)
        if (is_refused(p, r)) return OCTAVO_E_NONFINITE;
    for (int64_t r = 0; r < p->logits.shape[0]; r++) sample(p, r, exec->workspace);
    return OCTAVO_OK;
}
