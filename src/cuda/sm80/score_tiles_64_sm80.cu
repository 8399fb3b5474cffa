/* score_tiles_64_sm80.cu - scores over heads of 64 elements. */
#include "cuda/tile/tile_launch.cuh"

#define TILE_DIM 64

TILE_SCORE_OF(octavo_score_tiles_64)
{
    TILE_SCORE_CASE(BF16)
    TILE_SCORE_CASE(F16)
    TILE_SCORE_CASE(E4M3)
    TILE_SCORE_CASE(INT8)
    TILE_SCORE_CASE(INT4_BASE)
    (void)exec, (void)call;
    *done = false;
    return OCTAVO_OK;
}
