/* tokenizer.c - opens and closes a tokenizer, and looks up what it knows. */
#define _GNU_SOURCE 1
#include "tokenizer/tokenizer.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#define FILE_NAME "tokenizer.json"

enum { PATH_BYTES = 4096 };

static octavo_tokenizer *create(const char *path)
{
    octavo_tokenizer *t = calloc(1, sizeof *t);
    if (!t) return NULL;
    const size_t length = strlen(path);
    if (length < TOKENIZER_LABEL_BYTES) memcpy(t->label, path, length);
    else snprintf(t->label, TOKENIZER_LABEL_BYTES, "...%s", path + length - (TOKENIZER_LABEL_BYTES - sizeof "..."));
    if (getrandom(&t->vocab.seed, sizeof t->vocab.seed, GRND_NONBLOCK) < 0) t->vocab.seed = (uint64_t)(uintptr_t)t;
    return t;
}

/* Ends either open: the caller gets `opened` only if all went well. */
static octavo_status hand_over(octavo_tokenizer *opened, octavo_status status, octavo_tokenizer **tokenizer)
{
    if (status == OCTAVO_OK) *tokenizer = opened;
    else octavo_tokenizer_close(opened);
    return status;
}

octavo_status octavo_tokenizer_open(const char *path, octavo_tokenizer **tokenizer)
{
    char inside[PATH_BYTES];
    struct stat info;
    octavo_mapped_file map;
    if (!tokenizer) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'tokenizer' is NULL");
    *tokenizer = NULL;
    if (!path) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'path' is NULL");
    if (stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        const int length = snprintf(inside, sizeof inside, "%s/" FILE_NAME, path);
        if (length < 0 || (size_t)length >= sizeof inside)
            return octavo_fail(OCTAVO_E_IO, "the path of " FILE_NAME " has more than %d bytes", PATH_BYTES);
        path = inside;
    }
    OCTAVO_TRY(octavo_mapped_file_init(&map, path, OCTAVO_MAP_SEQUENTIAL));
    octavo_tokenizer *opened = create(path);
    const octavo_status status = opened ? octavo_tokenizer_read(opened, map.data, map.bytes)
                                        : octavo_fail(OCTAVO_E_NOMEM, "no memory to open a tokenizer");
    octavo_mapped_file_fini(&map);
    return hand_over(opened, status, tokenizer);
}

octavo_status octavo_tokenizer_open_memory(const void *data, size_t size, octavo_tokenizer **tokenizer)
{
    if (!tokenizer) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'tokenizer' is NULL");
    *tokenizer = NULL;
    if (!data) return octavo_fail(OCTAVO_E_ARGUMENT, "argument 'data' is NULL");
    octavo_tokenizer *opened = create("tokenizer in memory");
    if (!opened) return octavo_fail(OCTAVO_E_NOMEM, "no memory to open a tokenizer");
    return hand_over(opened, octavo_tokenizer_read(opened, data, size), tokenizer);
}

void octavo_tokenizer_close(octavo_tokenizer *tokenizer)
{
    if (!tokenizer) return;
    octavo_added_tokens_fini(&tokenizer->added);
    octavo_normalizer_fini(&tokenizer->normalizer);
    octavo_pre_tokenizer_fini(&tokenizer->pre_tokenizer);
    octavo_bpe_fini(&tokenizer->bpe);
    octavo_decoder_fini(&tokenizer->decoder);
    octavo_vocab_fini(&tokenizer->vocab);
    free(tokenizer);
}

int32_t octavo_tokenizer_vocab_size(const octavo_tokenizer *tokenizer)
{
    return tokenizer ? tokenizer->vocab.tokens[tokenizer->vocab.by_id[tokenizer->vocab.count - 1]].id + 1 : 0;
}

int octavo_tokenizer_adds_bos(const octavo_tokenizer *tokenizer) { return tokenizer ? tokenizer->ids.adds_bos : 0; }
int32_t octavo_tokenizer_bos_id(const octavo_tokenizer *tokenizer) { return tokenizer ? tokenizer->ids.bos : -1; }

int32_t octavo_tokenizer_eos_id(const octavo_tokenizer *tokenizer) { return tokenizer ? tokenizer->ids.eos : -1; }

int32_t octavo_tokenizer_find(const octavo_tokenizer *tokenizer, const char *text)
{
    const octavo_token *token = tokenizer && text ? octavo_vocab_find(&tokenizer->vocab, text, strlen(text)) : NULL;
    return token ? token->id : -1;
}

int octavo_tokenizer_is_special(const octavo_tokenizer *tokenizer, int32_t id)
{
    const octavo_token *token = tokenizer ? octavo_vocab_by_id(&tokenizer->vocab, id) : NULL;
    return token && token->special;
}
