/* model_load_index.c - the index of a checkpoint in several files: which file holds which tensor. */
#include "base/error.h"
#include "model/model_load.h"
#include <stdlib.h>
#include <string.h>

static int compare_names(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* A plain name in the same folder, such as model-00001-of-00002.safetensors. */
static bool is_shard_name(const char *name)
{
    static const char END[] = ".safetensors";
    const size_t length = strlen(name);
    return length > sizeof END - 1 && length < 200 && name[0] != '.' && !strpbrk(name, "/\\:") && !strstr(name, "..") &&
           !strcmp(name + length - (sizeof END - 1), END);
}

static octavo_status list_shards(octavo_model_index *index, const char *label)
{
    const char *tensor;
    json_t *value;
    const size_t entries = json_object_size(index->map);
    if (entries == 0) return octavo_fail(OCTAVO_E_FORMAT, "%s: field 'weight_map' is empty", label);
    index->shards = malloc(entries * sizeof *index->shards);
    if (!index->shards) return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for the names of its files", label);
    size_t listed = 0;
    json_object_foreach((json_t *)(uintptr_t)index->map, tensor, value) {
        const char *name = json_string_value(value);
        if (!name) return octavo_fail(OCTAVO_E_FORMAT, "%s: field 'weight_map.%.100s' is not a string", label, tensor);
        if (!is_shard_name(name))
            return octavo_fail(OCTAVO_E_FORMAT, "%s: field 'weight_map.%.100s' is '%.100s', expected the plain name of a .safetensors file "
                               "beside it", label, tensor, name);
        index->shards[listed++] = name;
    }
    qsort(index->shards, listed, sizeof *index->shards, compare_names);
    for (size_t i = 0; i < listed; i++)
        if (i == 0 || strcmp(index->shards[i], index->shards[i - 1])) index->shards[index->shard_count++] = index->shards[i];
    if (index->shard_count > OCTAVO_SHARDS_MAX)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: names %zu files, expected at most %d", label, index->shard_count, OCTAVO_SHARDS_MAX);
    return OCTAVO_OK;
}

octavo_status octavo_model_index_init(octavo_model_index *index, const char *label, const char *text, size_t bytes)
{
    octavo_json_object map;
    *index = (octavo_model_index){ 0 };
    OCTAVO_TRY(octavo_json_read(label, text, bytes, OCTAVO_INDEX_BYTES_MAX, &index->root));
    const octavo_json_object root = { label, "", index->root };
    octavo_status status = octavo_json_child(&root, "weight_map", "weight_map.", &map);
    if (status == OCTAVO_OK && !map.json) status = octavo_fail(OCTAVO_E_FORMAT, "%s: has no field 'weight_map'", label);
    index->map = map.json;
    if (status == OCTAVO_OK) status = list_shards(index, label);
    if (status != OCTAVO_OK) octavo_model_index_fini(index);
    return status;
}

int64_t octavo_model_index_find(const octavo_model_index *index, const char *tensor)
{
    const char *name = json_string_value(json_object_get(index->map, tensor));
    if (!name) return -1;
    const char **found = bsearch(&name, index->shards, index->shard_count, sizeof *index->shards, compare_names);
    return found ? found - index->shards : -1;
}

void octavo_model_index_fini(octavo_model_index *index)
{
    free(index->shards);
    json_decref(index->root);
    *index = (octavo_model_index){ 0 };
}
