/* attend_stream_256_sm90.cu - dense streams over heads of 256 elements. */
#include "cuda/sm90/stream_launch.cuh"

#define STREAM_DIM 256

STREAM_OF(octavo_attend_stream_256)
{
    STREAM_CASE(E4M3, E4M3)
    STREAM_CASE(INT8, INT8)
    (void)exec, (void)call, (void)kv;
    *done = false;
    return OCTAVO_OK;
}
