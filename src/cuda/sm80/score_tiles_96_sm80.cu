/* score_tiles_96_sm80.cu - scores over heads of 96 elements. */
#include "cuda/tile/tile_launch.cuh"

#define TILE_DIM 96

TILE_SCORE_OF(octavo_score_tiles_96)
{
    TILE_SCORE_CASE(BF16)
    TILE_SCORE_CASE(F16)
    TILE_SCORE_CASE(E4M3)
    TILE_SCORE_CASE(INT8)
    (void)exec, (void)call;
    *done = false;
    return OCTAVO_OK;
}
