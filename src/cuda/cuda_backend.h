/* cuda_backend.h - what liboctavo and the plug-in liboctavo-cuda hand each other: one struct of functions each way. */
#ifndef OCTAVO_CUDA_CUDA_BACKEND_H
#define OCTAVO_CUDA_CUDA_BACKEND_H

#include "kernel/kernels.h"

OCTAVO_BEGIN_DECLS

/* What the plug-in uses of the library that loaded it, so that there is one last error and the plug-in links with nothing of ours. */
typedef struct octavo_cuda_host {
    octavo_status (*fail)(octavo_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));
} octavo_cuda_host;

/* Every function but device_count takes an index that device_count covered, and leaves a sentence where it fails. Streams are
 * cudaStream_t; NULL is the default stream. */
typedef struct octavo_cuda_backend {
    size_t struct_size;
    const char *version, *build_id; /* have to equal those of the library, to the letter */
    octavo_status (*device_count)(int *count);
    octavo_status (*device_info)(int index, octavo_device_info *info);
    octavo_status (*install)(int index, octavo_kernels *kernels, const char **level); /* entries that the device lacks stay NULL */
    octavo_status (*allocate)(int index, size_t bytes, void **memory);
    void (*release)(int index, void *memory);
    octavo_status (*upload)(int index, void *stream, void *to, const void *from_host, size_t bytes);
    octavo_status (*download)(int index, void *stream, void *to_host, const void *from, size_t bytes);
    octavo_status (*copy)(int index, void *stream, void *to, const void *from, size_t bytes);
    octavo_status (*synchronize)(int index, void *stream);
    octavo_status (*stream_create)(int index, void **stream);
    void (*stream_destroy)(int index, void *stream);
    octavo_status (*checksum)(int index, void *stream, const void *data, size_t bytes, uint64_t *sum);
    octavo_status (*graph_begin)(int index, void *stream);
    octavo_status (*graph_end)(int index, void *stream, void **graph);
    octavo_status (*graph_replay)(int index, void *graph, void *stream);
    octavo_status (*graph_time)(int index, void *graph, void *stream, double *seconds);
    void (*graph_destroy)(int index, void *graph);
} octavo_cuda_backend;

/* The plug-in's one exported symbol. `host` is kept. */
#define OCTAVO_CUDA_ENTRY "octavo_cuda_backend_of"
typedef const octavo_cuda_backend *octavo_cuda_entry(const octavo_cuda_host *host);
__attribute__((visibility("default"))) const octavo_cuda_backend *octavo_cuda_backend_of(const octavo_cuda_host *host);

OCTAVO_END_DECLS

#endif
