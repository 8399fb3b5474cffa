/* nfc.h - Unicode's normalisation form C. */
#ifndef OCTAVO_TOKENIZER_NFC_H
#define OCTAVO_TOKENIZER_NFC_H

#include "tokenizer/byte_buffer.h"

/* Appends the normalised form of valid UTF-8. OCTAVO_E_NOMEM only. */
octavo_status octavo_nfc_append(octavo_byte_buffer *out, const char *text, size_t bytes);

#endif
