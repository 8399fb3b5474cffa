/* install_neon.c - what neon improves over the level below. */
#include "cpu/install_level.h"

OCTAVO_BODY_OPERATIONS(OCTAVO_OPERATION_DECLARE, neon)

void octavo_install_neon(octavo_kernels *kernels)
{
    if (!octavo_cpu_features_detect().neon) return;
    OCTAVO_BODY_OPERATIONS(OCTAVO_OPERATION_INSTALL, neon)
}
