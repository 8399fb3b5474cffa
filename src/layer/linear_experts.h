/* linear_experts.h - the linear layers of many experts in one call, for liboctavo-lm. */
#ifndef OCTAVO_LAYER_LINEAR_EXPERTS_H
#define OCTAVO_LAYER_LINEAR_EXPERTS_H

#include "base/sibling.h"
#include "kernel/kernels.h"

/* kernels.h says what it does. The workspace is that of octavo_linear with all rows. OCTAVO_E_UNSUPPORTED: the device lacks it. */
OCTAVO_SIBLING octavo_status octavo_linear_experts(const octavo_exec *exec, const octavo_linear_experts_params *params);
OCTAVO_SIBLING octavo_status octavo_linear_experts_workspace(const octavo_exec *exec, const octavo_linear_experts_params *params, size_t *bytes);

#endif
