/* score_tiles_128_sm80.cu - scores over heads of 128 elements. */
#include "cuda/tile/tile_launch.cuh"

#define TILE_DIM 128

TILE_SCORE_OF(octavo_score_tiles_128)
{
    TILE_SCORE_CASE(BF16)
    TILE_SCORE_CASE(F16)
    TILE_SCORE_CASE(E4M3)
    TILE_SCORE_CASE(E5M2)
    TILE_SCORE_CASE(INT8)
    TILE_SCORE_CASE(INT4_BASE)
    TILE_SCORE_CASE(E4M3X2)
    TILE_SCORE_CASE(INT8X2)
    TILE_SCORE_CASE(INT4X2)
    (void)exec, (void)call;
    *done = false;
    return OCTAVO_OK;
}
