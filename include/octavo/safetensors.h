/* safetensors.h - named arrays in a file: opened as views into a mapping, written in one step.
 * Unstable: part of liboctavo-lm, may change in any release.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_SAFETENSORS_H
#define OCTAVO_SAFETENSORS_H

#include "octavo/tensor.h"

OCTAVO_BEGIN_DECLS

typedef struct octavo_safetensors octavo_safetensors;

/* Maps the file and checks all of its header: afterwards every tensor is known to lie inside the file, alone and without gaps.
 * *file is the caller's, to be closed; NULL after a failure. The file must keep its length while it is open.
 * OCTAVO_E_IO: the system refused. OCTAVO_E_FORMAT: not a safetensors file, or one that contradicts itself. */
OCTAVO_API octavo_status octavo_safetensors_open(const char *path, octavo_safetensors **file);

/* The same over `size` bytes of the caller's, which must outlive *file. */
OCTAVO_API octavo_status octavo_safetensors_open_memory(const void *data, size_t size, octavo_safetensors **file);

/* Every view and every string that came from `file` ends here. NULL is allowed. */
OCTAVO_API void octavo_safetensors_close(octavo_safetensors *file);

OCTAVO_API size_t octavo_safetensors_count(const octavo_safetensors *file);

/* Names in ascending order of their bytes; NULL for an index past the last. UTF-8 as the file has it: may hold control
 * characters. */
OCTAVO_API const char *octavo_safetensors_name(const octavo_safetensors *file, size_t index);

/* The file's own word for a tensor's dtype, such as "BF16" or "BOOL"; NULL: no such tensor. */
OCTAVO_API const char *octavo_safetensors_dtype(const octavo_safetensors *file, const char *name);

/* A borrowed, contiguous, read-only view: writing through it faults.
 * OCTAVO_E_RANGE: no such tensor. OCTAVO_E_UNSUPPORTED: a dtype that octavo_dtype lacks, more than OCTAVO_MAX_DIMS dimensions,
 * or data that does not start at a multiple of its element's size. */
OCTAVO_API octavo_status octavo_safetensors_find(const octavo_safetensors *file, const char *name, octavo_tensor *tensor);

/* A value of the file's __metadata__; NULL: no such key. */
OCTAVO_API const char *octavo_safetensors_metadata(const octavo_safetensors *file, const char *key);

typedef struct octavo_safetensors_pair {
    const char *key, *value;
} octavo_safetensors_pair;

typedef struct octavo_safetensors_write_params {
    size_t struct_size;
    size_t count;
    const char *const *names;      /* [count] UTF-8, no two the same */
    const octavo_tensor *tensors;  /* [count] on the CPU, contiguous */
    size_t metadata_count;
    const octavo_safetensors_pair *metadata; /* [metadata_count] */
} octavo_safetensors_write_params;
#define OCTAVO_SAFETENSORS_WRITE_PARAMS_INIT OCTAVO_INIT_STRUCT(octavo_safetensors_write_params)

/* Writes or replaces the file at `path`; it appears whole or not at all. The same input gives the same bytes; data start at a
 * multiple of 64 bytes, wide elements first, so that every tensor is aligned to its element. */
OCTAVO_API octavo_status octavo_safetensors_write(const char *path, const octavo_safetensors_write_params *params);

OCTAVO_END_DECLS

#endif
