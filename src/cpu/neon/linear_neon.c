/* linear_neon.c - linear layers for NEON. */
#include "cpu/simd/simd_neon.h"
#include "cpu/body/linear_body.h"
