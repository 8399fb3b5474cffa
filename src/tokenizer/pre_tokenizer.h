/* pre_tokenizer.h - cuts a text into the pieces that are encoded alone. */
#ifndef OCTAVO_TOKENIZER_PRE_TOKENIZER_H
#define OCTAVO_TOKENIZER_PRE_TOKENIZER_H

#include "tokenizer/pattern.h"

enum { PRE_TOKENIZER_STEPS_MOST = 32 };

typedef enum octavo_pre_tokenizer_kind {
    OCTAVO_PRE_SPLIT,        /* at the matches of pattern          */
    OCTAVO_PRE_PREFIX,       /* text in front, unless it is there  */
    OCTAVO_PRE_PREFIX_FIRST, /* the same where the text begins     */
    OCTAVO_PRE_SPACES,       /* text in place of every blank       */
    OCTAVO_PRE_BYTES         /* a printable character in place of every byte */
} octavo_pre_tokenizer_kind;

/* What becomes of the matches. */
typedef enum octavo_split_behavior {
    OCTAVO_SPLIT_ISOLATED,
    OCTAVO_SPLIT_REMOVED,
    OCTAVO_SPLIT_WITH_PREVIOUS,
    OCTAVO_SPLIT_WITH_NEXT,
    OCTAVO_SPLIT_CONTIGUOUS /* joined with neighbours that are matches, too */
} octavo_split_behavior;

typedef struct octavo_pre_tokenizer_step {
    octavo_pre_tokenizer_kind kind;
    octavo_split_behavior behavior;
    bool invert; /* what does not match is split off */
    octavo_pattern pattern;
    octavo_byte_buffer text;
} octavo_pre_tokenizer_step;

/* Starts zeroed: the whole text is one piece. */
typedef struct octavo_pre_tokenizer {
    octavo_pre_tokenizer_step steps[PRE_TOKENIZER_STEPS_MOST];
    size_t count;
} octavo_pre_tokenizer;

octavo_status octavo_pre_tokenizer_init(octavo_pre_tokenizer *pre, const octavo_json_field *field);
void octavo_pre_tokenizer_fini(octavo_pre_tokenizer *pre);

/* One text's memory; starts zeroed but for the first members. */
typedef struct octavo_pre_tokenizer_work {
    octavo_pattern_work *patterns;
    octavo_status (*take)(void *context, const char *text, size_t bytes); /* gets every piece in order; none is empty */
    void *context;
    octavo_byte_buffer buffers[PRE_TOKENIZER_STEPS_MOST];
} octavo_pre_tokenizer_work;

void octavo_pre_tokenizer_work_fini(octavo_pre_tokenizer_work *work);

/* `first`: nothing of the text comes before this part of it. */
octavo_status octavo_pre_tokenizer_run(const octavo_pre_tokenizer *pre, octavo_pre_tokenizer_work *work, const char *text, size_t bytes,
                                       bool first);

#endif
