/* recording.h - recorded layers: the queries, keys and values that a real model had, read from a safetensors file.
 * Unstable: part of liboctavo-lm, may change in any release.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_RECORDING_H
#define OCTAVO_RECORDING_H

#include "octavo/safetensors.h"

OCTAVO_BEGIN_DECLS

/* One layer. q, k and v share one dtype (BF16, F16 or F32); q's rows are the last `queries` of the `tokens` positions.
 * The views are read-only; an optional tensor that the file lacks has data NULL. */
typedef struct octavo_recording {
    size_t struct_size;
    int32_t layer;
    int64_t batch, q_heads, kv_heads, queries, tokens, head_dim, value_dim;
    octavo_tensor q;        /* [batch, q_heads, queries, head_dim], after RoPE           */
    octavo_tensor k;        /* [batch, kv_heads, tokens, head_dim], after RoPE           */
    octavo_tensor v;        /* [batch, kv_heads, tokens, value_dim]                      */
    octavo_tensor h;        /* optional [batch, at most tokens, hidden], K projection's input */
    octavo_tensor q_unrope; /* optional, as q but before RoPE                            */
    octavo_tensor k_unrope; /* optional, as k but before RoPE                            */
    octavo_safetensors *file; /* owned after octavo_recording_open, else NULL            */
} octavo_recording;
#define OCTAVO_RECORDING_INIT OCTAVO_INIT_STRUCT(octavo_recording)

/* Opens the file and fills *recording, which the caller started from its INIT macro and gives to octavo_recording_close.
 * OCTAVO_E_RANGE: no such layer, or a tensor of it is missing. OCTAVO_E_SHAPE, OCTAVO_E_UNSUPPORTED: its shapes, its dtypes.
 * After a failure *recording holds nothing. */
OCTAVO_API octavo_status octavo_recording_open(const char *path, int32_t layer, octavo_recording *recording);

/* Unmaps the file; *recording is as after its INIT macro. NULL is allowed. */
OCTAVO_API void octavo_recording_close(octavo_recording *recording);

/* The same as open, borrowed from an open file that must outlive *recording. */
OCTAVO_API octavo_status octavo_recording_view(const octavo_safetensors *file, int32_t layer, octavo_recording *recording);

/* The numbers of the layers that the file has tensors of, ascending: *count of them, the first `capacity` into layers. */
OCTAVO_API octavo_status octavo_recording_layers(const octavo_safetensors *file, int32_t *layers, size_t capacity, size_t *count);

OCTAVO_END_DECLS

#endif
