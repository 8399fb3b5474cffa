/* install_avx512.c - what avx512 improves over the level below. */
#include "cpu/install_level.h"

OCTAVO_BODY_OPERATIONS(OCTAVO_OPERATION_DECLARE, avx512)

void octavo_install_avx512(octavo_kernels *kernels)
{
    if (!octavo_cpu_features_detect().avx512) return;
    OCTAVO_BODY_OPERATIONS(OCTAVO_OPERATION_INSTALL, avx512)
}
