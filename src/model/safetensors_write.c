/* safetensors_write.c - writes tensors as a safetensors file that appears whole or not at all. */
#include "base/atomic_file.h"
#include "base/checked.h"
#include "base/error.h"
#include "model/safetensors.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { DATA_ALIGNMENT = 64 }; /* a cache line, and every dtype's size */

/* One tensor with its place in the file. */
typedef struct item {
    const char *name;
    const octavo_tensor *tensor;
    const octavo_safetensors_type *type;
    size_t bytes;
} item;

/* Wide elements first keeps every tensor aligned without gaps. */
static int compare_items(const void *a, const void *b)
{
    const item *x = a, *y = b;
    if (x->type->bits != y->type->bits) return x->type->bits > y->type->bits ? -1 : 1;
    return strcmp(x->name, y->name);
}

static octavo_status check_item(const char *name, const octavo_tensor *tensor, item *out)
{
    if (!name) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'names' has an entry that is NULL");
    if (strcmp(name, SAFETENSORS_METADATA_KEY) == 0)
        return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'names' holds '%s', which the format reserves", name);
    *out = (item){ .name = name, .tensor = tensor, .type = octavo_safetensors_type_of(tensor->dtype) };
    if (!out->type) return octavo_fail(OCTAVO_E_ARGUMENT, "tensor '%.100s' has no valid dtype", name);
    if (tensor->device_kind != OCTAVO_DEVICE_CPU)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "tensor '%.100s' is on a device, expected the CPU", name);
    if (tensor->ndim < 0 || tensor->ndim > OCTAVO_MAX_DIMS)
        return octavo_fail(OCTAVO_E_SHAPE, "tensor '%.100s' has %" PRId32 " dimensions, expected 0 to %d", name, tensor->ndim,
                           OCTAVO_MAX_DIMS);
    int64_t elements = 1;
    bool contiguous = true;
    for (int32_t i = tensor->ndim - 1; i >= 0; i--) {
        contiguous = contiguous && (tensor->shape[i] == 1 || tensor->strides[i] == elements);
        if (tensor->shape[i] < 0 || !octavo_checked_mul_int64(elements, tensor->shape[i], &elements))
            return octavo_fail(OCTAVO_E_SHAPE, "tensor '%.100s' has a negative size, or its sizes overflow", name);
    }
    if (!contiguous && elements > 0) return octavo_fail(OCTAVO_E_UNSUPPORTED, "tensor '%.100s' is strided, expected contiguous", name);
    if (!tensor->data && elements > 0) return octavo_fail(OCTAVO_E_ARGUMENT, "tensor '%.100s' has no data", name);
    if (!octavo_checked_mul_size((size_t)elements, octavo_dtype_bytes(tensor->dtype), &out->bytes))
        return octavo_fail(OCTAVO_E_SHAPE, "tensor '%.100s' has more bytes than a file can", name);
    return OCTAVO_OK;
}

static octavo_status describe_metadata(json_t *header, const octavo_safetensors_write_params *p)
{
    if (p->metadata_count == 0) return OCTAVO_OK;
    json_t *metadata = json_object();
    if (json_object_set_new(header, SAFETENSORS_METADATA_KEY, metadata) != 0) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a header");
    for (size_t i = 0; i < p->metadata_count; i++) {
        const octavo_safetensors_pair *pair = &p->metadata[i];
        if (!pair->key || !pair->value)
            return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'metadata' has an entry that is NULL");
        if (json_object_get(metadata, pair->key))
            return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'metadata' has '%.100s' twice", pair->key);
        if (json_object_set_new(metadata, pair->key, json_string(pair->value)) != 0)
            return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'metadata' has '%.100s', which is not UTF-8 or for which there is no memory",
                               pair->key);
    }
    return OCTAVO_OK;
}

static octavo_status describe_items(json_t *header, const item *items, size_t count)
{
    size_t begin = 0, end = 0;
    for (size_t i = 0; i < count; i++, begin = end) {
        if (json_object_get(header, items[i].name))
            return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'names' has '%.100s' twice", items[i].name);
        if (!octavo_checked_add_size(begin, items[i].bytes, &end) || end > INT64_MAX)
            return octavo_fail(OCTAVO_E_SHAPE, "the tensors have more bytes than a file can");
        json_t *shape = json_array();
        for (int32_t j = 0; j < items[i].tensor->ndim; j++) json_array_append_new(shape, json_integer(items[i].tensor->shape[j]));
        json_t *entry = json_pack("{s:s, s:o, s:[I, I]}", "dtype", items[i].type->name, "shape", shape, "data_offsets",
                                  (json_int_t)begin, (json_int_t)end);
        if (!entry) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a header of %zu tensors", count);
        if (json_object_set_new(header, items[i].name, entry) != 0)
            return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'names' has '%.100s', which is not UTF-8 or for which there is no memory",
                               items[i].name);
    }
    return OCTAVO_OK;
}

/* Length, JSON and the spaces up to the data, in one block that the caller frees. */
static octavo_status format_header(const json_t *header, uint8_t **block, size_t *bytes)
{
    const size_t length = json_dumpb(header, NULL, 0, JSON_COMPACT);
    const size_t total = (SAFETENSORS_PREFIX_BYTES + length + DATA_ALIGNMENT - 1) / DATA_ALIGNMENT * DATA_ALIGNMENT;
    const uint64_t padded = total - SAFETENSORS_PREFIX_BYTES;
    if (length == 0) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a header");
    if (padded > SAFETENSORS_HEADER_BYTES_MAX)
        return octavo_fail(OCTAVO_E_RANGE, "the header would have %" PRIu64 " bytes, expected at most %d", padded,
                           SAFETENSORS_HEADER_BYTES_MAX);
    uint8_t *out = malloc(total);
    if (!out) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a header of %zu bytes", total);
    memset(out, ' ', total);
    for (size_t i = 0; i < SAFETENSORS_PREFIX_BYTES; i++) out[i] = (uint8_t)(padded >> (8 * i));
    json_dumpb(header, (char *)out + SAFETENSORS_PREFIX_BYTES, length, JSON_COMPACT);
    *block = out;
    *bytes = total;
    return OCTAVO_OK;
}

static octavo_status write_file(const char *path, const uint8_t *header, size_t header_bytes, const item *items, size_t count)
{
    octavo_atomic_file file;
    OCTAVO_TRY(octavo_atomic_file_init(&file, path));
    octavo_status status = octavo_atomic_file_write(&file, header, header_bytes);
    for (size_t i = 0; i < count && status == OCTAVO_OK; i++)
        status = octavo_atomic_file_write(&file, items[i].tensor->data, items[i].bytes);
    if (status == OCTAVO_OK) return octavo_atomic_file_commit(&file);
    octavo_atomic_file_abort(&file);
    return status;
}

static octavo_status check_params(const char *path, const octavo_safetensors_write_params *p)
{
    if (!path || !p) return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL", path ? "params" : "path");
    if (p->struct_size != sizeof *p)
        return octavo_fail(OCTAVO_E_VERSION, "argument 'params' has struct_size %zu, expected %zu", p->struct_size, sizeof *p);
    if (p->count && (!p->names || !p->tensors))
        return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL, but 'count' is %zu", p->names ? "tensors" : "names", p->count);
    if (p->metadata_count && !p->metadata)
        return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'metadata' is NULL, but 'metadata_count' is %zu", p->metadata_count);
    return OCTAVO_OK;
}

octavo_status octavo_safetensors_write(const char *path, const octavo_safetensors_write_params *params)
{
    OCTAVO_TRY(check_params(path, params));
    const size_t count = params->count;
    uint8_t *block = NULL;
    size_t block_bytes = 0;
    octavo_status status = OCTAVO_OK;
    json_t *header = json_object();
    item *items = calloc(count + 1, sizeof *items);
    if (!header || !items) {
        status = octavo_fail(OCTAVO_E_NOMEM, "no memory to write %zu tensors", count);
        goto done;
    }
    for (size_t i = 0; i < count; i++)
        OCTAVO_TRY_GOTO(status, check_item(params->names[i], &params->tensors[i], &items[i]), done);
    qsort(items, count, sizeof *items, compare_items);
    OCTAVO_TRY_GOTO(status, describe_metadata(header, params), done);
    OCTAVO_TRY_GOTO(status, describe_items(header, items, count), done);
    OCTAVO_TRY_GOTO(status, format_header(header, &block, &block_bytes), done);
    status = write_file(path, block, block_bytes, items, count);
done:
    free(block);
    free(items);
    json_decref(header);
    return status;
}
