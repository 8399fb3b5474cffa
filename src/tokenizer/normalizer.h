/* normalizer.h - what happens to a text before it is cut into pieces. */
#ifndef OCTAVO_TOKENIZER_NORMALIZER_H
#define OCTAVO_TOKENIZER_NORMALIZER_H

#include "tokenizer/pattern.h"

enum { NORMALIZER_STEPS_MOST = 16 };

typedef enum octavo_normalizer_kind {
    OCTAVO_NORMALIZER_PREPEND, /* text in front of every text that is not empty */
    OCTAVO_NORMALIZER_REPLACE, /* every match of pattern by text */
    OCTAVO_NORMALIZER_NFC
} octavo_normalizer_kind;

typedef struct octavo_normalizer_step {
    octavo_normalizer_kind kind;
    octavo_pattern pattern;
    octavo_byte_buffer text;
} octavo_normalizer_step;

/* Starts zeroed: leaves every text as it is. */
typedef struct octavo_normalizer {
    octavo_normalizer_step steps[NORMALIZER_STEPS_MOST];
    size_t count;
} octavo_normalizer;

octavo_status octavo_normalizer_init(octavo_normalizer *normalizer, const octavo_json_field *field);
void octavo_normalizer_fini(octavo_normalizer *normalizer);

/* *out becomes the normalised text; `spare` is a second buffer to work in. */
octavo_status octavo_normalizer_apply(const octavo_normalizer *normalizer, octavo_pattern_work *work, const char *text, size_t bytes,
                                      octavo_byte_buffer *out, octavo_byte_buffer *spare);

#endif
