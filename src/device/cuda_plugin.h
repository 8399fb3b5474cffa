/* cuda_plugin.h - finds, loads and checks the CUDA backend. */
#ifndef OCTAVO_DEVICE_CUDA_PLUGIN_H
#define OCTAVO_DEVICE_CUDA_PLUGIN_H

#include "cuda/cuda_backend.h"

/* Loads the plug-in at the first call; later calls give the same backend, or try again where it failed.
 * OCTAVO_E_DEVICE: there is none, or it does not load; OCTAVO_E_VERSION: it is of another build. The sentence says what to do. */
octavo_status octavo_cuda_plugin(const octavo_cuda_backend **backend);

/* Of a file at an absolute path. *handle is the caller's to close; for tests. */
octavo_status octavo_cuda_plugin_load(const char *path, const octavo_cuda_backend **backend, void **handle);

/* N of "cuda:N"; -1: the name is no such thing. */
int octavo_cuda_index(const char *name);

#endif
