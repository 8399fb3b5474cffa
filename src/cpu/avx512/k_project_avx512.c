/* k_project_avx512.c - the K projection for AVX-512. */
#include "cpu/simd/simd_avx512.h"
#include "cpu/body/k_project_body.h"
