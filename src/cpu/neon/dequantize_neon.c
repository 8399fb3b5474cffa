/* dequantize_neon.c - codes times scales for NEON. */
#include "cpu/simd/simd_neon.h"
#include "cpu/body/dequantize_body.h"
