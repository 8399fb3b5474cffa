/* quant_check.h - what quantize and dequantize ask of their arguments alike. */
#ifndef OCTAVO_QUANT_QUANT_CHECK_H
#define OCTAVO_QUANT_QUANT_CHECK_H

#include "octavo/quant.h"

/* Granularity, block sizes and the scales array for [rows, cols]. Blocks come back no larger than the tensor, so that kernels
 * need not fear their sums; *count is the length of the scales array. */
octavo_status octavo_scales_check(octavo_granularity granularity, int64_t rows, int64_t cols, int64_t *block_rows,
                                  int64_t *block_cols, const float *scales, int64_t *count);

/* OCTAVO_E_ARGUMENT: one of the scales is not positive and finite. */
octavo_status octavo_scales_check_values(const float *scales, int64_t count);

#endif
