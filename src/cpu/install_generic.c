/* install_generic.c - what generic improves over the level below. */
#include "cpu/install_level.h"

OCTAVO_BODY_OPERATIONS(OCTAVO_OPERATION_DECLARE, generic)

void octavo_install_generic(octavo_kernels *kernels)
{
    OCTAVO_BODY_OPERATIONS(OCTAVO_OPERATION_INSTALL, generic)
}
