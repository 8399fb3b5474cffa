/* dequantize_avx2.c - codes times scales for AVX2. */
#include "cpu/simd/simd_avx2.h"
#include "cpu/body/dequantize_body.h"
