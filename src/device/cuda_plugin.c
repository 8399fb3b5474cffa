/* cuda_plugin.c - the CUDA backend is a file beside this library, or where OCTAVO_CUDA_PATH says, and of exactly this build. */
#define _GNU_SOURCE
#include "device/cuda_plugin.h"
#include "base/error.h"
#include "octavo/version.h"
#include <dlfcn.h>
#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define PLUGIN_FILE "liboctavo-cuda.so"

int octavo_cuda_index(const char *name)
{
    if (!name || strncmp(name, "cuda:", 5) || name[5] < '0' || name[5] > '9') return -1;
    char *end;
    const unsigned long index = strtoul(name + 5, &end, 10);
    return *end || index > 255 ? -1 : (int)index;
}

/* The file beside the one that this function is in. */
static octavo_status path_beside_us(char path[PATH_MAX])
{
    Dl_info us;
    char whole[PATH_MAX];
    if (!dladdr((const void *)(uintptr_t)&octavo_version, &us) || !us.dli_fname || !realpath(us.dli_fname, whole))
        return octavo_fail(OCTAVO_E_DEVICE, "this library's own file was not found, beside which " PLUGIN_FILE
                           " is looked for; OCTAVO_CUDA_PATH can name it");
    char *slash = strrchr(whole, '/');
    const size_t folder = slash ? (size_t)(slash - whole) + 1 : 0;
    if (folder + sizeof PLUGIN_FILE > PATH_MAX) return octavo_fail(OCTAVO_E_DEVICE, "the path of " PLUGIN_FILE " is too long");
    memcpy(path, whole, folder);
    memcpy(path + folder, PLUGIN_FILE, sizeof PLUGIN_FILE);
    return OCTAVO_OK;
}

octavo_status octavo_cuda_plugin_load(const char *path, const octavo_cuda_backend **backend, void **handle)
{
    static const octavo_cuda_host host = { octavo_fail };
    *backend = NULL, *handle = NULL;
    if (path[0] != '/') return octavo_fail(OCTAVO_E_DEVICE, "OCTAVO_CUDA_PATH is '%s', expected an absolute path", path);
    void *opened = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!opened) return octavo_fail(OCTAVO_E_DEVICE, "the CUDA backend was not loaded: %s", dlerror());
    octavo_cuda_entry *entry;
    *(void **)(void *)&entry = dlsym(opened, OCTAVO_CUDA_ENTRY);
    const octavo_cuda_backend *found = entry ? entry(&host) : NULL;
    octavo_status status = OCTAVO_OK;
    if (!found) {
        status = octavo_fail(OCTAVO_E_DEVICE, "%s is not a CUDA backend: it has no " OCTAVO_CUDA_ENTRY, path);
    } else if (found->struct_size != sizeof *found || strcmp(found->version, octavo_version()) || strcmp(found->build_id, octavo_build_id())) {
        const int readable = found->struct_size >= offsetof(octavo_cuda_backend, device_count);
        status = octavo_fail(OCTAVO_E_VERSION, "%s is of version %s, build %s, expected %s, build %s", path, readable ? found->version : "?",
                             readable ? found->build_id : "?", octavo_version(), octavo_build_id());
    }
    if (status != OCTAVO_OK) {
        dlclose(opened);
        return status;
    }
    *backend = found, *handle = opened;
    return OCTAVO_OK;
}

octavo_status octavo_cuda_plugin(const octavo_cuda_backend **backend)
{
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    static const octavo_cuda_backend *loaded; /* kept: CUDA's run time cannot be unloaded while it has a context */
    pthread_mutex_lock(&lock);
    octavo_status status = OCTAVO_OK;
    if (!loaded) {
        char beside[PATH_MAX];
        void *handle;
        const char *path = getenv("OCTAVO_CUDA_PATH");
        if (!path || !*path) status = path_beside_us(beside), path = beside;
        if (status == OCTAVO_OK) status = octavo_cuda_plugin_load(path, &loaded, &handle);
    }
    *backend = loaded;
    pthread_mutex_unlock(&lock);
    return status;
}
