/* attend_tiles_128_nested_sm80.cu - attention over heads of 128 elements, two planes of K. */
#include "cuda/tile/tile_launch.cuh"

#define TILE_DIM 128

TILE_ATTEND_OF(octavo_attend_tiles_128_nested)
{
    TILE_ATTEND_CASE(E4M3X2, E4M3)
    TILE_ATTEND_CASE(E4M3X2, BF16)
    TILE_ATTEND_CASE(E4M3X2, INT8)
    TILE_ATTEND_CASE(E5M2X2, BF16)
    TILE_ATTEND_CASE(INT8X2, INT8)
    TILE_ATTEND_CASE(INT8X2, BF16)
    TILE_ATTEND_CASE(INT4X2, INT8)
    TILE_ATTEND_CASE(INT4X2, BF16)
    (void)exec, (void)call;
    *done = false;
    return OCTAVO_OK;
}
