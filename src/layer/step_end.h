/* step_end.h - the end of a decode step, for liboctavo-lm. */
#ifndef OCTAVO_LAYER_STEP_END_H
#define OCTAVO_LAYER_STEP_END_H

#include "base/sibling.h"
#include "kernel/kernels.h"

/* kernels.h says what it does. OCTAVO_E_UNSUPPORTED: the device lacks it. */
OCTAVO_SIBLING octavo_status octavo_step_end(const octavo_exec *exec, const octavo_step_end_params *params);

#endif
