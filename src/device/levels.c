/* levels.c - which levels this build holds. */
#include "device/levels.h"
#include "base/cpu_features.h"
#include <string.h>

#ifdef OCTAVO_HAVE_AVX512_BF16
static int bf16_pays(void) { return !octavo_cpu_features_detect().slow_bf16; }
#endif

const octavo_level octavo_levels[] = {
    { "ref", octavo_install_ref, NULL },
    { "generic", octavo_install_generic, NULL },
#ifdef OCTAVO_HAVE_AVX2
    { "avx2", octavo_install_avx2, NULL },
#endif
#ifdef OCTAVO_HAVE_AVX512
    { "avx512", octavo_install_avx512, NULL },
#endif
#ifdef OCTAVO_HAVE_AVX512_VNNI
    { "avx512_vnni", octavo_install_avx512_vnni, NULL },
#endif
#ifdef OCTAVO_HAVE_AVX512_BF16
    { "avx512_bf16", octavo_install_avx512_bf16, bf16_pays },
#endif
#ifdef OCTAVO_HAVE_AMX
    { "amx", octavo_install_amx, NULL },
#endif
#ifdef OCTAVO_HAVE_NEON
    { "neon", octavo_install_neon, NULL },
#endif
};
const int octavo_level_count = sizeof octavo_levels / sizeof *octavo_levels;

int octavo_level_available(int index)
{
    octavo_kernels before, after;
    memset(&before, 0, sizeof before);
    memset(&after, 0, sizeof after);
    octavo_levels[index].install(&after);
    return memcmp(&before, &after, sizeof before) != 0;
}

const char *octavo_isa_name(int index) { return index >= 0 && index < octavo_level_count ? octavo_levels[index].name : NULL; }

int octavo_isa_available(int index) { return index >= 0 && index < octavo_level_count && octavo_level_available(index); }
