/* k_project_avx2.c - the K projection for AVX2. */
#include "cpu/simd/simd_avx2.h"
#include "cpu/body/k_project_body.h"
