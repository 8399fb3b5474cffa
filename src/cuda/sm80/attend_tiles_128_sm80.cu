/* attend_tiles_128_sm80.cu - attention over heads of 128 elements, one plane of K. */
#include "cuda/tile/tile_launch.cuh"

#define TILE_DIM 128

TILE_ATTEND_OF(octavo_attend_tiles_128)
{
    TILE_ATTEND_CASE(BF16, BF16)
    TILE_ATTEND_CASE(F16, F16)
    TILE_ATTEND_CASE(E4M3, E4M3)
    TILE_ATTEND_CASE(E4M3, BF16)
    TILE_ATTEND_CASE(INT8, INT8)
    TILE_ATTEND_CASE(INT8, BF16)
    TILE_ATTEND_CASE(E5M2, E4M3)
    TILE_ATTEND_CASE(INT4_BASE, INT8)
    (void)exec, (void)call;
    *done = false;
    return OCTAVO_OK;
}
