/* install_ref.h - every operation of the reference, declared for the table. */
#ifndef OCTAVO_REF_INSTALL_REF_H
#define OCTAVO_REF_INSTALL_REF_H

#include "kernel/kernels.h"

#define X(op, budget) octavo_status octavo_##op##_ref(const octavo_exec *exec, const octavo_##op##_params *p);
OCTAVO_KERNEL_LIST(X)
#undef X

#endif
