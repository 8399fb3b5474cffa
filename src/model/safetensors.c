/* safetensors.c - opens a safetensors file: all of its header is checked before the first view is given out. */
#include "model/safetensors.h"
#include "base/checked.h"
#include "base/error.h"
#include <inttypes.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LABEL_BYTES = 160 }; /* leaves most of an error's sentence to the error */

typedef struct entry {
    const char *name; /* owned by the header */
    const octavo_safetensors_type *type;
    int64_t begin, end; /* bytes from data_start */
    size_t ndim;
    int64_t shape[OCTAVO_MAX_DIMS]; /* the first ones of a longer shape */
} entry;

struct octavo_safetensors {
    octavo_mapped_file map; /* all zero over the caller's memory */
    const uint8_t *bytes;   /* [size] the whole file */
    size_t size, data_start;
    json_t *header;
    const json_t *metadata; /* in header; NULL: none */
    size_t count;
    entry *entries; /* [count] ascending by name */
    char label[LABEL_BYTES];
};

static octavo_status read_shape(const char *label, const char *name, const json_t *shape, entry *out, int64_t *elements)
{
    if (!json_is_array(shape)) return octavo_fail(OCTAVO_E_FORMAT, "%s: '%.100s' has no shape that is a list", label, name);
    int64_t extent = 1; /* counts a zero as one: what strides are made of must not overflow either */
    bool empty = false;
    out->ndim = json_array_size(shape);
    for (size_t i = 0; i < out->ndim; i++) {
        const json_t *size = json_array_get(shape, i);
        const json_int_t value = json_is_integer(size) ? json_integer_value(size) : -1;
        if (value < 0)
            return octavo_fail(OCTAVO_E_FORMAT, "%s: '%.100s' has a shape whose entry %zu is not a whole number from 0", label, name, i);
        empty = empty || value == 0;
        if (!octavo_checked_mul_int64(extent, value > 0 ? value : 1, &extent))
            return octavo_fail(OCTAVO_E_FORMAT, "%s: '%.100s' has a shape whose product overflows", label, name);
        if (i < OCTAVO_MAX_DIMS) out->shape[i] = value;
    }
    *elements = empty ? 0 : extent;
    return OCTAVO_OK;
}

static octavo_status read_offsets(const char *label, const char *name, const json_t *offsets, int64_t data_bytes, entry *out)
{
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end))
        return octavo_fail(OCTAVO_E_FORMAT, "%s: '%.100s' has no data_offsets of two whole numbers", label, name);
    const json_int_t from = json_integer_value(begin), to = json_integer_value(end);
    if (from < 0 || to < from || to > data_bytes)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: '%.100s' has data_offsets %" PRId64 " to %" PRId64 ", expected a range within the "
                           "file's %" PRId64 " bytes of data", label, name, (int64_t)from, (int64_t)to, data_bytes);
    out->begin = from;
    out->end = to;
    return OCTAVO_OK;
}

static octavo_status read_entry(const char *label, const char *name, const json_t *value, int64_t data_bytes, entry *out)
{
    if (!json_is_object(value)) return octavo_fail(OCTAVO_E_FORMAT, "%s: '%.100s' is not described by an object", label, name);
    const char *dtype = json_string_value(json_object_get(value, "dtype"));
    if (!dtype) return octavo_fail(OCTAVO_E_FORMAT, "%s: '%.100s' has no dtype that is a string", label, name);
    out->name = name;
    out->type = octavo_safetensors_type_by_name(dtype);
    if (!out->type) return octavo_fail(OCTAVO_E_FORMAT, "%s: '%.100s' has unknown dtype '%.40s'", label, name, dtype);

    int64_t elements = 0, bits = 0;
    OCTAVO_TRY(read_shape(label, name, json_object_get(value, "shape"), out, &elements));
    OCTAVO_TRY(read_offsets(label, name, json_object_get(value, "data_offsets"), data_bytes, out));
    if (!octavo_checked_mul_int64(elements, out->type->bits, &bits))
        return octavo_fail(OCTAVO_E_FORMAT, "%s: '%.100s' has a shape whose bytes overflow", label, name);
    if (bits % 8 != 0 || bits / 8 != out->end - out->begin)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: '%.100s' has %" PRId64 " bytes of data, expected %" PRId64 " elements of %s", label,
                           name, out->end - out->begin, elements, out->type->name);
    return OCTAVO_OK;
}

static octavo_status read_metadata(octavo_safetensors *file, json_t *metadata)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata))
        return octavo_fail(OCTAVO_E_FORMAT, "%s: " SAFETENSORS_METADATA_KEY " is not an object", file->label);
    json_object_foreach(metadata, key, value)
        if (!json_is_string(value))
            return octavo_fail(OCTAVO_E_FORMAT, "%s: " SAFETENSORS_METADATA_KEY " '%.100s' is not a string", file->label, key);
    file->metadata = metadata;
    return OCTAVO_OK;
}

static int compare_begin(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return (x->end > y->end) - (x->end < y->end);
}

static int compare_name(const void *a, const void *b) { return strcmp(((const entry *)a)->name, ((const entry *)b)->name); }

static int compare_key(const void *key, const void *b) { return strcmp(key, ((const entry *)b)->name); }

/* Together the tensors cover the data exactly once. */
static octavo_status check_cover(octavo_safetensors *file)
{
    const int64_t data_bytes = (int64_t)(file->size - file->data_start);
    int64_t covered = 0;
    qsort(file->entries, file->count, sizeof *file->entries, compare_begin);
    for (size_t i = 0; i < file->count; i++) {
        const entry *e = &file->entries[i];
        if (e->begin < covered)
            return octavo_fail(OCTAVO_E_FORMAT, "%s: the data of '%.100s' and '%.100s' overlap", file->label,
                               file->entries[i - 1].name, e->name);
        if (e->begin > covered)
            return octavo_fail(OCTAVO_E_FORMAT, "%s: %" PRId64 " bytes of data before '%.100s' belong to no tensor", file->label,
                               e->begin - covered, e->name);
        covered = e->end;
    }
    if (covered != data_bytes)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: %" PRId64 " bytes after the last tensor belong to none", file->label,
                           data_bytes - covered);
    return OCTAVO_OK;
}

static octavo_status read_entries(octavo_safetensors *file)
{
    const int64_t data_bytes = (int64_t)(file->size - file->data_start);
    const char *key;
    json_t *value;
    file->entries = calloc(json_object_size(file->header) + 1, sizeof *file->entries);
    if (!file->entries) return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for the list of tensors", file->label);
    json_object_foreach(file->header, key, value) {
        if (strcmp(key, SAFETENSORS_METADATA_KEY) == 0) {
            OCTAVO_TRY(read_metadata(file, value));
            continue;
        }
        OCTAVO_TRY(read_entry(file->label, key, value, data_bytes, &file->entries[file->count]));
        file->count++;
    }
    OCTAVO_TRY(check_cover(file));
    qsort(file->entries, file->count, sizeof *file->entries, compare_name);
    return OCTAVO_OK;
}

static octavo_status read_header(octavo_safetensors *file, const uint8_t *bytes, size_t size)
{
    file->bytes = bytes;
    file->size = size;
    if (file->size < SAFETENSORS_PREFIX_BYTES)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: has %zu bytes, too few for a safetensors file", file->label, file->size);
    uint64_t length = 0;
    for (size_t i = SAFETENSORS_PREFIX_BYTES; i-- > 0;) length = length << 8 | file->bytes[i];
    if (length > SAFETENSORS_HEADER_BYTES_MAX)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: claims a header of %" PRIu64 " bytes, expected at most %d; not a safetensors file?",
                           file->label, length, SAFETENSORS_HEADER_BYTES_MAX);
    if (length > file->size - SAFETENSORS_PREFIX_BYTES)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: claims a header of %" PRIu64 " bytes, but the file has only %zu", file->label, length,
                           file->size);
    const char *text = (const char *)file->bytes + SAFETENSORS_PREFIX_BYTES;
    if (length == 0 || text[0] != '{') return octavo_fail(OCTAVO_E_FORMAT, "%s: the header is not a JSON object", file->label);

    json_error_t error;
    file->header = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (!file->header && json_error_code(&error) == json_error_out_of_memory)
        return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for a header of %" PRIu64 " bytes", file->label, length);
    if (!file->header)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: the header is refused at byte %d: %s", file->label, error.position, error.text);
    file->data_start = SAFETENSORS_PREFIX_BYTES + (size_t)length;
    return read_entries(file);
}

static octavo_safetensors *create(const char *path)
{
    octavo_safetensors *file = calloc(1, sizeof *file);
    if (!file) return NULL;
    const size_t length = strlen(path);
    if (length < LABEL_BYTES) memcpy(file->label, path, length);
    else snprintf(file->label, LABEL_BYTES, "...%s", path + length - (LABEL_BYTES - sizeof "..."));
    return file;
}

/* Ends either open: the caller gets `opened` only if all went well. */
static octavo_status hand_over(octavo_safetensors *opened, octavo_status status, octavo_safetensors **file)
{
    if (status == OCTAVO_OK) *file = opened;
    else octavo_safetensors_close(opened);
    return status;
}

octavo_status octavo_safetensors_open(const char *path, octavo_safetensors **file)
{
    return octavo_safetensors_open_hinted(path, OCTAVO_MAP_NORMAL, file);
}

octavo_status octavo_safetensors_open_hinted(const char *path, unsigned hints, octavo_safetensors **file)
{
    if (!file) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'file' is NULL");
    *file = NULL;
    if (!path) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'path' is NULL");
    octavo_safetensors *opened = create(path);
    if (!opened) return octavo_fail(OCTAVO_E_NOMEM, "no memory to open a safetensors file");
    octavo_status status = octavo_mapped_file_init(&opened->map, path, hints);
    if (status == OCTAVO_OK) status = read_header(opened, opened->map.data, opened->map.bytes);
    return hand_over(opened, status, file);
}

octavo_status octavo_safetensors_open_memory(const void *data, size_t size, octavo_safetensors **file)
{
    if (!file) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'file' is NULL");
    *file = NULL;
    if (!data && size) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'data' is NULL, but 'size' is %zu", size);
    octavo_safetensors *opened = create("safetensors in memory");
    if (!opened) return octavo_fail(OCTAVO_E_NOMEM, "no memory to open a safetensors file");
    return hand_over(opened, read_header(opened, data, size), file);
}

void octavo_safetensors_close(octavo_safetensors *file)
{
    if (!file) return;
    free(file->entries);
    json_decref(file->header);
    octavo_mapped_file_fini(&file->map);
    free(file);
}

static const entry *lookup(const octavo_safetensors *file, const char *name)
{
    if (!file || !name) return NULL;
    return bsearch(name, file->entries, file->count, sizeof *file->entries, compare_key);
}

size_t octavo_safetensors_count(const octavo_safetensors *file) { return file ? file->count : 0; }

const char *octavo_safetensors_name(const octavo_safetensors *file, size_t index)
{
    return index < octavo_safetensors_count(file) ? file->entries[index].name : NULL;
}

const char *octavo_safetensors_dtype(const octavo_safetensors *file, const char *name)
{
    const entry *found = lookup(file, name);
    return found ? found->type->name : NULL;
}

const char *octavo_safetensors_metadata(const octavo_safetensors *file, const char *key)
{
    return file && key ? json_string_value(json_object_get(file->metadata, key)) : NULL;
}

const char *octavo_safetensors_label(const octavo_safetensors *file) { return file->label; }

octavo_status octavo_safetensors_locate(const octavo_safetensors *file, const char *name, octavo_tensor *tensor)
{
    const entry *found = lookup(file, name);
    if (!found) return octavo_fail(OCTAVO_E_RANGE, "%s: has no tensor '%.100s'", file->label, name);
    if (!found->type->dtype)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: '%.100s' has dtype %s, which is not supported", file->label, name,
                           found->type->name);
    if (found->ndim > OCTAVO_MAX_DIMS)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: '%.100s' has %zu dimensions, expected at most %d", file->label, name,
                           found->ndim, OCTAVO_MAX_DIMS);
    const uint8_t *data = file->bytes + file->data_start + found->begin;
    *tensor = octavo_tensor_view((void *)(uintptr_t)data, found->type->dtype, (int32_t)found->ndim, found->shape);
    return OCTAVO_OK;
}

octavo_status octavo_safetensors_find(const octavo_safetensors *file, const char *name, octavo_tensor *tensor)
{
    if (!file || !name || !tensor)
        return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL", !file ? "file" : !name ? "name" : "tensor");
    octavo_tensor found;
    OCTAVO_TRY(octavo_safetensors_locate(file, name, &found));
    const size_t element_bytes = octavo_dtype_bytes(found.dtype);
    if ((uintptr_t)found.data % element_bytes != 0)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: '%.100s' starts at byte %zu, expected a multiple of %s's %zu bytes; "
                           "write the file again with an aligned header", file->label, name,
                           (size_t)((const uint8_t *)found.data - file->bytes), octavo_safetensors_dtype(file, name), element_bytes);
    *tensor = found;
    return OCTAVO_OK;
}
