/* weight.h - a matrix of weights as checkpoints store it, in floats or in eight-bit codes with scales.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_WEIGHT_H
#define OCTAVO_WEIGHT_H

#include "octavo/context.h"

OCTAVO_BEGIN_DECLS

/* W [out, in], row-major. */
typedef struct octavo_weight {
    octavo_tensor codes;  /* f32, f16, bf16, e4m3 or int8, last axis contiguous            */
    const float *scales;  /* [ceil(out / block_rows), ceil(in / block_cols)], multiply back; NULL: one  */
    int64_t block_rows, block_cols; /* elements that share a scale; 0: all rows / all columns. 0, 0: a tensor; 1, 0: a channel;
                                     * 128, 128: DeepSeek's blocks                                          */
} octavo_weight;

OCTAVO_END_DECLS

#endif
