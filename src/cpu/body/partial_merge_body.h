/* partial_merge_body.h - partial results over disjoint keys become one, by log-sum-exp. After a simd_<isa>.h. */
#include "base/parallel.h"
#include "cpu/body/decode_math_body.h"
#include "format/bf16.h"
#include "format/fp16.h"
#include "kernel/kernels.h"

octavo_status SIMD(partial_merge)(const octavo_exec *exec, const octavo_partial_merge_params *p);

enum {
    MERGE_COLUMNS = 64,           /* of the output that are summed at a time          */
    MERGE_SERIAL_FLOATS = 1 << 16 /* fewer are merged sooner than threads are woken */
};

/* log(exp(a) + exp(b)); 0 terms where both are -inf. */
static double merge_log_add(double a, double b)
{
    const double high = a > b ? a : b, low = a > b ? b : a;
    return high == -(double)INFINITY ? high : high + log1p(exp(low - high));
}

static double merge_log_sum(const float *logs, int64_t count)
{
    double max = -(double)INFINITY, sum = 0.0;
    for (int64_t i = 0; i < count; i++) max = (double)logs[i] > max ? (double)logs[i] : max;
    if (max == -(double)INFINITY) return max;
    for (int64_t i = 0; i < count; i++) sum += exp((double)logs[i] - max);
    return max + log(sum);
}

static void merge_store(const octavo_tensor *out, int64_t at, const float *x, int64_t count)
{
    const int64_t stride = out->strides[3];
    for (int64_t i = 0; i < count; i++) {
        if (out->dtype == OCTAVO_F32)
            ((float *)out->data)[at + i * stride] = x[i];
        else
            ((uint16_t *)out->data)[at + i * stride] =
                out->dtype == OCTAVO_F16 ? octavo_fp16_from_float(x[i]) : octavo_bf16_from_float(x[i]);
    }
}

/* softmax_scale * q . mean: what smoothing took from every score of the row. */
static double merge_lse_shift(const octavo_partial_merge_params *p, int64_t b, int64_t head, int64_t row)
{
    if (!p->lse_shift_mean) return 0.0;
    const octavo_tensor *q = &p->lse_shift_q;
    const int64_t dim = q->shape[3], view_row = p->lse_shift_rows ? p->lse_shift_rows[b] : b;
    const float *mean = p->lse_shift_mean + (view_row * p->kv_heads + head) * dim;
    int64_t at = b * q->strides[0] + row % p->q_tokens * q->strides[1] + (head * p->group + row / p->q_tokens) * q->strides[2];
    double sum = 0.0;
    for (int64_t i = 0; i < dim; i++, at += q->strides[3]) {
        const float x = q->dtype == OCTAVO_F32   ? ((const float *)q->data)[at]
                        : q->dtype == OCTAVO_F16 ? octavo_fp16_to_float(((const uint16_t *)q->data)[at])
                                                 : octavo_bf16_to_float(((const uint16_t *)q->data)[at]);
        sum += (double)x * (double)mean[i];
    }
    return sum * (double)p->softmax_scale;
}

/* Columns [from, from + count) of a row, whose denominator has the logarithm `whole`. */
static void merge_columns(const octavo_partial_merge_params *p, int64_t flat, double whole, int64_t from, int64_t count,
                          float *out)
{
    for (int64_t i = 0; i < MERGE_COLUMNS; i += SIMD_F32) v_store(out + i, v_zero());
    for (int64_t split = 0; split < p->splits; split++) {
        const float lse = p->part_lse[flat * p->splits + split],
                    *part = p->part_out + (flat * p->splits + split) * p->v_dim + from;
        if (lse == -INFINITY) continue;
        const vf32 weight = v_splat((float)exp((double)lse - whole));
        int64_t i = 0;
        for (; i + SIMD_F32 <= count; i += SIMD_F32) v_store(out + i, v_fma(weight, v_load(part + i), v_load(out + i)));
        if (i < count) v_store(out + i, v_fma(weight, v_load_part(part + i, count - i), v_load(out + i)));
    }
}

static void merge_row(const octavo_partial_merge_params *p, int64_t flat)
{
    const int64_t rows = p->group * p->q_tokens, row = flat % rows, head = flat / rows % p->kv_heads,
                  b = flat / rows / p->kv_heads;
    const int64_t q_head = head * p->group + row / p->q_tokens;
    const int64_t at = b * p->out.strides[0] + row % p->q_tokens * p->out.strides[1] + q_head * p->out.strides[2];
    const double sink = p->sink_logits ? (double)p->sink_logits[q_head] : -(double)INFINITY;
    const double keys = merge_log_sum(p->part_lse + flat * p->splits, p->splits);
    const double whole = keys == -(double)INFINITY ? keys : merge_log_add(keys, sink);
    float out[MERGE_COLUMNS];
    for (int64_t from = 0; from < p->v_dim; from += MERGE_COLUMNS) {
        const int64_t count = p->v_dim - from < MERGE_COLUMNS ? p->v_dim - from : MERGE_COLUMNS;
        merge_columns(p, flat, whole, from, count, out);
        merge_store(&p->out, at + from * p->out.strides[3], out, count);
    }
    if (p->lse) p->lse[flat] = (float)(whole + merge_lse_shift(p, b, head, row));
}

static float merge_dropped(const octavo_partial_merge_params *p, int64_t flat, double sink)
{
    const double dropped = merge_log_sum(p->part_dropped + flat * p->splits, p->splits);
    const double kept = merge_log_add(merge_log_sum(p->part_kept + flat * p->splits, p->splits), sink);
    return dropped == -(double)INFINITY ? 0.0f : (float)exp(dropped - merge_log_add(dropped, kept));
}

/* All query tokens of one query head. */
static void merge_task(void *argument, int64_t index)
{
    const octavo_partial_merge_params *p = argument;
    const double sink = p->sink_logits ? (double)p->sink_logits[index % (p->kv_heads * p->group)] : -(double)INFINITY;
    float worst = 0.0f;
    for (int64_t i = 0; i < p->q_tokens; i++) {
        const int64_t flat = index * p->q_tokens + i;
        merge_row(p, flat);
        if (!p->dropped_mass) continue;
        const float dropped = merge_dropped(p, flat, sink);
        worst = dropped > worst ? dropped : worst;
    }
    if (p->dropped_mass) p->dropped_mass[index] = worst;
}

octavo_status SIMD(partial_merge)(const octavo_exec *exec, const octavo_partial_merge_params *p)
{
    octavo_partial_merge_params call = *p;
    const int64_t tasks = p->batch * p->kv_heads * p->group;
    if (tasks * p->q_tokens * p->splits * p->v_dim > MERGE_SERIAL_FLOATS) {
        octavo_parallel(exec, tasks, merge_task, &call);
        return OCTAVO_OK;
    }
    for (int64_t task = 0; task < tasks; task++) merge_task(&call, task);
    return OCTAVO_OK;
}
