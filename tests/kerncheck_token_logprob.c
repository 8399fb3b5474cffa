/* kerncheck_token_logprob.c - log-probabilities of tokens under the LOGPROB budget; the largest logit is exact. */
#include "kerncheck_layer.h"

static int compare_row(const octavo_token_logprob_params *p, int64_t r)
{
    const int64_t vocab = p->logits.shape[1];
    const float *logits = (const float *)p->logits.data + r * p->logits.strides[0];
    double most = -INFINITY, sum = 0.0, error = 0.0;
    for (int64_t i = 0; i < vocab; i++) most = fmax(most, (double)logits[i]);
    for (int64_t i = 0; i < vocab; i++) {
        const double below = most - (double)logits[i], weight = exp(-below);
        sum += weight;
        if (weight > 0.0) error += weight * budget_weight(0.0, below) + BUDGET_FAINT;
    }
    const double below = most - (double)logits[p->tokens[r]];
    const double budget = budget_log_sum((double)vocab, error / sum, log(sum)) + 2.0 * BUDGET_U * (below + log(sum));
    return kc_close("logprob", p->logprob, r, budget);
}

int kc_check_token_logprob(const kc_pair *pair)
{
    static const int64_t sizes[] = { 1, 2, 15, 16, 17, 64, 100, 257, 1000, 1025, 5000 };
    octavo_token_logprob_params p = OCTAVO_TOKEN_LOGPROB_PARAMS_INIT;
    const int64_t rows = pair->bench ? 16 : kc_between(1, 20), vocab = pair->bench ? 128256 : KC_PICK(sizes);
    p.logits = kc_logits(rows, vocab);
    static const float odd[] = { NAN, NAN, INFINITY, -INFINITY };
    for (int i = 0; i < 3 && !pair->bench && kc_chance(15); i++)
        ((float *)p.logits.data)[kc_row(&p.logits, kc_between(0, rows - 1)) + kc_between(0, vocab - 1)] = KC_PICK(odd);
    int32_t *tokens = kc_array("tokens", OCTAVO_INT32, rows);
    for (int64_t r = 0; r < rows; r++) tokens[r] = (int32_t)kc_between(0, vocab - 1);
    p.tokens = tokens;
    p.logprob = kc_array("logprob", OCTAVO_F32, rows);
    if (kc_chance(60)) p.top = kc_array("top", OCTAVO_INT32, rows);
    const kc_outcome outcome = kc_run(pair, KC_token_logprob, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    for (int64_t r = 0; r < rows; r++)
        if (!compare_row(&p, r)) return 0;
    return kc_finish();
}
