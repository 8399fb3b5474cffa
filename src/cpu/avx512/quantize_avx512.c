/* quantize_avx512.c - symmetric quantisation for AVX-512. */
#include "cpu/simd/simd_avx512.h"
#include "cpu/body/quantize_body.h"
