/* fuzz_safetensors.c - any bytes are either refused or give views that lie inside them.
 * Reads with src/model/safetensors.c. */
#include "octavo/safetensors.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int condition)
{
    if (!condition) abort();
}

static void check_view(const octavo_tensor *t, const uint8_t *data, size_t size)
{
    size_t bytes = octavo_dtype_bytes(t->dtype);
    for (int32_t i = 0; i < t->ndim; i++) bytes *= (size_t)t->shape[i];
    const uint8_t *begin = t->data;
    require(begin >= data && begin <= data + size && bytes <= (size_t)(data + size - begin));
    require((uintptr_t)begin % octavo_dtype_bytes(t->dtype) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    octavo_safetensors *file = NULL;
    const octavo_status status = octavo_safetensors_open_memory(data, size, &file);
    require((status == OCTAVO_OK) == (file != NULL));
    if (!file) {
        require(octavo_last_error()[0] != 0);
        return 0;
    }
    for (size_t i = 0; i < octavo_safetensors_count(file); i++) {
        const char *name = octavo_safetensors_name(file, i);
        octavo_tensor tensor;
        require(i == 0 || strcmp(octavo_safetensors_name(file, i - 1), name) < 0);
        require(octavo_safetensors_dtype(file, name) != NULL);
        if (octavo_safetensors_find(file, name, &tensor) == OCTAVO_OK) check_view(&tensor, data, size);
        octavo_safetensors_metadata(file, name);
    }
    require(octavo_safetensors_name(file, octavo_safetensors_count(file)) == NULL);
    octavo_safetensors_metadata(file, "layout");
    octavo_safetensors_close(file);
    return 0;
}
