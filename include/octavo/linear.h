/* linear.h - linear layers: y = x W^T + bias in float32, bf16, FP8 or INT8, whichever way K and V are stored or attention computes.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_LINEAR_H
#define OCTAVO_LINEAR_H

#include "octavo/weight.h"

OCTAVO_BEGIN_DECLS

/* What the products are computed in. Sums are float32 (INT8: exact in int32, then float32). */
typedef enum octavo_linear_precision {
    OCTAVO_LINEAR_F32  = 0, /* x and W as float32                                                                  */
    OCTAVO_LINEAR_BF16 = 1, /* x rounded to bf16; W rounded to bf16, or e4m3 and int8 codes exactly, then scaled    */
    OCTAVO_LINEAR_FP8  = 2, /* W8A8: W is e4m3, x is quantised to e4m3                                              */
    OCTAVO_LINEAR_INT8 = 3  /* W8A8: W is int8, one scale a tensor or channel; x is quantised to int8               */
} octavo_linear_precision;

/* "f32", "bf16", "fp8", "int8"; never NULL. */
OCTAVO_API const char *octavo_linear_precision_name(octavo_linear_precision precision);
OCTAVO_API octavo_status octavo_linear_precision_parse(const char *name, octavo_linear_precision *precision);

typedef enum octavo_store {
    OCTAVO_STORE_SET = 0, /* y  = the result */
    OCTAVO_STORE_ADD = 1  /* y += the result */
} octavo_store;

/* One product of a call. */
typedef struct octavo_linear_part {
    octavo_weight weight; /* [out, in]                                                                   */
    const void *packed;   /* what octavo_linear_pack made of this weight and precision, or NULL          */
    const float *bias;    /* [out] or NULL                                                               */
    octavo_tensor y;      /* [tokens, out] f32, f16 or bf16, last axis contiguous                        */
} octavo_linear_part;

enum { OCTAVO_LINEAR_PARTS = 4 };

/* Several products that share x (Q, K and V; gate and up) are one call: x is read and quantised once. */
typedef struct octavo_linear_params {
    size_t struct_size;
    octavo_tensor x;       /* [tokens, in] f32, f16 or bf16, last axis contiguous; tokens may be 0         */
    const float *x_scale;  /* FP8, INT8: [1] a static scale of x, multiplies back; NULL: dynamic, one a token; else not read */
    octavo_linear_precision precision;
    octavo_store store;
    int32_t part_count;    /* 1..OCTAVO_LINEAR_PARTS */
    octavo_linear_part parts[OCTAVO_LINEAR_PARTS];
} octavo_linear_params;
#define OCTAVO_LINEAR_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_linear_params)

/* Size of the workspace: depends on shapes and precision only. */
OCTAVO_API octavo_status octavo_linear_workspace(const octavo_exec *exec, const octavo_linear_params *params, size_t *bytes);

/* y does not depend on the number of threads, nor on how many tokens the call has beyond the stated budget.
 * FP8 and INT8 saturate; a NaN or Inf in x gives NaN in that token's row of y. */
OCTAVO_API octavo_status octavo_linear(const octavo_exec *exec, const octavo_linear_params *params);

/* A weight in the order that this device multiplies fastest, made once. *bytes is 0 where the device reads the weight as it lies:
 * then pack nothing and leave `packed` NULL. The weight itself must stay: calls with few tokens may read it. */
OCTAVO_API octavo_status octavo_linear_packed_bytes(const octavo_exec *exec, const octavo_weight *weight, octavo_linear_precision precision,
                                                    size_t *bytes);
/* packed: 64-byte aligned, *bytes of octavo_linear_packed_bytes. */
OCTAVO_API octavo_status octavo_linear_pack(const octavo_exec *exec, const octavo_weight *weight, octavo_linear_precision precision,
                                            void *packed);

OCTAVO_END_DECLS

#endif
