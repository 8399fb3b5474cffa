/* jsonl.h - files of one JSON object a line, read line by line. */
#ifndef OCTAVO_CLI_JSONL_H
#define OCTAVO_CLI_JSONL_H

#include <jansson.h>
#include <stdint.h>
#include <stdio.h>

enum { JSONL_LINE_BYTES_MOST = 16 << 20, JSONL_REASON_BYTES = 240 };

/* Zeroed but for `file`, it is ready; jsonl_fini releases its memory, the file stays the caller's. */
typedef struct jsonl_reader {
    FILE *file;
    int64_t line;   /* number of the line that was read last, from 1      */
    int64_t offset; /* bytes of the lines read, their ends included       */
    char *text;     /* that line, without its end                         */
    size_t bytes, capacity;
    int ended;      /* 1: the line had a newline; 0: the file ended first */
} jsonl_reader;

/* 1: a line; 0: there are no more; -1: *reason says what is wrong, without the line's number. */
int jsonl_next(jsonl_reader *reader, char reason[JSONL_REASON_BYTES]);
/* 1: the line is blank. */
int jsonl_is_blank(const jsonl_reader *reader);
/* The line as an object, to be released; NULL: *reason says why not. */
json_t *jsonl_object(const jsonl_reader *reader, char reason[JSONL_REASON_BYTES]);
void jsonl_fini(jsonl_reader *reader);

#endif
