/* quantize_neon.c - symmetric quantisation for NEON. */
#include "cpu/simd/simd_neon.h"
#include "cpu/body/quantize_body.h"
