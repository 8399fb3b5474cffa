/* model_run.h - a model, its tokenizer and the device that it runs on, opened as the options ask. */
#ifndef OCTAVO_CLI_MODEL_RUN_H
#define OCTAVO_CLI_MODEL_RUN_H

#include "model_options.h"
#include "octavo/tokenizer.h"
#include "progress.h"
#include <jansson.h>

typedef struct model_run {
    const model_options *options;
    octavo_context *context;
    octavo_device *device;
    octavo_model *model;
    const octavo_model_config *config; /* the model's */
    octavo_tokenizer *tokenizer;       /* NULL: not asked for */
    int64_t chunk;                     /* tokens of a piece of a prompt */
} model_run;

/* All return EXIT_DONE, or EXIT_REFUSED after a sentence. A zeroed run may be given to close. */
int model_run_open(model_run *run, const model_options *options);
int model_run_open_tokenizer(model_run *run);
void model_run_close(model_run *run);

/* A session as the options ask, with room for `tokens` tokens in each of `sequences` sequences and for `pool_tokens` together
 * (0: all of them). */
int model_run_session(const model_run *run, int64_t tokens, int32_t sequences, int64_t pool_tokens, octavo_session **session);

/* Tokens of the next call while `left` are left: a piece, but never so that a single token remains, which would go through decode.
 * At most one more than run->chunk. */
int64_t model_run_piece(const model_run *run, int64_t left);

/* Runs `count` tokens through prefill in pieces, so that progress can be shown; the pieces are the session's own. */
int model_run_prefill(const model_run *run, octavo_session *session, int32_t sequence, const int32_t *ids, int64_t count, progress_bar *bar);

/* 1: the token ends a text. */
int model_run_is_eos(const model_run *run, int32_t id);

/* The settings of --json, a new object; NULL: there is no memory. */
json_t *model_run_settings(const model_run *run);

/* The path without the folders before its last part: names a model or a file. */
const char *model_path_name(const char *path);

/* Prints root, which may be NULL for a lack of memory or a number that is not finite, and releases it. Returns the exit status. */
int model_print_json(json_t *root);

#endif
