/* attend_tiles_96_sm80.cu - attention over heads of 96 elements. */
#include "cuda/tile/tile_launch.cuh"

#define TILE_DIM 96

TILE_ATTEND_OF(octavo_attend_tiles_96)
{
    TILE_ATTEND_CASE(BF16, BF16)
    TILE_ATTEND_CASE(F16, F16)
    TILE_ATTEND_CASE(E4M3, E4M3)
    TILE_ATTEND_CASE(INT8, INT8)
    (void)exec, (void)call;
    *done = false;
    return OCTAVO_OK;
}
