/* linear_workspace.c - how much workspace a linear layer takes. */
#include "kernel/linear_plan.h"

size_t octavo_linear_kernel_workspace(const octavo_linear_params *p) { return octavo_linear_layout_of(p).bytes; }
