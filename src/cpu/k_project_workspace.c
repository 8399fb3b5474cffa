/* k_project_workspace.c - how much workspace a K projection takes. */
#include "kernel/k_project_plan.h"

size_t octavo_k_project_kernel_workspace(const octavo_k_project_params *p) { return octavo_project_layout_of(p).bytes; }
