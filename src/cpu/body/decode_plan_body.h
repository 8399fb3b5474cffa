/* decode_plan_body.h - one decode call taken apart: packed queries, visible spans, scores of a span. After a simd_<isa>.h. */
#ifndef OCTAVO_CPU_DECODE_PLAN_BODY_H
#define OCTAVO_CPU_DECODE_PLAN_BODY_H

#include "base/parallel.h"
#include "cpu/body/decode_axpy_body.h"
#include "cpu/body/decode_dot_body.h"
#include "cpu/body/decode_math_body.h"
#include "cpu/body/decode_round_body.h"
#include "cpu/decode_sight.h"
#include "format/bf16.h"
#include "format/fp16.h"

enum {
    PACK_SERIAL_ELEMENTS = 1 << 16, /* fewer elements of q are packed sooner than threads are woken */
    ROWS_CYCLES = 40,               /* of a part of softmax over four rows of a span, about         */
    EXP_CYCLES = 50                 /* of a vector of exponentials in each of them                   */
};

typedef struct decode_plan {
    const octavo_decode_input *in;
    const octavo_kv_view *kv;
    const octavo_decode_tiles *tiles;
    octavo_decode_layout layout;
    int64_t rows, group, q_tokens, units, units_a_block;
    octavo_decode_dot *dot, *dot_base; /* of in->planes, and of the base alone */
    octavo_decode_axpy *axpy, *axpy_mean;
    int rounds_k, rounds_v; /* rows of these become E4M3 before they are multiplied */
    uint8_t *q, *packed; /* [heads] blocks of layout.q_bytes and layout.packed_bytes */
    float *head_floats, *task_floats;
} decode_plan;

/* One kv head of one sequence. */
typedef struct decode_head {
    const decode_plan *plan;
    int64_t b, head, group, view_row, length;
    octavo_decode_sight sight;
    octavo_decode_q q;
    uint8_t *codes; /* of the task: a span's K as E4M3, then its V */
} decode_head;

/* K's format as products meet it. */
static octavo_k_format plan_k_format(const decode_plan *plan) { return plan->rounds_k ? OCTAVO_K_E4M3 : plan->kv->k_format; }

/* How many bits elements of q have: E4M3 fits into bf16. */
static octavo_dtype plan_q_dtype(const decode_plan *plan)
{
    return plan->in->precision == OCTAVO_ATTENTION_FP8 ? OCTAVO_BF16 : plan->in->q.dtype;
}

static octavo_decode_q plan_q(const decode_plan *plan, int64_t group)
{
    const octavo_kv_view *kv = plan->kv;
    return (octavo_decode_q){
        .rows = (const float *)(const void *)(plan->q + group * plan->layout.q_bytes),
        .row_floats = octavo_decode_row_floats(kv->k_format, kv->head_dim),
        .packed = plan->packed + group * plan->layout.packed_bytes,
        .row_count = plan->rows,
        .head_dim = kv->head_dim,
        .format = plan_k_format(plan),
        .dtype = plan_q_dtype(plan),
        .residual_exponent = kv->k_residual_exponent,
    };
}

/* Elements [from, from + count) of a row of q. */
static void pack_elements(const octavo_tensor *q, int64_t at, int64_t from, int64_t count, float *out)
{
    const int64_t stride = q->strides[3];
    int64_t i = 0;
    at += from * stride;
    if (stride == 1 && q->dtype != OCTAVO_F32) {
        const uint16_t *x = (const uint16_t *)q->data + at;
        for (; i + SIMD_F32 <= count; i += SIMD_F32)
            v_store(out + i, q->dtype == OCTAVO_BF16 ? v_load_bf16(x + i) : v_load_f16(x + i));
    }
    for (; i < count; i++) {
        const int64_t element = at + i * stride;
        out[i] = q->dtype == OCTAVO_F32   ? ((const float *)q->data)[element]
                 : q->dtype == OCTAVO_F16 ? octavo_fp16_to_float(((const uint16_t *)q->data)[element])
                                          : octavo_bf16_to_float(((const uint16_t *)q->data)[element]);
    }
}

static void pack_head(void *argument, int64_t group)
{
    const decode_plan *plan = argument;
    const octavo_tensor *q = &plan->in->q;
    const octavo_decode_q packed = plan_q(plan, group);
    const int64_t b = group / plan->kv->kv_heads, head = group % plan->kv->kv_heads, dim = plan->kv->head_dim;
    const int64_t first = plan->kv->k_format == OCTAVO_K_INT4X2 ? (dim + 1) / 2 : dim;
    float *out = (float *)(void *)(plan->q + group * plan->layout.q_bytes);
    memset(out, 0, (size_t)(plan->rows * packed.row_floats) * sizeof *out);
    for (int64_t row = 0; row < plan->rows; row++, out += packed.row_floats) {
        const int64_t q_head = head * plan->group + row / plan->q_tokens;
        const int64_t at = b * q->strides[0] + row % plan->q_tokens * q->strides[1] + q_head * q->strides[2];
        pack_elements(q, at, 0, first, out);
        if (first < dim) pack_elements(q, at, first, dim - first, out + packed.row_floats / 2);
        if (plan->in->precision == OCTAVO_ATTENTION_FP8) round_floats(out, packed.row_floats);
    }
    if (plan->tiles->pack) plan->tiles->pack(&packed, plan->packed + group * plan->layout.packed_bytes);
}

/* Cuts the workspace and packs q into it. */
static decode_plan plan_open(const octavo_exec *exec, const octavo_decode_input *in, const octavo_decode_tiles *tiles,
                             octavo_decode_layout layout)
{
    const octavo_kv_view *kv = in->kv;
    decode_plan plan = { .in = in, .kv = kv, .tiles = tiles, .layout = layout };
    plan.q_tokens = in->q.shape[1];
    plan.group = in->q.shape[2] / kv->kv_heads;
    plan.rows = plan.group * plan.q_tokens;
    plan.units = octavo_view_units(kv);
    plan.units_a_block = kv->block_tokens / kv->sub_block_tokens;
    plan.rounds_k = octavo_decode_rounds_k(in->precision, kv->k_format);
    plan.rounds_v = octavo_decode_rounds_v(in->precision, kv->v_format);
    octavo_kv_view met = *kv; /* as products meet it */
    met.k_format = plan_k_format(&plan);
    plan.dot = tiles->dot(&met, in->planes);
    plan.dot_base = tiles->dot(&met, 1);
    plan.axpy = tiles->axpy(plan.rounds_v ? OCTAVO_V_E4M3 : kv->v_format);
    plan.axpy_mean = tiles->axpy(OCTAVO_V_E4M3);
    plan.q = (uint8_t *)exec->workspace + (-(uintptr_t)exec->workspace & (DECODE_PAD - 1));
    plan.packed = plan.q + layout.heads * layout.q_bytes;
    plan.head_floats = (float *)(void *)(plan.packed + layout.heads * layout.packed_bytes);
    plan.task_floats = plan.head_floats + layout.heads * layout.head_floats;
    if (layout.heads * plan.rows * kv->head_dim <= PACK_SERIAL_ELEMENTS)
        for (int64_t group = 0; group < layout.heads; group++) pack_head(&plan, group);
    else
        octavo_parallel(exec, layout.heads, pack_head, &plan);
    return plan;
}

static void plan_enter(const decode_plan *plan)
{
    if (plan->tiles->enter) plan->tiles->enter();
}

static void plan_leave(const decode_plan *plan)
{
    if (plan->tiles->leave) plan->tiles->leave();
}

/* Between rows of softmax: the next data on their way, and the units of the tiles ready. */
static inline void plan_between_rows(const decode_plan *plan, octavo_decode_ahead *ahead, int64_t cycles)
{
    octavo_decode_fetch(ahead, cycles);
    if (plan->tiles->keep_awake) plan->tiles->keep_awake();
}

static decode_head head_open(const decode_plan *plan, int64_t group, int64_t task)
{
    const octavo_decode_input *in = plan->in;
    const octavo_kv_view *kv = plan->kv;
    decode_head of = { .plan = plan, .b = group / kv->kv_heads, .head = group % kv->kv_heads, .group = group };
    of.view_row = octavo_view_row(kv, of.b);
    of.length = kv->lengths[of.view_row];
    of.q = plan_q(plan, group);
    of.codes = (uint8_t *)(plan->task_floats + task * plan->layout.task_floats + plan->layout.codes_at);
    of.sight = octavo_decode_sight_of(kv, of.length, plan->q_tokens, in->window, in->sink_tokens);
    return of;
}

static octavo_unit_view head_sees(const decode_head *of, int64_t unit) { return octavo_decode_sees(&of->sight, unit); }

static void span_locate(const decode_head *of, int64_t token, octavo_decode_span *span)
{
    const octavo_kv_view *kv = of->plan->kv;
    const int64_t block = token / kv->block_tokens, in_block = token - block * kv->block_tokens;
    const int64_t page = octavo_view_page(kv, of->view_row, block);
    for (int32_t plane = 0; plane < octavo_k_plane_count(kv->k_format); plane++) {
        span->k[plane] = octavo_section_at(&kv->k[plane], of->view_row, page, of->head, in_block);
        span->k_stride[plane] = kv->k[plane].token_bytes;
    }
    span->v = octavo_section_at(&kv->v, of->view_row, page, of->head, in_block);
    span->v_stride = kv->v.token_bytes;
    span->page = page;
    span->in_block = in_block;
}

static inline const uint8_t *span_section(const decode_head *of, const octavo_decode_span *span, const octavo_section *section)
{
    return octavo_section_at(section, of->view_row, span->page, of->head, span->in_block);
}

/* The first run of visible tokens in [token, end), all of one block; 0: there is none. */
static int span_next(const decode_head *of, int64_t token, int64_t end, octavo_decode_span *span)
{
    const octavo_span *any = &of->sight.any;
    if (token >= any->sink_end && token < any->near_begin) token = any->near_begin;
    int64_t stop = token < any->sink_end ? any->sink_end : any->end;
    if (stop > end) stop = end;
    if (stop > token + DECODE_TOKENS) stop = token + DECODE_TOKENS;
    if (token >= stop) return 0;
    span->token = token;
    span->tokens = stop - token;
    span_locate(of, token, span);
    return 1;
}

/* The first span of a unit. */
static int span_of_unit(const decode_head *of, int64_t unit, octavo_decode_span *span)
{
    const int64_t sub = of->plan->kv->sub_block_tokens;
    return span_next(of, unit * sub, (unit + 1) * sub, span);
}

static void ahead_add(octavo_decode_ahead *ahead, const uint8_t *at, int64_t stride, int64_t bytes, int64_t rows)
{
    const struct octavo_decode_run apart = { at, stride, bytes, rows }, as_one = { at, 0, bytes * rows, 1 };
    const struct octavo_decode_run run = stride == bytes ? as_one : apart;
    ahead->run[ahead->runs++] = run;
    for (int64_t i = 0; i < run.bytes; i += 4096) __builtin_prefetch(run.at + i, 0, 2); /* finding a page takes longest */
    ahead->lines += (run.bytes + 63) / 64 * run.rows;
}

/* Numbers of a token each: lines of them where they are consecutive. */
static void ahead_add_scales(octavo_decode_ahead *ahead, const decode_head *of, const octavo_decode_span *next,
                             const octavo_section *section, int64_t bytes)
{
    if (section->data && bytes) ahead_add(ahead, span_section(of, next, section), section->token_bytes, bytes, next->tokens);
}

/* Lists what the work on a span should bring nearer: scales, planes and values of the next one, or nothing. *ahead holds what the
 * span before had to do. */
static void ahead_of(const decode_head *of, const octavo_decode_span *next, int32_t planes, int values,
                     octavo_decode_ahead *ahead)
{
    enum { FIRST_GUESS = 3000 };
    const octavo_kv_view *kv = of->plan->kv;
    const int64_t cycles = ahead->work > 0 ? ahead->work : FIRST_GUESS;
    *ahead = (octavo_decode_ahead){ .current = 0 };
    if (!next) return;
    if (planes > 0) ahead_add_scales(ahead, of, next, &kv->k_scale, octavo_k_scale_bytes(kv->k_format));
    if (values) ahead_add_scales(ahead, of, next, &kv->v_scale, octavo_v_scale_bytes(kv->v_format));
    for (int32_t plane = 0; plane < planes; plane++)
        ahead_add(ahead, next->k[plane], next->k_stride[plane], octavo_k_row_bytes(kv->k_format, kv->head_dim), next->tokens);
    if (values) ahead_add(ahead, next->v, next->v_stride, octavo_v_row_bytes(kv->v_format, kv->v_dim), next->tokens);
    ahead->rate = ahead->lines * DECODE_LINE_CREDIT / cycles + 1;
}

/* The first span of a task: nothing was worked on while it could have come. */
static void fetch_first(const decode_head *of, const octavo_decode_span *first, int32_t planes, int values)
{
    octavo_decode_ahead ahead = { .work = 0 };
    ahead_of(of, first, planes, values, &ahead);
    octavo_decode_fetch_rest(&ahead);
}

/* The scales of a span as consecutive bytes: in place where they are, else gathered. */
static const uint8_t *span_scales(const decode_head *of, const octavo_decode_span *span, const octavo_section *section,
                                  int64_t bytes, uint8_t *gathered)
{
    const uint8_t *at = span_section(of, span, section);
    if (section->token_bytes == bytes && span->tokens == DECODE_TOKENS) return at;
    memset(gathered, 0, (size_t)(DECODE_TOKENS * bytes));
    for (int64_t t = 0; t < span->tokens; t++) memcpy(gathered + t * bytes, at + t * section->token_bytes, (size_t)bytes);
    return gathered;
}

/* factors[t] = by * 2^-p or s of token t; [DECODE_TOKENS]. */
static void span_factors(const decode_head *of, const octavo_decode_span *span, const octavo_section *section, int64_t bytes,
                         float by, float *factors)
{
    uint8_t gathered[2 * DECODE_TOKENS];
    const uint8_t *scales = section->data && bytes ? span_scales(of, span, section, bytes, gathered) : NULL;
    for (int64_t t = 0; t < DECODE_TOKENS; t += SIMD_F32) {
        const vf32 scale = !scales ? v_splat(1.0f) : bytes == 1 ? v_load_exp2_minus(scales + t) : v_load_bf16(scales + 2 * t);
        v_store(factors + t, v_mul(scale, v_splat(by)));
    }
}

/* Where rows of K are rounded, the span gets its codes in their place. */
static void span_k_factors(const decode_head *of, octavo_decode_span *span, float *factors)
{
    const octavo_kv_view *kv = of->plan->kv;
    if (of->plan->rounds_k) {
        const octavo_v_format format = kv->k_format == OCTAVO_K_F32 ? OCTAVO_V_F32 : kv->k_format == OCTAVO_K_F16 ? OCTAVO_V_F16 : OCTAVO_V_BF16;
        round_rows(format, span->k[0], span->k_stride[0], span->tokens, kv->head_dim, of->plan->in->softmax_scale, of->codes, factors);
        span->k[0] = of->codes, span->k_stride[0] = kv->head_dim;
        return;
    }
    span_factors(of, span, &kv->k_scale, octavo_k_scale_bytes(kv->k_format), of->plan->in->softmax_scale, factors);
}

/* The same of V. */
static void span_v_factors(const decode_head *of, octavo_decode_span *span, float *factors)
{
    const octavo_kv_view *kv = of->plan->kv;
    if (of->plan->rounds_v) {
        uint8_t *codes = of->codes + (of->plan->rounds_k ? DECODE_TOKENS * (int64_t)kv->head_dim : 0);
        round_rows(kv->v_format, span->v, span->v_stride, span->tokens, kv->v_dim, 1.0f, codes, factors);
        span->v = codes, span->v_stride = kv->v_dim;
        return;
    }
    span_factors(of, span, &kv->v_scale, octavo_v_scale_bytes(kv->v_format), 1.0f, factors);
}

static inline int64_t span_padded(const octavo_decode_span *span) { return octavo_round_up(span->tokens, SIMD_F32); }

/* -inf for tokens that a row does not see, and behind the last one. */
static void span_mask(const decode_head *of, const octavo_decode_span *span, int64_t row, int64_t rows, int whole, float *scores)
{
    const octavo_decode_input *in = of->plan->in;
    const int64_t padded = span_padded(span);
    for (int64_t r = 0; r < rows; r++, scores += DECODE_TOKENS) {
        for (int64_t t = span->tokens; t < padded; t++) scores[t] = -INFINITY;
        if (whole) continue;
        const octavo_span sees =
            octavo_visible_span(of->length, of->plan->q_tokens, (row + r) % of->plan->q_tokens, in->window, in->sink_tokens);
        for (int64_t t = 0; t < span->tokens; t++)
            if (!octavo_span_sees(&sees, span->token + t)) scores[t] = -INFINITY;
    }
}

static inline vf32 score_capped(const octavo_decode_input *in, vf32 score)
{
    if (!(in->soft_cap > 0.0f)) return score;
    return v_mul(v_splat(in->soft_cap), v_tanh(v_mul(score, v_splat(1.0f / in->soft_cap))));
}

/* Scores before the cap and the mask; [rows, DECODE_TOKENS]. */
static void span_raw_scores(const decode_head *of, octavo_decode_dot *dot, const octavo_decode_span *span, const float *factors,
                            int64_t row, int64_t rows, float *scores)
{
    dot(&of->q, row, rows, span, scores);
    const int64_t padded = span_padded(span);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t t = 0; t < padded; t += SIMD_F32) {
            float *at = scores + r * DECODE_TOKENS + t;
            v_store(at, v_mul(v_load(at), v_load(factors + t)));
        }
}

/* The cap and the mask. */
static void span_finish_scores(const decode_head *of, const octavo_decode_span *span, int64_t row, int64_t rows, int whole,
                               float *scores)
{
    const int64_t padded = span_padded(span);
    if (of->plan->in->soft_cap > 0.0f)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t t = 0; t < padded; t += SIMD_F32) {
                float *at = scores + r * DECODE_TOKENS + t;
                v_store(at, score_capped(of->plan->in, v_load(at)));
            }
    span_mask(of, span, row, rows, whole, scores);
}

/* Scores of a span. Where neither cap nor mask changes them they come without their factors, which softmax then multiplies in
 * passing; the factors that are left to do are returned, or NULL. */
static const float *span_scores(const decode_head *of, octavo_decode_dot *dot, const octavo_decode_span *span,
                                const float *factors, int64_t row, int64_t rows, int whole, float *scores)
{
    if (whole && span->tokens == DECODE_TOKENS && !(of->plan->in->soft_cap > 0.0f)) {
        dot(&of->q, row, rows, span, scores);
        return factors;
    }
    span_raw_scores(of, dot, span, factors, row, rows, scores);
    span_finish_scores(of, span, row, rows, whole, scores);
    return NULL;
}

/* ---- softmax, four rows at a time: rows that are missing are the last one once more ---- */

enum { ROW_GROUP = 4 };

static inline int64_t group_of(int64_t rows) { return rows < ROW_GROUP ? rows : ROW_GROUP; }

static inline void rows_at(float *scores, int64_t rows, float *row[ROW_GROUP])
{
    for (int64_t r = 0; r < ROW_GROUP; r++) row[r] = scores + (r < rows ? r : rows - 1) * DECODE_TOKENS;
}

/* Multiplies by the factors that are left, if any, and finds each row's largest score. */
static inline void rows_max(float *const *row, int64_t rows, int64_t padded, const float *factors, float *largest)
{
    vf32 max[ROW_GROUP];
#pragma GCC unroll 4
    for (int r = 0; r < ROW_GROUP; r++) max[r] = v_splat(-INFINITY);
    for (int64_t t = 0; t < padded; t += SIMD_F32) {
        const vf32 factor = factors ? v_load(factors + t) : v_zero();
#pragma GCC unroll 4
        for (int r = 0; r < ROW_GROUP; r++) {
            vf32 score = v_load(row[r] + t);
            if (factors && r < rows) {
                score = v_mul(score, factor);
                v_store(row[r] + t, score);
            }
            max[r] = v_max(max[r], score);
        }
    }
    v_store_maxes4(largest, max[0], max[1], max[2], max[3]);
}

/* Adds up to four rows of a span's scores to each row's running (max, sum of exp(score - max)). */
static inline void rows_add_mass(const decode_plan *plan, octavo_decode_ahead *ahead, float *scores, int64_t rows, int64_t padded,
                                 const float *factors, float *max, float *sum)
{
    float *row[ROW_GROUP], largest[ROW_GROUP], total[ROW_GROUP];
    vf32 from[ROW_GROUP], added[ROW_GROUP];
    rows_at(scores, rows, row);
    plan_between_rows(plan, ahead, ROWS_CYCLES);
    rows_max(row, rows, padded, factors, largest);
    plan_between_rows(plan, ahead, ROWS_CYCLES);
    for (int64_t r = 0; r < rows; r++) {
        if (!(largest[r] > max[r])) continue;
        if (sum[r] > 0.0f) sum[r] *= v_exp_one(max[r] - largest[r]);
        max[r] = largest[r];
    }
#pragma GCC unroll 4
    for (int r = 0; r < ROW_GROUP; r++) {
        const float most = max[r < rows ? r : rows - 1];
        from[r] = v_splat(most == -INFINITY ? 0.0f : most);
        added[r] = v_zero();
    }
    for (int64_t t = 0; t < padded; t += SIMD_F32) {
#pragma GCC unroll 4
        for (int r = 0; r < ROW_GROUP; r++) added[r] = v_add(added[r], v_exp(v_sub(v_load(row[r] + t), from[r])));
        octavo_decode_fetch(ahead, EXP_CYCLES);
    }
    v_store_sums4(total, added[0], added[1], added[2], added[3]);
    for (int64_t r = 0; r < rows; r++) sum[r] += total[r];
    plan_between_rows(plan, ahead, ROWS_CYCLES);
}

#endif
