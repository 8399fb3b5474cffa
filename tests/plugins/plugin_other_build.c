/* plugin_other_build.c - a CUDA backend of another version, which has to be refused. */
#include "cuda/cuda_backend.h"

const octavo_cuda_backend *octavo_cuda_backend_of(const octavo_cuda_host *host)
{
    static const octavo_cuda_backend backend = { .struct_size = sizeof backend, .version = "9.9.9", .build_id = "0000000000000000" };
    (void)host;
    return &backend;
}
