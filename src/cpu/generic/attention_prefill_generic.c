/* attention_prefill_generic.c - attention of many queries for any processor. */
#include "cpu/simd/simd_generic.h"
#include "cpu/body/attention_prefill_body.h"
