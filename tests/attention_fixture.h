/* attention_fixture.h - a cache over its own pool, filled with chosen keys, and exact attention to compare with. */
#ifndef OCTAVO_TESTS_ATTENTION_FIXTURE_H
#define OCTAVO_TESTS_ATTENTION_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <cmocka.h>

#include "octavo/octavo.h"

typedef struct fixture_shape {
    int64_t batch, tokens, kv_heads, group, q_tokens, head_dim, v_dim;
    int32_t block_tokens, sub_block_tokens;
    octavo_k_format k_format;
    octavo_v_format v_format;
} fixture_shape;

typedef struct fixture {
    fixture_shape shape;
    octavo_context *context;
    octavo_device *device;
    octavo_exec exec;
    float *k, *v, *q;     /* [batch, tokens, kv_heads, dim], q [batch, q_tokens, q_heads, head_dim] */
    void *pool;
    int32_t *lengths, *table;
    octavo_kv_view view;
    octavo_decode_params params;
    float *out, *lse, *skip_ratio, *dropped_mass;
    uint8_t *kept;
    int64_t *bytes_read;
} fixture;

/* xorshift64*: the same data on every machine. */
static inline float fixture_uniform(uint64_t *state)
{
    *state ^= *state >> 12, *state ^= *state << 25, *state ^= *state >> 27;
    return (float)((*state * 2685821657736338717u) >> 40) * 0x1p-23f - 1.0f;
}

static inline float fixture_normal(uint64_t *state)
{
    float sum = 0.0f;
    for (int i = 0; i < 6; i++) sum += fixture_uniform(state);
    return sum * 0.70710678f; /* variance 6 / 3 / 2 */
}

/* The nearest bf16 not larger in magnitude: a float that bf16 holds exactly. */
static inline float fixture_as_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits &= 0xffff0000u;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

/* The bits of that. */
static inline uint16_t fixture_bf16_code(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static inline void *fixture_memory(size_t bytes)
{
    void *memory = NULL;
    assert_int_equal(posix_memalign(&memory, 64, bytes + 64), 0);
    memset(memory, 0xA5, bytes + 64);
    return memory;
}

static inline void fixture_set_workspace(fixture *f)
{
    size_t bytes = 0;
    free(f->exec.workspace);
    f->exec.workspace = NULL;
    assert_int_equal(octavo_attention_decode_workspace(&f->exec, &f->params, &bytes), OCTAVO_OK);
    f->exec.workspace = fixture_memory(bytes);
    f->exec.workspace_bytes = bytes;
}

/* Writes f->k and f->v into the cache, again. */
static inline void fixture_encode(fixture *f)
{
    const fixture_shape *s = &f->shape;
    int32_t positions[64] = { 0 };
    const int64_t k_shape[] = { s->batch, s->tokens, s->kv_heads, s->head_dim }, v_shape[] = { s->batch, s->tokens, s->kv_heads, s->v_dim };
    const octavo_tensor k = octavo_tensor_view(f->k, OCTAVO_F32, 4, k_shape), v = octavo_tensor_view(f->v, OCTAVO_F32, 4, v_shape);
    const octavo_status status = octavo_kv_append(&f->exec, &f->view, &k, &v, positions);
    if (status) print_error("%s\n", octavo_last_error());
    assert_int_equal(status, OCTAVO_OK);
}

static inline fixture *fixture_create(const fixture_shape *shape, uint64_t seed)
{
    fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->shape = *shape;
    const fixture_shape *s = &f->shape;
    assert_int_equal(octavo_context_create(NULL, &f->context), OCTAVO_OK);
    assert_int_equal(octavo_device_open(f->context, "cpu", &f->device), OCTAVO_OK);
    f->exec = (octavo_exec)OCTAVO_INIT_STRUCT(octavo_exec);
    f->exec.device = f->device;

    const size_t keys = (size_t)(s->batch * s->tokens * s->kv_heads), rows = (size_t)(s->batch * s->kv_heads * s->group * s->q_tokens);
    f->k = fixture_memory(keys * (size_t)s->head_dim * sizeof(float));
    f->v = fixture_memory(keys * (size_t)s->v_dim * sizeof(float));
    f->q = fixture_memory(rows * (size_t)s->head_dim * sizeof(float));
    for (size_t i = 0; i < keys * (size_t)s->head_dim; i++) f->k[i] = fixture_as_bf16(fixture_normal(&seed));
    for (size_t i = 0; i < keys * (size_t)s->v_dim; i++) f->v[i] = fixture_as_bf16(fixture_normal(&seed));
    for (size_t i = 0; i < rows * (size_t)s->head_dim; i++) f->q[i] = fixture_as_bf16(fixture_normal(&seed));

    octavo_page_config page = OCTAVO_PAGE_CONFIG_INIT;
    page.k_format = s->k_format, page.v_format = s->v_format;
    page.kv_heads = (int32_t)s->kv_heads, page.head_dim = (int32_t)s->head_dim, page.v_dim = (int32_t)s->v_dim;
    page.block_tokens = s->block_tokens, page.sub_block_tokens = s->sub_block_tokens;
    size_t page_bytes = 0;
    assert_int_equal(octavo_page_bytes(&page, &page_bytes), OCTAVO_OK);
    const int64_t blocks = (s->tokens + s->block_tokens - 1) / s->block_tokens, pages = blocks * s->batch;
    f->pool = fixture_memory(page_bytes * (size_t)pages);
    assert_int_equal(octavo_kv_view_over_pool(&page, f->pool, pages, 0, &f->view), OCTAVO_OK);
    f->lengths = fixture_memory((size_t)s->batch * sizeof(int32_t));
    f->table = fixture_memory((size_t)pages * sizeof(int32_t));
    for (int64_t b = 0; b < s->batch; b++) f->lengths[b] = (int32_t)s->tokens;
    for (int64_t i = 0; i < pages; i++) f->table[i] = (int32_t)(pages - 1 - i); /* back to front */
    f->view.batch = s->batch, f->view.max_tokens = s->tokens, f->view.lengths = f->lengths;
    f->view.page_table = f->table, f->view.page_table_stride = blocks, f->view.pages = pages;
    fixture_encode(f);

    const int64_t q_shape[] = { s->batch, s->q_tokens, s->kv_heads * s->group, s->head_dim };
    const int64_t out_shape[] = { s->batch, s->q_tokens, s->kv_heads * s->group, s->v_dim };
    const size_t units = (size_t)octavo_kv_view_units(&f->view), heads = (size_t)(s->batch * s->kv_heads);
    f->out = fixture_memory(rows * (size_t)s->v_dim * sizeof(float));
    f->lse = fixture_memory(rows * sizeof(float));
    f->dropped_mass = fixture_memory(heads * (size_t)s->group * sizeof(float));
    f->skip_ratio = fixture_memory(heads * sizeof(float));
    f->kept = fixture_memory(heads * units);
    f->bytes_read = fixture_memory(heads * sizeof(int64_t));
    f->params = (octavo_decode_params)OCTAVO_INIT_STRUCT(octavo_decode_params);
    f->params.kv = &f->view;
    f->params.q = octavo_tensor_view(f->q, OCTAVO_F32, 4, q_shape);
    f->params.out = octavo_tensor_view(f->out, OCTAVO_F32, 4, out_shape);
    f->params.lse = f->lse, f->params.kept = f->kept, f->params.skip_ratio = f->skip_ratio;
    f->params.dropped_mass = f->dropped_mass, f->params.bytes_read = f->bytes_read;
    return f;
}

static inline void fixture_destroy(fixture *f)
{
    octavo_device_close(f->device);
    octavo_context_destroy(f->context);
    free(f->k), free(f->v), free(f->q), free(f->pool), free(f->lengths), free(f->table);
    free(f->out), free(f->lse), free(f->dropped_mass), free(f->skip_ratio), free(f->kept), free(f->bytes_read);
    free(f->exec.workspace);
    free(f);
}

static inline void fixture_decode(fixture *f)
{
    fixture_set_workspace(f);
    const octavo_status status = octavo_attention_decode(&f->exec, &f->params);
    if (status) print_error("%s\n", octavo_last_error());
    assert_int_equal(status, OCTAVO_OK);
}

static inline int64_t fixture_row(const fixture *f, int64_t b, int64_t q_head, int64_t i)
{
    return (b * f->shape.kv_heads * f->shape.group + q_head) * f->shape.q_tokens + i;
}

/* Score of one token for one query, from the floats that were given: no cap, no visibility. */
static inline double fixture_score(const fixture *f, int64_t b, int64_t q_head, int64_t i, int64_t t)
{
    const fixture_shape *s = &f->shape;
    const int64_t q_heads = s->kv_heads * s->group;
    const float *q = f->q + ((b * s->q_tokens + i) * q_heads + q_head) * s->head_dim;
    const float *k = f->k + ((b * s->tokens + t) * s->kv_heads + q_head / s->group) * s->head_dim;
    double sum = 0.0;
    for (int64_t d = 0; d < s->head_dim; d++) sum += (double)q[d] * (double)k[d];
    const double scale = f->params.softmax_scale != 0.0f ? (double)f->params.softmax_scale : 1.0 / sqrt((double)s->head_dim);
    const double cap = (double)f->params.soft_cap;
    return cap > 0.0 ? cap * tanh(sum * scale / cap) : sum * scale;
}

static inline int fixture_sees(const fixture *f, int64_t b, int64_t i, int64_t t)
{
    const int64_t position = f->lengths[b] - f->shape.q_tokens + i;
    return t <= position && (f->params.window == 0 || position - t < f->params.window || t < f->params.sink_tokens);
}

/* Exact attention of one query and head; returns the log-sum-exp. out [v_dim]. */
static inline double fixture_exact(const fixture *f, int64_t b, int64_t q_head, int64_t i, double *out)
{
    const fixture_shape *s = &f->shape;
    double max = -INFINITY, sum = 0.0;
    for (int64_t t = 0; t < s->tokens; t++)
        if (fixture_sees(f, b, i, t)) max = fmax(max, fixture_score(f, b, q_head, i, t));
    for (int64_t d = 0; d < s->v_dim; d++) out[d] = 0.0;
    if (isinf(max)) return -INFINITY;
    if (f->params.sink_logits) sum += exp((double)f->params.sink_logits[q_head] - max);
    for (int64_t t = 0; t < s->tokens; t++) {
        if (!fixture_sees(f, b, i, t)) continue;
        const double weight = exp(fixture_score(f, b, q_head, i, t) - max);
        sum += weight;
        const float *v = f->v + ((b * s->tokens + t) * s->kv_heads + q_head / s->group) * s->v_dim;
        for (int64_t d = 0; d < s->v_dim; d++) out[d] += weight * (double)v[d];
    }
    for (int64_t d = 0; d < s->v_dim; d++) out[d] /= sum;
    return max + log(sum);
}

/* Worst relative error over all queries and heads, ||o - exact|| / ||exact||; also checks the lse to `lse_error`. */
static inline double fixture_error(const fixture *f, double lse_error)
{
    const fixture_shape *s = &f->shape;
    double worst = 0.0, *exact = malloc((size_t)s->v_dim * sizeof(double));
    assert_non_null(exact);
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->kv_heads * s->group; h++)
            for (int64_t i = 0; i < s->q_tokens; i++) {
                const double lse = fixture_exact(f, b, h, i, exact);
                const float *out = f->out + ((b * s->q_tokens + i) * s->kv_heads * s->group + h) * s->v_dim;
                double difference = 0.0, norm = 0.0;
                for (int64_t d = 0; d < s->v_dim; d++) {
                    difference += ((double)out[d] - exact[d]) * ((double)out[d] - exact[d]);
                    norm += exact[d] * exact[d];
                }
                const double got = (double)f->lse[fixture_row(f, b, h, i)];
                if (isinf(lse)) {
                    assert_true(isinf(got) && got < 0.0);
                    assert_true(difference == 0.0);
                } else {
                    assert_true(fabs(got - lse) <= lse_error);
                    worst = fmax(worst, sqrt(difference / norm));
                }
            }
    free(exact);
    return worst;
}

#endif
