/* kerncheck_step_end.c - the record of a step, the tokens that are fed and the numbers that are drawn next are exact. */
#include "kerncheck.h"

static void draw_statistics(octavo_step_end_params *p)
{
    float *skip = kc_array("skip_ratio", OCTAVO_F32, p->layers * p->stride);
    int64_t *bytes = kc_array("bytes_read", OCTAVO_INT64, p->layers * p->stride);
    for (int64_t i = 0; i < p->layers * p->stride; i++) {
        skip[i] = (float)kc_between(0, 1 << 20) * 0x1p-20f; /* their sums are exact in any order */
        bytes[i] = kc_between(0, INT64_C(1) << 40);
    }
    p->skip_ratio = skip, p->bytes_read = bytes;
}

static void draw_tokens(octavo_step_end_params *p)
{
    int32_t *tokens = kc_array("tokens", OCTAVO_INT32, p->batch);
    float *sampled = kc_chance(60) ? kc_array("sampled_logprob", OCTAVO_F32, p->batch) : NULL;
    float *logprob = kc_chance(60) ? kc_array("logprob", OCTAVO_F32, p->batch) : NULL;
    for (int64_t b = 0; b < p->batch; b++) {
        tokens[b] = (int32_t)kc_between(0, 200000);
        if (sampled) sampled[b] = -kc_normal() * kc_normal();
        if (logprob) logprob[b] = kc_normal();
    }
    p->tokens = tokens, p->sampled_logprob = sampled, p->logprob = logprob;
    p->draws = kc_bytes("draws", p->capacity * p->batch * (int64_t)sizeof *p->draws, _Alignof(octavo_drawn_token));
    if (kc_chance(70)) p->ids = kc_array("ids", OCTAVO_INT32, p->batch);
    if (!kc_chance(70)) return;
    uint64_t *random = kc_array("random", OCTAVO_INT64, p->batch);
    p->rows = kc_bytes("rows", p->batch * (int64_t)sizeof *p->rows, _Alignof(octavo_sample_row));
    for (int64_t b = 0; b < p->batch; b++) {
        random[b] = kc_random();
        p->rows[b] = (octavo_sample_row){ (float)kc_uniform(0.0, 2.0), (int32_t)kc_between(0, 50), 0.5f, 0.1f, 0.25f };
    }
    p->random = random;
}

int kc_check_step_end(const kc_pair *pair)
{
    octavo_step_end_params p = { .batch = pair->bench ? 64 : kc_chance(20) ? kc_between(200, 600) : kc_between(1, 20), .capacity = kc_between(1, 20) };
    p.layers = pair->bench ? 80 : kc_between(0, 90);
    p.values = pair->bench ? 512 : kc_between(1, 40);
    p.stride = p.values + kc_between(0, 20);
    p.count = kc_array("count", OCTAVO_INT32, 1);
    *p.count = (int32_t)kc_between(0, p.capacity - 1);
    const int odd = !pair->bench && kc_chance(8);
    if (odd) *p.count = kc_chance(50) ? -1 : (int32_t)p.capacity;
    p.records = kc_bytes("records", p.capacity * (int64_t)sizeof *p.records, _Alignof(octavo_step_record));
    draw_statistics(&p);
    if (pair->bench || kc_chance(80)) draw_tokens(&p);
    kc_describe("batch=%lld step=%d of %lld layers=%lld values=%lld%s%s%s", (long long)p.batch, *p.count, (long long)p.capacity, (long long)p.layers,
                (long long)p.values, p.tokens ? " tokens" : "", p.ids ? " ids" : "", p.rows ? " rows" : "");
    const kc_outcome outcome = kc_run(pair, KC_step_end, &p, 0);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return kc_finish();
}
