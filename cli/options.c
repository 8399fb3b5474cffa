/* options.c - reads a command line by its table and prints its help. */
#include "options.h"
#include "cli.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HELP_COLUMN = 28 };

int options_integer(const char *text, int64_t least, int64_t most, int64_t *value)
{
    char *end;
    if (!((text[0] >= '0' && text[0] <= '9') || (text[0] == '-' && text[1] >= '0' && text[1] <= '9'))) return 0;
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    if (*end || errno == ERANGE || number < least || number > most) return 0;
    *value = number;
    return 1;
}

int options_number(const char *text, double *value)
{
    char *end;
    /* strtod would also take blanks, hexadecimal digits, "inf" and "nan" */
    if (text[0] == '\0' || text[strspn(text, "+-.0123456789eE")]) return 0;
    const double number = strtod(text, &end);
    if (*end || end == text || !isfinite(number)) return 0;
    *value = number;
    return 1;
}

int64_t options_integers(const char *text, int64_t least, int64_t most, int32_t *values, int64_t capacity)
{
    int64_t count = 0, number;
    for (const char *rest = text;; rest++) {
        char word[24];
        const size_t length = strcspn(rest, ",");
        if (length >= sizeof word || count == capacity) return -1;
        memcpy(word, rest, length);
        word[length] = '\0';
        if (!options_integer(word, least, most, &number)) return -1;
        values[count++] = (int32_t)number;
        rest += length;
        if (!*rest) return count;
    }
}

static void print_options(const option *options)
{
    for (const option *o = options; o && o->name; o++) {
        char left[64];
        char letter[8] = "    ";
        if (o->letter) snprintf(letter, sizeof letter, "-%c, ", o->letter);
        snprintf(left, sizeof left, "%s--%s%s%s", letter, o->name, o->value ? " " : "", o->value ? o->value : "");
        printf("  %-*s", HELP_COLUMN, left);
        if (strlen(left) >= HELP_COLUMN) printf("\n  %*s", HELP_COLUMN, "");
        for (const char *text = o->help;;) {
            const size_t length = strcspn(text, "\n");
            printf(" %.*s\n", (int)length, text);
            if (!text[length]) break;
            text += length + 1;
            printf("  %*s", HELP_COLUMN, "");
        }
    }
}

static void print_help(const command_line *line)
{
    printf("usage: %s\n\n%s\n", line->usage, line->about);
    print_options(line->options);
    print_options(line->more);
    printf("  %-*s this text\n", HELP_COLUMN, "-h, --help");
}

static const option *find_option(const option *options, const char *word, const char **inline_value)
{
    *inline_value = NULL;
    for (const option *o = options; o && o->name; o++) {
        if (word[1] != '-') {
            if (o->letter && word[1] == o->letter && !word[2]) return o;
            continue;
        }
        const size_t length = strlen(o->name);
        if (strncmp(word + 2, o->name, length) != 0) continue;
        if (word[2 + length] == '=') *inline_value = word + 2 + length + 1;
        if (*inline_value || !word[2 + length]) return o;
    }
    return NULL;
}

static int store_value(const option *o, const char *text)
{
    option_list *list;
    switch (o->kind) {
    case OPTION_FLAG:
        *(int *)o->target = 1;
        return EXIT_DONE;
    case OPTION_TEXT:
        *(const char **)o->target = text;
        return text[0] ? EXIT_DONE : cli_refuse("option --%s has an empty value, expected %s", o->name, o->value);
    case OPTION_LIST:
        list = o->target;
        if (!text[0]) return cli_refuse("option --%s has an empty value, expected %s", o->name, o->value);
        if (list->count == OPTION_LIST_MOST) return cli_refuse("option --%s was given more than %d times", o->name, OPTION_LIST_MOST);
        list->texts[list->count++] = text;
        return EXIT_DONE;
    case OPTION_INTEGER:
        if (options_integer(text, o->least, o->most, o->target)) return EXIT_DONE;
        return cli_refuse("option --%s is '%s', expected a whole number from %" PRId64 " to %" PRId64, o->name, text, o->least, o->most);
    case OPTION_NUMBER:
        if (options_number(text, o->target)) return EXIT_DONE;
        return cli_refuse("option --%s is '%s', expected a finite number", o->name, text);
    }
    return EXIT_REFUSED;
}

static int read_words(const command_line *line, int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i], *value;
        if (word[0] != '-' || !word[1]) {
            if (line->words_most == 0) return cli_refuse("the argument '%s' has no meaning here, see %s --help", word, argv[0]);
            if (*line->word_count == line->words_most) return cli_refuse("more than %d arguments were given", line->words_most);
            line->words[(*line->word_count)++] = word;
            continue;
        }
        const option *o = find_option(line->options, word, &value);
        if (!o) o = find_option(line->more, word, &value);
        if (!o) return cli_refuse("unknown option '%s', %s --help lists those that exist", word, argv[0]);
        if (o->kind == OPTION_FLAG && value) return cli_refuse("option --%s takes no value, but was given '%s'", o->name, value);
        if (o->kind != OPTION_FLAG && !value) {
            if (i + 1 == argc) return cli_refuse("option --%s needs a value (%s)", o->name, o->value);
            value = argv[++i];
        }
        const int status = store_value(o, value ? value : "");
        if (status != EXIT_DONE) return status;
    }
    return EXIT_DONE;
}

options_next options_parse(const command_line *line, int argc, char **argv, int *status)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
            print_help(line);
            *status = cli_finish_output();
            return OPTIONS_STOP;
        }
    *status = read_words(line, argc, argv);
    return *status == EXIT_DONE ? OPTIONS_RUN : OPTIONS_STOP;
}
