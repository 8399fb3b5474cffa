/* linear_ref.c - the definition of a linear layer: x as the precision rounds it, W as it is stored, sums in float64. */
#include "kernel/linear_plan.h"
#include "ref/decode_ref.h"
#include "ref/install_ref.h"

/* Element `i` of a row of x, of which the scale is `scale`, as it enters the products. */
static float x_at(const octavo_linear_params *p, int64_t at, float scale)
{
    const float x = (float)octavo_ref_float(&p->x, at);
    switch (p->precision) {
    case OCTAVO_LINEAR_F32:  return x;
    case OCTAVO_LINEAR_BF16: return octavo_bf16_to_float(octavo_bf16_from_float(x));
    case OCTAVO_LINEAR_FP8:  return octavo_e4m3_to_float(octavo_e4m3_from_float(x / scale));
    default:                 return rintf(fmaxf(-127.0f, fminf(x / scale, 127.0f)));
    }
}

/* Fills `row` [in] with token n and returns its factor: a scale, 1, or NaN where an element is not finite as it is rounded. */
static float load_token(const octavo_linear_params *p, int64_t n, float *row)
{
    const int64_t in = octavo_linear_in(p), first = octavo_linear_x_row(p, n);
    float amax = 0.0f;
    for (int64_t i = 0; i < in; i++) {
        const float x = (float)octavo_ref_float(&p->x, first + i);
        if (!isfinite(x)) return NAN;
        amax = fmaxf(amax, fabsf(x));
    }
    const float scale = octavo_linear_quantises(p) ? octavo_linear_x_scale(p, amax) : 1.0f;
    for (int64_t i = 0; i < in; i++) {
        row[i] = x_at(p, first + i, scale);
        if (!isfinite(row[i])) return NAN;
    }
    return scale;
}

/* A code of W, exact; float weights rounded to bf16 where that is the precision. */
static double code_at(const octavo_linear_params *p, const octavo_tensor *codes, int64_t at)
{
    switch (codes->dtype) {
    case OCTAVO_E4M3: return (double)octavo_e4m3_to_float(((const uint8_t *)codes->data)[at]);
    case OCTAVO_INT8: return (double)((const int8_t *)codes->data)[at];
    default:          break;
    }
    const double w = octavo_ref_float(codes, at);
    return p->precision == OCTAVO_LINEAR_BF16 ? (double)octavo_bf16_to_float(octavo_bf16_from_float((float)w)) : w;
}

static void store(const octavo_tensor *y, int64_t at, octavo_store how, double value)
{
    const float x = (float)(how == OCTAVO_STORE_ADD ? octavo_ref_float(y, at) + value : value);
    if (y->dtype == OCTAVO_F32) ((float *)y->data)[at] = x;
    else ((uint16_t *)y->data)[at] = y->dtype == OCTAVO_F16 ? octavo_fp16_from_float(x) : octavo_bf16_from_float(x);
}

octavo_status octavo_linear_ref(const octavo_exec *exec, const octavo_linear_params *p)
{
    const int64_t in = octavo_linear_in(p);
    float *x = exec->workspace;
    for (int64_t n = 0; n < octavo_linear_tokens(p); n++) {
        const float factor = load_token(p, n, x);
        for (int i = 0; i < p->part_count; i++) {
            const octavo_linear_part *part = &p->parts[i];
            const octavo_weight *w = &part->weight;
            for (int64_t row = 0; row < w->codes.shape[0]; row++) {
                double sum = 0.0;
                for (int64_t c = 0; c < in && !isnan(factor); c++)
                    sum += (double)x[c] * (double)octavo_weight_scale(w, row, c) * code_at(p, &w->codes, row * w->codes.strides[0] + c);
                sum = sum * (double)factor + (part->bias ? (double)part->bias[row] : 0.0);
                store(&part->y, n * part->y.strides[0] + row, p->store, sum);
            }
        }
    }
    return OCTAVO_OK;
}
