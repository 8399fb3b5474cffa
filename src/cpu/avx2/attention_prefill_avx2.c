/* attention_prefill_avx2.c - attention of many queries for AVX2. */
#include "cpu/simd/simd_avx2.h"
#include "cpu/body/attention_prefill_body.h"
