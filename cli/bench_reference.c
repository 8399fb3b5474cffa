/* bench_reference.c - attention in float64, token chunk by token chunk, with a running maximum. */
#include "bench_reference.h"
#include "bench_element.h"
#include "cli.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 8 };
enum { PART = 128 }; /* tokens that all queries of a head see before the next: their K and V stay in the cache */
typedef double lanes __attribute__((vector_size(LANES * sizeof(double)), aligned(8)));
typedef float narrow __attribute__((vector_size(LANES * sizeof(float)), aligned(4)));

static double *doubles(int64_t a, int64_t b, int64_t c)
{
    size_t count;
    if (__builtin_mul_overflow((size_t)a, (size_t)b, &count) || __builtin_mul_overflow(count, (size_t)c, &count)) return NULL;
    return calloc(count, sizeof(double));
}

int bench_reference_init(bench_reference *r, int64_t rows, const int64_t *lengths)
{
    r->rows = rows;
    r->lengths = lengths;
    r->k_stride = (r->head_dim + LANES - 1) / LANES * LANES;
    r->v_stride = (r->v_dim + LANES - 1) / LANES * LANES;
    r->q = doubles(rows, r->q_heads, r->k_stride);
    r->out = doubles(rows, r->q_heads, r->v_stride);
    r->largest = doubles(rows, r->q_heads, 1);
    r->sum = doubles(rows, r->q_heads, 1);
    r->k = (float *)doubles(r->kv_heads, r->chunk_tokens, r->k_stride / 2);
    r->v = (float *)doubles(r->kv_heads, r->chunk_tokens, r->v_stride / 2);
    if (!r->q || !r->out || !r->largest || !r->sum || !r->k || !r->v) return cli_refuse("there is no memory for the float64 reference");
    for (int64_t i = 0; i < rows * r->q_heads; i++) r->largest[i] = -INFINITY;
    return EXIT_DONE;
}

void bench_reference_fini(bench_reference *r)
{
    free(r->q);
    free(r->out);
    free(r->largest);
    free(r->sum);
    free(r->k);
    free(r->v);
    memset(r, 0, sizeof *r);
}

void bench_reference_set_query(bench_reference *r, int64_t row, const void *q, octavo_dtype dtype)
{
    for (int64_t head = 0; head < r->q_heads; head++)
        for (int64_t i = 0; i < r->head_dim; i++)
            r->q[(row * r->q_heads + head) * r->k_stride + i] = (double)element_read(q, dtype, head * r->head_dim + i);
}

/* [1, tokens, heads, dim] to float [heads, chunk_tokens, stride]. */
static void widen(const bench_reference *r, const octavo_tensor *source, int64_t stride, float *target)
{
    const int64_t heads = source->shape[2], dim = source->shape[3];
#pragma omp parallel for num_threads(r->threads) schedule(static)
    for (int64_t t = 0; t < source->shape[1]; t++)
        for (int64_t head = 0; head < heads; head++)
            for (int64_t i = 0; i < dim; i++)
                target[(head * r->chunk_tokens + t) * stride + i] =
                    element_read(source->data, source->dtype, t * source->strides[1] + head * source->strides[2] + i);
}

static double dot(const double *q, const float *k, int64_t stride)
{
    lanes sum = { 0 };
    double total = 0;
    for (int64_t i = 0; i < stride; i += LANES)
        sum += *(const lanes *)(q + i) * __builtin_convertvector(*(const narrow *)(k + i), lanes);
    for (int i = 0; i < LANES; i++) total += sum[i];
    return total;
}

/* Adds tokens [from, from + tokens) of the chunk to one query head. */
static void add_to_head(bench_reference *r, int64_t row, int64_t head, int64_t from, int64_t tokens)
{
    const int64_t kv_head = head / (r->q_heads / r->kv_heads), at = row * r->q_heads + head;
    const float *k = r->k + (kv_head * r->chunk_tokens + from) * r->k_stride, *v = r->v + (kv_head * r->chunk_tokens + from) * r->v_stride;
    double *out = r->out + at * r->v_stride, largest = r->largest[at], scores[PART];
    for (int64_t t = 0; t < tokens; t++) {
        scores[t] = r->scale * dot(r->q + at * r->k_stride, k + t * r->k_stride, r->k_stride);
        if (scores[t] > largest) largest = scores[t];
    }
    const double factor = exp(r->largest[at] - largest); /* 0 the first time */
    r->largest[at] = largest;
    r->sum[at] *= factor;
    for (int64_t i = 0; i < r->v_stride; i++) out[i] *= factor;
    for (int64_t t = 0; t < tokens; t++) {
        const double weight = exp(scores[t] - largest);
        r->sum[at] += weight;
        for (int64_t i = 0; i < r->v_stride; i += LANES)
            *(lanes *)(out + i) += weight * __builtin_convertvector(*(const narrow *)(v + t * r->v_stride + i), lanes);
    }
}

void bench_reference_add(bench_reference *r, int64_t first, const octavo_tensor *k, const octavo_tensor *v)
{
    const int64_t count = k->shape[1];
    widen(r, k, r->k_stride, r->k);
    widen(r, v, r->v_stride, r->v);
#pragma omp parallel for num_threads(r->threads) schedule(dynamic)
    for (int64_t head = 0; head < r->q_heads; head++)
        for (int64_t from = 0; from < count; from += PART)
            for (int64_t row = 0; row < r->rows; row++) {
                const int64_t end = r->lengths[row] - first < count ? r->lengths[row] - first : count;
                if (from < end) add_to_head(r, row, head, from, end - from < PART ? end - from : PART);
            }
}

void bench_reference_finish(bench_reference *r)
{
    for (int64_t at = 0; at < r->rows * r->q_heads; at++)
        for (int64_t i = 0; i < r->v_stride; i++) r->out[at * r->v_stride + i] /= r->sum[at];
}

void bench_error_add(bench_error *error, const bench_reference *r, int64_t row, const float *out)
{
    const int64_t group = r->q_heads / r->kv_heads;
    for (int64_t kv_head = 0; kv_head < r->kv_heads; kv_head++) {
        double difference = 0, exact = 0, found = 0, product = 0;
        for (int64_t head = kv_head * group; head < (kv_head + 1) * group; head++)
            for (int64_t i = 0; i < r->v_dim; i++) {
                const double o = r->out[(row * r->q_heads + head) * r->v_stride + i], x = (double)out[head * r->v_dim + i];
                difference += (x - o) * (x - o);
                exact += o * o;
                found += x * x;
                product += x * o;
                if (fabs(x - o) > error->largest) error->largest = fabs(x - o);
            }
        const double relative = difference == 0 ? 0 : sqrt(difference / exact);
        error->square_sum += relative * relative;
        error->cosine_sum += difference == 0 ? 1 : product / sqrt(exact * found);
        if (!(relative <= error->worst)) error->worst = relative; /* a NaN stays, and is found */
        error->count++;
    }
}
