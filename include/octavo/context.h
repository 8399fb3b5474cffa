/* context.h - contexts, devices, and how a call is executed.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_CONTEXT_H
#define OCTAVO_CONTEXT_H

#include "octavo/tensor.h"

OCTAVO_BEGIN_DECLS

typedef struct octavo_context octavo_context;
typedef struct octavo_device octavo_device;

typedef enum octavo_log_level { OCTAVO_LOG_INFO = 0, OCTAVO_LOG_WARNING = 1 } octavo_log_level;

/* Both functions or neither. `alignment` is a power of two; release gets the size that was asked for. */
typedef struct octavo_allocator {
    void *(*allocate)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *memory, size_t bytes);
    void *user;
} octavo_allocator;

typedef struct octavo_context_config {
    size_t struct_size;
    octavo_allocator allocator; /* zero: aligned_alloc and free */
    void (*log)(void *user, octavo_log_level level, const char *text); /* NULL: silent; one line, no newline */
    void *log_user;
    const char *isa; /* highest CPU level to use: "generic", "avx2", ...; NULL: OCTAVO_ISA of the environment, else the best */
} octavo_context_config;
#define OCTAVO_CONTEXT_CONFIG_INIT OCTAVO_INIT_STRUCT(octavo_context_config)

/* config may be NULL. The context must outlive everything made from it; it may be used from several threads.
 * OCTAVO_E_ARGUMENT: an ISA level that does not exist; OCTAVO_E_DEVICE: one that this machine lacks. */
OCTAVO_API octavo_status octavo_context_create(const octavo_context_config *config, octavo_context **context);
OCTAVO_API void octavo_context_destroy(octavo_context *context); /* NULL is fine */

/* name: "cpu", or "cuda:N" for GPU number N. GPUs are reached through the plug-in liboctavo-cuda.so, which is looked for beside
 * liboctavo, or is the file that OCTAVO_CUDA_PATH of the environment names by its absolute path. OCTAVO_CUDA_LEVEL=sm80 there: kernels for any GPU alone.
 * OCTAVO_E_DEVICE: there is no such device here; OCTAVO_E_VERSION: the plug-in is of another build. */
OCTAVO_API octavo_status octavo_device_open(octavo_context *context, const char *name, octavo_device **device);
OCTAVO_API void octavo_device_close(octavo_device *device); /* NULL is fine */
OCTAVO_API const char *octavo_device_name(const octavo_device *device);
OCTAVO_API const char *octavo_device_isa(const octavo_device *device); /* the level whose kernels are in use */

OCTAVO_API octavo_device_kind octavo_device_kind_of(const octavo_device *device);

/* A GPU, as its driver describes it. */
typedef struct octavo_device_info {
    size_t struct_size;
    char name[96];
    int64_t memory_bytes, l2_bytes;
    int32_t multiprocessors, compute_major, compute_minor;
} octavo_device_info;
#define OCTAVO_DEVICE_INFO_INIT OCTAVO_INIT_STRUCT(octavo_device_info)

/* GPUs that can be opened as cuda:0, cuda:1, ... OCTAVO_E_DEVICE, OCTAVO_E_VERSION: none, and the sentence says why; *count is 0. */
OCTAVO_API octavo_status octavo_cuda_device_count(int *count);
OCTAVO_API octavo_status octavo_cuda_device_info(int index, octavo_device_info *info);

/* Memory on the device: on the CPU through the context's allocator, aligned to 4096 bytes; on a GPU aligned to 256.
 * OCTAVO_E_NOMEM: *memory is NULL. */
OCTAVO_API octavo_status octavo_device_allocate(octavo_device *device, size_t bytes, void **memory);
OCTAVO_API void octavo_device_release(octavo_device *device, void *memory, size_t bytes); /* NULL is fine */

/* A stream for octavo_exec; NULL on the CPU, which needs none. */
OCTAVO_API octavo_status octavo_device_stream_create(octavo_device *device, void **stream);
OCTAVO_API void octavo_device_stream_destroy(octavo_device *device, void *stream); /* NULL is fine */

/* The CPU levels that this build holds, weakest first; NULL past the last one. */
OCTAVO_API const char *octavo_isa_name(int index);
OCTAVO_API int octavo_isa_available(int index); /* 1: this machine runs it */

/* One unit of parallel work; tasks of one call are independent. */
typedef void (*octavo_task)(void *argument, int64_t index);

/* How one call runs. Kernels never allocate: the workspace is sized by the call's own query. */
typedef struct octavo_exec {
    size_t struct_size;
    octavo_device *device;
    void *stream;           /* a CUDA stream; NULL on the CPU                       */
    void *workspace;        /* at least 64-byte aligned                             */
    size_t workspace_bytes;
    void (*parallel_for)(void *user, int64_t count, octavo_task task, void *argument); /* NULL: OpenMP */
    void *parallel_user;
    int32_t threads;        /* for OpenMP; 0: its default                           */
    int32_t *device_status; /* a word on the GPU, 0 at first, set to what a CPU call returns for values that are not finite, places outside the
                             * cache, pages outside the pool; never cleared. Lengths are held to 0..max_tokens instead. NULL: nobody asks */
} octavo_exec;
#define OCTAVO_EXEC_INIT OCTAVO_INIT_STRUCT(octavo_exec)

/* Copies between host memory and the device, in order with the work on exec->stream. Host memory may be used again on return:
 * a download waits for its bytes. On the CPU both are memcpy. */
OCTAVO_API octavo_status octavo_device_upload(const octavo_exec *exec, void *to, const void *from_host, size_t bytes);
OCTAVO_API octavo_status octavo_device_download(const octavo_exec *exec, void *to_host, const void *from, size_t bytes);
/* Waits for all work on exec->stream. OCTAVO_E_DEVICE: some of it failed. */
OCTAVO_API octavo_status octavo_device_synchronize(const octavo_exec *exec);
/* *sum on the device: the sum of the data's 64-bit words modulo 2^64; `bytes` is a multiple of 16. Reads as fast as the device
 * can. */
OCTAVO_API octavo_status octavo_device_checksum(const octavo_exec *exec, const void *data, size_t bytes, uint64_t *sum);

/* Calls between begin and end on exec->stream, which is none of NULL, are recorded instead of run, to be replayed as a whole.
 * Everything that they were given by pointer has to outlive the graph. OCTAVO_E_UNSUPPORTED: on the CPU. */
OCTAVO_API octavo_status octavo_device_graph_begin(const octavo_exec *exec);
OCTAVO_API octavo_status octavo_device_graph_end(const octavo_exec *exec, void **graph);
OCTAVO_API octavo_status octavo_device_graph_replay(const octavo_exec *exec, void *graph);
/* Replays, waits, and gives the seconds that it took on the device. */
OCTAVO_API octavo_status octavo_device_graph_time(const octavo_exec *exec, void *graph, double *seconds);
OCTAVO_API void octavo_device_graph_destroy(octavo_device *device, void *graph); /* NULL is fine */

OCTAVO_END_DECLS

#endif
