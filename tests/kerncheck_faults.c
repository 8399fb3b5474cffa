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

/* ---- the list ---- */

#define FAULTS(X)                                              \
    X("rounding", quantize, quantize_truncates)                \
    X("rounding", block_score, block_score_rounds_q)           \
    X("rounding", block_attend, block_attend_rounds)           \
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
    X("order", block_attend, block_attend_depends_on_order)

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
