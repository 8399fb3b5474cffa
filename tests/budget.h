/* budget.h - how far a kernel may lie from the reference. docs/NUMERICS.md derives each line. */
#ifndef BUDGET_H
#define BUDGET_H

#include "octavo/tensor.h"

#include <math.h>

#define BUDGET_U      0x1p-24  /* unit roundoff of float32                                        */
#define BUDGET_TINY   0x1p-100 /* what underflow may cost a score                                  */
#define BUDGET_EXP    0x1p-21  /* relative error of a float32 exp, absolute error of log and tanh  */
#define BUDGET_Q15    0x1p-15  /* error of an element of a q that is rounded to 15 bits, over max |q| */
#define BUDGET_Q24    0x1p-24  /* the same of a q in fixed point of 24 bits, as integer keys may meet it */
#define BUDGET_P_BF16 0x1p-8   /* unit roundoff of bf16 (8 bits): softmax weights of 8-bit rows       */
#define BUDGET_P_E4M3 0x1p-4  /* the same of E4M3 (4 bits), as matrix units of eight bits want weights */
#define BUDGET_E4M3_FAINT 0x1p-18 /* half its least step over 448: of a weight, relative to the largest of its tile */
#define BUDGET_F16_FAINT 0x1p-40  /* half f16's least step, of a weight that is 2^15 if it is the largest */
#define BUDGET_F16_SUMS 0x1p-7    /* what sums of f16 over 64 keys lose of the magnitudes of their terms: a rounding to 11 bits of each 8, toward zero at worst */
#define BUDGET_F16_TILE 0x1p-25   /* half f16's least step, of a weight that is 1 if it is the largest of its tile */
#define BUDGET_F16_LEAST 0x1p-32  /* the same of a value, and an eighth of it of a sum, where the largest of a channel is 2^8 or more, relative to that */
#define BUDGET_E4M3_SUMS 0x1p-8  /* what sums in such a unit lose of the magnitudes of their terms: it keeps 13 bits, and cuts off */
#define BUDGET_EXP18  0x1p-18  /* the same of a weight that becomes bf16                             */
#define BUDGET_TERMS  0x1p-16  /* what two bf16 terms of each factor leave out of a product           */
#define BUDGET_FAINT  0x1p-98  /* a weight that small beside the largest may be taken for 0           */
#define BUDGET_FLUSH  0x1p-124 /* tiles take what lies below 2^-126, the smallest normal number, for 0: of each term of both operands */

enum { BUDGET_SLACK = 16 }; /* roundings beside a sum's own: factors, scales, stores */

/* Relative error of n roundings in a row. */
static inline double budget_gamma(double n) { return n * BUDGET_U / (1.0 - n * BUDGET_U); }

/* One score. weight: softmax_scale * sum of |q||k|, each plane's part of k taken positive; q_error: softmax_scale * sum of |k| times what an
 * element of q may be off. */
static inline double budget_score(double head_dim, double weight, double q_error, double soft_cap)
{
    return budget_gamma(head_dim + BUDGET_SLACK) * weight + q_error + BUDGET_EXP * soft_cap + BUDGET_TINY;
}

/* The logarithm of a sum of n exponentials whose exponents err by up to `error`. */
static inline double budget_log_sum(double n, double error, double value)
{
    return error + BUDGET_EXP + budget_gamma(n + BUDGET_SLACK) + (isfinite(value) ? 4.0 * BUDGET_U * (fabs(value) + log(n + 1.0)) : 0.0);
}

/* A softmax weight exp(x - max), relative: the exponent's error, the difference's rounding, exp itself. */
static inline double budget_weight(double error, double below_max) { return error + 2.0 * BUDGET_U * below_max + BUDGET_EXP; }

/* Roundings of a sum of n products that are exact or float32: an operand in f32 or f16 may be the sum of three or two bf16 terms, all
 * pairs of which are added up; but where one of both has three, pairs below 2^-21 of the product may be left out, 2^-20 in all. */
static inline double budget_sums(double n, octavo_dtype x, octavo_dtype w)
{
    const int x_terms = x == OCTAVO_F32 ? 3 : x == OCTAVO_F16 ? 2 : 1, w_terms = w == OCTAVO_F32 ? 3 : w == OCTAVO_F16 ? 2 : 1;
    if (x_terms + w_terms > 4) return 6.0 * n + 16.0;
    return n * x_terms * w_terms;
}

/* One element of a linear layer. n: float32 sums of its terms (0: int32); size: sum of their magnitudes; rest: bias and what y was;
 * tiny: sum of |x| + |w| + 1, scales included, since an operand, a product or a sum may be flushed to zero. */
static inline double budget_linear(double n, double size, double rest, double tiny)
{
    return budget_gamma(n + BUDGET_SLACK) * (size + rest) + BUDGET_FLUSH * tiny;
}

#endif
