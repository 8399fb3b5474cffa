/* block_metadata_generic.c - norms and mean rows of stored planes for any processor. */
#include "cpu/simd/simd_generic.h"
#include "cpu/body/block_metadata_body.h"
