/* dequantize_avx512.c - codes times scales for AVX-512. */
#include "cpu/simd/simd_avx512.h"
#include "cpu/body/dequantize_body.h"
