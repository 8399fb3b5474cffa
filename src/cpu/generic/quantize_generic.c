/* quantize_generic.c - symmetric quantisation for any processor. */
#include "cpu/simd/simd_generic.h"
#include "cpu/body/quantize_body.h"
