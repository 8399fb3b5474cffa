/* block_metadata_neon.c - norms and mean rows of stored planes for NEON. */
#include "cpu/simd/simd_neon.h"
#include "cpu/body/block_metadata_body.h"
