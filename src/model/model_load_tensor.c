/* model_load_tensor.c - tensors of a checkpoint by name: found, checked, read as floats from wherever they lie. */
#include "base/error.h"
#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "model/model_load.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SHAPE_BYTES = 160 };

/* Appends what fits; a name that is cut is found in no file. */
static size_t append(char *name, size_t length, const char *text, size_t bytes)
{
    const size_t room = OCTAVO_TENSOR_NAME_BYTES - 1 - length, taken = bytes < room ? bytes : room;
    memcpy(name + length, text, taken);
    name[length + taken] = 0;
    return length + taken;
}

void octavo_load_name(const octavo_loader *loader, const char *module, const char *suffix, char name[OCTAVO_TENSOR_NAME_BYTES])
{
    char number[16];
    /* The head stands beside the model, not in it. */
    const char *prefix = module == loader->description->family->names->head ? "" : loader->prefix;
    size_t length = append(name, 0, prefix, strlen(prefix));
    for (const char *c = module; *c; c++) {
        if (*c == '#' || *c == '@') {
            snprintf(number, sizeof number, "%" PRId32, *c == '#' ? loader->layer : loader->expert);
            length = append(name, length, number, strlen(number));
        } else length = append(name, length, c, 1);
    }
    append(name, length, suffix, strlen(suffix));
}

octavo_status octavo_load_find_named(const octavo_loader *loader, octavo_json_need need, octavo_stored *stored)
{
    stored->view = (octavo_tensor){ 0 };
    const octavo_safetensors *file = octavo_model_files_find(loader->files, stored->name);
    stored->label = octavo_safetensors_label(file ? file : loader->files->files[0]);
    if (!file && need == OCTAVO_JSON_OPTIONAL) return OCTAVO_OK;
    const int64_t listed = loader->files->index.map && !file ? octavo_model_index_find(&loader->files->index, stored->name) : -1;
    if (listed >= 0)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: has no tensor '%s', which the index says is there",
                           octavo_safetensors_label(loader->files->files[listed]), stored->name);
    if (!file) return octavo_fail(OCTAVO_E_FORMAT, "%s: has no tensor '%s'%s", stored->label, stored->name,
                                  loader->files->index.map ? ", nor has any other file of the index" : "");
    OCTAVO_TRY(octavo_safetensors_locate(file, stored->name, &stored->view));
    const octavo_dtype dtype = stored->view.dtype;
    if (dtype == OCTAVO_F32 || dtype == OCTAVO_F16 || dtype == OCTAVO_BF16 || dtype == OCTAVO_E4M3) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: '%s' has dtype %s, expected F32, F16, BF16 or F8_E4M3", stored->label, stored->name,
                       octavo_safetensors_dtype(file, stored->name));
}

octavo_status octavo_load_find(const octavo_loader *loader, const char *module, const char *suffix, octavo_json_need need,
                               octavo_stored *stored)
{
    octavo_load_name(loader, module, suffix, stored->name);
    return octavo_load_find_named(loader, need, stored);
}

static void shape_text(int32_t ndim, const int64_t *shape, char text[SHAPE_BYTES])
{
    size_t length = 0;
    text[0] = 0;
    for (int32_t i = 0; i < ndim && length < SHAPE_BYTES; i++)
        length += (size_t)snprintf(text + length, SHAPE_BYTES - length, "%s%" PRId64, i ? ", " : "", shape[i]);
}

octavo_status octavo_load_check_shape(const octavo_stored *stored, int32_t ndim, const int64_t *shape)
{
    char found[SHAPE_BYTES], expected[SHAPE_BYTES];
    if (stored->view.ndim == ndim && !memcmp(stored->view.shape, shape, (size_t)ndim * sizeof *shape)) return OCTAVO_OK;
    shape_text(stored->view.ndim, stored->view.shape, found);
    shape_text(ndim, shape, expected);
    return octavo_fail(OCTAVO_E_FORMAT, "%s: '%s' has shape [%s], expected [%s] by config.json", stored->label, stored->name, found, expected);
}

int octavo_stored_is_float(const octavo_stored *stored) { return stored->view.dtype != OCTAVO_E4M3; }

int octavo_stored_is_aligned(const octavo_stored *stored)
{
    return (uintptr_t)stored->view.data % octavo_dtype_bytes(stored->view.dtype) == 0;
}

void octavo_stored_floats(const octavo_tensor *view, int64_t first, int64_t step, int64_t count, float *out)
{
    const uint8_t *data = view->data;
    uint16_t half;
    switch (view->dtype) {
    case OCTAVO_F32:
        for (int64_t i = 0; i < count; i++) memcpy(&out[i], data + 4 * (first + i * step), sizeof *out);
        break;
    case OCTAVO_BF16:
        for (int64_t i = 0; i < count; i++) {
            memcpy(&half, data + 2 * (first + i * step), sizeof half);
            out[i] = octavo_bf16_to_float(half);
        }
        break;
    case OCTAVO_F16:
        for (int64_t i = 0; i < count; i++) {
            memcpy(&half, data + 2 * (first + i * step), sizeof half);
            out[i] = octavo_fp16_to_float(half);
        }
        break;
    default:
        for (int64_t i = 0; i < count; i++) out[i] = octavo_e4m3_to_float(data[first + i * step]);
    }
}

static octavo_status fill_vector(const octavo_loader *loader, const void *argument, void *to)
{
    (void)loader;
    const octavo_stored *stored = argument;
    octavo_stored_floats(&stored->view, 0, 1, stored->view.shape[0], to);
    return OCTAVO_OK;
}

octavo_status octavo_load_vector(octavo_loader *loader, const char *module, const char *suffix, octavo_json_need need, int64_t width,
                                 const float **at)
{
    octavo_stored stored;
    const void *placed;
    *at = NULL;
    OCTAVO_TRY(octavo_load_find(loader, module, suffix, need, &stored));
    if (!stored.view.data) return OCTAVO_OK;
    OCTAVO_TRY(octavo_load_check_shape(&stored, 1, &width));
    if (!octavo_stored_is_float(&stored))
        return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: '%s' has dtype F8_E4M3, expected F32, F16 or BF16", stored.label, stored.name);
    const size_t bytes = (size_t)width * sizeof **at;
    if (stored.view.dtype == OCTAVO_F32 && octavo_stored_is_aligned(&stored)) OCTAVO_TRY(octavo_load_place(loader, stored.view.data, bytes, &placed));
    else OCTAVO_TRY(octavo_load_make(loader, bytes, fill_vector, &stored, &placed));
    *at = placed;
    return OCTAVO_OK;
}
