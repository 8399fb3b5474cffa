/* byte_buffer.c - arrays that grow by half, so that appending stays linear. */
#include "tokenizer/byte_buffer.h"
#include "base/checked.h"
#include "base/error.h"
#include <stdlib.h>
#include <string.h>

enum { LEAST_ELEMENTS = 64 };

octavo_status octavo_array_grow(void **data, size_t *capacity, size_t needed, size_t element_bytes)
{
    size_t elements, bytes;
    if (needed <= *capacity) return OCTAVO_OK;
    if (!octavo_checked_add_size(*capacity, *capacity / 2, &elements) || elements < needed) elements = needed;
    if (elements < LEAST_ELEMENTS) elements = LEAST_ELEMENTS;
    void *grown = octavo_checked_mul_size(elements, element_bytes, &bytes) ? realloc(*data, bytes) : NULL;
    if (!grown) return octavo_fail(OCTAVO_E_NOMEM, "no memory for %zu elements of the tokenizer's work", elements);
    *data = grown;
    *capacity = elements;
    return OCTAVO_OK;
}

octavo_status octavo_byte_buffer_reserve(octavo_byte_buffer *buffer, size_t more)
{
    size_t needed;
    void *data = buffer->data;
    if (!octavo_checked_add_size(buffer->count, more, &needed)) return octavo_fail(OCTAVO_E_NOMEM, "no memory for the tokenizer's text");
    const octavo_status status = octavo_array_grow(&data, &buffer->capacity, needed, 1);
    buffer->data = data;
    return status;
}

octavo_status octavo_byte_buffer_append(octavo_byte_buffer *buffer, const void *data, size_t bytes)
{
    OCTAVO_TRY(octavo_byte_buffer_reserve(buffer, bytes));
    if (bytes) memcpy(buffer->data + buffer->count, data, bytes);
    buffer->count += bytes;
    return OCTAVO_OK;
}

void octavo_byte_buffer_fini(octavo_byte_buffer *buffer)
{
    free(buffer->data);
    *buffer = (octavo_byte_buffer){ 0 };
}
