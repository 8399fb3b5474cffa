/* cuda_call.h - how the backend's host code reports failures of the CUDA run time and of its launches. */
#ifndef OCTAVO_CUDA_CUDA_CALL_H
#define OCTAVO_CUDA_CUDA_CALL_H

#include "cuda/cuda_backend.h"
#include <cuda_runtime.h>

/* The library that loaded the plug-in. */
const octavo_cuda_host *octavo_cuda_host_get(void);

#define octavo_cuda_fail(...) (octavo_cuda_host_get()->fail(__VA_ARGS__))

/* OCTAVO_OK, or a status and a sentence that says what was tried. */
octavo_status octavo_cuda_check(cudaError_t error, const char *what);

#define OCTAVO_CUDA_TRY(expression)                                   \
    do {                                                              \
        const octavo_status octavo_try_ = (expression);               \
        if (octavo_try_ != OCTAVO_OK) return octavo_try_;             \
    } while (0)

/* The status of the launch just before. */
static inline octavo_status octavo_cuda_launched(const char *kernel)
{
    const cudaError_t error = cudaPeekAtLastError();
    if (error == cudaSuccess) return OCTAVO_OK;
    cudaGetLastError();
    return octavo_cuda_check(error, kernel);
}

static inline cudaStream_t octavo_cuda_stream(const octavo_exec *exec) { return (cudaStream_t)exec->stream; }

/* Bytes of shared memory that a block of the thread's device may ask for, less what a kernel declares itself. */
octavo_status octavo_cuda_shared_most(int *bytes);

/* Facts of the thread's device that plans follow. */
struct octavo_cuda_machine {
    int processors, major;
};
octavo_status octavo_cuda_machine_of(octavo_cuda_machine *machine);

/* All of a multiprocessor's fast memory is to be shared memory while the kernel runs: blocks of two kernels run side by side only where both
 * divide it alike. */
template <typename Call> static inline octavo_status octavo_cuda_share_processors(void (*kernel)(Call), const char *name)
{
    return octavo_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared), name);
}

/* Launches a kernel that begins with wait_for_kernel_before(): on sm_90 and later its blocks may be set up while the kernel before it
 * still runs. */
template <typename Call>
static inline octavo_status octavo_cuda_launch(void (*kernel)(Call), const char *name, dim3 grid, int threads, size_t shared_bytes,
                                               const octavo_exec *exec, const Call &call)
{
    octavo_cuda_machine machine;
    OCTAVO_CUDA_TRY(octavo_cuda_machine_of(&machine));
    if (shared_bytes > 48 << 10)
        OCTAVO_CUDA_TRY(octavo_cuda_check(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared_bytes), name));
    cudaLaunchAttribute early = {};
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid, config.blockDim = dim3((unsigned)threads), config.dynamicSmemBytes = shared_bytes, config.stream = octavo_cuda_stream(exec);
    config.attrs = &early, config.numAttrs = machine.major >= 9 ? 1 : 0;
    return octavo_cuda_check(cudaLaunchKernelEx(&config, kernel, call), name);
}

static inline int64_t octavo_cuda_ceil(int64_t count, int64_t each) { return (count + each - 1) / each; }

#endif
