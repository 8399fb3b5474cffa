/* k_project_neon.c - the K projection for NEON. */
#include "cpu/simd/simd_neon.h"
#include "cpu/body/k_project_body.h"
