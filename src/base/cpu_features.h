/* cpu_features.h - what this processor, and the operating system on it, let code use. */
#ifndef OCTAVO_BASE_CPU_FEATURES_H
#define OCTAVO_BASE_CPU_FEATURES_H

#include "octavo/status.h"
#include <stdbool.h>

/* A flag is set only where the processor has the instructions and the system saves their registers. */
typedef struct octavo_cpu_features {
    bool avx2;        /* AVX2 with FMA and F16C      */
    bool avx_vnni;    /* the 256-bit VEX form        */
    bool avx512;      /* F, BW, VL and DQ, over avx2 */
    bool avx512_vbmi; /* the avx512_* imply avx512   */
    bool avx512_vnni;
    bool avx512_bf16;
    bool slow_bf16;   /* vdpbf16ps has half of the products of float32's, instead of twice as many: on Intel's processors so far */
    bool avx512_fp16;
    bool amx_tile;    /* usable after octavo_cpu_features_request_amx() */
    bool amx_int8;
    bool amx_bf16;
    bool neon;
} octavo_cpu_features;

/* Asks the processor each time: a few hundred cycles, more under a hypervisor. */
octavo_cpu_features octavo_cpu_features_detect(void);

/* Asks the system to let this process use AMX tiles; cheap to repeat. Before it, tile instructions raise SIGILL.
 * OCTAVO_E_UNSUPPORTED: the processor has none, or the system refuses. */
octavo_status octavo_cpu_features_request_amx(void);

#endif
