/* device_stream.c - what happens on a device in order: copies, waiting, graphs. On the CPU everything has happened on return. */
#include "base/error.h"
#include "device/device.h"
#include "device/cuda_plugin.h"
#include <string.h>

/* *cuda is NULL on the CPU. */
static octavo_status backend_of(const octavo_device *device, const octavo_cuda_backend **cuda, int *index)
{
    *cuda = NULL, *index = octavo_cuda_index(octavo_device_name(device));
    return *index < 0 ? OCTAVO_OK : octavo_cuda_plugin(cuda);
}

/* The same of a call's exec, after the checks that every call begins with. */
static octavo_status backend_of_call(const octavo_exec *exec, const octavo_cuda_backend **cuda, int *index)
{
    const octavo_kernels *kernels;
    OCTAVO_TRY(octavo_exec_check(exec, &kernels));
    return backend_of(exec->device, cuda, index);
}

static octavo_status check_copy(const void *to, const void *from, size_t bytes)
{
    if (bytes && (!to || !from)) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL, expected memory of %zu bytes", to ? "from" : "to", bytes);
    return OCTAVO_OK;
}

octavo_status octavo_device_upload(const octavo_exec *exec, void *to, const void *from_host, size_t bytes)
{
    const octavo_cuda_backend *cuda;
    int index;
    OCTAVO_TRY(backend_of_call(exec, &cuda, &index));
    OCTAVO_TRY(check_copy(to, from_host, bytes));
    if (cuda) return cuda->upload(index, exec->stream, to, from_host, bytes);
    if (bytes) memcpy(to, from_host, bytes);
    return OCTAVO_OK;
}

octavo_status octavo_device_download(const octavo_exec *exec, void *to_host, const void *from, size_t bytes)
{
    const octavo_cuda_backend *cuda;
    int index;
    OCTAVO_TRY(backend_of_call(exec, &cuda, &index));
    OCTAVO_TRY(check_copy(to_host, from, bytes));
    if (cuda) return cuda->download(index, exec->stream, to_host, from, bytes);
    if (bytes) memcpy(to_host, from, bytes);
    return OCTAVO_OK;
}

octavo_status octavo_device_copy(const octavo_exec *exec, void *to, const void *from, size_t bytes)
{
    const octavo_cuda_backend *cuda;
    int index;
    OCTAVO_TRY(backend_of(exec->device, &cuda, &index));
    if (cuda) return cuda->copy(index, exec->stream, to, from, bytes);
    if (bytes) memcpy(to, from, bytes);
    return OCTAVO_OK;
}

octavo_status octavo_device_synchronize(const octavo_exec *exec)
{
    const octavo_cuda_backend *cuda;
    int index;
    OCTAVO_TRY(backend_of_call(exec, &cuda, &index));
    return cuda ? cuda->synchronize(index, exec->stream) : OCTAVO_OK;
}

octavo_status octavo_device_checksum(const octavo_exec *exec, const void *data, size_t bytes, uint64_t *sum)
{
    const octavo_cuda_backend *cuda;
    int index;
    OCTAVO_TRY(backend_of_call(exec, &cuda, &index));
    if (!sum) return octavo_fail(OCTAVO_E_ARGUMENT, "sum is NULL, expected where to put it on the device");
    if (bytes % 16 || (uintptr_t)data % 16)
        return octavo_fail(OCTAVO_E_ARGUMENT, "data is %zu bytes at %p, expected a multiple of 16 for both", bytes, data);
    if (bytes && !data) return octavo_fail(OCTAVO_E_ARGUMENT, "data is NULL, expected memory of %zu bytes", bytes);
    if (cuda) return cuda->checksum(index, exec->stream, data, bytes, sum);
    uint64_t total = 0;
    for (size_t i = 0; i < bytes / sizeof total; i++) total += ((const uint64_t *)data)[i];
    *sum = total;
    return OCTAVO_OK;
}

/* ---- streams ---- */

octavo_status octavo_device_stream_create(octavo_device *device, void **stream)
{
    const octavo_cuda_backend *cuda;
    int index;
    if (!device || !stream) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL", device ? "stream" : "device");
    *stream = NULL;
    OCTAVO_TRY(backend_of(device, &cuda, &index));
    return cuda ? cuda->stream_create(index, stream) : OCTAVO_OK;
}

void octavo_device_stream_destroy(octavo_device *device, void *stream)
{
    const octavo_cuda_backend *cuda;
    int index;
    if (device && stream && backend_of(device, &cuda, &index) == OCTAVO_OK && cuda) cuda->stream_destroy(index, stream);
}

/* ---- graphs ---- */

static octavo_status graph_backend(const octavo_exec *exec, const octavo_cuda_backend **cuda, int *index)
{
    OCTAVO_TRY(backend_of_call(exec, cuda, index));
    if (!*cuda) return octavo_fail(OCTAVO_E_UNSUPPORTED, "exec.device is cpu, expected a GPU: only its calls can be recorded");
    if (!exec->stream) return octavo_fail(OCTAVO_E_ARGUMENT, "exec.stream is NULL, expected one from octavo_device_stream_create");
    return OCTAVO_OK;
}

octavo_status octavo_device_graph_begin(const octavo_exec *exec)
{
    const octavo_cuda_backend *cuda;
    int index;
    OCTAVO_TRY(graph_backend(exec, &cuda, &index));
    return cuda->graph_begin(index, exec->stream);
}

octavo_status octavo_device_graph_end(const octavo_exec *exec, void **graph)
{
    const octavo_cuda_backend *cuda;
    int index;
    if (!graph) return octavo_fail(OCTAVO_E_ARGUMENT, "graph is NULL, expected where to put the graph");
    *graph = NULL;
    OCTAVO_TRY(graph_backend(exec, &cuda, &index));
    return cuda->graph_end(index, exec->stream, graph);
}

octavo_status octavo_device_graph_replay(const octavo_exec *exec, void *graph)
{
    const octavo_cuda_backend *cuda;
    int index;
    OCTAVO_TRY(graph_backend(exec, &cuda, &index));
    if (!graph) return octavo_fail(OCTAVO_E_ARGUMENT, "graph is NULL, expected one from octavo_device_graph_end");
    return cuda->graph_replay(index, graph, exec->stream);
}

octavo_status octavo_device_graph_time(const octavo_exec *exec, void *graph, double *seconds)
{
    const octavo_cuda_backend *cuda;
    int index;
    OCTAVO_TRY(graph_backend(exec, &cuda, &index));
    if (!graph || !seconds) return octavo_fail(OCTAVO_E_ARGUMENT, "%s is NULL", graph ? "seconds" : "graph");
    return cuda->graph_time(index, graph, exec->stream, seconds);
}

void octavo_device_graph_destroy(octavo_device *device, void *graph)
{
    const octavo_cuda_backend *cuda;
    int index;
    if (device && graph && backend_of(device, &cuda, &index) == OCTAVO_OK && cuda) cuda->graph_destroy(index, graph);
}
