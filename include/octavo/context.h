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

/* name: "cpu". OCTAVO_E_DEVICE: there is no such device here. */
OCTAVO_API octavo_status octavo_device_open(octavo_context *context, const char *name, octavo_device **device);
OCTAVO_API void octavo_device_close(octavo_device *device); /* NULL is fine */
OCTAVO_API const char *octavo_device_name(const octavo_device *device);
OCTAVO_API const char *octavo_device_isa(const octavo_device *device); /* the level whose kernels are in use */

/* Memory on the device through the context's allocator, aligned to 4096 bytes. OCTAVO_E_NOMEM: *memory is NULL. */
OCTAVO_API octavo_status octavo_device_allocate(octavo_device *device, size_t bytes, void **memory);
OCTAVO_API void octavo_device_release(octavo_device *device, void *memory, size_t bytes); /* NULL is fine */

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
    int32_t *device_status; /* sticky word that device kernels set; NULL on the CPU */
} octavo_exec;
#define OCTAVO_EXEC_INIT OCTAVO_INIT_STRUCT(octavo_exec)

OCTAVO_END_DECLS

#endif
