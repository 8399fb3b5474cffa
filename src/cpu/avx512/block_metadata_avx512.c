/* block_metadata_avx512.c - norms and mean rows of stored planes for AVX-512. */
#include "cpu/simd/simd_avx512.h"
#include "cpu/body/block_metadata_body.h"
