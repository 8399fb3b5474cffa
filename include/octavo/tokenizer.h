/* tokenizer.h - text to token ids and back, by the tokenizer.json of a Hugging Face checkpoint (byte pair encoding).
 * Unstable: part of liboctavo-lm, may change in any release.
 * SPDX-License-Identifier: Apache-2.0 */
#ifndef OCTAVO_TOKENIZER_H
#define OCTAVO_TOKENIZER_H

#include "octavo/status.h"

OCTAVO_BEGIN_DECLS

typedef struct octavo_tokenizer octavo_tokenizer;

/* Reads a tokenizer.json, or the one in a folder, and checks all of it. *tokenizer is the caller's, to be closed; NULL after a
 * failure. The file is not needed afterwards.
 * OCTAVO_E_IO: the system refused. OCTAVO_E_FORMAT: malformed, or it contradicts itself. OCTAVO_E_UNSUPPORTED: it asks for
 * something that is not done here. The sentence names file and field. */
OCTAVO_API octavo_status octavo_tokenizer_open(const char *path, octavo_tokenizer **tokenizer);

/* The same from the `size` bytes of such a file, which are not needed afterwards. */
OCTAVO_API octavo_status octavo_tokenizer_open_memory(const void *data, size_t size, octavo_tokenizer **tokenizer);

/* Every pointer that came from `tokenizer` ends here. NULL is allowed. */
OCTAVO_API void octavo_tokenizer_close(octavo_tokenizer *tokenizer);

/* All calls below leave the tokenizer as it is and may run concurrently. */

/* One more than the largest id. A model's own vocabulary may be larger (padded). */
OCTAVO_API int32_t octavo_tokenizer_vocab_size(const octavo_tokenizer *tokenizer);

/* The token that begins (ends) a text: what the file's post_processor puts there, else a special token with one of the usual
 * names; -1: none can be told. A model's config.json has the last word about the end. */
OCTAVO_API int32_t octavo_tokenizer_bos_id(const octavo_tokenizer *tokenizer);
OCTAVO_API int32_t octavo_tokenizer_eos_id(const octavo_tokenizer *tokenizer);
/* 1: the file's post_processor puts the token that begins a text in front of every text. Encoding does so when it is told to. */
OCTAVO_API int octavo_tokenizer_adds_bos(const octavo_tokenizer *tokenizer);

/* The id of a token by its text: that of an added token as it stands, that of any other as the vocabulary spells it, such as
 * "\u0120the" or "<0x0A>". -1: no such token. */
OCTAVO_API int32_t octavo_tokenizer_find(const octavo_tokenizer *tokenizer, const char *text);

/* 1: an added token that is marked special; 0: any other, or no token. */
OCTAVO_API int octavo_tokenizer_is_special(const octavo_tokenizer *tokenizer, int32_t id);

typedef enum octavo_tokenizer_flags {
    OCTAVO_TOKENIZER_PLAIN         = 0, /* what looks like a special token is ordinary text: right for text from outside      */
    OCTAVO_TOKENIZER_PARSE_SPECIAL = 1, /* encode: special tokens in the text become their ids                              */
    OCTAVO_TOKENIZER_ADD_BOS       = 2, /* encode: the id of octavo_tokenizer_bos_id comes first, if there is one           */
    OCTAVO_TOKENIZER_SKIP_SPECIAL  = 4  /* decode: special tokens give no text                                              */
} octavo_tokenizer_flags;

/* Encodes `bytes` bytes of UTF-8. *count says how many ids fit into `ids` and becomes how many there are; `ids` may be NULL where
 * that is 0, to be told the number. The vocabulary decides about characters that it has no token for: they become its unknown
 * token, or are left out where it has none.
 * OCTAVO_E_ARGUMENT: the text is not UTF-8. OCTAVO_E_RANGE: more ids than fit; as many as fit were written.
 * OCTAVO_E_UNSUPPORTED: the file's patterns take too many steps on this text. */
OCTAVO_API octavo_status octavo_tokenizer_encode(const octavo_tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags,
                                                 int32_t *ids, size_t *count);

/* Decodes a whole text as the file's decoder does: it may drop the blank in front that encoding adds. *bytes says how many fit
 * into `text` and becomes how many there are, without an ending zero; `text` may be NULL where that is 0. Bytes that are no
 * UTF-8 come out as they are.
 * OCTAVO_E_RANGE: an id is no token, or more bytes than fit; as many as fit were written. */
OCTAVO_API octavo_status octavo_tokenizer_decode(const octavo_tokenizer *tokenizer, const int32_t *ids, size_t count,
                                                 unsigned flags, char *text, size_t *bytes);

/* The bytes of one token as it continues a text, borrowed: a character may begin in one token and end in the next.
 * OCTAVO_E_RANGE: no such token. */
OCTAVO_API octavo_status octavo_tokenizer_token_bytes(const octavo_tokenizer *tokenizer, int32_t id, const uint8_t **bytes,
                                                      size_t *count);

OCTAVO_END_DECLS

#endif
