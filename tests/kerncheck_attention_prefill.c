/* kerncheck_attention_prefill.c - attention of many queries in every precision, under the PREFILL budget. */
#include "budget.h"
#include "kerncheck.h"
#include "kernel/prefill_terms.h"
#include "ref/prefill_operands_ref.h"

enum { DIM_MAX = 512, DEVICE_DIM = 256 };

/* One case: what was drawn, the call, and the operands of one kv head as the reference defines them. */
typedef struct prefill_case {
    kc_decode c;
    octavo_attention_prefill_params p;
    octavo_ref_prefill of;
    int rounds_weights; /* they may become bf16 */
    int coarse_weights; /* or even E4M3, on a GPU, whose sums then have 13 bits */
    int half_weights;   /* or f16 there, which has no range to speak of         */
    int half_sums;      /* or f16 in tiles of 64 keys, and so may be their sums */
    double v_largest, v_off; /* magnitude of all values of the kv head; the most that a code leaves out of one */
} prefill_case;

static const octavo_tensor *q_of(const prefill_case *at) { return &at->p.q; }

static double load_q(const prefill_case *at, int64_t q_head, int64_t i, int64_t d)
{
    return kc_load(q_of(at)->dtype, q_of(at)->data, octavo_ref_prefill_q_at(&at->of, q_head, i) + d);
}

/* ---- the operands: what the reference makes of K and V has to be what the formats promise ---- */

static int check_codes(const char *name, double got, double wanted, double allowed)
{
    if (fabs(got - wanted) <= allowed) return 1;
    return kc_fail("%s of the reference is worth %.9g, expected %.9g within %.3g", name, got, wanted, allowed);
}

/* Half a step of a code: e4m3 relative to the value, down to half its smallest step; int8 absolute. */
static double step_of(const prefill_case *at, double value, double scale)
{
    if (at->p.precision == OCTAVO_ATTENTION_EXACT) return 0x1p-22 * fabs(value) + 0x1p-140;
    if (at->p.precision == OCTAVO_ATTENTION_FP8) return fmax(0x1p-4 * fabs(value), 0x1p-10 * scale) * (1.0 + 0x1p-20);
    return 0.5 * scale * (1.0 + 0x1p-16) + 0x1p-99;
}

/* What a code can stand for: no more than 448 times the scale, where the caller gives the largest magnitude. */
static double held(const prefill_case *at, const float *amax, double value, double scale)
{
    if (!amax || at->p.precision != OCTAVO_ATTENTION_FP8) return value;
    return fmax(-448.0 * scale, fmin(value, 448.0 * scale));
}

static int check_key(const prefill_case *at, int64_t t)
{
    const octavo_kv_view *kv = &at->c.view;
    const octavo_ref_prefill *of = &at->of;
    const int stored = octavo_prefill_takes_k_codes(&at->p);
    double value[DIM_MAX], rotated = 0.0, norm = 0.0, error = 0.0, largest = 0.0;
    kc_decode_k(kv, of->b, of->head, t, octavo_prefill_k_planes(&at->p), value, NULL);
    for (int64_t d = 0; d < kv->head_dim; d++) {
        const double got = (double)of->k[t * kv->head_dim + d] * (double)of->k_scale[t];
        const double wanted = held(at, stored ? NULL : at->p.k_amax, value[d] - (double)of->k_mean[d], (double)of->k_scale[t]);
        const double allowed = stored ? 0x1p-22 * fabs(wanted) + 0x1p-140 : step_of(at, wanted, (double)of->k_scale[t]) + 0x1p-23 * fabs(value[d]);
        norm += value[d] * value[d], rotated += got * got, error += allowed * allowed, largest = fmax(largest, fabs(value[d]));
        if (!octavo_prefill_rotates(&at->p) && !check_codes("k", got, wanted, allowed)) return 0;
    }
    if (!octavo_prefill_rotates(&at->p) || at->p.k_amax) return 1;
    const double least = 0x1p-10 * (double)of->k_scale[t] * sqrt((double)kv->head_dim); /* small ones are rounded to a fixed step */
    return check_codes("the norm of a rotated k", sqrt(rotated), sqrt(norm), 0x1p-4 * sqrt(norm) + least + 0x1p-18 * largest);
}

static int check_value(prefill_case *at, int64_t t)
{
    const octavo_kv_view *kv = &at->c.view;
    const octavo_ref_prefill *of = &at->of;
    const int rounds = octavo_prefill_rounds_v(&at->p);
    double value[DIM_MAX];
    kc_decode_v(kv, of->b, of->head, t, value);
    for (int64_t d = 0; d < kv->v_dim; d++) {
        const double got = (double)of->v[t * kv->v_dim + d] * (double)of->v_scale[d], wanted = value[d] - (double)of->v_mean[d];
        at->v_largest = fmax(at->v_largest, fabs(got)), at->v_off = fmax(at->v_off, fabs(got - wanted));
        const double coarse = fmax(0x1p-4 * fabs(wanted), at->p.precision == OCTAVO_ATTENTION_SAGE2 ? 0x1p-10 * (double)of->v_scale[d] : 0.0);
        /* a block's smallest step is unknown here: its largest value is at least this one, and a power of two below 448 / amax */
        const double allowed = rounds ? coarse * (1.0 + 0x1p-18) : 0x1p-22 * fabs(wanted);
        const double block = rounds && at->p.precision == OCTAVO_ATTENTION_FP8 ? INFINITY : 0.0;
        if (fabs(got - wanted) > allowed + 0x1p-22 * fabs(value[d]) + 0x1p-99 && block == 0.0)
            return check_codes("v", got, wanted, allowed);
        if (block > 0.0 && !check_codes("v", got, wanted, fmax(allowed, fabs(wanted) + 0x1p-99))) return 0;
    }
    return 1;
}

static int check_query(const prefill_case *at, int64_t q_head, int64_t i)
{
    const octavo_ref_prefill *of = &at->of;
    const int64_t dim = at->c.view.head_dim;
    for (int64_t d = 0; d < dim && !octavo_prefill_rotates(&at->p); d++) {
        const double scale = (double)of->q_scale[i], wanted = held(at, at->p.q_amax, load_q(at, q_head, i, d), scale);
        if (!check_codes("q", (double)of->q[i * dim + d] * scale, wanted, step_of(at, wanted, scale) + 0x1p-23 * fabs(wanted))) return 0;
    }
    return 1;
}

/* ---- the budget ---- */

/* A row of the result, in float64, and what may be off. */
typedef struct prefill_row {
    double *score, *error; /* [max_tokens] */
    double shift, shift_error;
    double most, mass, mass_error, keys, terms, largest;
    double rest_error; /* of the mean of what V's codes leave out, in units of the most that one does */
    double out[DIM_MAX], size[DIM_MAX], size_error[DIM_MAX];
} prefill_row;

static void score_row(const prefill_case *at, prefill_row *row, int64_t q_head, int64_t i)
{
    const octavo_ref_prefill *of = &at->of;
    const octavo_prefill_params *p = &at->p;
    const int64_t dim = p->kv->head_dim, view_row = octavo_view_row(p->kv, of->b);
    const double scale = (double)p->softmax_scale, cap = (double)p->soft_cap;
    const octavo_span span = octavo_prefill_span(p, of->b, i);
    const int in_terms = p->precision == OCTAVO_ATTENTION_EXACT && at->rounds_weights;
    const double coarse = at->coarse_weights && p->precision == OCTAVO_ATTENTION_FP8 ? BUDGET_E4M3_SUMS : 0.0; /* sums of INT8 are exact */
    row->most = -INFINITY;
    for (int64_t t = 0; t < span.end; t++) {
        if (!octavo_span_sees(&span, t)) continue;
        double sum = 0.0, weight = 0.0;
        for (int64_t d = 0; d < dim; d++) {
            const double product = (double)of->q[i * dim + d] * (double)of->k[t * dim + d];
            sum += product, weight += fabs(product);
        }
        const double factor = scale * (double)of->q_scale[i] * (double)of->k_scale[t];
        sum *= factor, weight *= fabs(factor);
        row->score[t] = cap > 0.0 ? cap * tanh(sum / cap) : sum;
        row->error[t] = budget_score((double)dim, weight, 0.0, cap) + (in_terms ? BUDGET_TERMS * weight : 0.0) + coarse * weight;
        row->most = fmax(row->most, row->score[t]);
    }
    row->shift = 0.0;
    double size = 0.0;
    for (int64_t d = 0; d < dim; d++) {
        const double stored = p->kv->k_mean ? (double)p->kv->k_mean[(view_row * p->kv->kv_heads + of->head) * dim + d] : 0.0;
        row->shift += load_q(at, q_head, i, d) * ((double)of->k_mean[d] + stored) * scale;
        size += fabs(load_q(at, q_head, i, d) * scale) * (fabs((double)of->k_mean[d]) + fabs(stored));
    }
    row->shift_error = budget_gamma((double)dim + BUDGET_SLACK) * size;
}

/* Relative error of a weight before it is rounded. */
static double weight_error(const prefill_case *at, const prefill_row *row, double x, double error)
{
    return budget_weight(error, row->most - x) + (at->rounds_weights ? BUDGET_EXP18 : 0.0);
}

static void weigh(const prefill_case *at, prefill_row *row, double x, double error)
{
    const double weight = exp(x - row->most);
    row->mass += weight, row->mass_error += weight * weight_error(at, row, x, error), row->terms += 1.0;
}

/* Sums of a row. `whole` also counts the sink. */
static void sum_row(const prefill_case *at, prefill_row *row, int64_t q_head, int64_t i)
{
    const octavo_ref_prefill *of = &at->of;
    const octavo_prefill_params *p = &at->p;
    const int64_t dim = p->kv->v_dim;
    const octavo_span span = octavo_prefill_span(p, of->b, i), blocks = octavo_prefill_blocks_of(span);
    const int64_t rest_keys = octavo_prefill_blocks_seen(&blocks, &of->seen);
    const int coarse_v = p->precision == OCTAVO_ATTENTION_SAGE1 && (p->kv->v_format == OCTAVO_V_F16 || p->kv->v_format == OCTAVO_V_F32);
    const double bf16 = at->rounds_weights ? BUDGET_P_BF16 + (coarse_v ? BUDGET_P_BF16 : 0.0) : 0.0;
    const double rounding = at->coarse_weights ? BUDGET_P_E4M3 + BUDGET_E4M3_SUMS : at->half_sums ? bf16 + BUDGET_F16_SUMS : bf16;
    const double faint = at->half_sums ? BUDGET_F16_TILE : at->half_weights ? BUDGET_F16_FAINT : 0.0;
    const double sink = p->sink_logits && row->most > -INFINITY ? (double)p->sink_logits[q_head] - row->shift : -INFINITY;
    row->mass = row->mass_error = row->terms = row->largest = 0.0;
    row->most = fmax(row->most, sink);
    for (int64_t d = 0; d < dim; d++) row->out[d] = row->size[d] = row->size_error[d] = 0.0;
    for (int64_t t = 0; t < span.end; t++) {
        if (!octavo_span_sees(&span, t)) continue;
        weigh(at, row, row->score[t], row->error[t]);
        const double weight = exp(row->score[t] - row->most), relative = weight_error(at, row, row->score[t], row->error[t]);
        for (int64_t d = 0; d < dim; d++) {
            const double value = (double)of->v[t * dim + d] * (double)of->v_scale[d], mean = (double)of->v_mean[d];
            row->out[d] += weight * (value + mean), row->size[d] += weight * (fabs(value) + fabs(mean));
            row->size_error[d] += weight * (fabs(value) * (relative + rounding) + fabs(mean) * relative) + faint * fabs(value);
            row->largest = fmax(row->largest, fabs(value));
        }
    }
    if (at->coarse_weights) /* the mass may be that of the codes, of which those of a block may be 2^3 coarser than another's of its tile */
        row->mass_error += row->mass * (BUDGET_P_E4M3 + BUDGET_E4M3_SUMS) + row->terms * 8.0 * BUDGET_E4M3_FAINT;
    row->keys = row->mass;
    for (int64_t d = 0; d < dim && row->keys > 0.0; d++) {
        const double rest = octavo_ref_prefill_rest(of, &blocks, d) * (double)of->v_scale[d];
        row->out[d] += row->keys * rest, row->size[d] += row->keys * fabs(rest), row->size_error[d] += row->mass_error * fabs(rest);
    }
    /* sums of a block's and of all blocks before, of which there are three at most */
    row->rest_error = rest_keys > 0 ? 3.0 * budget_gamma(OCTAVO_PREFILL_BLOCK + BUDGET_SLACK) *
                                          (double)(blocks.end * OCTAVO_PREFILL_BLOCK) / (double)rest_keys : 0.0;
    if (sink > -INFINITY) weigh(at, row, sink, row->shift_error);
}

static double output_budget(const prefill_case *at, const prefill_row *row, int64_t d, octavo_dtype dtype)
{
    const double unit = dtype == OCTAVO_F32 ? BUDGET_U : dtype == OCTAVO_F16 ? 0x1p-11 : 0x1p-8;
    const double out = row->mass > 0.0 ? fabs(row->out[d] / row->mass) : 0.0, size = row->mass > 0.0 ? row->size[d] / row->mass : 0.0;
    const double relative = row->mass > 0.0 ? row->mass_error / row->mass : 0.0, sums = budget_gamma(row->terms + 2 * BUDGET_SLACK);
    const double rest = octavo_prefill_rounds_v(&at->p) ? row->rest_error * fmax(BUDGET_P_E4M3 * at->v_largest, at->v_off) : 0.0;
    const double first = (row->mass > 0.0 ? row->size_error[d] / row->mass : 0.0) + out * relative + sums * (size + out) + rest;
    const double e4m3 = at->coarse_weights ? 2.0 * BUDGET_E4M3_FAINT * row->largest : 0.0; /* of twice its block's scale */
    const double f16 = at->half_sums ? BUDGET_F16_LEAST * at->v_largest : 0.0, least = row->mass > 0.0 ? (e4m3 + f16) / row->mass : 0.0;
    const double faint = (BUDGET_FAINT * (1.0 + row->largest) + least) * row->terms, tiny = dtype == OCTAVO_F16 ? 0x1p-24 : 0x1p-120;
    return first * (1.0 + 2.0 * relative) + faint + tiny + 2.0 * unit * (out + first);
}

static int check_row(prefill_case *at, prefill_row *row, int64_t q_head, int64_t i)
{
    const octavo_prefill_params *p = &at->p;
    const octavo_tensor *out = &p->out;
    const int64_t to = at->of.b * out->strides[0] + i * out->strides[1] + q_head * out->strides[2];
    score_row(at, row, q_head, i);
    sum_row(at, row, q_head, i);
    for (int64_t d = 0; d < p->kv->v_dim; d++) {
        const double exact = row->mass > 0.0 ? row->out[d] / row->mass : 0.0, budget = output_budget(at, row, d, out->dtype);
        const double wanted = kc_load(out->dtype, kc_want(out->data), to + d);
        if (!(fabs(wanted - exact) <= budget) && fabs(exact) < 60000.0)
            return kc_fail("out of the reference is %.9g at head %lld, query %lld, by definition %.9g", wanted, (long long)q_head, (long long)i,
                           exact);
        if (!kc_close_tensor("out", out, to + d, budget)) return 0;
    }
    if (!p->lse) return 1;
    const int64_t flat = (at->of.b * p->q.shape[2] + q_head) * p->q.shape[1] + i;
    const double error = row->mass > 0.0 ? row->mass_error / row->mass : 0.0, most = row->mass > 0.0 ? row->most : 0.0;
    const double budget = budget_log_sum(row->terms, error, most) + row->shift_error + 2.0 * BUDGET_U * fabs((double)p->lse[flat]);
    return kc_close("lse", p->lse, flat, budget);
}

/* ---- the case ---- */

static void place_operands(prefill_case *at)
{
    const octavo_kv_view *kv = &at->c.view;
    at->of = (octavo_ref_prefill){ .p = &at->p };
#define PLACE(member, count) at->of.member = kc_scratch((count) * (int64_t)sizeof *at->of.member)
    PLACE(k, kv->max_tokens * kv->head_dim), PLACE(k_scale, kv->max_tokens), PLACE(v, kv->max_tokens * kv->v_dim), PLACE(v_scale, kv->v_dim);
    PLACE(k_mean, kv->head_dim), PLACE(v_mean, kv->v_dim), PLACE(v_rest, (kv->max_tokens / OCTAVO_PREFILL_BLOCK + 1) * kv->v_dim);
    PLACE(q, at->p.q.shape[1] * kv->head_dim), PLACE(q_scale, at->p.q.shape[1]);
#undef PLACE
}

static int compare(prefill_case *at)
{
    static prefill_row row;
    const octavo_kv_view *kv = &at->c.view;
    octavo_ref_prefill *of = &at->of;
    place_operands(at);
    row.score = kc_scratch(kv->max_tokens * (int64_t)sizeof(double)), row.error = kc_scratch(kv->max_tokens * (int64_t)sizeof(double));
    octavo_ref_prefill_find_most(of);
    for (int64_t flat = 0; flat < kv->batch * kv->kv_heads; flat++) {
        octavo_ref_prefill_enter(of, flat / kv->kv_heads, flat % kv->kv_heads);
        octavo_ref_prefill_k(of), octavo_ref_prefill_v(of);
        at->v_largest = at->v_off = 0.0;
        for (int64_t t = 0; t < of->seen.end; t++)
            if (octavo_span_sees(&of->seen, t) && (!check_key(at, t) || !check_value(at, t))) return 0;
        for (int64_t q_head = of->head * at->c.group; q_head < (of->head + 1) * at->c.group; q_head++) {
            octavo_ref_prefill_q(of, q_head);
            for (int64_t i = 0; i < of->queries; i++)
                if (!check_query(at, q_head, i) || !check_row(at, &row, q_head, i)) return 0;
        }
    }
    return kc_finish();
}

static void draw_flags(prefill_case *at, int device)
{
    octavo_attention_prefill_params *p = &at->p;
    const int32_t dim = at->c.view.head_dim;
    p->precision = (octavo_attention_precision)kc_between(OCTAVO_ATTENTION_EXACT, OCTAVO_ATTENTION_SAGE2);
    if (at->c.tiled && p->precision == OCTAVO_ATTENTION_SAGE1 && kc_chance(60)) p->precision = OCTAVO_ATTENTION_EXACT;
    p->scales = (octavo_prefill_scales)kc_between(OCTAVO_PREFILL_PER_BLOCK, OCTAVO_PREFILL_PER_TENSOR);
    if (kc_chance(30) || p->soft_cap > 0.0f) p->flags |= OCTAVO_PREFILL_NO_SMOOTH;
    if (kc_chance(40)) p->flags |= OCTAVO_PREFILL_SMOOTH_V;
    if (kc_chance(40) && !(dim & (dim - 1))) p->flags |= OCTAVO_PREFILL_ROTATE;
    if (kc_chance(40)) p->flags |= OCTAVO_PREFILL_F16_SUMS;
    if (device && (dim > DEVICE_DIM || at->c.view.v_dim > DEVICE_DIM)) p->precision = OCTAVO_ATTENTION_EXACT; /* what there is */
}

/* Largest magnitudes as a caller knows them: too small for some elements, too large for others. */
static const float *draw_amax(const char *name, const prefill_case *at, int64_t heads)
{
    if (kc_chance(50)) return NULL;
    const int64_t count = at->p.scales == OCTAVO_PREFILL_PER_HEAD ? heads : 1;
    float *amax = kc_array(name, OCTAVO_F32, count);
    for (int64_t i = 0; i < count; i++) amax[i] = kc_chance(5) ? 0.0f : ldexpf((float)kc_uniform(1.0, 2.0), (int)kc_between(-2, 4));
    return amax;
}

static void draw_scales(prefill_case *at)
{
    octavo_attention_prefill_params *p = &at->p;
    if (p->precision != OCTAVO_ATTENTION_FP8) return;
    if (!octavo_prefill_scales_whole(p)) p->scales = OCTAVO_PREFILL_PER_BLOCK; /* what there is */
    if (p->scales == OCTAVO_PREFILL_PER_BLOCK || kc_chance(60)) return;
    p->q_amax = draw_amax("q_amax", at, at->c.q_heads);
    p->k_amax = draw_amax("k_amax", at, at->c.view.kv_heads);
    p->v_amax = draw_amax("v_amax", at, at->c.view.kv_heads);
}

static void draw_lengths(prefill_case *at)
{
    const octavo_kv_view *kv = &at->c.view;
    if (kc_chance(30)) return; /* rows that see nothing, where a sequence has fewer keys than queries */
    int32_t *lengths = kc_array("q_lengths", OCTAVO_INT32, kv->batch);
    for (int64_t b = 0; b < kv->batch; b++) {
        const int64_t keys = kv->lengths[octavo_view_row(kv, b)], most = at->p.mask == OCTAVO_MASK_CAUSAL && keys < at->c.q_tokens ? keys : at->c.q_tokens;
        lengths[b] = (int32_t)(kc_chance(40) ? most : kc_between(0, most));
    }
    at->p.q_lengths = lengths;
}

static void draw_means(prefill_case *at)
{
    octavo_kv_view *kv = &at->c.view;
    const int64_t count = at->c.view_rows * kv->kv_heads * kv->head_dim;
    float *mean = kc_array("k_mean", OCTAVO_F32, count);
    for (int64_t i = 0; i < count; i++) mean[i] = kc_normal();
    kv->k_mean = mean;
}

static void set_bench(prefill_case *at)
{
    at->c.view.k_format = OCTAVO_K_E4M3X2;
    at->p.precision = OCTAVO_ATTENTION_EXACT, at->p.flags = 0;
    at->p.q_amax = at->p.k_amax = at->p.v_amax = NULL;
}

int kc_check_attention_prefill(const kc_pair *pair)
{
    static const octavo_dtype dtypes[] = { OCTAVO_F32, OCTAVO_F16, OCTAVO_BF16 };
    prefill_case at = { .p = { .struct_size = sizeof at.p } };
    octavo_attention_prefill_params *p = &at.p;
    kc_draw_decode(&at.c, pair, KC_LONG_Q);
    const kc_decode *c = &at.c;
    p->q = c->in.q, p->kv = &c->view, p->softmax_scale = c->in.softmax_scale, p->soft_cap = c->in.soft_cap;
    p->window = c->in.window, p->sink_tokens = c->in.sink_tokens;
    p->mask = kc_chance(70) ? OCTAVO_MASK_CAUSAL : OCTAVO_MASK_FULL;
    if (c->tiled && kc_chance(15)) p->soft_cap = (float)kc_uniform(0.5, 60.0);
    draw_flags(&at, pair->device);
    draw_scales(&at);
    draw_lengths(&at);
    if (kc_chance(c->tiled ? 4 : 20)) p->softmax_scale = -p->softmax_scale;
    if (kc_chance(c->tiled ? 5 : 15) && p->soft_cap == 0.0f) draw_means(&at);
    if (kc_chance(30)) {
        float *sinks = kc_array("sink_logits", OCTAVO_F32, c->q_heads);
        for (int64_t h = 0; h < c->q_heads; h++) sinks[h] = 4.0f * kc_normal();
        p->sink_logits = sinks;
    }
    const int64_t shape[] = { c->view.batch, c->q_tokens, c->q_heads, c->view.v_dim };
    p->out = kc_tensor("out", KC_PICK(dtypes), 4, shape);
    if (kc_chance(70)) p->lse = kc_array("lse", OCTAVO_F32, c->view.batch * c->q_heads * c->q_tokens);
    if (pair->bench) set_bench(&at);
    at.rounds_weights = p->precision != OCTAVO_ATTENTION_EXACT || (c->view.k_format != OCTAVO_K_F32 && c->view.v_format != OCTAVO_V_F32);
    at.coarse_weights = pair->device && (p->precision == OCTAVO_ATTENTION_FP8 || p->precision == OCTAVO_ATTENTION_SAGE2);
    at.half_weights = pair->device && c->view.v_format == OCTAVO_V_F16 && (p->precision == OCTAVO_ATTENTION_EXACT || p->precision == OCTAVO_ATTENTION_SAGE1);
    at.half_sums = pair->device && octavo_prefill_sums_f16(p);
    kc_describe(" %s scales=%s%s%s%s flags=%u %s%s%s", octavo_attention_precision_name(p->precision), octavo_prefill_scales_name(p->scales),
                p->q_amax ? " q_amax" : "", p->k_amax ? " k_amax" : "", p->v_amax ? " v_amax" : "", p->flags,
                p->mask == OCTAVO_MASK_FULL ? "full" : "causal", p->sink_logits ? " sink logits" : "", c->view.k_mean ? " k_mean" : "");
    const size_t bytes = octavo_attention_prefill_kernel_workspace(p), gpu = octavo_prefill_gpu_workspace(p);
    const kc_outcome outcome = kc_run(pair, KC_attention_prefill, p, pair->device && gpu > bytes ? gpu : bytes);
    if (outcome != KC_COMPARE) return outcome == KC_SETTLED;
    return compare(&at);
}
