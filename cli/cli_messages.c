/* cli_messages.c - refusals, messages and the choice of a command. */
#include "cli.h"
#include "octavo/status.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_BYTES = 2048 };

/* Arguments and file names end up in messages; a terminal must not obey what they contain. */
static void say(const char *prefix, const char *format, va_list arguments)
{
    char text[MESSAGE_BYTES];
    vsnprintf(text, sizeof text, format, arguments);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f) *c = '?';
    fprintf(stderr, "%s%s\n", prefix, text);
}

int cli_refuse(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say("octavo: ", format, arguments);
    va_end(arguments);
    return EXIT_REFUSED;
}

int cli_refuse_last(void) { return cli_refuse("%s", octavo_last_error()); }

void cli_say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    say("", format, arguments);
    va_end(arguments);
}

int cli_finish_output(void)
{
    errno = 0;
    if (fflush(stdout) == 0 && !ferror(stdout)) return EXIT_DONE;
    return cli_refuse("the results could not be written to the standard output: %s", strerror(errno));
}

static void print_commands(const char *prefix, const cli_command *commands)
{
    printf("usage: %s COMMAND [OPTIONS]\n\n", prefix);
    for (const cli_command *c = commands; c->name; c++) printf("  %-10s %s\n", c->name, c->summary);
    printf("\n%s COMMAND --help tells more. Exit status: 0, 1 (a check failed), 2 (wrong use or input).\n", prefix);
}

int cli_dispatch(const char *prefix, const cli_command *commands, int argc, char **argv)
{
    if (argc < 2) return cli_refuse("a command is missing, %s --help lists them", prefix);
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        print_commands(prefix, commands);
        return cli_finish_output();
    }
    for (const cli_command *c = commands; c->name; c++)
        if (strcmp(argv[1], c->name) == 0) return c->run(argc - 1, argv + 1);
    return cli_refuse("%s has no command '%s', %s --help lists them", prefix, argv[1], prefix);
}
