/* device.h - contexts and devices from the inside. */
#ifndef OCTAVO_DEVICE_DEVICE_H
#define OCTAVO_DEVICE_DEVICE_H

#include "base/sibling.h"
#include "kernel/kernels.h"

/* The device's one table. An entry may be NULL on a device that lacks the operation. */
const octavo_kernels *octavo_device_kernels(const octavo_device *device);
OCTAVO_SIBLING octavo_context *octavo_device_context(const octavo_device *device);

/* Multiprocessors of a GPU, which a plan spreads its work over; 0 on the CPU. */
int32_t octavo_device_processors(const octavo_device *device);

/* Copies on the device, in order with the work on exec->stream. */
octavo_status octavo_device_copy(const octavo_exec *exec, void *to, const void *from, size_t bytes);

/* Index of the highest CPU level that the context may use. */
int octavo_context_level(const octavo_context *context);

/* Host memory through the context's allocator; NULL when it has none. */
OCTAVO_SIBLING void *octavo_context_allocate(octavo_context *context, size_t bytes, size_t alignment);
OCTAVO_SIBLING void octavo_context_release(octavo_context *context, void *memory, size_t bytes);
void octavo_context_log(const octavo_context *context, octavo_log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What every public entry checks first: exec, its version and its device. On success *kernels is the device's table. */
octavo_status octavo_exec_check(const octavo_exec *exec, const octavo_kernels **kernels);

/* What a call is given has to lie where it runs. `name` is what the sentence calls it. */
octavo_status octavo_exec_check_place(const octavo_exec *exec, const char *name, octavo_device_kind kind);

/* `struct_size` of a params struct against this build's. */
OCTAVO_SIBLING octavo_status octavo_struct_check(const char *name, size_t struct_size, size_t expected);

#endif
