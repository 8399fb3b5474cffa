/* bench_prefill_reference.c - float64 attention of sampled queries, over the keys and values before anything was encoded. */
#include "bench_element.h"
#include "bench_prefill.h"
#include "cli.h"
#include <math.h>
#include <stdlib.h>

/* Keys that the query at position `at` sees are [begin, end). */
typedef struct prefill_sight {
    int64_t begin, end;
} prefill_sight;

static prefill_sight sight_of(const prefill_settings *settings, int64_t tokens, int64_t keys, int64_t i)
{
    const int64_t at = keys - tokens + i;
    prefill_sight sight = { 0, settings->mask == OCTAVO_MASK_CAUSAL ? at + 1 : keys };
    if (settings->window > 0) {
        sight.begin = at - settings->window + 1 > 0 ? at - settings->window + 1 : 0;
        if (at + settings->window < sight.end) sight.end = at + settings->window;
    }
    return sight;
}

double prefill_pairs(const prefill_settings *settings, int64_t tokens, int64_t keys)
{
    double pairs = 0;
    for (int64_t i = 0; i < tokens; i++) {
        const prefill_sight sight = sight_of(settings, tokens, keys, i);
        pairs += (double)(sight.end - sight.begin);
    }
    return pairs * (double)settings->batch;
}

/* One query of one head into out [dim]; score [keys]. Returns the logarithm of the denominator. */
static double attend(const prefill_data *data, prefill_sight sight, int64_t b, int64_t head, int64_t i, double *score, double *out)
{
    const int64_t dim = data->dim, kv_head = head / (data->q_heads / data->kv_heads);
    const uint16_t *q = data->q + ((b * data->tokens + i) * data->q_heads + head) * dim;
    double most = -INFINITY, mass = 0;
    for (int64_t t = sight.begin; t < sight.end; t++) {
        const uint16_t *k = data->k + ((b * data->keys + t) * data->kv_heads + kv_head) * dim;
        double sum = 0;
        for (int64_t d = 0; d < dim; d++) sum += (double)element_from_bf16(q[d]) * (double)element_from_bf16(k[d]);
        score[t] = sum / sqrt((double)dim);
        if (data->soft_cap > 0) score[t] = data->soft_cap * tanh(score[t] / data->soft_cap);
        most = fmax(most, score[t]);
    }
    for (int64_t d = 0; d < dim; d++) out[d] = 0;
    for (int64_t t = sight.begin; t < sight.end; t++) {
        const uint16_t *v = data->v + ((b * data->keys + t) * data->kv_heads + kv_head) * dim;
        const double weight = exp(score[t] - most);
        mass += weight;
        for (int64_t d = 0; d < dim; d++) out[d] += weight * (double)element_from_bf16(v[d]);
    }
    for (int64_t d = 0; d < dim; d++) out[d] /= mass;
    return most + log(mass);
}

typedef struct prefill_error {
    double square, most, lse;
} prefill_error;

/* The relative error of one query over the heads of a kv head's group. */
static prefill_error group_error(const prefill_data *data, prefill_sight sight, int64_t b, int64_t kv_head, int64_t i, const uint16_t *out,
                                 const float *lse, double *score, double *wanted)
{
    const int64_t group = data->q_heads / data->kv_heads;
    double difference = 0, norm = 0;
    prefill_error error = { 0 };
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++) {
        const uint16_t *got = out + ((b * data->tokens + i) * data->q_heads + head) * data->dim;
        const double log_mass = attend(data, sight, b, head, i, score, wanted);
        error.lse = fmax(error.lse, fabs(log_mass - (double)lse[(b * data->q_heads + head) * data->tokens + i]));
        for (int64_t d = 0; d < data->dim; d++) {
            const double off = (double)element_from_bf16(got[d]) - wanted[d];
            difference += off * off, norm += wanted[d] * wanted[d];
        }
    }
    error.square = norm > 0 ? difference / norm : 0;
    error.most = sqrt(error.square);
    return error;
}

int prefill_compare(const prefill_settings *settings, const prefill_data *data, const uint16_t *out, const float *lse, prefill_row *row)
{
    const int64_t samples = settings->samples < data->tokens ? settings->samples : data->tokens, count = data->batch * samples * data->kv_heads;
    double square = 0, most = 0, worst_lse = 0;
    int failed = 0;
#pragma omp parallel num_threads((int)settings->threads) reduction(+ : square) reduction(max : most, worst_lse) reduction(| : failed)
    {
        double *score = malloc((size_t)data->keys * sizeof *score), *wanted = malloc((size_t)data->dim * sizeof *wanted);
        failed = !score || !wanted;
#pragma omp for schedule(dynamic, 1)
        for (int64_t n = 0; n < count; n++) {
            const int64_t sample = n / data->kv_heads % samples, i = samples > 1 ? sample * (data->tokens - 1) / (samples - 1) : data->tokens - 1;
            if (failed) continue;
            const prefill_error error = group_error(data, sight_of(settings, data->tokens, data->keys, i), n / data->kv_heads / samples,
                                                    n % data->kv_heads, i, out, lse, score, wanted);
            square += error.square;
            most = fmax(most, error.most), worst_lse = fmax(worst_lse, error.lse);
        }
        free(score);
        free(wanted);
    }
    if (failed) return cli_refuse("there is no memory for the scores of %lld keys", (long long)data->keys);
    row->rel_error = count > 0 ? sqrt(square / (double)count) : 0;
    row->rel_error_max = most;
    row->lse_error = worst_lse;
    return EXIT_DONE;
}
