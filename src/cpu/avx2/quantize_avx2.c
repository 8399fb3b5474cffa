/* quantize_avx2.c - symmetric quantisation for AVX2. */
#include "cpu/simd/simd_avx2.h"
#include "cpu/body/quantize_body.h"
