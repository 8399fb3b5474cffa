/* quant.h - symmetric quantisation to eight bits, with scales per tensor, token, channel or block.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_QUANT_H
#define OCTAVO_QUANT_H

#include "octavo/context.h"

OCTAVO_BEGIN_DECLS

typedef enum octavo_granularity {
    OCTAVO_PER_TENSOR  = 0, /* one scale                                              */
    OCTAVO_PER_TOKEN   = 1, /* one a row                                              */
    OCTAVO_PER_CHANNEL = 2, /* one a column                                           */
    OCTAVO_PER_BLOCK   = 3  /* one for block_rows x block_cols, the last ones smaller */
} octavo_granularity;

typedef enum octavo_scale_kind {
    OCTAVO_SCALE_F32  = 0, /* amax / max                                           */
    OCTAVO_SCALE_POW2 = 1  /* the smallest power of two that is not below amax / max */
} octavo_scale_kind;

typedef enum octavo_scale_source {
    OCTAVO_SCALE_DYNAMIC = 0, /* from the data of this call; scales are written */
    OCTAVO_SCALE_STATIC  = 1  /* given; scales are read                         */
} octavo_scale_source;

/* code = convert(x / scale), x ~= code * scale: scales multiply *back*, as checkpoints store them. max is 448 (E4M3), 57344 (E5M2)
 * or 127 (INT8, symmetric: -128 never occurs). A group of zeros has scale 1. Round to nearest even, saturate. */
typedef struct octavo_quantize_params {
    size_t struct_size;
    octavo_tensor x;     /* [rows, cols] f32, f16 or bf16, last axis contiguous                */
    octavo_tensor codes; /* [rows, cols] e4m3, e5m2 or int8, last axis contiguous              */
    float *scales;       /* [1], [rows], [cols] or [ceil(rows / block_rows), ceil(cols / block_cols)], row-major */
    octavo_granularity granularity;
    octavo_scale_kind scale_kind;
    octavo_scale_source scale_source;
    int64_t block_rows, block_cols; /* PER_BLOCK only                                          */
    int64_t *saturated;  /* [1] set to the number of values past the largest code before clamping, or NULL */
    int64_t *underflowed; /* [1] set to the number of non-zero values that became code 0, or NULL          */
} octavo_quantize_params;
#define OCTAVO_QUANTIZE_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_quantize_params)

/* OCTAVO_E_NONFINITE: NaN or Inf in x; nothing was written. OCTAVO_E_ARGUMENT: a static scale that is not positive and finite. */
OCTAVO_API octavo_status octavo_quantize(const octavo_exec *exec, const octavo_quantize_params *params);

typedef struct octavo_dequantize_params {
    size_t struct_size;
    octavo_tensor codes; /* [rows, cols]            */
    octavo_tensor x;     /* [rows, cols] f32        */
    const float *scales; /* as octavo_quantize_params */
    octavo_granularity granularity;
    int64_t block_rows, block_cols;
} octavo_dequantize_params;
#define OCTAVO_DEQUANTIZE_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_dequantize_params)
OCTAVO_API octavo_status octavo_dequantize(const octavo_exec *exec, const octavo_dequantize_params *params);

/* Scales that a group has: the length of the scales array. 0: an impossible request. */
OCTAVO_API int64_t octavo_scale_count(octavo_granularity granularity, int64_t rows, int64_t cols, int64_t block_rows, int64_t block_cols);

OCTAVO_END_DECLS

#endif
