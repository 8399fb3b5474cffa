/* checkpoint_fixture.h - tiny checkpoints in a folder of their own, whole or with one thing wrong. */
#ifndef OCTAVO_TESTS_CHECKPOINT_FIXTURE_H
#define OCTAVO_TESTS_CHECKPOINT_FIXTURE_H

#include "format/bf16.h"
#include "format/fp16.h"
#include "format/fp8_e4m3.h"
#include "model_fixture.h"
#include "octavo/safetensors.h"
#include "temporary.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHECKPOINT_TENSORS = 160, CHECKPOINT_NAME = 100, CHECKPOINT_PATH = 1024 };

typedef struct checkpoint {
    size_t count;
    char names[CHECKPOINT_TENSORS][CHECKPOINT_NAME];
    octavo_tensor tensors[CHECKPOINT_TENSORS]; /* owned */
} checkpoint;

/* The folder of the running test program; made and removed by the group's fixtures below. */
static char checkpoint_folder[TEMPORARY_BYTES];

static inline void checkpoint_path(char path[CHECKPOINT_PATH], const char *name)
{
    snprintf(path, CHECKPOINT_PATH, "%s/%s", checkpoint_folder, name);
}

static inline void checkpoint_write_text(const char *name, const char *text)
{
    char path[CHECKPOINT_PATH];
    checkpoint_path(path, name);
    FILE *file = fopen(path, "we");
    if (!file || fputs(text, file) < 0 || fclose(file)) fail_msg("cannot write %s", path);
}

static inline void checkpoint_write_config(const char *base, const char *patch)
{
    char *text = fixture_config(base, patch);
    checkpoint_write_text("config.json", text);
    free(text);
}

/* Empties the folder. */
static inline void checkpoint_clear(void)
{
    DIR *folder = opendir(checkpoint_folder);
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        char path[CHECKPOINT_PATH];
        checkpoint_path(path, entry->d_name);
        if (entry->d_name[0] != '.') unlink(path);
    }
    if (folder) closedir(folder);
}

static inline int checkpoint_make_folder(void **state)
{
    (void)state;
    return temporary_folder(checkpoint_folder);
}

static inline int checkpoint_remove_folder(void **state)
{
    (void)state;
    checkpoint_clear();
    return rmdir(checkpoint_folder);
}

/* Element i of every tensor: distinct values between -1 and 1. */
static inline float checkpoint_value(size_t tensor, int64_t i)
{
    const uint32_t mixed = (uint32_t)(tensor * 7919 + (size_t)i + 1) * 2654435761u;
    return (float)(int32_t)(mixed >> 8) / 8388608.0f - 1.0f;
}

static inline void checkpoint_store(const octavo_tensor *t, int64_t i, float value)
{
    if (t->dtype == OCTAVO_F32) ((float *)t->data)[i] = value;
    else if (t->dtype == OCTAVO_BF16) ((uint16_t *)t->data)[i] = octavo_bf16_from_float(value);
    else if (t->dtype == OCTAVO_F16) ((uint16_t *)t->data)[i] = octavo_fp16_from_float(value);
    else if (t->dtype == OCTAVO_E4M3) ((uint8_t *)t->data)[i] = octavo_e4m3_from_float(value);
}

static inline float checkpoint_load(const octavo_tensor *t, int64_t i)
{
    if (t->dtype == OCTAVO_F32) return ((const float *)t->data)[i];
    if (t->dtype == OCTAVO_BF16) return octavo_bf16_to_float(((const uint16_t *)t->data)[i]);
    if (t->dtype == OCTAVO_F16) return octavo_fp16_to_float(((const uint16_t *)t->data)[i]);
    return octavo_e4m3_to_float(((const uint8_t *)t->data)[i]);
}

static inline int64_t checkpoint_elements(const octavo_tensor *t)
{
    int64_t count = 1;
    for (int32_t i = 0; i < t->ndim; i++) count *= t->shape[i];
    return count;
}

/* cols 0: a vector of `rows`; rows 0: a scalar. */
static inline octavo_tensor *checkpoint_add(checkpoint *c, const char *name, octavo_dtype dtype, int64_t rows, int64_t cols)
{
    assert_true(c->count < CHECKPOINT_TENSORS);
    const int64_t shape[] = { rows, cols };
    octavo_tensor t = octavo_tensor_view(NULL, dtype, rows == 0 ? 0 : cols == 0 ? 1 : 2, shape);
    const int64_t count = checkpoint_elements(&t);
    t.data = calloc((size_t)count, octavo_dtype_bytes(dtype));
    for (int64_t i = 0; i < count; i++) checkpoint_store(&t, i, checkpoint_value(c->count, i));
    snprintf(c->names[c->count], CHECKPOINT_NAME, "%s", name);
    c->tensors[c->count] = t;
    return &c->tensors[c->count++];
}

static inline octavo_tensor *checkpoint_find(checkpoint *c, const char *name)
{
    for (size_t i = 0; i < c->count; i++)
        if (!strcmp(c->names[i], name)) return &c->tensors[i];
    fail_msg("the test has no tensor '%s'", name);
    return NULL;
}

static inline void checkpoint_drop(checkpoint *c, const char *name)
{
    octavo_tensor *t = checkpoint_find(c, name);
    const size_t at = (size_t)(t - c->tensors);
    free(t->data);
    c->count--;
    c->tensors[at] = c->tensors[c->count];
    memmove(c->names[at], c->names[c->count], CHECKPOINT_NAME);
}

static inline octavo_tensor *checkpoint_replace(checkpoint *c, const char *name, octavo_dtype dtype, int64_t rows, int64_t cols)
{
    checkpoint_drop(c, name);
    return checkpoint_add(c, name, dtype, rows, cols);
}

static inline void checkpoint_free(checkpoint *c)
{
    for (size_t i = 0; i < c->count; i++) free(c->tensors[i].data);
    c->count = 0;
}

/* Tensors [first, end) into a file of the folder. */
static inline void checkpoint_write_some(const checkpoint *c, const char *file, size_t first, size_t end)
{
    char path[CHECKPOINT_PATH];
    const char *names[CHECKPOINT_TENSORS];
    for (size_t i = first; i < end; i++) names[i - first] = c->names[i];
    octavo_safetensors_write_params p = OCTAVO_SAFETENSORS_WRITE_PARAMS_INIT;
    p.count = end - first;
    p.names = names;
    p.tensors = c->tensors + first;
    checkpoint_path(path, file);
    if (octavo_safetensors_write(path, &p)) fail_msg("%s", octavo_last_error());
}

static inline void checkpoint_write(const checkpoint *c) { checkpoint_write_some(c, "model.safetensors", 0, c->count); }

/* What belongs to FIXTURE_LLAMA: embedding 0, then the layers, the norm, the head. */
static inline void checkpoint_llama(checkpoint *c, octavo_dtype dtype)
{
    static const struct { const char *name; int64_t rows, cols; } PARTS[] = {
        { "input_layernorm", 8, 0 },      { "post_attention_layernorm", 8, 0 }, { "self_attn.q_proj", 8, 8 }, { "self_attn.k_proj", 4, 8 },
        { "self_attn.v_proj", 4, 8 },     { "self_attn.o_proj", 8, 8 },         { "mlp.gate_proj", 12, 8 },   { "mlp.up_proj", 12, 8 },
        { "mlp.down_proj", 8, 12 },
    };
    char name[CHECKPOINT_NAME];
    checkpoint_free(c);
    checkpoint_add(c, "model.embed_tokens.weight", dtype, 10, 8);
    for (int layer = 0; layer < 2; layer++)
        for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++) {
            snprintf(name, sizeof name, "model.layers.%d.%s.weight", layer, PARTS[i].name);
            checkpoint_add(c, name, dtype, PARTS[i].rows, PARTS[i].cols);
        }
    checkpoint_add(c, "model.norm.weight", dtype, 8, 0);
    checkpoint_add(c, "lm_head.weight", dtype, 10, 8);
}

/* The projections of a llama in e4m3, each with a scale of `rows` x `cols` (0: as checkpoint_add) under `suffix`. */
static inline void checkpoint_quantise(checkpoint *c, const char *suffix, octavo_dtype dtype, int64_t rows, int64_t cols)
{
    const size_t count = c->count;
    for (size_t i = 0; i < count; i++) {
        octavo_tensor *t = &c->tensors[i];
        if (!strstr(c->names[i], "_proj.weight")) continue;
        free(t->data);
        *t = octavo_tensor_view(NULL, OCTAVO_E4M3, 2, (int64_t[]){ t->shape[0], t->shape[1] });
        t->data = calloc((size_t)checkpoint_elements(t), 1);
        for (int64_t e = 0; e < checkpoint_elements(t); e++) checkpoint_store(t, e, 400 * checkpoint_value(i, e));
        char name[CHECKPOINT_NAME];
        snprintf(name, sizeof name, "%.*s%s", (int)(strlen(c->names[i]) - strlen("weight")), c->names[i], suffix);
        const int64_t scale_rows = rows < 0 ? (t->shape[0] - 1) / -rows + 1 : rows, scale_cols = cols < 0 ? (t->shape[1] - 1) / -cols + 1 : cols;
        octavo_tensor *scale = checkpoint_add(c, name, dtype, scale_rows, scale_cols);
        for (int64_t e = 0; e < checkpoint_elements(scale); e++) checkpoint_store(scale, e, 0.01f + 0.001f * (float)e);
    }
}

#endif
