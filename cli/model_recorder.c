/* model_recorder.c - gathers a recording piece by piece. */
#include "model_recorder.h"
#include "bench_element.h"
#include "cli.h"
#include "machine.h"
#include "octavo/safetensors.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TENSOR_Q, TENSOR_K, TENSOR_V, TENSOR_H, TENSOR_Q_UNROPE, TENSOR_K_UNROPE };
static const char *const SUFFIXES[RECORDER_TENSORS] = { "q_rope", "k_rope", "v", "h", "q_unrope", "k_unrope" };

/* 1: allocated, or not wanted at all. */
static int allocate(recorder_tensor *to, int64_t rows, octavo_dtype dtype, int h)
{
    if (to->kept == 0) return 1;
    const int64_t shape[] = { rows, to->heads, to->kept, to->dim }, shape_h[] = { rows, to->kept, to->dim };
    octavo_tensor tensor = h ? octavo_tensor_view(NULL, dtype, 3, shape_h) : octavo_tensor_view(NULL, dtype, 4, shape);
    int64_t elements = rows, bytes;
    if (tensor.ndim < 0 || __builtin_mul_overflow(elements, to->heads, &elements) || __builtin_mul_overflow(elements, to->kept, &elements) ||
        __builtin_mul_overflow(elements, to->dim, &elements) || __builtin_mul_overflow(elements, (int64_t)octavo_dtype_bytes(dtype), &bytes) ||
        bytes > machine_available_bytes())
        return 0;
    tensor.data = malloc((size_t)bytes);
    to->tensor = tensor;
    return tensor.data != NULL;
}

int recorder_init(recorder *to, const model_run *run, const recorder_config *config)
{
    const octavo_model_config *model = run->config;
    *to = (recorder){ .config = *config, .exec = OCTAVO_EXEC_INIT, .status = EXIT_DONE };
    to->exec.device = run->device;
    to->tensors = calloc((size_t)config->layer_count, sizeof *to->tensors);
    int good = to->tensors != NULL;
    for (int32_t i = 0; i < config->layer_count && good; i++) {
        const int64_t after = config->tokens - config->queries, unrotated = config->unrotated;
        const recorder_tensor all[RECORDER_TENSORS] = {
            [TENSOR_Q] = { .heads = model->q_heads, .first = after, .kept = config->queries, .dim = model->head_dim },
            [TENSOR_K] = { .heads = model->kv_heads, .kept = config->tokens, .dim = model->head_dim },
            [TENSOR_V] = { .heads = model->kv_heads, .kept = config->tokens, .dim = model->head_dim },
            [TENSOR_H] = { .heads = 1, .kept = config->h_tokens, .dim = model->hidden },
            [TENSOR_Q_UNROPE] = { .heads = model->q_heads, .first = after, .kept = unrotated ? config->queries : 0, .dim = model->head_dim },
            [TENSOR_K_UNROPE] = { .heads = model->kv_heads, .kept = unrotated ? config->tokens : 0, .dim = model->head_dim },
        };
        memcpy(to->tensors[i], all, sizeof all);
        for (int k = 0; k < RECORDER_TENSORS && good; k++) {
            snprintf(to->tensors[i][k].name, sizeof to->tensors[i][k].name, "layer_%" PRId32 ".%s", config->layers[i], SUFFIXES[k]);
            good = allocate(&to->tensors[i][k], config->rows, config->dtype, k == TENSOR_H);
        }
    }
    if (good) return EXIT_DONE;
    return cli_refuse("there is no memory for a recording of %d layers of %" PRId64 " tokens", config->layer_count, config->tokens);
}

void recorder_fini(recorder *to)
{
    for (int32_t i = 0; to->tensors && i < to->config.layer_count; i++)
        for (int k = 0; k < RECORDER_TENSORS; k++) free(to->tensors[i][k].tensor.data);
    free(to->tensors);
    free(to->staging);
    *to = (recorder){ 0 };
}

/* Stops the forward pass; the sentence is out. */
static octavo_status stop(recorder *to)
{
    to->status = EXIT_REFUSED;
    return OCTAVO_E_ARGUMENT;
}

/* The tensor of a piece on the host: its tokens are as far apart as they were. */
static const void *fetch(recorder *to, const octavo_tensor *from)
{
    const size_t bytes = octavo_dtype_bytes(from->dtype) * (size_t)(from->shape[1] * from->strides[1]);
    if (bytes > to->staging_bytes) {
        void *staging = realloc(to->staging, bytes);
        if (!staging) {
            cli_refuse("there is no memory for a piece of %zu bytes", bytes);
            return NULL;
        }
        to->staging = staging;
        to->staging_bytes = bytes;
    }
    if (octavo_device_download(&to->exec, to->staging, from->data, bytes) == OCTAVO_OK) return to->staging;
    cli_refuse_last();
    return NULL;
}

/* 0: an element is not finite. */
static int store_row(void *to, octavo_dtype to_dtype, const void *from, octavo_dtype from_dtype, int64_t first, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        const float value = element_read(from, from_dtype, first + i);
        if (!isfinite(value)) return 0;
        if (to_dtype == OCTAVO_F32)
            ((float *)to)[i] = value;
        else
            ((uint16_t *)to)[i] = element_to_bf16(value);
    }
    return 1;
}

/* `from` is [1, tokens, heads, dim] or [1, tokens, dim]. */
static octavo_status take_tensor(recorder *to, recorder_tensor *kept, const octavo_layer_record *layer, const octavo_tensor *from)
{
    const int64_t tokens = from->shape[1], end = kept->first + kept->kept;
    const size_t element = octavo_dtype_bytes(to->config.dtype);
    if (!kept->tensor.data || layer->first_position >= end || layer->first_position + tokens <= kept->first) return OCTAVO_OK;
    const void *data = fetch(to, from);
    if (!data) return stop(to);
    for (int64_t t = 0; t < tokens; t++) {
        const int64_t position = layer->first_position + t - kept->first;
        for (int64_t head = 0; position >= 0 && position < kept->kept && head < kept->heads; head++) {
            const int64_t row = ((to->row * kept->heads + head) * kept->kept + position) * kept->dim;
            if (!store_row((char *)kept->tensor.data + (size_t)row * element, to->config.dtype, data, from->dtype,
                           t * from->strides[1] + head * kept->dim, kept->dim)) {
                cli_refuse("%s is not finite at position %" PRId64, kept->name, layer->first_position + t);
                return stop(to);
            }
        }
    }
    return OCTAVO_OK;
}

octavo_status recorder_take(void *user, const octavo_layer_record *layer)
{
    recorder *to = user;
    for (int32_t i = 0; i < to->config.layer_count; i++) {
        if (to->config.layers[i] != layer->layer) continue;
        recorder_tensor *tensors = to->tensors[i];
        octavo_status status = take_tensor(to, &tensors[layer->rotated ? TENSOR_Q : TENSOR_Q_UNROPE], layer, &layer->q);
        if (status == OCTAVO_OK) status = take_tensor(to, &tensors[layer->rotated ? TENSOR_K : TENSOR_K_UNROPE], layer, &layer->k);
        if (status == OCTAVO_OK && layer->rotated) status = take_tensor(to, &tensors[TENSOR_V], layer, &layer->v);
        if (status == OCTAVO_OK && layer->rotated) status = take_tensor(to, &tensors[TENSOR_H], layer, &layer->h);
        return status;
    }
    return OCTAVO_OK;
}

int recorder_write(const recorder *to, const char *path)
{
    const char *names[RECORDER_LAYERS_MOST * RECORDER_TENSORS];
    octavo_tensor tensors[RECORDER_LAYERS_MOST * RECORDER_TENSORS];
    const octavo_safetensors_pair metadata = {
        "layout", "q, k, v: [batch, heads, tokens, head_dim], after RoPE where named _rope; q holds the last positions, h, the input of "
                  "the projections [batch, tokens, hidden], the first",
    };
    octavo_safetensors_write_params params = OCTAVO_SAFETENSORS_WRITE_PARAMS_INIT;
    for (int32_t i = 0; i < to->config.layer_count; i++)
        for (int k = 0; k < RECORDER_TENSORS; k++)
            if (to->tensors[i][k].tensor.data) {
                names[params.count] = to->tensors[i][k].name;
                tensors[params.count++] = to->tensors[i][k].tensor;
            }
    params.names = names;
    params.tensors = tensors;
    params.metadata_count = 1;
    params.metadata = &metadata;
    return octavo_safetensors_write(path, &params) == OCTAVO_OK ? EXIT_DONE : cli_refuse_last();
}
