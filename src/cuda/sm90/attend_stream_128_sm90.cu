/* attend_stream_128_sm90.cu - dense streams over heads of 128 elements. */
#include "cuda/sm90/stream_launch.cuh"

#define STREAM_DIM 128

STREAM_OF(octavo_attend_stream_128)
{
    STREAM_CASE(BF16, BF16)
    STREAM_CASE(F16, F16)
    STREAM_CASE(E4M3, E4M3)
    STREAM_CASE(E4M3, BF16)
    STREAM_CASE(E5M2, E4M3)
    STREAM_CASE(INT8, INT8)
    STREAM_CASE(INT8, BF16)
    (void)exec, (void)call, (void)kv;
    *done = false;
    return OCTAVO_OK;
}
