/* kerncheck_layer.h - what the checks of norms, activations, rows, routing and sampling share: numbers, copies, stored results. */
#ifndef KERNCHECK_LAYER_H
#define KERNCHECK_LAYER_H

#include "budget.h"
#include "kerncheck.h"

octavo_dtype kc_float_dtype(void);

/* A row's width: around every vector width, and now and then a long one. */
int64_t kc_width(void);

/* Fills a tensor of 2 to 4 axes: offset + amplitude * normal, and among them zeros, subnormals, outliers; `odd` per cent of the
 * tensors hold a NaN or an Inf, too. */
void kc_fill(const octavo_tensor *x, double offset, double amplitude, int odd);

/* The same values in memory that no kernel sees: what an output in place was made from. */
octavo_tensor kc_copy(const octavo_tensor *x);

/* First element of row r of a tensor whose last axis is the row. */
int64_t kc_row(const octavo_tensor *x, int64_t r);

/* An element of an output within `budget` before it was stored; storing may fall on either side, of the largest number, too. */
int kc_close_stored(const char *name, const octavo_tensor *tested, int64_t element, double exact, double budget);

/* Random logits, -Inf among them now and then, ties often. */
octavo_tensor kc_logits(int64_t rows, int64_t columns);

#endif
