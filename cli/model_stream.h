/* model_stream.h - text that arrives token by token: whole characters, ended by the first stop string. */
#ifndef OCTAVO_CLI_MODEL_STREAM_H
#define OCTAVO_CLI_MODEL_STREAM_H

#include "options.h"
#include <stdio.h>

typedef enum stream_state {
    STREAM_OPEN    = 0,
    STREAM_STOPPED = 1, /* a stop string came; what it began with and what follows is dropped */
    STREAM_FAILED  = 2  /* there is no memory                                                  */
} stream_state;

/* Zeroed but for `stops`, it is ready; text_stream_fini releases its memory. */
typedef struct text_stream {
    const option_list *stops; /* UTF-8; borrowed, may be NULL                               */
    char *text;               /* valid UTF-8; what was no UTF-8 became U+FFFD                */
    size_t released;          /* bytes of text that are certain to be part of the result    */
    size_t bytes, capacity;   /* the rest may be the beginning of a stop string             */
    unsigned char pending[4]; /* the beginning of a character                               */
    size_t pending_bytes;
    stream_state state;
} text_stream;

/* Adds bytes, which may begin or end inside a character. */
stream_state text_stream_add(text_stream *stream, const unsigned char *bytes, size_t count);
/* Nothing more comes: what was held back is released. */
stream_state text_stream_end(text_stream *stream);
void text_stream_fini(text_stream *stream);

/* 1: all of it is UTF-8. */
int text_is_utf8(const char *text, size_t bytes);

/* Writes valid UTF-8; to a terminal without control characters other than newline and tab. */
void text_write(FILE *file, int terminal, const char *text, size_t bytes);

#endif
