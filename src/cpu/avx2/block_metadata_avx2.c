/* block_metadata_avx2.c - norms and mean rows of stored planes for AVX2. */
#include "cpu/simd/simd_avx2.h"
#include "cpu/body/block_metadata_body.h"
