/* decode_plan.h - which operations a decode call runs and where their arrays lie in its workspace. */
#ifndef OCTAVO_ATTENTION_DECODE_PLAN_H
#define OCTAVO_ATTENTION_DECODE_PLAN_H

#include "kernel/kernels.h"

/* Offsets into the workspace; OCTAVO_PLAN_ABSENT where an array is not needed. */
enum { OCTAVO_PLAN_ABSENT = -1 };
typedef struct octavo_decode_plan {
    octavo_decode_input in;
    int64_t rows, units, splits, split_units;
    int64_t log_mass, log_upper, log_lower; /* [batch, kv_heads, rows, units]         */
    int64_t scores;                         /* [batch, kv_heads, rows, max_tokens]    */
    int64_t kept, kept_first;               /* [batch, kv_heads, units]               */
    int64_t part_out;                       /* [batch, kv_heads, rows, splits, v_dim] */
    int64_t part_lse, part_kept, part_dropped; /* [batch, kv_heads, rows, splits]     */
    int64_t scratch;                        /* the operations' own workspace          */
    size_t scratch_bytes, bytes;
} octavo_decode_plan;

/* Everything that can be wrong with a call, before anything is written. */
octavo_status octavo_decode_validate(const octavo_exec *exec, const octavo_decode_params *params);

/* The plan of a valid call. It depends on shapes, switches and the device only, not on data or threads. `processors`: of a GPU,
 * whose kernels divide each sequence among as many splits as fill it; 0 on the CPU, where splits depend on max_tokens alone, as they
 * do on a GPU where they are asked to be fixed.
 * OCTAVO_E_RANGE: the workspace would not fit in memory. */
octavo_status octavo_decode_plan_make(const octavo_decode_params *params, int32_t processors, octavo_decode_plan *plan);

#endif
