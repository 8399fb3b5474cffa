/* options.h - command lines described by a table. */
#ifndef OCTAVO_CLI_OPTIONS_H
#define OCTAVO_CLI_OPTIONS_H

#include <stddef.h>
#include <stdint.h>

typedef enum option_kind {
    OPTION_FLAG,    /* target: int, set to 1  */
    OPTION_TEXT,    /* target: const char *   */
    OPTION_LIST,    /* target: option_list; may be given several times */
    OPTION_INTEGER, /* target: int64_t        */
    OPTION_NUMBER   /* target: double, finite */
} option_kind;

enum { OPTION_LIST_MOST = 32 };

typedef struct option_list {
    const char *texts[OPTION_LIST_MOST];
    size_t count;
} option_list;

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
    const option *more;    /* a second table, shared with other commands, or NULL */
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
/* "N,N,..." into values, at most `capacity`; -1: not such a list, a number outside the limits, or too many. */
int64_t options_integers(const char *text, int64_t least, int64_t most, int32_t *values, int64_t capacity);

#endif
