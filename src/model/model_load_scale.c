/* model_load_scale.c - scales of eight-bit weights, inputs and caches: what a convention calls them and how they lie. */
#include "base/error.h"
#include "model/model_load.h"
#include <math.h>
#include <string.h>

octavo_status octavo_load_check_patterns(const octavo_loader *loader)
{
    static const size_t COMPARED_MAX = (size_t)1 << 30; /* bytes; a thousand times what the largest models ask for */
    const octavo_model_quant *quant = &loader->description->quant;
    size_t tensors = 0;
    for (size_t i = 0; i < loader->files->count; i++) tensors += octavo_safetensors_count(loader->files->files[i]);
    if (tensors == 0 || quant->pattern_bytes <= COMPARED_MAX / tensors) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: its patterns of modules that are not quantised have %zu bytes, expected at most %zu with "
                       "%zu tensors", quant->source, quant->pattern_bytes, COMPARED_MAX / tensors, tensors);
}

/* Where the scale's shape fits the layout, its blocks. */
static bool fits(const octavo_model_quant *quant, octavo_scale_layout layout, const octavo_tensor *view, int64_t out, int64_t in,
                 int64_t *block_rows, int64_t *block_cols)
{
    const int64_t *shape = view->shape;
    if (!(quant->layouts & layout)) return false;
    *block_rows = *block_cols = 0;
    if (layout == OCTAVO_SCALE_TENSOR) return view->ndim == 0 || (view->ndim == 1 && shape[0] == 1) || (view->ndim == 2 && shape[0] * shape[1] == 1);
    if (layout == OCTAVO_SCALE_CHANNEL) {
        *block_rows = 1;
        return (view->ndim == 1 && shape[0] == out) || (view->ndim == 2 && shape[0] == out && shape[1] == 1);
    }
    *block_rows = quant->block_rows;
    *block_cols = quant->block_cols;
    return view->ndim == 2 && shape[0] == (out - 1) / quant->block_rows + 1 && shape[1] == (in - 1) / quant->block_cols + 1;
}

static int64_t elements(const octavo_tensor *view)
{
    int64_t count = 1;
    for (int32_t i = 0; i < view->ndim; i++) count *= view->shape[i];
    return count;
}

/* The convention "multiply back" is the same under both names. */
static octavo_status find_scale(const octavo_loader *loader, const char *module, octavo_stored *scale)
{
    OCTAVO_TRY(octavo_load_find(loader, module, ".weight_scale_inv", OCTAVO_JSON_OPTIONAL, scale));
    if (scale->view.data) return OCTAVO_OK;
    return octavo_load_find(loader, module, ".weight_scale", OCTAVO_JSON_REQUIRED, scale);
}

static octavo_status check_float(const octavo_stored *scale)
{
    if (octavo_stored_is_float(scale)) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_UNSUPPORTED, "%s: '%s' has dtype F8_E4M3, expected F32, F16 or BF16", scale->label, scale->name);
}

octavo_status octavo_load_weight_scale(const octavo_loader *loader, const char *module, const octavo_stored *weight,
                                       octavo_stored *scale, int64_t *block_rows, int64_t *block_cols)
{
    const int64_t out = weight->view.shape[0], in = weight->view.shape[1];
    static const octavo_scale_layout LAYOUTS[] = { OCTAVO_SCALE_BLOCK, OCTAVO_SCALE_CHANNEL, OCTAVO_SCALE_TENSOR };
    const octavo_model_quant *quant = &loader->description->quant;
    octavo_load_name(loader, module, "", scale->name);
    if (!quant->source)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: '%s' has dtype F8_E4M3, but config.json announces no quantisation", weight->label,
                           weight->name);
    if (octavo_model_quant_excludes(quant, scale->name))
        return octavo_fail(OCTAVO_E_FORMAT, "%s: '%s' has dtype F8_E4M3, but %s leaves this module out of the quantisation",
                           weight->label, weight->name, quant->source);
    OCTAVO_TRY(find_scale(loader, module, scale));
    OCTAVO_TRY(check_float(scale));
    for (size_t i = 0; i < sizeof LAYOUTS / sizeof *LAYOUTS; i++)
        if (fits(quant, LAYOUTS[i], &scale->view, out, in, block_rows, block_cols)) {
            for (int64_t e = 0, count = elements(&scale->view); e < count; e++) {
                float value;
                octavo_stored_floats(&scale->view, e, 1, 1, &value);
                if (!isfinite(value) || value < 0)
                    return octavo_fail(OCTAVO_E_FORMAT, "%s: '%s' has element %lld %g, expected a finite number that is not negative",
                                       scale->label, scale->name, (long long)e, (double)value);
            }
            return OCTAVO_OK;
        }
    if (quant->layouts & OCTAVO_SCALE_BLOCK)
        return octavo_load_check_shape(scale, 2, (int64_t[]){ (out - 1) / quant->block_rows + 1, (in - 1) / quant->block_cols + 1 });
    if (quant->layouts & OCTAVO_SCALE_CHANNEL) return octavo_load_check_shape(scale, 2, (int64_t[]){ out, 1 });
    return octavo_load_check_shape(scale, 1, (int64_t[]){ 1 });
}

static octavo_status fill_scales(const octavo_loader *loader, const void *argument, void *to)
{
    (void)loader;
    const octavo_stored *scale = argument;
    octavo_stored_floats(&scale->view, 0, 1, elements(&scale->view), to);
    return OCTAVO_OK;
}

octavo_status octavo_load_scale_values(octavo_loader *loader, const octavo_stored *scale, const float **at)
{
    const void *placed;
    const size_t bytes = (size_t)elements(&scale->view) * sizeof **at;
    if (scale->view.dtype == OCTAVO_F32 && octavo_stored_is_aligned(scale)) OCTAVO_TRY(octavo_load_place(loader, scale->view.data, bytes, &placed));
    else OCTAVO_TRY(octavo_load_make(loader, bytes, fill_scales, scale, &placed));
    *at = placed;
    return OCTAVO_OK;
}

octavo_status octavo_load_single_scale(const octavo_loader *loader, const char *module, const char *suffix, octavo_stored *scale,
                                       float *value)
{
    *value = 0;
    OCTAVO_TRY(octavo_load_find(loader, module, suffix, OCTAVO_JSON_OPTIONAL, scale));
    if (!scale->view.data) return OCTAVO_OK;
    OCTAVO_TRY(check_float(scale));
    if (elements(&scale->view) != 1) return octavo_load_check_shape(scale, 1, (int64_t[]){ 1 });
    octavo_stored_floats(&scale->view, 0, 1, 1, value);
    if (isfinite(*value) && *value > 0) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_FORMAT, "%s: '%s' is %g, expected a positive finite number", scale->label, scale->name, (double)*value);
}
