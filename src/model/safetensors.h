/* safetensors.h - what the reader, the writer and the recording share about the file format. */
#ifndef OCTAVO_MODEL_SAFETENSORS_H
#define OCTAVO_MODEL_SAFETENSORS_H

#include "base/mapped_file.h"
#include "octavo/safetensors.h"

enum { SAFETENSORS_PREFIX_BYTES = 8, SAFETENSORS_HEADER_BYTES_MAX = 100000000 };

#define SAFETENSORS_METADATA_KEY "__metadata__"

/* A dtype of the format; `dtype` is 0 where octavo_dtype has no such type. */
typedef struct octavo_safetensors_type {
    const char *name;
    int bits;
    octavo_dtype dtype;
} octavo_safetensors_type;

/* NULL: not a dtype of the format, or no word in it for ours. */
const octavo_safetensors_type *octavo_safetensors_type_by_name(const char *name);
const octavo_safetensors_type *octavo_safetensors_type_of(octavo_dtype dtype);

/* octavo_safetensors_open for a reader that knows what comes next. */
octavo_status octavo_safetensors_open_hinted(const char *path, unsigned hints, octavo_safetensors **file);

/* octavo_safetensors_find where an element may start at any byte. */
octavo_status octavo_safetensors_locate(const octavo_safetensors *file, const char *name, octavo_tensor *tensor);

/* The file's name for messages: its path, or the end of a long one. */
const char *octavo_safetensors_label(const octavo_safetensors *file);

#endif
