/* kv_append_avx2.c - tokens into planes for AVX2. */
#include "cpu/simd/simd_avx2.h"
#include "cpu/body/kv_append_body.h"
