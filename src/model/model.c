/* model.c - opens and closes a model: configuration, files, weights. */
#include "base/error.h"
#include "model/model_load.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct octavo_model {
    octavo_device *device;
    octavo_device *host; /* the device itself, or the CPU beside it */
    octavo_model_description description;
    octavo_model_files files;
    octavo_model_arena arena;
    octavo_lm_weights weights;
    octavo_linear_precision precision, head_precision;
    int64_t bytes_per_token;
    char *config_path, *quant_path; /* messages name them */
};

static char *join(const char *folder, const char *name)
{
    const size_t bytes = strlen(folder) + strlen(name) + 2;
    char *path = malloc(bytes);
    if (path) snprintf(path, bytes, "%s/%s", folder, name);
    return path;
}

typedef octavo_status description_reader(octavo_model_description *description, const char *label, const char *text, size_t bytes);

static octavo_status read_file(octavo_model *model, const char *path, description_reader *reader)
{
    octavo_mapped_file map;
    OCTAVO_TRY(octavo_mapped_file_init(&map, path, OCTAVO_MAP_SEQUENTIAL));
    const octavo_status status = reader(&model->description, path, (const char *)map.data, map.bytes);
    octavo_mapped_file_fini(&map);
    return status;
}

static octavo_status read_file_if_any(octavo_model *model, const char *path, description_reader *reader)
{
    struct stat info;
    return stat(path, &info) != 0 && errno == ENOENT ? OCTAVO_OK : read_file(model, path, reader);
}

static octavo_status read_config(octavo_model *model, const char *folder)
{
    model->config_path = join(folder, "config.json");
    model->quant_path = join(folder, "hf_quant_config.json");
    char *generation = join(folder, "generation_config.json");
    octavo_status status = model->config_path && model->quant_path && generation ? OCTAVO_OK : octavo_fail(OCTAVO_E_NOMEM, "no memory for a path");
    if (status == OCTAVO_OK) status = read_file(model, model->config_path, octavo_model_description_init);
    if (status == OCTAVO_OK) status = read_file_if_any(model, model->quant_path, octavo_model_description_add_quant);
    if (status == OCTAVO_OK) status = read_file_if_any(model, generation, octavo_model_description_add_generation);
    free(generation);
    return status;
}

static octavo_status open_host(octavo_model *model)
{
    model->host = model->device;
    if (octavo_device_kind_of(model->device) == OCTAVO_DEVICE_CPU) return OCTAVO_OK;
    return octavo_device_open(octavo_device_context(model->device), "cpu", &model->host);
}

/* Twice over the same files: the first time to learn how much memory to ask for. */
static octavo_status load(octavo_model *model, const octavo_model_options *options)
{
    octavo_loader loader = { .description = &model->description, .files = &model->files, .arena = &model->arena, .weights = &model->weights,
                             .exec = OCTAVO_EXEC_INIT, .host = OCTAVO_EXEC_INIT };
    loader.exec.device = model->device;
    loader.host.device = model->host;
    loader.exec.threads = loader.host.threads = options->threads;
    octavo_load_find_prefix(&loader);
    OCTAVO_TRY(octavo_load_check_patterns(&loader));
    OCTAVO_TRY(octavo_load_precision(&loader, options->linear, &model->precision));
    model->head_precision = model->precision == OCTAVO_LINEAR_F32 ? OCTAVO_LINEAR_F32 : OCTAVO_LINEAR_BF16;
    loader.precision = model->precision;
    loader.head_precision = model->head_precision;
    model->weights.layers = calloc((size_t)model->description.config.layers, sizeof *model->weights.layers);
    if (!model->weights.layers) return octavo_fail(OCTAVO_E_NOMEM, "no memory for %d layers", model->description.config.layers);
    OCTAVO_TRY(octavo_load_weights(&loader));
    OCTAVO_TRY(octavo_model_arena_claim(&model->arena, model->device, octavo_safetensors_label(model->files.files[0])));
    OCTAVO_TRY(octavo_load_weights(&loader));
    return octavo_device_synchronize(&loader.exec);
}

static int64_t norm_bytes(const octavo_lm_norm *norm, int64_t width)
{
    return ((norm->weight ? width : 0) + (norm->bias ? width : 0)) * (int64_t)sizeof(float);
}

static int64_t ffn_bytes(const octavo_lm_ffn *ffn)
{
    return octavo_linear_read_bytes(&ffn->gate) + octavo_linear_read_bytes(&ffn->up) + octavo_linear_read_bytes(&ffn->down);
}

static int64_t count_bytes(const octavo_model *model)
{
    const octavo_model_config *c = &model->description.config;
    const octavo_lm_weights *w = &model->weights;
    const int64_t table = c->hidden * (int64_t)octavo_dtype_bytes(w->embedding.dtype);
    int64_t bytes = table + (w->positions.data ? c->hidden * (int64_t)octavo_dtype_bytes(w->positions.dtype) : 0);
    for (int32_t i = 0; i < c->layers; i++) {
        const octavo_lm_layer *layer = &w->layers[i];
        const int64_t q = c->head_dim * (c->qk_norm == OCTAVO_QK_NORM_FULL ? (int64_t)c->q_heads : 1);
        const int64_t k = c->head_dim * (c->qk_norm == OCTAVO_QK_NORM_FULL ? (int64_t)c->kv_heads : 1);
        bytes += norm_bytes(&layer->attention_norm, c->hidden) + norm_bytes(&layer->ffn_norm, c->hidden);
        bytes += norm_bytes(&layer->q_norm, q) + norm_bytes(&layer->k_norm, k);
        bytes += octavo_linear_read_bytes(&layer->q) + octavo_linear_read_bytes(&layer->k) + octavo_linear_read_bytes(&layer->v);
        bytes += octavo_linear_read_bytes(&layer->o) + octavo_linear_read_bytes(&layer->router) + ffn_bytes(&layer->ffn);
        if (layer->experts) bytes += c->experts_per_token * ffn_bytes(&layer->experts[0]);
    }
    return bytes + norm_bytes(&w->final_norm, c->hidden) + octavo_linear_read_bytes(&w->head);
}

static octavo_status check_options(const octavo_model_options *options)
{
    OCTAVO_TRY(octavo_struct_check("octavo_model_options", options->struct_size, sizeof *options));
    if (options->linear < OCTAVO_LINEAR_AS_STORED || options->linear > OCTAVO_LINEAR_INT8)
        return octavo_fail(OCTAVO_E_ARGUMENT, "options.linear is %d, expected an octavo_linear_precision or OCTAVO_LINEAR_AS_STORED",
                           options->linear);
    if (options->threads < 0) return octavo_fail(OCTAVO_E_ARGUMENT, "options.threads is %d, expected 0 or more", options->threads);
    return OCTAVO_OK;
}

static octavo_status finish_open(octavo_model *model, const octavo_model_options *options)
{
    OCTAVO_TRY(open_host(model));
    OCTAVO_TRY(load(model, options));
    model->bytes_per_token = count_bytes(model);
    return OCTAVO_OK;
}

octavo_status octavo_model_open(octavo_device *device, const char *path, const octavo_model_options *options, octavo_model **model)
{
    static const octavo_model_options DEFAULT = OCTAVO_MODEL_OPTIONS_INIT;
    if (!model) return octavo_fail(OCTAVO_E_ARGUMENT, "model is NULL, expected where to put the new model");
    *model = NULL;
    if (!device) return octavo_fail(OCTAVO_E_ARGUMENT, "device is NULL, expected one from octavo_device_open");
    if (!path || !*path) return octavo_fail(OCTAVO_E_ARGUMENT, "path is empty, expected the folder of a checkpoint");
    if (!options) options = &DEFAULT;
    OCTAVO_TRY(check_options(options));
    octavo_model *made = calloc(1, sizeof *made);
    if (!made) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a model");
    made->device = device;
    octavo_status status = read_config(made, path);
    if (status == OCTAVO_OK) status = octavo_model_files_init(&made->files, path);
    if (status == OCTAVO_OK) status = finish_open(made, options);
    if (status == OCTAVO_OK) *model = made;
    else octavo_model_close(made);
    return status;
}

octavo_status octavo_model_open_memory(octavo_device *device, const octavo_model_memory *memory, const octavo_model_options *options,
                                       octavo_model **model)
{
    *model = NULL;
    octavo_model *made = calloc(1, sizeof *made);
    if (!made) return octavo_fail(OCTAVO_E_NOMEM, "no memory for a model");
    made->device = device;
    octavo_status status = octavo_model_description_init(&made->description, "config.json", memory->config, memory->config_bytes);
    if (status == OCTAVO_OK) status = octavo_model_files_init_memory(&made->files, memory->weights, memory->weights_bytes);
    if (status == OCTAVO_OK) status = finish_open(made, options);
    if (status == OCTAVO_OK) *model = made;
    else octavo_model_close(made);
    return status;
}

void octavo_model_close(octavo_model *model)
{
    if (!model) return;
    octavo_load_free_experts(&model->weights, model->description.config.layers);
    free(model->weights.layers);
    octavo_model_arena_release(&model->arena, model->device);
    if (model->host && model->host != model->device) octavo_device_close(model->host);
    octavo_model_files_fini(&model->files);
    octavo_model_description_fini(&model->description);
    free(model->config_path);
    free(model->quant_path);
    free(model);
}

const octavo_model_config *octavo_model_config_of(const octavo_model *model) { return &model->description.config; }
octavo_linear_precision octavo_model_linear(const octavo_model *model) { return model->precision; }
octavo_linear_precision octavo_model_head_precision(const octavo_model *model) { return model->head_precision; }
int64_t octavo_model_bytes_per_token(const octavo_model *model) { return model->bytes_per_token; }
octavo_device *octavo_model_device(const octavo_model *model) { return model->device; }
const octavo_lm_weights *octavo_model_weights(const octavo_model *model) { return &model->weights; }
