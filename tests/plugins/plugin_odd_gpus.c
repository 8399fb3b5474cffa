/* plugin_odd_gpus.c - a backend of this build with GPUs that cannot be used: 0 is too old, 1 has no kernels and is lost once it is open, 2 is full. */
#include "cuda/cuda_backend.h"
#include "octavo/version.h"
#include <stdio.h>

static const octavo_cuda_host *host;

static octavo_status count_them(int *count)
{
    *count = 3;
    return OCTAVO_OK;
}

static octavo_status describe(int index, octavo_device_info *info)
{
    snprintf(info->name, sizeof info->name, "Odd GPU %d", index);
    info->multiprocessors = 7, info->compute_major = index == 0 ? 7 : 9, info->compute_minor = index == 0 ? 5 : 0;
    return OCTAVO_OK;
}

static octavo_status install_nothing(int index, octavo_kernels *kernels, const char **level)
{
    (void)index, (void)kernels;
    *level = "none";
    return OCTAVO_OK;
}

static octavo_status lost(const char *what) { return host->fail(OCTAVO_E_DEVICE, "%s: the GPU has fallen off the bus", what); }

static octavo_status allocate(int index, size_t bytes, void **memory)
{
    *memory = NULL;
    return index == 2 ? host->fail(OCTAVO_E_NOMEM, "no memory for %zu bytes on cuda:2", bytes) : lost("cudaMalloc");
}

static octavo_status upload(int index, void *stream, void *to, const void *from, size_t bytes)
{
    (void)index, (void)stream, (void)to, (void)from, (void)bytes;
    return lost("copying to the device");
}

static octavo_status synchronize(int index, void *stream)
{
    (void)index, (void)stream;
    return lost("waiting for the stream");
}

static octavo_status stream_create(int index, void **stream)
{
    (void)index;
    *stream = NULL;
    return OCTAVO_OK;
}

static void stream_destroy(int index, void *stream) { (void)index, (void)stream; }

const octavo_cuda_backend *octavo_cuda_backend_of(const octavo_cuda_host *from)
{
    static octavo_cuda_backend backend;
    host = from;
    backend = (octavo_cuda_backend){
        .struct_size = sizeof backend, .version = octavo_version(), .build_id = octavo_build_id(), .device_count = count_them, .device_info = describe,
        .install = install_nothing, .allocate = allocate, .upload = upload, .download = upload, .synchronize = synchronize,
        .stream_create = stream_create, .stream_destroy = stream_destroy,
    };
    return &backend;
}
