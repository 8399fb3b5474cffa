/* rows_ref.h - rows of tensors for the operations between the products: where one begins, and how an element is stored. */
#ifndef OCTAVO_REF_ROWS_REF_H
#define OCTAVO_REF_ROWS_REF_H

#include "ref/decode_ref.h"
#include "ref/install_ref.h"
#include <math.h>

/* Rows of a tensor of 2 or 3 axes whose last is the row, and the first element of row r. */
static inline int64_t octavo_ref_row_count(const octavo_tensor *x) { return x->ndim == 3 ? x->shape[0] * x->shape[1] : x->shape[0]; }
static inline int64_t octavo_ref_row(const octavo_tensor *x, int64_t r)
{
    if (x->ndim == 2) return r * x->strides[0];
    return r / x->shape[1] * x->strides[0] + r % x->shape[1] * x->strides[1];
}

/* Rounds once to float32 and, where the tensor is narrower, from there. */
static inline void octavo_ref_store(const octavo_tensor *tensor, int64_t element, double x)
{
    switch (tensor->dtype) {
    case OCTAVO_F32: ((float *)tensor->data)[element] = (float)x; break;
    case OCTAVO_F16: ((uint16_t *)tensor->data)[element] = octavo_fp16_from_float((float)x); break;
    default:         ((uint16_t *)tensor->data)[element] = octavo_bf16_from_float((float)x); break;
    }
}

/* log of the sum of exp((x - most) / temperature) over a row of logits. */
static inline double octavo_ref_log_sum(const float *x, int64_t count, double most, double temperature)
{
    double sum = 0.0;
    for (int64_t i = 0; i < count; i++) sum += exp(((double)x[i] - most) / temperature);
    return log(sum);
}

#endif
