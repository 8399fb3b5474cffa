/* options.h - command lines described by a table. */
#ifndef OCTAVO_CLI_OPTIONS_H
#define OCTAVO_CLI_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

typedef enum option_kind {
    OPTION_FLAG,    /* target: int, set to 1  */
    OPTION_TEXT,    /* target: const char *   */
    OPTION_INTEGER, /* target: int64_t        */
    OPTION_NUMBER   /* target: double, finite */
} option_kind;

typedef struct option {
    const char *name;  /* without dashes                            */
    char letter;       /* 0: none                                   */
    option_kind kind;
    const char *value; /* what the value is called; NULL for a flag */
    const char *help;
    void *target;      /* holds the default before parsing          */
    int64_t least, most; /* OPTION_INTEGER                          */
} option;

typedef struct command_line {
    const char *usage;     /* the line after "usage: "              */
    const char *about;     /* a few lines, each ended               */
    const option *options; /* ended by one without a name           */
    int words_most;        /* words that are not options            */
    const char **words;    /* [words_most] filled in order          */
    int *word_count;
} command_line;

/* What the caller does next: OPTIONS_RUN, or leave with OPTIONS_STOP's *status (help was printed, or a refusal). */
typedef enum options_next { OPTIONS_RUN, OPTIONS_STOP } options_next;
options_next options_parse(const command_line *line, int argc, char **argv, int *status);

/* The whole of `text` as a number; 0: it is none, or not within the limits. */
int options_integer(const char *text, int64_t least, int64_t most, int64_t *value);
int options_number(const char *text, double *value);

#endif
