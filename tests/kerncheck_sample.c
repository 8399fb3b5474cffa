/* kerncheck_sample.c - the sampled token has to be one that some rounding within the SAMPLE budget leads to.
 *
 * The order of a row is exact. Where the filters cut and where `uniform` falls are sums, so a cut that is too close to call may be
 * one or the other; the token and its log-probability have to agree with the same cut. */
#include "kerncheck_layer.h"
#include <stdlib.h>

/* One row in order: weights over the largest, their sums, and how far float32 may be from these. */
typedef struct ordered {
    int64_t count;
    double *weight, *error, *sum, *sum_error; /* sums of the first i + 1 */
    int32_t *id;
} ordered;

static const float *sorted_logits;

static int compare_ids(const void *a, const void *b)
{
    const int32_t i = *(const int32_t *)a, j = *(const int32_t *)b;
    if (sorted_logits[i] != sorted_logits[j]) return sorted_logits[i] > sorted_logits[j] ? -1 : 1;
    return i < j ? -1 : 1;
}

static void put_in_order(ordered *row, const float *logits, double temperature)
{
    double sum = 0.0, error = 0.0;
    for (int64_t i = 0; i < row->count; i++) row->id[i] = (int32_t)i;
    sorted_logits = logits;
    qsort(row->id, (size_t)row->count, sizeof *row->id, compare_ids);
    for (int64_t i = 0; i < row->count; i++) {
        const double below = ((double)logits[row->id[0]] - (double)logits[row->id[i]]) / temperature;
        row->weight[i] = exp(-below);
        /* the difference, the inverse of the temperature and their product round */
        row->error[i] = row->weight[i] > 0.0 ? row->weight[i] * (3.0 * BUDGET_U * below + BUDGET_EXP) + BUDGET_FAINT : 0.0;
        sum += row->weight[i], error += row->error[i];
        row->sum[i] = sum, row->sum_error[i] = error + budget_gamma((double)row->count + BUDGET_SLACK) * sum;
    }
}

/* How many tokens may be left after the filters: the fewest, the most. */
typedef struct cut {
    int64_t fewest, most;
} cut;

static cut filter(const ordered *row, const octavo_sample_row *how)
{
    const int64_t first = how->top_k > 0 && how->top_k < row->count ? how->top_k : row->count;
    cut left = { first, first };
    if (how->top_p > 0.0f && how->top_p < 1.0f) {
        const double share = (double)how->top_p, enough = share * row->sum[first - 1], slack = share * row->sum_error[first - 1];
        int64_t n = 1;
        while (n < first && row->sum[n - 1] + row->sum_error[n - 1] < enough - slack) n++;
        left.fewest = n;
        while (n < first && row->sum[n - 1] - row->sum_error[n - 1] < enough + slack) n++;
        left.most = n;
    }
    while (left.fewest > 1 && row->weight[left.fewest - 1] - row->error[left.fewest - 1] < (double)how->min_p) left.fewest--;
    while (left.most > 1 && row->weight[left.most - 1] + row->error[left.most - 1] < (double)how->min_p) left.most--;
    return left;
}

/* How far off the i-th in order is as a share of the budget, where `left` tokens are left: more than 1 where it cannot be drawn.
 * logprob: its log-probability, or NULL. */
static double share_of_budget(const ordered *row, double uniform, int64_t i, int64_t left, const float *logprob, double below)
{
    const double all = row->sum[left - 1], at = uniform * all, slack = uniform * row->sum_error[left - 1];
    if (row->sum[i] + row->sum_error[i] <= at - slack) return HUGE_VAL;
    if (i > 0 && row->sum[i - 1] - row->sum_error[i - 1] > at + slack) return HUGE_VAL;
    if (!logprob) return 0.0;
    const double budget = budget_log_sum((double)left, row->sum_error[left - 1] / all, log(all)) + 4.0 * BUDGET_U * (below + log(all));
    return fabs((double)*logprob + below + log(all)) / budget;
}

static int check_logprob(const octavo_sample_params *p, int64_t r, const float *logits, double most)
{
    double sum = 0.0, error = 0.0;
    for (int64_t i = 0; i < p->logits.shape[1]; i++) {
        const double below = most - (double)logits[i], weight = exp(-below);
        sum += weight;
        if (weight > 0.0) error += weight * budget_weight(0.0, below) + BUDGET_FAINT;
    }
    const double below = most - (double)logits[p->tokens[r]], want = -below - log(sum);
    const double budget = budget_log_sum((double)p->logits.shape[1], error / sum, log(sum)) + 2.0 * BUDGET_U * (below + log(sum));
    if (!(fabs((double)p->logprob[r] - want) <= budget))
        return kc_fail("logprob[%lld] is %.9g, expected %.9g within %.3g", (long long)r, (double)p->logprob[r], want, budget);
    kc_note(fabs((double)p->logprob[r] - want) / budget);
    return 1;
}

static int check_row(const octavo_sample_params *p, int64_t r, ordered *row)
{
    const float *logits = (const float *)p->logits.data + r * p->logits.strides[0];
    const octavo_sample_row *how = &p->rows[r];
    const int greedy = how->temperature < 0x1p-126f;
    const double temperature = greedy ? 1.0 : (double)how->temperature;
    put_in_order(row, logits, temperature);
    const cut left = greedy ? (cut){ 1, 1 } : filter(row, how);
    const int32_t token = p->tokens[r];
    int64_t at = 0;
    while (at < left.most && row->id[at] != token) at++;
    if (at == left.most)
        return kc_fail("tokens[%lld] is %d, expected one of the first %lld in order", (long long)r, token, (long long)left.most);
    if (logits[token] == -INFINITY) return kc_fail("tokens[%lld] is %d, whose probability is 0", (long long)r, token);
    const double below = ((double)logits[row->id[0]] - (double)logits[token]) / temperature;
    double best = HUGE_VAL;
    for (int64_t n = left.fewest > at ? left.fewest : at + 1; n <= left.most; n++)
        best = fmin(best, share_of_budget(row, (double)how->uniform, at, n, p->sampled_logprob ? &p->sampled_logprob[r] : NULL, below));
    if (!(best <= 1.0))
        return kc_fail("tokens[%lld] is %d, number %lld in order with log-probability %.9g, for uniform %.9g of %lld to %lld tokens",
                       (long long)r, token, (long long)at, p->sampled_logprob ? (double)p->sampled_logprob[r] : 0.0,
                       (double)how->uniform, (long long)left.fewest, (long long)left.most);
    kc_note(best);
    return !p->logprob || check_logprob(p, r, logits, (double)logits[row->id[0]]);
}

static octavo_sample_row draw_row(int64_t vocab)
{
    static const float temperatures[] = { 0.0f, 1e-39f, 0.01f, 0.3f, 0.7f, 1.0f, 1.0f, 2.0f, 100.0f };
    static const float top_p[] = { 0.0f, 1.0f, 1.0f, 0.95f, 0.9f, 0.5f, 1e-6f }, min_p[] = { 0.0f, 0.0f, 0.0f, 0.05f, 0.3f, 1.0f };
    static const float edges[] = { 0.0f, 0x1.fffffep-1f, 0.5f };
    const int32_t top_k[] = { 0, 0, 1, 5, 50, (int32_t)vocab, (int32_t)vocab + 10 };
    return (octavo_sample_row){ KC_PICK(temperatures), KC_PICK(top_k), KC_PICK(top_p), KC_PICK(min_p),
                                kc_chance(20) ? KC_PICK(edges) : (float)(kc_random() >> 40) * 0x1p-24f };
}

int kc_check_sample(const kc_pair *pair)
{
    static const int64_t sizes[] = { 1, 2, 3, 15, 16, 17, 64, 65, 100, 257, 1000, 1025, 5000 };
    octavo_sample_params p = OCTAVO_SAMPLE_PARAMS_INIT;
    const int64_t rows = pair->bench ? 4 : kc_between(1, 20), vocab = pair->bench ? 128256 : kc_chance(2) ? 40000 : KC_PICK(sizes);
    p.logits = kc_logits(rows, vocab);
    octavo_sample_row *how = kc_bytes("rows", rows * (int64_t)sizeof *how, sizeof(float));
    for (int64_t r = 0; r < rows; r++) {
        how[r] = pair->bench ? (octavo_sample_row){ 0.8f, r % 2 ? 50 : 0, 0.95f, 0.0f, 0.5f } : draw_row(vocab);
        ((float *)p.logits.data)[kc_row(&p.logits, r) + kc_between(0, vocab - 1)] = (float)kc_between(-4, 4); /* one is finite */
    }
    static const float odd[] = { NAN, INFINITY, -INFINITY };
    if (!pair->bench && kc_chance(10))
        for (int64_t i = 0, r = kc_between(0, rows - 1), few = kc_chance(50); i < (few ? 1 : vocab); i++)
            ((float *)p.logits.data)[kc_row(&p.logits, r) + (few ? kc_between(0, vocab - 1) : i)] = few ? KC_PICK(odd) : -INFINITY;
    p.rows = how;
    p.tokens = kc_array("tokens", OCTAVO_INT32, rows);
    if (kc_chance(70)) p.sampled_logprob = kc_array("sampled_logprob", OCTAVO_F32, rows);
    if (kc_chance(70)) p.logprob = kc_array("logprob", OCTAVO_F32, rows);
    kc_describe(" first: temperature=%g top_k=%d top_p=%g min_p=%g uniform=%.9g", (double)how->temperature, how->top_k, (double)how->top_p,
                (double)how->min_p, (double)how->uniform);
    const kc_outcome outcome = kc_run(pair, KC_sample, &p, octavo_sample_kernel_workspace(&p));
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    ordered row = { .count = vocab };
    row.weight = kc_scratch(vocab * 8), row.error = kc_scratch(vocab * 8), row.sum = kc_scratch(vocab * 8);
    row.sum_error = kc_scratch(vocab * 8), row.id = kc_scratch(vocab * 4);
    for (int64_t r = 0; r < rows; r++) {
        if (!check_row(&p, r, &row)) return 0;
        kc_accept(&p.tokens[r], sizeof *p.tokens);
        if (p.sampled_logprob) kc_accept(&p.sampled_logprob[r], sizeof *p.sampled_logprob);
        if (p.logprob) kc_accept(&p.logprob[r], sizeof *p.logprob);
    }
    return kc_finish();
}
