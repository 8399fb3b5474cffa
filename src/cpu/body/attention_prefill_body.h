/* attention_prefill_body.h - attention of many queries in float32: tiles of rows by blocks of keys, softmax as it goes.
 *
 * Included after a level's vocabulary. A block of keys is decoded once for all rows of a task. What a row goes through does not
 * depend on the rows beside it, nor on where a call's chunk of queries begins. */
#ifndef OCTAVO_CPU_ATTENTION_PREFILL_BODY_H
#define OCTAVO_CPU_ATTENTION_PREFILL_BODY_H

#include "cpu/body/decode_math_body.h"
#include "cpu/body/prefill_facts_body.h"

octavo_status SIMD(attention_prefill)(const octavo_exec *exec, const octavo_attention_prefill_params *p);

enum { PREFILL_BAND = 4 }; /* rows that are multiplied together */

/* A task's memory and state. */
typedef struct prefill_tile {
    prefill_head head;
    const octavo_prefill_task *task;
    float *q, *sum;            /* [rows, k_dim], [rows, v_dim]                            */
    float *factor, *shift;     /* [rows] of a score in nats; what the keys lack            */
    float *most, *mass;        /* [rows] largest score so far, and the weights' sum        */
    float *k, *k_turned, *v;   /* [BLOCK, k_dim], [k_dim, BLOCK], [BLOCK, v_dim]           */
    float *score;              /* [BAND, BLOCK]                                            */
    float *rest;               /* [v_dim] what codes leave out of a block's values, known before */
    float k_scale[OCTAVO_PREFILL_BLOCK], v_factor[OCTAVO_PREFILL_BLOCK];
} prefill_tile;

static void prefill_tile_init(prefill_tile *at, const octavo_prefill_call *call, const octavo_prefill_task *task)
{
    float *next = (float *)(void *)task->scratch;
    const int64_t rows = call->layout.rows, k_dim = call->layout.k_dim, v_dim = call->layout.v_dim;
    at->task = task;
#define TAKE(member, count) at->member = next, next += (count)
    TAKE(q, rows * k_dim), TAKE(sum, rows * v_dim), TAKE(factor, rows), TAKE(shift, rows), TAKE(most, rows), TAKE(mass, rows);
    TAKE(k, OCTAVO_PREFILL_BLOCK * k_dim), TAKE(k_turned, OCTAVO_PREFILL_BLOCK * k_dim), TAKE(v, OCTAVO_PREFILL_BLOCK * v_dim);
    TAKE(score, PREFILL_BAND * OCTAVO_PREFILL_BLOCK), TAKE(rest, v_dim);
#undef TAKE
    at->head = prefill_head_of(call, task->slot, next);
}

/* Rows of queries: token by token, the heads of a token one after the other. */
static void prefill_tile_queries(prefill_tile *at)
{
    const octavo_prefill_task *task = at->task;
    const octavo_prefill_params *p = at->head.p;
    const int64_t k_dim = at->head.k_dim, heads = task->heads;
    float scale[OCTAVO_PREFILL_BLOCK], shift[OCTAVO_PREFILL_BLOCK];
    for (int64_t h = 0; h < heads; h++)
        for (int64_t first = 0; first < task->tokens; first += OCTAVO_PREFILL_BLOCK) {
            const int64_t left = task->tokens - first, count = left < OCTAVO_PREFILL_BLOCK ? left : OCTAVO_PREFILL_BLOCK;
            prefill_load_queries(&at->head, task->q_head + h, task->token + first, count, at->q + (first * heads + h) * k_dim, heads * k_dim,
                                 scale, shift);
            for (int64_t i = 0; i < count; i++) {
                at->factor[(first + i) * heads + h] = scale[i] * p->softmax_scale;
                at->shift[(first + i) * heads + h] = shift[i];
            }
        }
    for (int64_t row = task->rows; row < task->padded_rows; row++) prefill_clear(at->q + row * k_dim, 0, k_dim), at->factor[row] = 0.0f;
    for (int64_t row = 0; row < task->padded_rows; row++) at->most[row] = -INFINITY, at->mass[row] = 0.0f;
    prefill_clear(at->sum, 0, task->padded_rows * at->head.v_dim);
}

static void prefill_tile_keys(prefill_tile *at, int64_t block)
{
    const int64_t k_dim = at->head.k_dim, dim = at->head.p->kv->head_dim;
    prefill_load_keys(&at->head, block, at->k, at->k_scale);
    prefill_load_values(&at->head, block, at->v, at->v_factor, 0, at->rest);
    for (int64_t d = 0; d < dim; d++)
        for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) at->k_turned[d * OCTAVO_PREFILL_BLOCK + t] = at->k[t * k_dim + d];
}

/* c [BAND, width] += a [BAND, depth] * b [depth, width]; rows of c lie c_stride floats apart, of a a_stride. */
static void prefill_multiply(float *restrict c, int64_t c_stride, const float *restrict a, int64_t a_stride, const float *restrict b,
                             int64_t depth, int64_t width)
{
    for (int64_t j = 0; j < width; j += SIMD_AXPY_VECTORS * SIMD_F32) {
        vf32 sum[PREFILL_BAND][SIMD_AXPY_VECTORS];
#pragma GCC unroll 4
        for (int r = 0; r < PREFILL_BAND; r++)
#pragma GCC unroll 4
            for (int v = 0; v < SIMD_AXPY_VECTORS; v++) sum[r][v] = v_load(c + r * c_stride + j + v * SIMD_F32);
        for (int64_t d = 0; d < depth; d++) {
            vf32 x[SIMD_AXPY_VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < SIMD_AXPY_VECTORS; v++) x[v] = v_load(b + d * width + j + v * SIMD_F32);
#pragma GCC unroll 4
            for (int r = 0; r < PREFILL_BAND; r++) {
                const vf32 factor = v_splat(a[r * a_stride + d]);
#pragma GCC unroll 4
                for (int v = 0; v < SIMD_AXPY_VECTORS; v++) sum[r][v] = v_fma(factor, x[v], sum[r][v]);
            }
        }
#pragma GCC unroll 4
        for (int r = 0; r < PREFILL_BAND; r++)
#pragma GCC unroll 4
            for (int v = 0; v < SIMD_AXPY_VECTORS; v++) v_store(c + r * c_stride + j + v * SIMD_F32, sum[r][v]);
    }
}

/* Scores of a row in nats, -inf where it does not look; returns the largest. */
static float prefill_scores(const prefill_tile *at, int64_t row, int64_t begin, octavo_prefill_sight sight, float *restrict score)
{
    const octavo_prefill_params *p = at->head.p;
    const vf32 factor = v_splat(at->factor[row]), cap = v_splat(p->soft_cap);
    vf32 most = v_splat(-INFINITY);
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t += SIMD_F32) {
        vf32 x = v_mul(v_mul(v_load(score + t), factor), v_load(at->k_scale + t));
        if (p->soft_cap > 0.0f) x = v_mul(cap, v_tanh(v_div(x, cap)));
        v_store(score + t, x);
        most = v_max(most, x);
    }
    if (sight == PREFILL_WHOLE) return v_hmax(most);
    const octavo_span span = octavo_prefill_span(p, at->head.b, octavo_prefill_row_token(at->task, row));
    float largest = -INFINITY;
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t++) {
        if (!octavo_span_sees(&span, begin + t)) score[t] = -INFINITY;
        largest = score[t] > largest ? score[t] : largest;
    }
    return largest;
}

/* Scores to weights; what was summed so far shrinks to the new largest score. */
static void prefill_weights(prefill_tile *at, int64_t row, float largest, float *restrict score)
{
    if (largest > at->most[row]) {
        const float shrink = at->most[row] == -INFINITY ? 0.0f : v_exp_one(at->most[row] - largest);
        float *sum = at->sum + row * at->head.v_dim;
        for (int64_t d = 0; d < at->head.v_dim; d += SIMD_F32) v_store(sum + d, v_mul(v_load(sum + d), v_splat(shrink)));
        at->mass[row] *= shrink;
        at->most[row] = largest;
    }
    if (at->most[row] == -INFINITY) { /* nothing is seen yet */
        prefill_clear(score, 0, OCTAVO_PREFILL_BLOCK);
        return;
    }
    const vf32 most = v_splat(at->most[row]);
    vf32 mass = v_zero();
    for (int64_t t = 0; t < OCTAVO_PREFILL_BLOCK; t += SIMD_F32) {
        const vf32 weight = v_exp(v_sub(v_load(score + t), most));
        v_store(score + t, weight);
        mass = v_add(mass, weight);
    }
    at->mass[row] += v_hsum(mass);
}

static void prefill_band(prefill_tile *at, int64_t row, int64_t block)
{
    const prefill_head *head = &at->head;
    const int64_t begin = block * OCTAVO_PREFILL_BLOCK;
    const octavo_span first = octavo_prefill_span(head->p, head->b, octavo_prefill_row_token(at->task, row));
    const octavo_span last = octavo_prefill_span(head->p, head->b, octavo_prefill_row_token(at->task, row + PREFILL_BAND - 1));
    const octavo_prefill_sight sight = octavo_prefill_sight_of(&first, &last, begin, begin + OCTAVO_PREFILL_BLOCK);
    if (sight == PREFILL_UNSEEN) return;
    prefill_clear(at->score, 0, PREFILL_BAND * OCTAVO_PREFILL_BLOCK);
    prefill_multiply(at->score, OCTAVO_PREFILL_BLOCK, at->q + row * head->k_dim, head->k_dim, at->k_turned, head->p->kv->head_dim,
                     OCTAVO_PREFILL_BLOCK);
    for (int64_t r = 0; r < PREFILL_BAND; r++) {
        float *score = at->score + r * OCTAVO_PREFILL_BLOCK;
        prefill_weights(at, row + r, prefill_scores(at, row + r, begin, sight, score), score);
    }
    prefill_multiply(at->sum + row * head->v_dim, head->v_dim, at->score, OCTAVO_PREFILL_BLOCK, at->v, OCTAVO_PREFILL_BLOCK, head->v_dim);
}

static void prefill_attend(const octavo_prefill_call *call, const octavo_prefill_task *task)
{
    prefill_tile at;
    prefill_tile_init(&at, call, task);
    prefill_tile_queries(&at);
    const octavo_span first = octavo_prefill_span(call->p, task->b, task->token);
    const octavo_span last = octavo_prefill_span(call->p, task->b, task->token + task->tokens - 1);
    for (int64_t block = 0; block * OCTAVO_PREFILL_BLOCK < last.end; block++) {
        const int64_t begin = block * OCTAVO_PREFILL_BLOCK;
        if (octavo_prefill_sight_of(&first, &last, begin, begin + OCTAVO_PREFILL_BLOCK) == PREFILL_UNSEEN) continue;
        prefill_tile_keys(&at, block);
        for (int64_t row = 0; row < task->rows; row += PREFILL_BAND) prefill_band(&at, row, block);
    }
    for (int64_t row = 0; row < task->rows; row++)
        prefill_finish_row(&at.head, octavo_prefill_row_head(task, row), octavo_prefill_row_token(task, row), at.sum + row * at.head.v_dim,
                           at.most[row], at.mass[row], at.shift[row]);
}

octavo_status SIMD(attention_prefill)(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    static const octavo_prefill_work work = { .sum = SIMD(prefill_sum), .means = SIMD(prefill_means), .most = SIMD(prefill_most),
                                              .scales = SIMD(prefill_scales), .rest = SIMD(prefill_rest),
                                              .rests = SIMD(prefill_rests), .attend = prefill_attend };
    return octavo_prefill_run(exec, p, &work);
}

#endif
