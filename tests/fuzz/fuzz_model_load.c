/* fuzz_model_load.c - a checkpoint is refused, or every byte of every weight of the model can be read.
 * Reads with src/model/model_load.c, src/model/model_load_tensor.c, src/model/model_load_scale.c and src/model/model_load_linear.c. */
#include "model/model_load.h"
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t sum; /* so that no read is left out */

static void require(int condition)
{
    if (!condition) abort();
}

static void read_all(const void *data, int64_t bytes)
{
    for (int64_t i = 0; data && i < bytes; i++) sum += ((const uint8_t *)data)[i];
}

static void read_linear(const octavo_lm_linear *l)
{
    const octavo_weight *w = &l->weight;
    if (!w->codes.data) return;
    const int64_t out = w->codes.shape[0], in = w->codes.shape[1];
    require(w->codes.ndim == 2 && out >= 1 && in >= 1 && (uintptr_t)w->codes.data % octavo_dtype_bytes(w->codes.dtype) == 0);
    read_all(w->codes.data, out * in * (int64_t)octavo_dtype_bytes(w->codes.dtype));
    const int64_t down = w->block_rows ? (out - 1) / w->block_rows + 1 : 1, across = w->block_cols ? (in - 1) / w->block_cols + 1 : 1;
    for (int64_t i = 0; w->scales && i < down * across; i++) require(w->scales[i] >= 0);
    read_all(l->bias, out * (int64_t)sizeof(float));
    if (l->x_scale) require(*l->x_scale > 0);
}

static void read_ffn(const octavo_lm_ffn *ffn)
{
    read_linear(&ffn->gate);
    read_linear(&ffn->up);
    read_linear(&ffn->down);
}

static void read_layer(const octavo_model_config *c, const octavo_lm_layer *layer)
{
    const octavo_lm_linear *const all[] = { &layer->q, &layer->k, &layer->v, &layer->o, &layer->router };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) read_linear(all[i]);
    read_all(layer->attention_norm.weight, c->hidden * (int64_t)sizeof(float));
    read_all(layer->ffn_norm.weight, c->hidden * (int64_t)sizeof(float));
    read_ffn(&layer->ffn);
    for (int32_t i = 0; layer->experts && i < c->experts; i++) read_ffn(&layer->experts[i]);
    require(layer->k_scale >= 0 && layer->v_scale >= 0);
}

static void read_model(const octavo_model *model)
{
    const octavo_model_config *c = octavo_model_config_of(model);
    const octavo_lm_weights *w = octavo_model_weights(model);
    for (int32_t i = 0; i < c->layers; i++) read_layer(c, &w->layers[i]);
    read_all(w->embedding.data, c->vocab * (int64_t)c->hidden * (int64_t)octavo_dtype_bytes(w->embedding.dtype));
    read_all(w->positions.data, c->max_tokens * (int64_t)c->hidden * (int64_t)octavo_dtype_bytes(w->positions.dtype));
    read_linear(&w->head);
    require(octavo_model_bytes_per_token(model) > 0);
}

/* One byte: the precision. Then config.json up to a zero byte, then the safetensors file. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static octavo_context *context;
    static octavo_device *device;
    const uint8_t *zero = size > 1 ? memchr(data + 1, 0, size - 1) : NULL;
    if (!zero) return 0;
    if (!context) require(octavo_context_create(NULL, &context) == OCTAVO_OK && octavo_device_open(context, "cpu", &device) == OCTAVO_OK);
    octavo_model_options options = OCTAVO_MODEL_OPTIONS_INIT;
    options.linear = data[0] % (OCTAVO_LINEAR_INT8 + 2) + OCTAVO_LINEAR_AS_STORED;
    options.threads = 1;
    const size_t weights_bytes = size - (size_t)(zero + 1 - data);
    uint8_t *weights = malloc(weights_bytes); /* aligned as a mapping is, and exactly as long */
    require(weights || weights_bytes == 0);
    if (weights) memcpy(weights, zero + 1, weights_bytes);
    const octavo_model_memory memory = { (const char *)data + 1, (size_t)(zero - data - 1), weights, weights_bytes };
    octavo_model *model;
    if (octavo_model_open_memory(device, &memory, &options, &model) == OCTAVO_OK) {
        read_model(model);
        octavo_model_close(model);
    } else require(model == NULL && octavo_last_error()[0] != 0);
    free(weights);
    return 0;
}
