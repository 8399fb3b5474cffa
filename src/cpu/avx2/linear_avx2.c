/* linear_avx2.c - linear layers for AVX2. */
#include "cpu/simd/simd_avx2.h"
#include "cpu/body/linear_body.h"
