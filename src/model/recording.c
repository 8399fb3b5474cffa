/* recording.c - finds a recorded layer in a safetensors file and checks that its tensors belong together. */
#include "octavo/recording.h"
#include "base/error.h"
#include "model/safetensors.h"
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 40, SHAPE_BYTES = 160, LISTED_LAYERS = 12 };

static const char *const SUFFIXES[] = { "q_rope", "k_rope", "v", "h", "q_unrope", "k_unrope" };
enum { SUFFIX_COUNT = sizeof SUFFIXES / sizeof *SUFFIXES };

typedef enum presence { REQUIRED, OPTIONAL } presence;

/* "layer_N.SUFFIX" with N in plain decimal and one of the suffixes above. */
static bool parse_name(const char *name, int32_t *layer)
{
    static const char PREFIX[] = "layer_";
    if (strncmp(name, PREFIX, sizeof PREFIX - 1) != 0) return false;
    const char *digits = name + sizeof PREFIX - 1, *c = digits;
    int64_t number = 0;
    for (; *c >= '0' && *c <= '9' && number <= INT32_MAX; c++) number = number * 10 + (*c - '0');
    if (c == digits || *c != '.' || number > INT32_MAX || (digits[0] == '0' && c > digits + 1)) return false;
    for (size_t i = 0; i < SUFFIX_COUNT; i++)
        if (strcmp(c + 1, SUFFIXES[i]) == 0) {
            *layer = (int32_t)number;
            return true;
        }
    return false;
}

static int compare_layers(const void *a, const void *b)
{
    const int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    return (x > y) - (x < y);
}

octavo_status octavo_recording_layers(const octavo_safetensors *file, int32_t *layers, size_t capacity, size_t *count)
{
    if (!file || !count || (!layers && capacity))
        return octavo_fail(OCTAVO_E_ARGUMENT, "argument '%s' is NULL", !file ? "file" : !count ? "count" : "layers");
    const size_t tensors = octavo_safetensors_count(file);
    int32_t *found = malloc((tensors + 1) * sizeof *found);
    if (!found) return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory to list its layers", octavo_safetensors_label(file));
    size_t n = 0;
    for (size_t i = 0; i < tensors; i++) {
        int32_t layer;
        /* Names are sorted, so those of one layer are neighbours. */
        if (parse_name(octavo_safetensors_name(file, i), &layer) && (n == 0 || found[n - 1] != layer))
            found[n++] = layer;
    }
    qsort(found, n, sizeof *found, compare_layers);
    for (size_t i = 0; i < n && i < capacity; i++) layers[i] = found[i];
    free(found);
    *count = n;
    return OCTAVO_OK;
}

static octavo_status check_layer_exists(const octavo_safetensors *file, int32_t layer)
{
    int32_t layers[LISTED_LAYERS];
    size_t count = 0, length = 0;
    char list[LISTED_LAYERS * 12 + 1] = "";
    for (size_t i = 0; i < SUFFIX_COUNT; i++) {
        char name[NAME_BYTES];
        snprintf(name, sizeof name, "layer_%" PRId32 ".%s", layer, SUFFIXES[i]);
        if (octavo_safetensors_dtype(file, name)) return OCTAVO_OK;
    }
    OCTAVO_TRY(octavo_recording_layers(file, layers, LISTED_LAYERS, &count));
    if (count == 0)
        return octavo_fail(OCTAVO_E_RANGE, "%s: holds no recorded layer, expected tensors such as 'layer_%" PRId32 ".k_rope'",
                           octavo_safetensors_label(file), layer);
    for (size_t i = 0; i < count && i < LISTED_LAYERS; i++)
        length += (size_t)snprintf(list + length, sizeof list - length, "%s%" PRId32, i ? ", " : "", layers[i]);
    return octavo_fail(OCTAVO_E_RANGE, "%s: has no layer %" PRId32 ", expected one of %s%s", octavo_safetensors_label(file), layer,
                       list, count > LISTED_LAYERS ? ", ..." : "");
}

/* dtype_of NULL: any of the three that a recording may have. */
static octavo_status find_operand(const octavo_safetensors *file, int32_t layer, const char *suffix, presence need, int32_t ndim,
                                  const octavo_tensor *dtype_of, octavo_tensor *tensor)
{
    const char *label = octavo_safetensors_label(file);
    char name[NAME_BYTES];
    snprintf(name, sizeof name, "layer_%" PRId32 ".%s", layer, suffix);
    const char *dtype = octavo_safetensors_dtype(file, name);
    if (!dtype && need == OPTIONAL) return OCTAVO_OK;
    if (!dtype) return octavo_fail(OCTAVO_E_RANGE, "%s: has no tensor '%s'", label, name);
    const octavo_safetensors_type *type = octavo_safetensors_type_by_name(dtype);
    if (type->dtype != OCTAVO_BF16 && type->dtype != OCTAVO_F16 && type->dtype != OCTAVO_F32)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: '%s' has dtype %s, expected BF16, F16 or F32", label, name, dtype);
    if (dtype_of && type->dtype != dtype_of->dtype)
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: '%s' has dtype %s, expected %s as 'layer_%" PRId32 ".k_rope' has", label, name,
                           dtype, octavo_safetensors_type_of(dtype_of->dtype)->name, layer);
    octavo_tensor found;
    OCTAVO_TRY(octavo_safetensors_find(file, name, &found));
    if (found.ndim != ndim)
        return octavo_fail(OCTAVO_E_SHAPE, "%s: '%s' has %" PRId32 " dimensions, expected %" PRId32, label, name, found.ndim, ndim);
    for (int32_t i = 0; i < ndim; i++)
        if (found.shape[i] == 0) return octavo_fail(OCTAVO_E_SHAPE, "%s: '%s' is empty in dimension %" PRId32, label, name, i);
    *tensor = found;
    return OCTAVO_OK;
}

static octavo_status refuse_shape(const octavo_safetensors *file, int32_t layer, const char *suffix, const octavo_tensor *tensor,
                                  const char *expected)
{
    char shape[SHAPE_BYTES];
    size_t length = 0;
    for (int32_t i = 0; i < tensor->ndim; i++)
        length += (size_t)snprintf(shape + length, sizeof shape - length, "%s%" PRId64, i ? ", " : "", tensor->shape[i]);
    return octavo_fail(OCTAVO_E_SHAPE, "%s: 'layer_%" PRId32 ".%s' has shape [%s], expected %s", octavo_safetensors_label(file), layer,
                       suffix, shape, expected);
}

/* k fixes batch, kv_heads, tokens and head_dim; all others are measured against it. */
static octavo_status check_required(const octavo_safetensors *file, const octavo_recording *r)
{
    const int64_t *q = r->q.shape, *k = r->k.shape, *v = r->v.shape;
    char expected[SHAPE_BYTES];
    if (v[0] != k[0] || v[1] != k[1] || v[2] != k[2]) {
        snprintf(expected, sizeof expected, "[%" PRId64 ", %" PRId64 ", %" PRId64 ", any] to go with k_rope", k[0], k[1], k[2]);
        return refuse_shape(file, r->layer, "v", &r->v, expected);
    }
    if (q[0] != k[0] || q[1] % k[1] != 0 || q[2] > k[2] || q[3] != k[3]) {
        snprintf(expected, sizeof expected, "[%" PRId64 ", a multiple of %" PRId64 ", at most %" PRId64 ", %" PRId64
                 "] to go with k_rope", k[0], k[1], k[2], k[3]);
        return refuse_shape(file, r->layer, "q_rope", &r->q, expected);
    }
    return OCTAVO_OK;
}

static octavo_status check_optional(const octavo_safetensors *file, const octavo_recording *r)
{
    const int64_t *k = r->k.shape, *h = r->h.shape;
    char expected[SHAPE_BYTES];
    if (r->h.data && (h[0] != k[0] || h[1] > k[2])) {
        snprintf(expected, sizeof expected, "[%" PRId64 ", at most %" PRId64 ", any] to go with k_rope", k[0], k[2]);
        return refuse_shape(file, r->layer, "h", &r->h, expected);
    }
    if (r->q_unrope.data && memcmp(r->q_unrope.shape, r->q.shape, 4 * sizeof *k) != 0)
        return refuse_shape(file, r->layer, "q_unrope", &r->q_unrope, "that of q_rope");
    if (r->k_unrope.data && memcmp(r->k_unrope.shape, r->k.shape, 4 * sizeof *k) != 0)
        return refuse_shape(file, r->layer, "k_unrope", &r->k_unrope, "that of k_rope");
    return OCTAVO_OK;
}

static octavo_status read_layer(const octavo_safetensors *file, int32_t layer, octavo_recording *r)
{
    r->layer = layer;
    OCTAVO_TRY(check_layer_exists(file, layer));
    OCTAVO_TRY(find_operand(file, layer, "k_rope", REQUIRED, 4, NULL, &r->k));
    OCTAVO_TRY(find_operand(file, layer, "v", REQUIRED, 4, &r->k, &r->v));
    OCTAVO_TRY(find_operand(file, layer, "q_rope", REQUIRED, 4, &r->k, &r->q));
    OCTAVO_TRY(check_required(file, r));
    OCTAVO_TRY(find_operand(file, layer, "h", OPTIONAL, 3, NULL, &r->h));
    OCTAVO_TRY(find_operand(file, layer, "q_unrope", OPTIONAL, 4, &r->k, &r->q_unrope));
    OCTAVO_TRY(find_operand(file, layer, "k_unrope", OPTIONAL, 4, &r->k, &r->k_unrope));
    OCTAVO_TRY(check_optional(file, r));
    r->batch = r->k.shape[0];
    r->kv_heads = r->k.shape[1];
    r->tokens = r->k.shape[2];
    r->head_dim = r->k.shape[3];
    r->q_heads = r->q.shape[1];
    r->queries = r->q.shape[2];
    r->value_dim = r->v.shape[3];
    return OCTAVO_OK;
}

static octavo_status check_struct(octavo_recording *recording)
{
    if (!recording) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'recording' is NULL");
    if (recording->struct_size != sizeof *recording)
        return octavo_fail(OCTAVO_E_VERSION, "argument 'recording' has struct_size %zu, expected %zu: start it from OCTAVO_RECORDING_INIT",
                           recording->struct_size, sizeof *recording);
    *recording = (octavo_recording)OCTAVO_RECORDING_INIT;
    return OCTAVO_OK;
}

octavo_status octavo_recording_view(const octavo_safetensors *file, int32_t layer, octavo_recording *recording)
{
    OCTAVO_TRY(check_struct(recording));
    if (!file) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'file' is NULL");
    if (layer < 0) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'layer' is %" PRId32 ", expected 0 or more", layer);
    const octavo_status status = read_layer(file, layer, recording);
    if (status != OCTAVO_OK) *recording = (octavo_recording)OCTAVO_RECORDING_INIT;
    return status;
}

octavo_status octavo_recording_open(const char *path, int32_t layer, octavo_recording *recording)
{
    octavo_safetensors *file = NULL;
    OCTAVO_TRY(check_struct(recording));
    OCTAVO_TRY(octavo_safetensors_open(path, &file));
    const octavo_status status = octavo_recording_view(file, layer, recording);
    if (status == OCTAVO_OK) recording->file = file;
    else octavo_safetensors_close(file);
    return status;
}

void octavo_recording_close(octavo_recording *recording)
{
    if (!recording) return;
    octavo_safetensors_close(recording->file);
    *recording = (octavo_recording)OCTAVO_RECORDING_INIT;
}
