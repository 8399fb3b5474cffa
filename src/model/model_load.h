/* model_load.h - a checkpoint on its way into a model: its files, the memory that it moves to, what is still to be read. */
#ifndef OCTAVO_MODEL_MODEL_LOAD_H
#define OCTAVO_MODEL_MODEL_LOAD_H

#include "device/device.h"
#include "model/model_config.h"
#include "model/model_weights.h"
#include "model/safetensors.h"

/* ---- model_load_index.c: which file holds which tensor. ---- */

enum { OCTAVO_INDEX_BYTES_MAX = 100000000, OCTAVO_SHARDS_MAX = 4096 };

typedef struct octavo_model_index {
    json_t *root;
    const json_t *map;     /* in root: tensor -> file        */
    const char **shards;   /* [shard_count] ascending, in root */
    size_t shard_count;
} octavo_model_index;

/* From the text of model.safetensors.index.json. File names that could leave the folder are refused. After a failure there is nothing
 * to finish. */
octavo_status octavo_model_index_init(octavo_model_index *index, const char *label, const char *text, size_t bytes);
/* The shard's number, or -1: the index lists no such tensor. */
int64_t octavo_model_index_find(const octavo_model_index *index, const char *tensor);
void octavo_model_index_fini(octavo_model_index *index);

/* ---- model_load_files.c ---- */

typedef struct octavo_model_files {
    octavo_safetensors **files; /* [count], owned */
    size_t count;
    octavo_model_index index;   /* map NULL: there is one file */
} octavo_model_files;

/* What a folder holds. After a failure there is nothing to finish. */
octavo_status octavo_model_files_init(octavo_model_files *files, const char *folder);
/* One file over the caller's memory, which must outlive it. */
octavo_status octavo_model_files_init_memory(octavo_model_files *files, const void *data, size_t bytes);
void octavo_model_files_fini(octavo_model_files *files);
/* NULL: no file has it. */
const octavo_safetensors *octavo_model_files_find(const octavo_model_files *files, const char *tensor);

/* ---- model_load_place.c: device memory. ---- */

/* All that a model does not read from the mapping. While `memory` is NULL, sizes are added up and nothing is moved. */
typedef struct octavo_model_arena {
    uint8_t *memory;
    size_t bytes, used;
} octavo_model_arena;

typedef struct octavo_loader {
    const octavo_model_description *description;
    const octavo_model_files *files;
    octavo_model_arena *arena;
    octavo_lm_weights *weights;
    octavo_exec exec; /* the model's device                        */
    octavo_exec host; /* the CPU, which converts and quantises     */
    octavo_linear_precision precision, head_precision;
    const char *prefix;     /* of tensor names: the family's, or "" */
    int32_t layer, expert;  /* that names stand for                 */
    float last_x_scale;     /* static scales that are equal share their memory, so that products can share their input */
    const float *last_x_scale_at;
} octavo_loader;

/* Fills `bytes` of host memory, aligned to 64. */
typedef octavo_status (*octavo_load_fill)(const octavo_loader *loader, const void *argument, void *to);

/* The one way of bytes to the device. Host bytes that stay: on the CPU they are used where they are. */
octavo_status octavo_load_place(octavo_loader *loader, const void *host, size_t bytes, const void **at);
/* Bytes that are made. While sizes are measured *at is an address that must not be read. */
octavo_status octavo_load_make(octavo_loader *loader, size_t bytes, octavo_load_fill fill, const void *argument, const void **at);
/* Room on the device, for what the device fills itself. */
octavo_status octavo_load_take(octavo_loader *loader, size_t bytes, void **at);
int octavo_load_is_measuring(const octavo_loader *loader);

/* Memory for what was measured: OCTAVO_E_NOMEM before it is claimed where there is too little. */
octavo_status octavo_model_arena_claim(octavo_model_arena *arena, octavo_device *device, const char *label);
void octavo_model_arena_release(octavo_model_arena *arena, octavo_device *device);

/* ---- model_load_tensor.c: tensors by name, in floats. ---- */

enum { OCTAVO_TENSOR_NAME_BYTES = 256 };

/* A tensor where it lies in its file, which may be at any byte. view.data NULL: there is none. */
typedef struct octavo_stored {
    char name[OCTAVO_TENSOR_NAME_BYTES];
    const char *label; /* the file's */
    octavo_tensor view;
} octavo_stored;

/* The whole name of a module's tensor, such as "model.layers.3.mlp.up_proj.weight". */
void octavo_load_name(const octavo_loader *loader, const char *module, const char *suffix, char name[OCTAVO_TENSOR_NAME_BYTES]);
octavo_status octavo_load_find(const octavo_loader *loader, const char *module, const char *suffix, octavo_json_need need,
                               octavo_stored *stored);
/* As above, by its whole name. */
octavo_status octavo_load_find_named(const octavo_loader *loader, octavo_json_need need, octavo_stored *stored);
octavo_status octavo_load_check_shape(const octavo_stored *stored, int32_t ndim, const int64_t *shape);
int octavo_stored_is_float(const octavo_stored *stored);
int octavo_stored_is_aligned(const octavo_stored *stored);
/* `count` elements from element `first`, `step` apart. */
void octavo_stored_floats(const octavo_tensor *view, int64_t first, int64_t step, int64_t count, float *out);

/* A vector of floats: a norm, a bias. */
octavo_status octavo_load_vector(octavo_loader *loader, const char *module, const char *suffix, octavo_json_need need, int64_t width,
                                 const float **at);

/* ---- model_load_scale.c: scales of eight-bit weights. ---- */

/* OCTAVO_E_UNSUPPORTED: so many patterns of excluded modules and so many tensors that comparing them would take minutes. */
octavo_status octavo_load_check_patterns(const octavo_loader *loader);

/* The scales of a module's e4m3 weight [out, in]. Checked: finite, and none is negative. */
octavo_status octavo_load_weight_scale(const octavo_loader *loader, const char *module, const octavo_stored *weight,
                                       octavo_stored *scale, int64_t *block_rows, int64_t *block_cols);
octavo_status octavo_load_scale_values(octavo_loader *loader, const octavo_stored *scale, const float **at);
/* input_scale, k_scale, v_scale: one positive number; *value is 0, and scale->view.data NULL, where there is none. */
octavo_status octavo_load_single_scale(const octavo_loader *loader, const char *module, const char *suffix, octavo_stored *scale,
                                       float *value);

/* ---- model_load_linear.c ---- */

typedef struct octavo_linear_request {
    const char *module;
    int64_t out, in;
    int64_t first, total; /* rows first ... first + out - 1 of a fused module of `total` rows */
    bool bias;
    octavo_linear_precision precision;
    const octavo_tensor *same; /* this matrix where it is on the device already, in the file's dtype; or NULL */
} octavo_linear_request;

octavo_status octavo_load_linear(octavo_loader *loader, const octavo_linear_request *request, octavo_lm_linear *linear);

/* Rows that are looked up: [rows, width] f32, f16 or bf16. */
octavo_status octavo_load_table(octavo_loader *loader, const char *module, int64_t rows, int64_t width, octavo_tensor *table);

/* Bytes that one product of one token reads. */
int64_t octavo_linear_read_bytes(const octavo_lm_linear *linear);

/* ---- model_load.c ---- */

/* What the stored weights ask for where the options leave it open. */
octavo_status octavo_load_precision(const octavo_loader *loader, int32_t wish, octavo_linear_precision *precision);
/* Reads all weights; called once to measure and once to move. Layers are the loader's weights'; experts' arrays are allocated. */
octavo_status octavo_load_weights(octavo_loader *loader);
void octavo_load_free_experts(octavo_lm_weights *weights, int32_t layers);
/* "model.", or "" where the files leave it away. */
void octavo_load_find_prefix(octavo_loader *loader);

/* ---- model.c ---- */

/* A checkpoint of one file that was read already; the bytes must outlive the model. */
typedef struct octavo_model_memory {
    const char *config; /* [config_bytes] the text of config.json */
    size_t config_bytes;
    const void *weights; /* [weights_bytes] a safetensors file    */
    size_t weights_bytes;
} octavo_model_memory;

octavo_status octavo_model_open_memory(octavo_device *device, const octavo_model_memory *memory, const octavo_model_options *options,
                                       octavo_model **model);

#endif
