/* cuda_format_check.cpp - our number formats against the CUDA headers' own host conversions; no GPU is needed.
 *
 * Without an argument a dense sample of 2^24 floats, with --all every one of the 2^32, and every code of every format back. */
#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "format/fp8_e5m2.h"

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>

namespace {

enum { FORMATS = 5 };
const char *const format_names[FORMATS] = { "e4m3", "e5m2", "bf16", "fp16", "bf16 up" };

unsigned short bits_of(__nv_bfloat16 x)
{
    return static_cast<__nv_bfloat16_raw>(x).x;
}

unsigned short bits_of(__half x)
{
    return static_cast<__half_raw>(x).x;
}

struct codes {
    unsigned value[FORMATS];
};

codes convert_ours(float x)
{
    return { { octavo_e4m3_from_float(x), octavo_e5m2_from_float(x), octavo_bf16_from_float(x), octavo_fp16_from_float(x),
               octavo_bf16_from_float_up(x) } };
}

codes convert_cuda(float x)
{
    return { { __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3), __nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E5M2),
               bits_of(__float2bfloat16_rn(x)), bits_of(__float2half_rn(x)), bits_of(__float2bfloat16_ru(x)) } };
}

bool is_nan_code(int format, unsigned code)
{
    static const unsigned magnitudes[FORMATS] = { 0x7F, 0x7F, 0x7FFF, 0x7FFF, 0x7FFF };
    static const unsigned last_numbers[FORMATS] = { 0x7E, 0x7C, 0x7F80, 0x7C00, 0x7F80 };
    return (code & magnitudes[format]) > last_numbers[format];
}

/* The sample walks the upper 24 bits. Half of its lower bytes are zero, because ties live there; the others are mixed. */
std::uint32_t sample_bits(std::uint32_t i)
{
    const std::uint32_t mixed = i * 2654435761u >> 16;
    return i << 8 | ((mixed & 0x100u) != 0u ? mixed & 0xFFu : 0u);
}

std::uint64_t count_mismatches_from_float(bool all)
{
    const std::int64_t count = all ? std::int64_t{ 1 } << 32 : std::int64_t{ 1 } << 24;
    std::uint64_t mismatches = 0;
#pragma omp parallel for reduction(+ : mismatches) schedule(static)
    for (std::int64_t i = 0; i < count; i++) {
        const std::uint32_t index = static_cast<std::uint32_t>(i);
        const float x = octavo_float_from_bits(all ? index : sample_bits(index));
        const codes ours = convert_ours(x), cuda = convert_cuda(x);
        for (int f = 0; f < FORMATS; f++) {
            if (ours.value[f] == cuda.value[f] || (is_nan_code(f, ours.value[f]) && is_nan_code(f, cuda.value[f]))) continue;
            if (mismatches++ < 4)
                std::printf("%s of %a (bits %08x): ours %04x, CUDA %04x\n", format_names[f], static_cast<double>(x),
                            octavo_float_bits(x), ours.value[f], cuda.value[f]);
        }
    }
    std::printf("from float: %lld floats, %d conversions, %llu mismatches\n", static_cast<long long>(count), FORMATS,
                static_cast<unsigned long long>(mismatches));
    return mismatches;
}

bool same_float(float a, float b)
{
    return (std::isnan(a) && std::isnan(b)) || octavo_float_bits(a) == octavo_float_bits(b);
}

float fp8_to_float_cuda(unsigned code, __nv_fp8_interpretation_t interpretation)
{
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(static_cast<__nv_fp8_storage_t>(code), interpretation)));
}

std::uint64_t count_mismatches_to_float()
{
    std::uint64_t mismatches = 0;
    for (unsigned code = 0; code < 256; code++) {
        const std::uint8_t byte = static_cast<std::uint8_t>(code);
        mismatches += !same_float(octavo_e4m3_to_float(byte), fp8_to_float_cuda(code, __NV_E4M3));
        mismatches += !same_float(octavo_e5m2_to_float(byte), fp8_to_float_cuda(code, __NV_E5M2));
    }
    for (unsigned code = 0; code < 65536; code++) {
        const std::uint16_t half = static_cast<std::uint16_t>(code);
        __half_raw fp16;
        __nv_bfloat16_raw bf16;
        fp16.x = bf16.x = half;
        mismatches += !same_float(octavo_fp16_to_float(half), __half2float(__half(fp16)));
        mismatches += !same_float(octavo_bf16_to_float(half), __bfloat162float(__nv_bfloat16(bf16)));
    }
    std::printf("to float: every code of 4 formats, %llu mismatches\n", static_cast<unsigned long long>(mismatches));
    return mismatches;
}

} // namespace

int main(int argc, char **argv)
{
    const bool all = argc == 2 && std::strcmp(argv[1], "--all") == 0;
    if (argc > 1 && !all) {
        std::fprintf(stderr, "usage: %s [--all]\n", argv[0]);
        return 2;
    }
    const std::uint64_t mismatches = count_mismatches_to_float() + count_mismatches_from_float(all);
    return mismatches != 0;
}
