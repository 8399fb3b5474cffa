/* device.h - contexts and devices from the inside. */
#ifndef OCTAVO_DEVICE_DEVICE_H
#define OCTAVO_DEVICE_DEVICE_H

#include "kernel/kernels.h"

/* The device's one table. An entry may be NULL on a device that lacks the operation. */
const octavo_kernels *octavo_device_kernels(const octavo_device *device);
octavo_context *octavo_device_context(const octavo_device *device);

/* Host memory through the context's allocator; NULL when it has none. */
void *octavo_context_allocate(octavo_context *context, size_t bytes, size_t alignment);
void octavo_context_release(octavo_context *context, void *memory, size_t bytes);
void octavo_context_log(const octavo_context *context, octavo_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What every public entry checks first: exec, its version and its device. On success *kernels is the device's table. */
octavo_status octavo_exec_check(const octavo_exec *exec, const octavo_kernels **kernels);

/* `struct_size` of a params struct against this build's. */
octavo_status octavo_struct_check(const char *name, size_t struct_size, size_t expected);

#endif
