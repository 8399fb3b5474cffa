/* byte_buffer.h - bytes that grow, for text on its way through the tokenizer. */
#ifndef OCTAVO_TOKENIZER_BYTE_BUFFER_H
#define OCTAVO_TOKENIZER_BYTE_BUFFER_H

#include "octavo/status.h"

/* Starts zeroed; `data` moves when it grows. */
typedef struct octavo_byte_buffer {
    char *data; /* [capacity] the first `count` are in use */
    size_t count, capacity;
} octavo_byte_buffer;

/* Room for `more` bytes behind those in use. OCTAVO_E_NOMEM: nothing has changed. */
octavo_status octavo_byte_buffer_reserve(octavo_byte_buffer *buffer, size_t more);
octavo_status octavo_byte_buffer_append(octavo_byte_buffer *buffer, const void *data, size_t bytes);
/* Also for a zeroed one. */
void octavo_byte_buffer_fini(octavo_byte_buffer *buffer);

/* An array of `capacity` elements, made to hold at least `needed`; both may change. For memory from malloc, or NULL. */
octavo_status octavo_array_grow(void **data, size_t *capacity, size_t needed, size_t element_bytes);

#endif
