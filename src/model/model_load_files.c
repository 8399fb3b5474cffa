/* model_load_files.c - the files of a checkpoint: one, or the shards that an index names. */
#include "base/error.h"
#include "model/model_load.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static octavo_status open_file(octavo_model_files *files, const char *folder, const char *name)
{
    char *path = malloc(strlen(folder) + strlen(name) + 2);
    if (!path) return octavo_fail(OCTAVO_E_NOMEM, "no memory for the path of '%.100s'", name);
    sprintf(path, "%s/%s", folder, name);
    const octavo_status status = octavo_safetensors_open_hinted(path, OCTAVO_MAP_PREFETCH, &files->files[files->count]);
    free(path);
    if (status == OCTAVO_OK) files->count++;
    return status;
}

static octavo_status read_index(octavo_model_files *files, const char *path)
{
    octavo_mapped_file map;
    OCTAVO_TRY(octavo_mapped_file_init(&map, path, OCTAVO_MAP_SEQUENTIAL));
    const octavo_status status = octavo_model_index_init(&files->index, path, (const char *)map.data, map.bytes);
    octavo_mapped_file_fini(&map);
    return status;
}

/* The single file goes first, as everywhere else. */
static octavo_status choose(octavo_model_files *files, const char *folder, char *path, size_t path_bytes)
{
    struct stat info;
    snprintf(path, path_bytes, "%s/model.safetensors", folder);
    if (stat(path, &info) == 0 || errno != ENOENT) return OCTAVO_OK;
    snprintf(path, path_bytes, "%s/model.safetensors.index.json", folder);
    if (stat(path, &info) == 0 || errno != ENOENT) return read_index(files, path);
    return octavo_fail(OCTAVO_E_IO, "folder '%s' has neither model.safetensors nor model.safetensors.index.json", folder);
}

static octavo_status open_all(octavo_model_files *files, const char *folder)
{
    const size_t count = files->index.map ? files->index.shard_count : 1;
    files->files = calloc(count, sizeof *files->files);
    if (!files->files) return octavo_fail(OCTAVO_E_NOMEM, "no memory to open %zu files", count);
    for (size_t i = 0; i < count; i++)
        OCTAVO_TRY(open_file(files, folder, files->index.map ? files->index.shards[i] : "model.safetensors"));
    return OCTAVO_OK;
}

octavo_status octavo_model_files_init(octavo_model_files *files, const char *folder)
{
    *files = (octavo_model_files){ 0 };
    const size_t path_bytes = strlen(folder) + sizeof "/model.safetensors.index.json";
    char *path = malloc(path_bytes);
    if (!path) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a path");
    octavo_status status = choose(files, folder, path, path_bytes);
    if (status == OCTAVO_OK) status = open_all(files, folder);
    free(path);
    if (status != OCTAVO_OK) octavo_model_files_fini(files);
    return status;
}

octavo_status octavo_model_files_init_memory(octavo_model_files *files, const void *data, size_t bytes)
{
    *files = (octavo_model_files){ 0 };
    files->files = calloc(1, sizeof *files->files);
    if (!files->files) return octavo_fail(OCTAVO_E_NOMEM, "no memory to open a file");
    const octavo_status status = octavo_safetensors_open_memory(data, bytes, files->files);
    if (status == OCTAVO_OK) files->count = 1;
    else octavo_model_files_fini(files);
    return status;
}

void octavo_model_files_fini(octavo_model_files *files)
{
    for (size_t i = 0; i < files->count; i++) octavo_safetensors_close(files->files[i]);
    free(files->files);
    octavo_model_index_fini(&files->index);
    *files = (octavo_model_files){ 0 };
}

const octavo_safetensors *octavo_model_files_find(const octavo_model_files *files, const char *tensor)
{
    int64_t i = 0;
    if (files->index.map) i = octavo_model_index_find(&files->index, tensor);
    if (i < 0 || (size_t)i >= files->count) return NULL;
    return octavo_safetensors_dtype(files->files[i], tensor) ? files->files[i] : NULL;
}
