/* kerncheck_faults.c - real kernels with one fault each, which the checks have to catch. */
#include "device/levels.h"
#include "format/bf16.h"
#include "kerncheck.h"

#include <stdio.h>

static octavo_kernels real; /* the strongest levels' */

/* ---- rounding ---- */

/* Codes of int8 towards zero instead of to the nearest. */
static octavo_status quantize_truncates(const octavo_exec *exec, const octavo_quantize_params *p)
{
    const octavo_status status = real.quantize(exec, p);
    if (status != OCTAVO_OK || p->codes.dtype != OCTAVO_INT8 || p->granularity != OCTAVO_PER_TENSOR) return status;
    for (int64_t r = 0; r < p->x.shape[0]; r++)
        for (int64_t c = 0; c < p->x.shape[1]; c++) {
            const float x = (float)kc_load(p->x.dtype, p->x.data, r * p->x.strides[0] + c) / p->scales[0];
            ((int8_t *)p->codes.data)[r * p->codes.strides[0] + c] = (int8_t)fmaxf(-127.0f, fminf(x, 127.0f));
        }
    return status;
}

enum { Q_MAX = 1 << 16 };

/* A float32 query goes through bf16. */
static octavo_status block_score_rounds_q(const octavo_exec *exec, const octavo_block_score_params *p)
{
    static float rounded[Q_MAX];
    octavo_block_score_params other = *p;
    const octavo_tensor *q = &p->in.q;
    if (q->dtype != OCTAVO_F32 || octavo_row_elements(&p->in) * q->shape[3] > Q_MAX) return real.block_score(exec, p);
    other.in.q = octavo_tensor_view(rounded, OCTAVO_F32, 4, q->shape);
    const int64_t *to = other.in.q.strides;
    for (int64_t b = 0; b < q->shape[0]; b++)
        for (int64_t i = 0; i < q->shape[1]; i++)
            for (int64_t h = 0; h < q->shape[2]; h++)
                for (int64_t d = 0; d < q->shape[3]; d++) {
                    const float x = ((const float *)q->data)[b * q->strides[0] + i * q->strides[1] + h * q->strides[2] + d];
                    rounded[b * to[0] + i * to[1] + h * to[2] + d] = octavo_bf16_to_float(octavo_bf16_from_float(x));
                }
    return real.block_score(exec, &other);
}

/* FP8 leaves everything as it is. */
static octavo_status block_score_stays_exact(const octavo_exec *exec, const octavo_block_score_params *p)
{
    octavo_block_score_params other = *p;
    other.in.precision = OCTAVO_ATTENTION_EXACT;
    return real.block_score(exec, &other);
}

/* FP8 over a cache of 16 bits rounds keys, but not values. */
static octavo_status block_attend_keeps_values(const octavo_exec *exec, const octavo_block_attend_params *p)
{
    octavo_block_attend_params other = *p;
    if (octavo_decode_rounds_v(p->in.precision, p->in.kv->v_format) && p->scores) other.in.precision = OCTAVO_ATTENTION_EXACT;
    return real.block_attend(exec, &other);
}

static int64_t parts_of(const octavo_block_attend_params *p) { return octavo_row_elements(&p->in) * p->splits; }

static octavo_status block_attend_rounds(const octavo_exec *exec, const octavo_block_attend_params *p)
{
    const octavo_status status = real.block_attend(exec, p);
    for (int64_t i = 0; i < parts_of(p) * p->in.kv->v_dim; i++)
        p->part_out[i] = octavo_bf16_to_float(octavo_bf16_from_float(p->part_out[i]));
    return status;
}

/* ---- strides ---- */

/* Rows of the base are taken to be dense. */
static octavo_status block_score_packs_rows(const octavo_exec *exec, const octavo_block_score_params *p)
{
    octavo_kv_view view = *p->in.kv;
    octavo_block_score_params other = *p;
    view.k[0].token_bytes = octavo_k_row_bytes(view.k_format, view.head_dim);
    other.in.kv = &view;
    return real.block_score(exec, &other);
}

/* The output is taken to be contiguous, whatever its strides. */
static octavo_status partial_merge_packs_rows(const octavo_exec *exec, const octavo_partial_merge_params *p)
{
    octavo_partial_merge_params other = *p;
    other.out.strides[2] = p->v_dim, other.out.strides[1] = p->v_dim * p->out.shape[2];
    other.out.strides[0] = other.out.strides[1] * p->out.shape[1];
    return real.partial_merge(exec, &other);
}

/* ---- masks ---- */

/* One token less; one more could lie in a page that is gone. */
static octavo_status block_attend_narrows_window(const octavo_exec *exec, const octavo_block_attend_params *p)
{
    octavo_block_attend_params other = *p;
    if (p->in.window > 1) other.in.window--;
    return real.block_attend(exec, &other);
}

static octavo_status decode_fused_forgets_sinks(const octavo_exec *exec, const octavo_decode_fused_params *p)
{
    octavo_decode_fused_params other = *p;
    other.in.sink_tokens = 0;
    return real.decode_fused(exec, &other);
}

/* Drops the unit of the newest token. */
static octavo_status block_select_drops_newest(const octavo_exec *exec, const octavo_block_select_params *p)
{
    const octavo_status status = real.block_select(exec, p);
    const int64_t length = p->kv->lengths[octavo_view_row(p->kv, 0)];
    if (length > 0) p->kept[(length - 1) / p->kv->sub_block_tokens] = OCTAVO_UNIT_DROPPED;
    return status;
}

/* ---- NaN ---- */

static octavo_status quantize_takes_nan(const octavo_exec *exec, const octavo_quantize_params *p)
{
    real.quantize(exec, p);
    return OCTAVO_OK;
}

/* 0 / 0 where a row sees no key. */
static octavo_status partial_merge_divides(const octavo_exec *exec, const octavo_partial_merge_params *p)
{
    const octavo_status status = real.partial_merge(exec, p);
    const int64_t rows = p->group * p->q_tokens;
    for (int64_t flat = 0; flat < octavo_merge_rows(p); flat++) {
        float most = -INFINITY;
        for (int64_t s = 0; s < p->splits; s++) most = fmaxf(most, p->part_lse[flat * p->splits + s]);
        const int64_t at = kc_q_row(&p->out, p->group, flat / rows / p->kv_heads, flat / rows % p->kv_heads, flat % rows);
        if (most == -INFINITY) kc_store(p->out.dtype, p->out.data, at, NAN);
    }
    return status;
}

/* -inf minus -inf where a row sees nothing of a unit. */
static octavo_status block_score_subtracts(const octavo_exec *exec, const octavo_block_score_params *p)
{
    const octavo_status status = real.block_score(exec, p);
    for (int64_t i = 0; i < octavo_row_elements(&p->in) * octavo_view_units(p->in.kv) && !p->only; i++)
        if (isinf(p->log_mass[i])) p->log_mass[i] = NAN;
    return status;
}

/* ---- overflow ---- */

/* exp() of a logit as it is, without the largest taken off. */
static octavo_status partial_merge_overflows(const octavo_exec *exec, const octavo_partial_merge_params *p)
{
    const octavo_status status = real.partial_merge(exec, p);
    float whole = 0.0f;
    for (int64_t s = 0; s < p->splits; s++) whole += expf(p->part_lse[s]);
    for (int64_t i = 0; i < p->v_dim && !p->sink_logits; i++) {
        float sum = 0.0f;
        for (int64_t s = 0; s < p->splits; s++) sum += expf(p->part_lse[s]) * p->part_out[s * p->v_dim + i];
        kc_store(p->out.dtype, p->out.data, i, whole > 0.0f ? sum / whole : 0.0f);
    }
    return status;
}

static octavo_status block_attend_overflows(const octavo_exec *exec, const octavo_block_attend_params *p)
{
    const octavo_status status = real.block_attend(exec, p);
    for (int64_t i = 0; i < parts_of(p) * p->in.kv->v_dim; i++)
        if (p->part_lse[i / p->in.kv->v_dim] > 88.7f) p->part_out[i] = NAN; /* exp is Inf there, Inf / Inf */
    return status;
}

/* int8 codes wrap around instead of saturating. */
static octavo_status quantize_wraps(const octavo_exec *exec, const octavo_quantize_params *p)
{
    const octavo_status status = real.quantize(exec, p);
    if (status != OCTAVO_OK || p->codes.dtype != OCTAVO_INT8 || p->granularity != OCTAVO_PER_TENSOR) return status;
    for (int64_t r = 0; r < p->x.shape[0]; r++)
        for (int64_t c = 0; c < p->x.shape[1]; c++) {
            const float x = rintf((float)kc_load(p->x.dtype, p->x.data, r * p->x.strides[0] + c) / p->scales[0]);
            if (fabsf(x) < 1e9f) ((uint8_t *)p->codes.data)[r * p->codes.strides[0] + c] = (uint8_t)((int32_t)x & 255);
        }
    return status;
}

/* ---- others ---- */

/* One element past the end of an output; the sanitizer, which would stop here, is not what is tested. */
__attribute__((no_sanitize_address)) static octavo_status block_score_writes_on(const octavo_exec *exec,
                                                                                const octavo_block_score_params *p)
{
    const octavo_status status = real.block_score(exec, p);
    ((volatile float *)p->log_mass)[octavo_row_elements(&p->in) * octavo_view_units(p->in.kv)] = 0.0f;
    return status;
}

/* The bound forgets what the residual may add. */
static octavo_status block_score_forgets_residual(const octavo_exec *exec, const octavo_block_score_params *p)
{
    const octavo_status status = real.block_score(exec, p);
    for (int64_t i = 0; i < octavo_row_elements(&p->in) * octavo_view_units(p->in.kv) && p->log_upper && !p->only; i++)
        p->log_upper[i] = p->log_mass[i];
    return status;
}

/* Sums in the order in which tasks happen to run. */
static octavo_status block_attend_depends_on_order(const octavo_exec *exec, const octavo_block_attend_params *p)
{
    const octavo_status status = real.block_attend(exec, p);
    if (exec->parallel_for) p->part_out[0] = nextafterf(p->part_out[0], INFINITY);
    return status;
}

static octavo_status dequantize_writes_inputs(const octavo_exec *exec, const octavo_dequantize_params *p)
{
    const octavo_status status = real.dequantize(exec, p);
    ((uint8_t *)p->codes.data)[0] ^= 1;
    return status;
}

/* ---- between the products ---- */

static octavo_status norm_rounds(const octavo_exec *exec, const octavo_norm_params *p)
{
    const octavo_status status = real.norm(exec, p);
    float *y = p->y.data;
    for (int64_t i = 0; i < p->y.shape[p->y.ndim - 1] && p->y.dtype == OCTAVO_F32; i++)
        y[i] = octavo_bf16_to_float(octavo_bf16_from_float(y[i]));
    return status;
}

/* The sum of squares of a row overflows. */
static octavo_status norm_overflows(const octavo_exec *exec, const octavo_norm_params *p)
{
    float sum = 0.0f;
    for (int64_t i = 0; i < octavo_norm_width(p); i++) {
        const float x = (float)kc_load(p->x.dtype, p->x.data, i);
        sum += x * x;
    }
    const octavo_status status = real.norm(exec, p);
    for (int64_t i = 0; i < octavo_norm_width(p) && isinf(sum); i++) kc_store(p->y.dtype, p->y.data, i, 0.0f);
    return status;
}

/* Rows of y are taken to be dense. */
static octavo_status norm_packs_rows(const octavo_exec *exec, const octavo_norm_params *p)
{
    octavo_norm_params other = *p;
    if (p->y.data != p->x.data && p->x.ndim == 2) other.y.strides[0] = p->y.shape[1];
    return real.norm(exec, &other);
}

static octavo_status activate_takes_tanh(const octavo_exec *exec, const octavo_activate_params *p)
{
    octavo_activate_params other = *p;
    if (p->activation == OCTAVO_ACTIVATION_GELU) other.activation = OCTAVO_ACTIVATION_GELU_TANH;
    return real.activate(exec, &other);
}

/* x exp(x) / (1 + exp(x)), which is Inf / Inf far out. */
static octavo_status activate_overflows(const octavo_exec *exec, const octavo_activate_params *p)
{
    const float x = (float)kc_load(p->gate.dtype, p->gate.data, 0), e = expf(x);
    const octavo_status status = real.activate(exec, p);
    if (p->activation == OCTAVO_ACTIVATION_SILU && isnan(x * e / (1.0f + e))) kc_store(p->y.dtype, p->y.data, 0, NAN);
    return status;
}

/* Of two equal logits the later one comes first. */
static octavo_status route_reverses_ties(const octavo_exec *exec, const octavo_route_params *p)
{
    const octavo_status status = real.route(exec, p);
    const float *logits = p->logits.data;
    const int32_t first = p->experts[0];
    if (p->choices < 2 || logits[first] != logits[p->experts[1]]) return status;
    p->experts[0] = p->experts[1], p->experts[1] = first;
    return status;
}

static octavo_status route_shares_of_all(const octavo_exec *exec, const octavo_route_params *p)
{
    octavo_route_params other = *p;
    other.weighting = OCTAVO_ROUTE_SOFTMAX;
    return real.route(exec, &other);
}

/* An expert's tokens from the last to the first. */
static octavo_status route_descends(const octavo_exec *exec, const octavo_route_params *p)
{
    const octavo_status status = real.route(exec, p);
    for (int32_t low = p->offsets[0], high = p->offsets[1] - 1; low < high; low++, high--) {
        const int32_t token = p->order[low];
        p->order[low] = p->order[high], p->order[high] = token;
    }
    return status;
}

enum { SAMPLE_ROWS = 64 };

static octavo_status sample_otherwise(const octavo_exec *exec, const octavo_sample_params *p, int32_t more_top_k, float top_p, float min_p)
{
    octavo_sample_row rows[SAMPLE_ROWS];
    octavo_sample_params other = *p;
    if (p->logits.shape[0] > SAMPLE_ROWS) return real.sample(exec, p);
    for (int64_t r = 0; r < p->logits.shape[0]; r++) {
        rows[r] = p->rows[r];
        if (rows[r].top_k > 0) rows[r].top_k += more_top_k;
        rows[r].top_p *= top_p, rows[r].min_p *= min_p;
    }
    other.rows = rows;
    return real.sample(exec, &other);
}

static octavo_status sample_keeps_one_more(const octavo_exec *exec, const octavo_sample_params *p) { return sample_otherwise(exec, p, 1, 1.0f, 1.0f); }
static octavo_status sample_forgets_top_p(const octavo_exec *exec, const octavo_sample_params *p) { return sample_otherwise(exec, p, 0, 0.0f, 1.0f); }
static octavo_status sample_forgets_min_p(const octavo_exec *exec, const octavo_sample_params *p) { return sample_otherwise(exec, p, 0, 1.0f, 0.0f); }

static octavo_status sample_takes_nan(const octavo_exec *exec, const octavo_sample_params *p)
{
    real.sample(exec, p);
    return OCTAVO_OK;
}

/* The log-probability before the filters. */
static octavo_status sample_does_not_renormalise(const octavo_exec *exec, const octavo_sample_params *p)
{
    const octavo_status status = real.sample(exec, p);
    if (status == OCTAVO_OK && p->sampled_logprob && p->logprob && p->rows[0].temperature == 1.0f) p->sampled_logprob[0] = p->logprob[0];
    return status;
}

/* The id after the one that was drawn, where that is as likely. */
static octavo_status sample_reverses_ties(const octavo_exec *exec, const octavo_sample_params *p)
{
    const octavo_status status = real.sample(exec, p);
    const float *logits = p->logits.data;
    if (status != OCTAVO_OK || p->rows[0].temperature != 0.0f) return status;
    for (int32_t i = p->tokens[0]; i < p->logits.shape[1]; i++)
        if (logits[i] == logits[p->tokens[0]]) p->tokens[0] = i;
    return status;
}

/* ---- linear layers ---- */

/* x goes through bf16 where nothing may be rounded. */
static octavo_status linear_rounds_x(const octavo_exec *exec, const octavo_linear_params *p)
{
    octavo_linear_params other = *p;
    if (other.precision == OCTAVO_LINEAR_F32) other.precision = OCTAVO_LINEAR_BF16;
    return real.linear(exec, &other);
}

/* Rows of y are taken to be dense. */
static octavo_status linear_packs_rows(const octavo_exec *exec, const octavo_linear_params *p)
{
    octavo_linear_params other = *p;
    other.parts[0].y.strides[0] = other.parts[0].y.shape[1];
    return real.linear(exec, &other);
}

static octavo_status linear_forgets_to_add(const octavo_exec *exec, const octavo_linear_params *p)
{
    octavo_linear_params other = *p;
    other.store = OCTAVO_STORE_SET;
    return real.linear(exec, &other);
}

/* Every row of W is scaled as the first. */
static octavo_status linear_shares_scale(const octavo_exec *exec, const octavo_linear_params *p)
{
    octavo_linear_params other = *p;
    for (int i = 0; i < p->part_count; i++)
        if (p->parts[i].weight.block_rows == 1 && p->parts[i].weight.block_cols == 0) other.parts[i].weight.block_rows = 0;
    return real.linear(exec, &other);
}

/* One token's scale for all of them. */
static octavo_status linear_shares_x_scale(const octavo_exec *exec, const octavo_linear_params *p)
{
    static const float scale = 0.02f;
    octavo_linear_params other = *p;
    if (!other.x_scale) other.x_scale = &scale;
    return real.linear(exec, &other);
}

/* A token that is not finite counts as zeros. */
static octavo_status linear_drops_nan(const octavo_exec *exec, const octavo_linear_params *p)
{
    const octavo_status status = real.linear(exec, p);
    const octavo_tensor *y = &p->parts[0].y;
    for (int64_t t = 0; t < y->shape[0]; t++)
        for (int64_t i = 0; i < y->shape[1]; i++)
            if (isnan(kc_load(y->dtype, y->data, t * y->strides[0] + i))) kc_store(y->dtype, y->data, t * y->strides[0] + i, 0.0f);
    return status;
}

/* Sums of int8 products lose their last bits. */
static octavo_status linear_rounds_sums(const octavo_exec *exec, const octavo_linear_params *p)
{
    const octavo_status status = real.linear(exec, p);
    const octavo_tensor *y = &p->parts[0].y;
    for (int64_t i = 0; i < y->shape[1] && y->dtype == OCTAVO_F32; i++) {
        const float x = (float)kc_load(y->dtype, y->data, i);
        if (p->precision == OCTAVO_LINEAR_INT8) kc_store(y->dtype, y->data, i, x * (1.0f + 0x1p-17f));
    }
    return status;
}

/* The packed weight is read from its second row on. */
static octavo_status linear_misreads_packed(const octavo_exec *exec, const octavo_linear_params *p)
{
    octavo_linear_params other = *p;
    if (p->parts[0].packed) other.parts[0].packed = (const uint8_t *)p->parts[0].packed + 64;
    return real.linear(exec, &other);
}

/* ---- prefill ---- */

/* The window is one key too narrow. */
static octavo_status prefill_narrows_window(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    octavo_attention_prefill_params other = *p;
    if (p->window > 1) other.window--;
    return real.attention_prefill(exec, &other);
}

/* The lse of smoothed keys is left as it is. */
static octavo_status prefill_forgets_shift(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    octavo_kv_view view = *p->kv;
    octavo_attention_prefill_params other = *p;
    view.k_mean = NULL, other.kv = &view;
    return real.attention_prefill(exec, &other);
}

/* The scales of a block serve where each token has its own. */
static octavo_status prefill_shares_scales(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    octavo_attention_prefill_params other = *p;
    if (p->scales == OCTAVO_PREFILL_PER_TOKEN) other.scales = OCTAVO_PREFILL_PER_BLOCK;
    return real.attention_prefill(exec, &other);
}

/* The scales of a head serve where the whole call has one. */
static octavo_status prefill_splits_scales(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    octavo_attention_prefill_params other = *p;
    if (p->scales == OCTAVO_PREFILL_PER_TENSOR && !p->q_amax && !p->k_amax && !p->v_amax) other.scales = OCTAVO_PREFILL_PER_HEAD;
    return real.attention_prefill(exec, &other);
}

/* The sinks' share of the denominator. */
static octavo_status prefill_forgets_sink(const octavo_exec *exec, const octavo_attention_prefill_params *p)
{
    octavo_attention_prefill_params other = *p;
    other.sink_logits = NULL;
    return real.attention_prefill(exec, &other);
}

/* ---- the list ---- */

#define FAULTS(X)                                              \
    X("rounding", quantize, quantize_truncates)                \
    X("rounding", block_score, block_score_rounds_q)           \
    X("rounding", block_attend, block_attend_rounds)           \
    X("rounding", block_score, block_score_stays_exact)        \
    X("rounding", block_attend, block_attend_keeps_values)     \
    X("stride", block_score, block_score_packs_rows)           \
    X("stride", partial_merge, partial_merge_packs_rows)       \
    X("mask", block_attend, block_attend_narrows_window)       \
    X("mask", decode_fused, decode_fused_forgets_sinks)        \
    X("mask", block_select, block_select_drops_newest)         \
    X("NaN", quantize, quantize_takes_nan)                     \
    X("NaN", partial_merge, partial_merge_divides)             \
    X("NaN", block_score, block_score_subtracts)               \
    X("overflow", partial_merge, partial_merge_overflows)      \
    X("overflow", block_attend, block_attend_overflows)        \
    X("overflow", quantize, quantize_wraps)                    \
    X("guard", block_score, block_score_writes_on)             \
    X("input", dequantize, dequantize_writes_inputs)           \
    X("bound", block_score, block_score_forgets_residual)      \
    X("order", block_attend, block_attend_depends_on_order)    \
    X("mask", attention_prefill, prefill_narrows_window)       \
    X("bound", attention_prefill, prefill_forgets_shift)       \
    X("rounding", attention_prefill, prefill_shares_scales)    \
    X("scale", attention_prefill, prefill_splits_scales)       \
    X("mask", attention_prefill, prefill_forgets_sink)         \
    X("rounding", linear, linear_rounds_x)                     \
    X("rounding", linear, linear_rounds_sums)                  \
    X("stride", linear, linear_packs_rows)                     \
    X("store", linear, linear_forgets_to_add)                  \
    X("scale", linear, linear_shares_scale)                    \
    X("scale", linear, linear_shares_x_scale)                  \
    X("NaN", linear, linear_drops_nan)                         \
    X("packing", linear, linear_misreads_packed)               \
    X("rounding", norm, norm_rounds)                           \
    X("overflow", norm, norm_overflows)                        \
    X("stride", norm, norm_packs_rows)                         \
    X("formula", activate, activate_takes_tanh)                \
    X("overflow", activate, activate_overflows)                \
    X("ties", route, route_reverses_ties)                      \
    X("formula", route, route_shares_of_all)                   \
    X("order", route, route_descends)                          \
    X("cut", sample, sample_keeps_one_more)                    \
    X("cut", sample, sample_forgets_top_p)                     \
    X("cut", sample, sample_forgets_min_p)                     \
    X("NaN", sample, sample_takes_nan)                         \
    X("formula", sample, sample_does_not_renormalise)          \
    X("ties", sample, sample_reverses_ties)

enum { FAULT_ROUNDS = 2000 };

/* 1: no check caught it. */
static int report(const char *kind, const char *name, kc_operation op, const octavo_kernels *ref, const octavo_kernels *planted,
                  uint64_t seed)
{
    const kc_pair pair = { .ref = ref, .tested = planted, .level = "fault" };
    double worst;
    int64_t rounds = 0;
    while (rounds < FAULT_ROUNDS && kc_check_rounds(op, &pair, seed + (uint64_t)rounds, 1, &worst)) rounds++;
    if (rounds < FAULT_ROUNDS) printf("%-9s %-31s caught in case %lld\n", kind, name, (long long)rounds + 1);
    else                       printf("%-9s %-31s MISSED in %d cases\n", kind, name, (int)FAULT_ROUNDS);
    return rounds == FAULT_ROUNDS;
}

int kc_check_faults(uint64_t seed)
{
    octavo_kernels ref = { 0 };
    int missed = 0;
    octavo_levels[0].install(&ref);
    for (int i = 0; i < octavo_level_count; i++) octavo_levels[i].install(&real);
    kc_be_quiet(1);
#define X(kind, op, wrapper)                                                \
    {                                                                       \
        octavo_kernels planted = real;                                      \
        planted.op = wrapper;                                               \
        missed += report(kind, #wrapper, KC_##op, &ref, &planted, seed);    \
    }
    FAULTS(X)
#undef X
    kc_be_quiet(0);
    return missed;
}
