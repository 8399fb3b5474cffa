/* install_amx.c - what AMX tiles improve over the level below. */
#include "base/cpu_features.h"
#include "kernel/kernels.h"

#ifdef OCTAVO_HAVE_AMX

#define X(op) octavo_status octavo_##op##_amx(const octavo_exec *exec, const octavo_##op##_params *p);
#define OPERATIONS(X) \
    X(block_score) \
    X(block_attend) \
    X(decode_fused) \
    X(attention_prefill) \
    X(k_project)    \
    X(linear)
OPERATIONS(X)
#undef X
size_t octavo_linear_packed_bytes_amx(const octavo_weight *weight, octavo_linear_precision precision);
octavo_status octavo_linear_pack_amx(const octavo_exec *exec, const octavo_weight *weight, octavo_linear_precision precision, void *packed);

void octavo_install_amx(octavo_kernels *kernels)
{
    const octavo_cpu_features features = octavo_cpu_features_detect();
    if (!features.avx512_vnni || !features.avx512_bf16 || !features.avx512_vbmi) return;
    if (!features.amx_int8 || !features.amx_bf16 || octavo_cpu_features_request_amx() != OCTAVO_OK) return;
#define X(op) kernels->op = octavo_##op##_amx;
    OPERATIONS(X)
#undef X
    kernels->linear_packed_bytes = octavo_linear_packed_bytes_amx;
    kernels->linear_pack = octavo_linear_pack_amx;
}

#endif
