/* budget.h - how far a kernel may lie from the reference. docs/NUMERICS.md derives each line. */
#ifndef BUDGET_H
#define BUDGET_H

#include <math.h>

#define BUDGET_U      0x1p-24  /* unit roundoff of float32                                        */
#define BUDGET_TINY   0x1p-100 /* what underflow may cost a score                                  */
#define BUDGET_EXP    0x1p-21  /* relative error of a float32 exp, absolute error of log and tanh  */
#define BUDGET_Q15    0x1p-15  /* error of an element of a q that is rounded to 15 bits, over max |q| */
#define BUDGET_P_BF16 0x1p-8   /* unit roundoff of bf16 (8 bits): softmax weights of 8-bit rows       */
#define BUDGET_FAINT  0x1p-98  /* a weight that small beside the largest may be taken for 0           */

enum { BUDGET_SLACK = 16 }; /* roundings beside a sum's own: factors, scales, stores */

/* Relative error of n roundings in a row. */
static inline double budget_gamma(double n) { return n * BUDGET_U / (1.0 - n * BUDGET_U); }

/* One score. weight: softmax_scale * sum of |q||k|, each plane's part of k taken positive; spread: softmax_scale * max |q| * sum of |k|
 * where q may be rounded to 15 bits, else 0. */
static inline double budget_score(double head_dim, double weight, double spread, double soft_cap)
{
    return budget_gamma(head_dim + BUDGET_SLACK) * weight + BUDGET_Q15 * spread + BUDGET_EXP * soft_cap + BUDGET_TINY;
}

/* The logarithm of a sum of n exponentials whose exponents err by up to `error`. */
static inline double budget_log_sum(double n, double error, double value)
{
    return error + BUDGET_EXP + budget_gamma(n + BUDGET_SLACK) + (isfinite(value) ? 4.0 * BUDGET_U * (fabs(value) + log(n + 1.0)) : 0.0);
}

/* A softmax weight exp(x - max), relative: the exponent's error, the difference's rounding, exp itself. */
static inline double budget_weight(double error, double below_max) { return error + 2.0 * BUDGET_U * below_max + BUDGET_EXP; }

#endif
