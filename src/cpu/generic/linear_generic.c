/* linear_generic.c - linear layers for any processor. */
#include "cpu/simd/simd_generic.h"
#include "cpu/body/linear_body.h"
