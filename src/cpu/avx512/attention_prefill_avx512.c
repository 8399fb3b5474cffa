/* attention_prefill_avx512.c - attention of many queries for AVX-512. */
#include "cpu/simd/simd_avx512.h"
#include "cpu/body/attention_prefill_body.h"
