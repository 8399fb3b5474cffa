/* kerncheck_route.c - who goes where is exact; the weights are shares of a softmax under the ROUTE budget. */
#include "kerncheck_layer.h"

static int compare_token(const octavo_route_params *p, int64_t t)
{
    const float *logits = (const float *)p->logits.data + t * p->logits.strides[0];
    const int32_t *chosen = (const int32_t *)kc_want(p->experts) + t * p->choices;
    const int all = p->weighting == OCTAVO_ROUTE_SOFTMAX;
    const int64_t count = all ? p->logits.shape[1] : p->choices;
    const double most = (double)logits[chosen[0]];
    double sum = 0.0, error = 0.0;
    for (int64_t e = 0; e < count; e++) {
        const double below = most - (double)logits[all ? e : chosen[e]], weight = exp(-below);
        sum += weight;
        if (weight > 0.0) error += weight * budget_weight(0.0, below) + BUDGET_FAINT;
    }
    for (int64_t j = 0; j < p->choices; j++) {
        const double below = most - (double)logits[chosen[j]], share = exp(-below) / sum;
        const double relative = budget_weight(0.0, below) + error / sum + budget_gamma((double)count + BUDGET_SLACK);
        const double budget = share > 0.0 ? 1.01 * share * relative + BUDGET_FAINT : BUDGET_FAINT;
        if (!kc_close("weights", p->weights, t * p->choices + j, budget)) return 0;
    }
    return 1;
}

int kc_check_route(const kc_pair *pair)
{
    static const int64_t sizes[] = { 1, 2, 4, 8, 8, 15, 16, 17, 60, 64, 64, 127, 128, 300 };
    octavo_route_params p = OCTAVO_ROUTE_PARAMS_INIT;
    const int64_t tokens = pair->bench ? 512 : kc_chance(10) ? kc_between(200, 700) : kc_between(1, 40), experts = pair->bench ? 128 : KC_PICK(sizes);
    p.logits = kc_logits(tokens, experts);
    p.choices = pair->bench ? 8 : kc_between(1, kc_chance(90) && experts > 9 ? 9 : experts);
    p.weighting = (octavo_route_weights)kc_between(OCTAVO_ROUTE_SOFTMAX, OCTAVO_ROUTE_RENORMALISE);
    static const float odd[] = { NAN, NAN, INFINITY, -INFINITY };
    for (int i = 0; i < 3 && !pair->bench && kc_chance(15); i++)
        ((float *)p.logits.data)[kc_row(&p.logits, kc_between(0, tokens - 1)) + kc_between(0, experts - 1)] = KC_PICK(odd);
    p.experts = kc_array("experts", OCTAVO_INT32, tokens * p.choices);
    p.weights = kc_array("weights", OCTAVO_F32, tokens * p.choices);
    p.offsets = kc_array("offsets", OCTAVO_INT32, experts + 1);
    p.order = kc_array("order", OCTAVO_INT32, tokens * p.choices);
    p.slots = kc_array("slots", OCTAVO_INT32, tokens * p.choices);
    kc_describe(" choices=%lld weighting=%d", (long long)p.choices, (int)p.weighting);
    const kc_outcome outcome = kc_run(pair, KC_route, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    for (int64_t t = 0; t < tokens; t++)
        if (!compare_token(&p, t)) return 0;
    return kc_finish();
}
