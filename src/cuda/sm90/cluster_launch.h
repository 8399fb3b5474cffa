/* cluster_launch.h - launches a kernel whose blocks run together in clusters along the grid's first axis. */
#ifndef OCTAVO_CUDA_SM90_CLUSTER_LAUNCH_H
#define OCTAVO_CUDA_SM90_CLUSTER_LAUNCH_H

#include "cuda/cuda_call.h"

enum { CLUSTER_ANYWHERE = 8 /* blocks that every GPU with clusters runs together */, CLUSTER_MOST = 16 };

/* As octavo_cuda_launch: the kernel begins with wait_for_kernel_before(), or reads only constants before that. *started: false where the
 * GPU has no room for such clusters. */
template <typename Call>
static inline octavo_status octavo_cuda_launch_clusters(void (*kernel)(Call), const char *name, dim3 grid, int cluster, int threads, size_t shared_bytes,
                                                        const octavo_exec *exec, const Call &call, bool *started)
{
    cudaLaunchAttribute attributes[2] = {};
    attributes[0].id = cudaLaunchAttributeClusterDimension;
    attributes[0].val.clusterDim.x = (unsigned)cluster, attributes[0].val.clusterDim.y = attributes[0].val.clusterDim.z = 1;
    attributes[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = dim3((unsigned)threads), config.dynamicSmemBytes = shared_bytes, config.stream = octavo_cuda_stream(exec);
    config.attrs = attributes, config.numAttrs = 1;
    *started = false;
    OCTAVO_CUDA_TRY(octavo_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes), name));
    if (cluster > CLUSTER_ANYWHERE) {
        int fit = 0;
        OCTAVO_CUDA_TRY(octavo_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeNonPortableClusterSizeAllowed, 1), name));
        if (cudaOccupancyMaxActiveClusters(&fit, kernel, &config) != cudaSuccess) cudaGetLastError(), fit = 0;
        if (fit < 1) return OCTAVO_OK;
    }
    config.numAttrs = 2, *started = true;
    return octavo_cuda_check(cudaLaunchKernelEx(&config, kernel, call), name);
}

#endif
