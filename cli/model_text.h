/* model_text.h - token ids of a text, a file or a tensor, for the commands that run a model over them. */
#ifndef OCTAVO_CLI_MODEL_TEXT_H
#define OCTAVO_CLI_MODEL_TEXT_H

#include "model_run.h"
#include "octavo/safetensors.h"

/* One or several texts of the same length. */
typedef struct model_ids {
    int32_t *ids; /* [rows, tokens] */
    int64_t rows, tokens;
} model_ids;

/* All return EXIT_DONE, or EXIT_REFUSED after a sentence; then nothing is to be released. */

/* The whole of a file, or of the standard input where path is "-"; *text is the caller's to free. */
int model_read_text(const char *path, char **text, size_t *bytes);

/* Opens the tokenizer if need be. flags: octavo_tokenizer_flags. `what` names the text in refusals. */
int model_encode(model_run *run, const char *what, const char *text, size_t bytes, unsigned flags, model_ids *ids);

/* Whether the token that begins a text goes in front of a prompt: as the tokenizer's post_processor has it, but not twice. */
typedef enum bos_rule { BOS_AS_TOKENIZER, BOS_ALWAYS, BOS_NEVER } bos_rule;
/* model_encode of a prompt, in which special tokens count as such. */
int model_encode_prompt(model_run *run, const char *what, const char *text, size_t bytes, bos_rule rule, model_ids *ids);

/* A text (`text_path`), in which special tokens count as such and to which none is added, or the tensor input_ids of a safetensors
 * file (`ids_path`): exactly one is not NULL. */
int model_read_ids(model_run *run, const char *text_path, const char *ids_path, model_ids *ids);

/* The tensor `name`, I32 or I64 with one or two axes, of an open file. */
int model_ids_of_file(const model_run *run, const octavo_safetensors *file, const char *path, const char *name, model_ids *ids);

/* Every id is one of the model's. */
int model_check_ids(const model_run *run, const char *what, const int32_t *ids, int64_t count);

/* A file can appear at `path`: found out before hours of work, not after them. */
int model_check_out(const char *path);

#endif
