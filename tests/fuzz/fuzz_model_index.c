/* fuzz_model_index.c - an index of shards is refused, or names files that stay in their folder.
 * Reads with src/model/model_load_index.c. */
#include "model/model_load.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    octavo_model_index index;
    if (octavo_model_index_init(&index, "model.safetensors.index.json", (const char *)data, size) != OCTAVO_OK) {
        require(octavo_last_error()[0] != 0 && index.root == NULL && index.shards == NULL);
        return 0;
    }
    const char *tensor;
    json_t *file;
    require(index.shard_count >= 1 && index.shard_count <= OCTAVO_SHARDS_MAX);
    for (size_t i = 0; i < index.shard_count; i++) {
        require(i == 0 || strcmp(index.shards[i - 1], index.shards[i]) < 0);
        require(!strchr(index.shards[i], '/') && !strstr(index.shards[i], "..") && index.shards[i][0] != '.');
    }
    json_object_foreach((json_t *)(uintptr_t)index.map, tensor, file) {
        const int64_t at = octavo_model_index_find(&index, tensor);
        require(at >= 0 && (size_t)at < index.shard_count && !strcmp(index.shards[at], json_string_value(file)));
    }
    require(octavo_model_index_find(&index, "no such tensor") == -1 || json_object_get(index.map, "no such tensor"));
    octavo_model_index_fini(&index);
    return 0;
}
