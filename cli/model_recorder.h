/* model_recorder.h - takes layers of a model as it runs, and writes them as a recording. */
#ifndef OCTAVO_CLI_MODEL_RECORDER_H
#define OCTAVO_CLI_MODEL_RECORDER_H

#include "model_run.h"

enum { RECORDER_LAYERS_MOST = 256, RECORDER_TENSORS = 6 };

typedef struct recorder_config {
    int32_t layers[RECORDER_LAYERS_MOST], layer_count;
    int64_t rows, tokens, queries;
    int64_t h_tokens; /* 0: no h */
    int unrotated;
    octavo_dtype dtype; /* of the file: bf16 or f32 */
} recorder_config;

/* One tensor of the file: rows of `dim` elements, of which the positions from `first` on are kept. */
typedef struct recorder_tensor {
    octavo_tensor tensor; /* [rows, heads, kept, dim], or h: [rows, kept, hidden]; data NULL: not asked for */
    int64_t heads, first, kept, dim;
    char name[40];
} recorder_tensor;

typedef struct recorder {
    recorder_config config;
    recorder_tensor (*tensors)[RECORDER_TENSORS]; /* [layer_count] */
    int64_t row;        /* the text that runs now */
    octavo_exec exec;
    void *staging;
    size_t staging_bytes;
    int status;         /* of what recorder_take refused */
} recorder;

/* EXIT_DONE, or EXIT_REFUSED after a sentence. A zeroed recorder may be given to fini. */
int recorder_init(recorder *to, const model_run *run, const recorder_config *config);
void recorder_fini(recorder *to);

/* octavo_forward_params.record, with the recorder as its user. */
octavo_status recorder_take(void *user, const octavo_layer_record *layer);

int recorder_write(const recorder *to, const char *path);

#endif
