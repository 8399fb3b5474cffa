/* install_ref.c - the weakest level: every operation as it is defined. */
#include "ref/install_ref.h"

void octavo_install_ref(octavo_kernels *kernels)
{
#define X(op, budget) kernels->op = octavo_##op##_ref;
    OCTAVO_KERNEL_LIST(X)
#undef X
}
