/* kv_append_neon.c - tokens into planes for NEON. */
#include "cpu/simd/simd_neon.h"
#include "cpu/body/kv_append_body.h"
