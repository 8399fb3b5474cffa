/* dequantize_generic.c - codes times scales for any processor. */
#include "cpu/simd/simd_generic.h"
#include "cpu/body/dequantize_body.h"
