/* sample_workspace.c - how much workspace sampling takes. */
#include "kernel/sample_plan.h"

size_t octavo_sample_kernel_workspace(const octavo_sample_params *p) { return octavo_sample_layout_of(p).bytes; }
