/* linear_avx512.c - linear layers for AVX-512. */
#include "cpu/simd/simd_avx512.h"
#include "cpu/body/linear_body.h"
