/* install_avx2.c - what avx2 improves over the level below. */
#include "cpu/install_level.h"

OCTAVO_BODY_OPERATIONS(OCTAVO_OPERATION_DECLARE, avx2)

void octavo_install_avx2(octavo_kernels *kernels)
{
    if (!octavo_cpu_features_detect().avx2) return;
    OCTAVO_BODY_OPERATIONS(OCTAVO_OPERATION_INSTALL, avx2)
}
