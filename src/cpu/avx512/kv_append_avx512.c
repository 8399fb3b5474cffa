/* kv_append_avx512.c - tokens into planes for AVX-512. */
#include "cpu/simd/simd_avx512.h"
#include "cpu/body/kv_append_body.h"
