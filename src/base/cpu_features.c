/* cpu_features.c - what this processor, and the operating system on it, let code use.
 *
 * The one place outside the ISA folders that knows which architecture it is compiled for: somebody has to ask. */
#define _GNU_SOURCE 1
#include "base/cpu_features.h"
#include "base/error.h"
#include <errno.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__)

#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

/* Register state that the system saves on a task switch (XCR0). */
enum { STATE_AVX = 0x6, STATE_AVX512 = 0xE6, STATE_AMX = 0x60000 };

static uint32_t saved_state(void)
{
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    (void)high;
    return low;
}

static bool made_by_intel(void)
{
    uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(0, &eax, &ebx, &ecx, &edx) && ebx == signature_INTEL_ebx && ecx == signature_INTEL_ecx && edx == signature_INTEL_edx;
}

static bool has_bit(uint32_t word, unsigned index) { return (word >> index & 1u) != 0u; }

octavo_cpu_features octavo_cpu_features_detect(void)
{
    octavo_cpu_features features = { 0 };
    uint32_t eax, ebx, ecx, edx;
    if (!__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return features;
    const bool system_saves = has_bit(ecx, 27);
    const bool fma_f16c = has_bit(ecx, 12) && has_bit(ecx, 28) && has_bit(ecx, 29);
    if (!system_saves || !__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) return features;
    const uint32_t state = saved_state();
    uint32_t eax1 = 0, ebx1, ecx1, edx1;
    if (eax >= 1) __cpuid_count(7, 1, eax1, ebx1, ecx1, edx1);

    features.avx2 = fma_f16c && has_bit(ebx, 5) && (state & STATE_AVX) == STATE_AVX;
    features.avx_vnni = features.avx2 && has_bit(eax1, 4);
    features.avx512 = features.avx2 && has_bit(ebx, 16) && has_bit(ebx, 17) && has_bit(ebx, 30) && has_bit(ebx, 31)
                      && (state & STATE_AVX512) == STATE_AVX512;
    features.avx512_vbmi = features.avx512 && has_bit(ecx, 1);
    features.avx512_vnni = features.avx512 && has_bit(ecx, 11);
    features.avx512_bf16 = features.avx512 && has_bit(eax1, 5);
    features.slow_bf16 = features.avx512_bf16 && made_by_intel();
    features.avx512_fp16 = features.avx512 && has_bit(edx, 23);
    features.amx_tile = has_bit(edx, 24) && (state & STATE_AMX) == STATE_AMX;
    features.amx_int8 = features.amx_tile && has_bit(edx, 25);
    features.amx_bf16 = features.amx_tile && has_bit(edx, 22);
    return features;
}

octavo_status octavo_cpu_features_request_amx(void)
{
    if (!octavo_cpu_features_detect().amx_tile) return octavo_fail(OCTAVO_E_UNSUPPORTED, "this processor has no AMX tiles");
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* arch_prctl's ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    if (syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) != 0)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "the system refuses AMX tiles: %s", strerror(errno));
#endif
    return OCTAVO_OK;
}

#else

octavo_cpu_features octavo_cpu_features_detect(void)
{
    octavo_cpu_features features = { 0 };
#if defined(__aarch64__)
    features.neon = true; /* part of the base architecture */
#endif
    return features;
}

octavo_status octavo_cpu_features_request_amx(void)
{
    return octavo_fail(OCTAVO_E_UNSUPPORTED, "this processor has no AMX tiles");
}

#endif
