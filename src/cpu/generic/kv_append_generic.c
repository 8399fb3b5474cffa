/* kv_append_generic.c - tokens into planes for any processor. */
#include "cpu/simd/simd_generic.h"
#include "cpu/body/kv_append_body.h"
