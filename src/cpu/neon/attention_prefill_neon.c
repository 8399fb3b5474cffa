/* attention_prefill_neon.c - attention of many queries for NEON. */
#include "cpu/simd/simd_neon.h"
#include "cpu/body/attention_prefill_body.h"
