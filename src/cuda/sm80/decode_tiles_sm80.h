/* decode_tiles_sm80.h - decode through the matrix unit, for the formats and sizes that there are kernels for. */
#ifndef OCTAVO_CUDA_SM80_DECODE_TILES_SM80_H
#define OCTAVO_CUDA_SM80_DECODE_TILES_SM80_H

#include "kernel/kernels.h"

/* Each runs the call if there is a kernel for it; *done says so. */
octavo_status octavo_attend_tiles(const octavo_exec *exec, const octavo_block_attend_params *p, bool *done);
octavo_status octavo_score_tiles(const octavo_exec *exec, const octavo_block_score_params *p, bool *done);

/* DELTA by the scan and the selection that a level has. */
typedef octavo_status octavo_score_entry(const octavo_exec *exec, const octavo_block_score_params *p);
typedef octavo_status octavo_select_entry(const octavo_exec *exec, const octavo_block_select_params *p);
octavo_status octavo_decode_above_threshold(const octavo_exec *exec, const octavo_decode_fused_params *p, octavo_score_entry *score_units,
                                            octavo_select_entry *select_units);

#endif
