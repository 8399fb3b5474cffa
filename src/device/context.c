/* context.c - contexts and the CPU device: the allocator, the log, the choice of a level. */
#define _POSIX_C_SOURCE 200809L
#include "base/error.h"
#include "device/device.h"
#include "device/levels.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEVICE_ALIGN = 4096, LOG_BYTES = 512 };

struct octavo_context {
    octavo_allocator allocator;
    void (*log)(void *user, octavo_log_level level, const char *text);
    void *log_user;
    int level; /* index of the highest CPU level to install */
};

struct octavo_device {
    octavo_context *context;
    octavo_kernels kernels;
    const char *isa;
};

static void *default_allocate(void *user, size_t bytes, size_t alignment)
{
    (void)user;
    void *memory = NULL;
    return posix_memalign(&memory, alignment < sizeof(void *) ? sizeof(void *) : alignment, bytes ? bytes : 1) ? NULL : memory;
}

static void default_release(void *user, void *memory, size_t bytes)
{
    (void)user, (void)bytes;
    free(memory);
}

/* The index of the level that `name` asks for; NULL: the highest that runs here. */
static octavo_status choose_level(const char *name, int *level)
{
    int best = 0;
    for (int i = 0; i < octavo_level_count; i++)
        if (octavo_level_available(i)) best = i;
    *level = best;
    if (!name || !*name) return OCTAVO_OK;
    for (int i = 0; i < octavo_level_count; i++) {
        if (strcmp(name, octavo_levels[i].name)) continue;
        if (!octavo_level_available(i)) return octavo_fail(OCTAVO_E_DEVICE, "isa is '%s', which this machine does not have", name);
        *level = i;
        return OCTAVO_OK;
    }
    char known[LOG_BYTES] = "";
    for (int i = 0; i < octavo_level_count; i++) {
        strncat(known, i ? ", " : "", sizeof known - strlen(known) - 1);
        strncat(known, octavo_levels[i].name, sizeof known - strlen(known) - 1);
    }
    return octavo_fail(OCTAVO_E_ARGUMENT, "isa is '%s', expected one of %s", name, known);
}

octavo_status octavo_context_create(const octavo_context_config *config, octavo_context **context)
{
    if (!context) return octavo_fail(OCTAVO_E_ARGUMENT, "context is NULL, expected where to put the new context");
    *context = NULL;
    static const octavo_context_config DEFAULT = OCTAVO_CONTEXT_CONFIG_INIT;
    if (!config) config = &DEFAULT;
    OCTAVO_TRY(octavo_struct_check("octavo_context_config", config->struct_size, sizeof *config));
    octavo_allocator allocator = config->allocator;
    if (!allocator.allocate != !allocator.release)
        return octavo_fail(OCTAVO_E_ARGUMENT, "allocator has only one of allocate and release, expected both or neither");
    if (!allocator.allocate) allocator = (octavo_allocator){ default_allocate, default_release, NULL };
    int level = 0;
    OCTAVO_TRY(choose_level(config->isa ? config->isa : getenv("OCTAVO_ISA"), &level));
    octavo_context *made = allocator.allocate(allocator.user, sizeof *made, sizeof(void *));
    if (!made) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a context");
    *made = (octavo_context){ allocator, config->log, config->log_user, level };
    *context = made;
    return OCTAVO_OK;
}

void octavo_context_destroy(octavo_context *context)
{
    if (!context) return;
    const octavo_allocator allocator = context->allocator;
    allocator.release(allocator.user, context, sizeof *context);
}

void *octavo_context_allocate(octavo_context *context, size_t bytes, size_t alignment)
{
    return context->allocator.allocate(context->allocator.user, bytes, alignment);
}

void octavo_context_release(octavo_context *context, void *memory, size_t bytes)
{
    if (memory) context->allocator.release(context->allocator.user, memory, bytes);
}

void octavo_context_log(const octavo_context *context, octavo_log_level level, const char *format, ...)
{
    if (!context->log) return;
    char text[LOG_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    context->log(context->log_user, level, text);
}

octavo_status octavo_device_open(octavo_context *context, const char *name, octavo_device **device)
{
    if (!device) return octavo_fail(OCTAVO_E_ARGUMENT, "device is NULL, expected where to put the device");
    *device = NULL;
    if (!context) return octavo_fail(OCTAVO_E_ARGUMENT, "context is NULL, expected one from octavo_context_create");
    if (!name || strcmp(name, "cpu"))
        return octavo_fail(OCTAVO_E_DEVICE, "there is no device '%s' here, expected cpu", name ? name : "NULL");
    octavo_device *made = octavo_context_allocate(context, sizeof *made, sizeof(void *));
    if (!made) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a device");
    memset(made, 0, sizeof *made);
    made->context = context;
    for (int i = 0; i <= context->level; i++) octavo_levels[i].install(&made->kernels);
    made->isa = octavo_levels[context->level].name;
    octavo_context_log(context, OCTAVO_LOG_INFO, "device cpu uses level %s", made->isa);
    *device = made;
    return OCTAVO_OK;
}

void octavo_device_close(octavo_device *device)
{
    if (device) octavo_context_release(device->context, device, sizeof *device);
}

const char *octavo_device_name(const octavo_device *device)
{
    (void)device;
    return "cpu";
}
const char *octavo_device_isa(const octavo_device *device) { return device->isa; }
const octavo_kernels *octavo_device_kernels(const octavo_device *device) { return &device->kernels; }
octavo_context *octavo_device_context(const octavo_device *device) { return device->context; }

octavo_status octavo_device_allocate(octavo_device *device, size_t bytes, void **memory)
{
    if (!device || !memory) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL", device ? "memory" : "device");
    *memory = octavo_context_allocate(device->context, bytes, DEVICE_ALIGN);
    if (!*memory) return octavo_fail(OCTAVO_E_NOMEM, "no memory for %zu bytes on cpu", bytes);
    return OCTAVO_OK;
}

void octavo_device_release(octavo_device *device, void *memory, size_t bytes)
{
    if (device) octavo_context_release(device->context, memory, bytes);
}

octavo_status octavo_struct_check(const char *name, size_t struct_size, size_t expected)
{
    if (struct_size == expected) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_VERSION, "%s.struct_size is %zu, expected %zu: start from its INIT macro, with this version's header",
                       name, struct_size, expected);
}

octavo_status octavo_exec_check(const octavo_exec *exec, const octavo_kernels **kernels)
{
    if (!exec) return octavo_fail(OCTAVO_E_ARGUMENT, "exec is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_exec", exec->struct_size, sizeof *exec));
    if (!exec->device) return octavo_fail(OCTAVO_E_ARGUMENT, "exec.device is NULL, expected one from octavo_device_open");
    if (exec->threads < 0) return octavo_fail(OCTAVO_E_ARGUMENT, "exec.threads is %d, expected 0 or more", exec->threads);
    *kernels = octavo_device_kernels(exec->device);
    return OCTAVO_OK;
}
