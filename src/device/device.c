/* device.c - devices: the CPU, and GPUs behind the plug-in. */
#include "device/device.h"
#include "base/error.h"
#include "device/cuda_plugin.h"
#include "device/levels.h"
#include <stdio.h>
#include <string.h>

enum { CPU_ALIGN = 4096, NAME_BYTES = 32, COMPUTE_LEAST = 8 /* compute capability that kernels are written for */ };

struct octavo_device {
    octavo_context *context;
    octavo_kernels kernels;
    const char *isa;
    const octavo_cuda_backend *cuda; /* NULL: the CPU */
    int index;                       /* of the GPU    */
    int32_t processors;
    char name[NAME_BYTES];
};

/* ---- opening ---- */

static octavo_status open_cpu(octavo_device *device)
{
    const int level = octavo_context_level(device->context);
    for (int i = 0; i <= level; i++) octavo_levels[i].install(&device->kernels);
    device->isa = octavo_levels[level].name;
    memcpy(device->name, "cpu", sizeof "cpu");
    return OCTAVO_OK;
}

static octavo_status open_cuda(octavo_device *device, int index)
{
    int count;
    octavo_device_info info = OCTAVO_DEVICE_INFO_INIT;
    octavo_status found = octavo_cuda_plugin(&device->cuda);
    if (found == OCTAVO_OK) found = device->cuda->device_count(&count);
    if (found != OCTAVO_OK) {
        char why[512];
        snprintf(why, sizeof why, "%s", octavo_last_error());
        return octavo_fail(found, "there is no device cuda:%d here: %s", index, why);
    }
    if (index >= count) return octavo_fail(OCTAVO_E_DEVICE, "there is no device cuda:%d here, expected cuda:0 to cuda:%d", index, count - 1);
    OCTAVO_TRY(device->cuda->device_info(index, &info));
    if (info.compute_major < COMPUTE_LEAST)
        return octavo_fail(OCTAVO_E_DEVICE, "cuda:%d (%s) has compute capability %d.%d, expected %d.0 or later", index, info.name, info.compute_major,
                           info.compute_minor, COMPUTE_LEAST);
    OCTAVO_TRY(device->cuda->install(index, &device->kernels, &device->isa));
    device->index = index;
    device->processors = info.multiprocessors;
    snprintf(device->name, sizeof device->name, "cuda:%d", index);
    return OCTAVO_OK;
}

octavo_status octavo_device_open(octavo_context *context, const char *name, octavo_device **device)
{
    if (!device) return octavo_fail(OCTAVO_E_ARGUMENT, "device is NULL, expected where to put the device");
    *device = NULL;
    if (!context) return octavo_fail(OCTAVO_E_ARGUMENT, "context is NULL, expected one from octavo_context_create");
    const int cpu = name && !strcmp(name, "cpu"), index = octavo_cuda_index(name);
    if (!cpu && index < 0)
        return octavo_fail(OCTAVO_E_DEVICE, "there is no device '%s' here, expected cpu or cuda:0, cuda:1, ...", name ? name : "NULL");
    octavo_device *made = octavo_context_allocate(context, sizeof *made, sizeof(void *));
    if (!made) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a device");
    memset(made, 0, sizeof *made);
    made->context = context;
    const octavo_status status = cpu ? open_cpu(made) : open_cuda(made, index);
    if (status != OCTAVO_OK) {
        octavo_device_close(made);
        return status;
    }
    octavo_context_log(context, OCTAVO_LOG_INFO, "device %s uses level %s", made->name, made->isa);
    *device = made;
    return OCTAVO_OK;
}

void octavo_device_close(octavo_device *device)
{
    if (device) octavo_context_release(device->context, device, sizeof *device);
}

octavo_status octavo_cuda_device_count(int *count)
{
    const octavo_cuda_backend *cuda;
    if (!count) return octavo_fail(OCTAVO_E_ARGUMENT, "count is NULL, expected where to put the number");
    *count = 0;
    OCTAVO_TRY(octavo_cuda_plugin(&cuda));
    return cuda->device_count(count);
}

octavo_status octavo_cuda_device_info(int index, octavo_device_info *info)
{
    const octavo_cuda_backend *cuda;
    int count;
    if (!info) return octavo_fail(OCTAVO_E_ARGUMENT, "info is NULL, expected where to put the facts");
    OCTAVO_TRY(octavo_struct_check("octavo_device_info", info->struct_size, sizeof *info));
    OCTAVO_TRY(octavo_cuda_plugin(&cuda));
    OCTAVO_TRY(cuda->device_count(&count));
    if (index < 0 || index >= count) return octavo_fail(OCTAVO_E_RANGE, "index is %d, expected 0 to %d", index, count - 1);
    return cuda->device_info(index, info);
}

/* ---- facts ---- */

const char *octavo_device_name(const octavo_device *device) { return device->name; }
const char *octavo_device_isa(const octavo_device *device) { return device->isa; }
octavo_device_kind octavo_device_kind_of(const octavo_device *device) { return device->cuda ? OCTAVO_DEVICE_CUDA : OCTAVO_DEVICE_CPU; }
int32_t octavo_device_processors(const octavo_device *device) { return device->processors; }
const octavo_kernels *octavo_device_kernels(const octavo_device *device) { return &device->kernels; }
octavo_context *octavo_device_context(const octavo_device *device) { return device->context; }

octavo_status octavo_exec_check(const octavo_exec *exec, const octavo_kernels **kernels)
{
    if (!exec) return octavo_fail(OCTAVO_E_ARGUMENT, "exec is NULL");
    OCTAVO_TRY(octavo_struct_check("octavo_exec", exec->struct_size, sizeof *exec));
    if (!exec->device) return octavo_fail(OCTAVO_E_ARGUMENT, "exec.device is NULL, expected one from octavo_device_open");
    if (exec->threads < 0) return octavo_fail(OCTAVO_E_ARGUMENT, "exec.threads is %d, expected 0 or more", exec->threads);
    *kernels = octavo_device_kernels(exec->device);
    return OCTAVO_OK;
}

octavo_status octavo_exec_check_place(const octavo_exec *exec, const char *name, octavo_device_kind kind)
{
    if (kind == octavo_device_kind_of(exec->device)) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_ARGUMENT, "%s lies in %s memory, but exec.device is %s", name,
                       kind == OCTAVO_DEVICE_CPU ? "CPU" : kind == OCTAVO_DEVICE_CUDA ? "GPU" : "unknown", exec->device->name);
}

/* ---- memory ---- */

octavo_status octavo_device_allocate(octavo_device *device, size_t bytes, void **memory)
{
    if (!device || !memory) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL", device ? "memory" : "device");
    if (device->cuda) return device->cuda->allocate(device->index, bytes, memory);
    *memory = octavo_context_allocate(device->context, bytes, CPU_ALIGN);
    if (!*memory) return octavo_fail(OCTAVO_E_NOMEM, "no memory for %zu bytes on cpu", bytes);
    return OCTAVO_OK;
}

void octavo_device_release(octavo_device *device, void *memory, size_t bytes)
{
    if (!device || !memory) return;
    if (device->cuda) device->cuda->release(device->index, memory);
    else octavo_context_release(device->context, memory, bytes);
}
