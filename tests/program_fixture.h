/* program_fixture.h - runs the program and keeps what it printed, and makes folders and recordings for it. */
#ifndef OCTAVO_TESTS_PROGRAM_FIXTURE_H
#define OCTAVO_TESTS_PROGRAM_FIXTURE_H

#include "temporary.h"
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { PRINTED_BYTES = 1 << 16, WORDS_MOST = 40, FIXTURE_PATH_BYTES = TEMPORARY_BYTES };

typedef struct printed {
    int status; /* of the exit; -1: killed, or not started */
    char out[PRINTED_BYTES], err[PRINTED_BYTES];
} printed;

static inline const char *program_path(void)
{
    const char *path = getenv("OCTAVO_PROGRAM");
    return path && access(path, X_OK) == 0 ? path : NULL;
}

static inline void take_text(FILE *file, char text[PRINTED_BYTES])
{
    rewind(file);
    text[fread(text, 1, PRINTED_BYTES - 1, file)] = '\0';
    fclose(file);
}

/* `line` is split at blanks; a word "@" stands for `path`. search_path: PATH of the program, or NULL. */
static inline void program_run_in(const char *line, const char *path, const char *search_path, printed *result)
{
    char words[2048], *argv[WORDS_MOST] = { NULL };
    char name[] = "octavo";
    int count = 0, status = -1;
    FILE *out = tmpfile(), *err = tmpfile();
    argv[count++] = name;
    snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word && count < WORDS_MOST - 1; word = strtok(NULL, " "))
        argv[count++] = strcmp(word, "@") == 0 ? (char *)(uintptr_t)path : word;
    const pid_t child = fork();
    if (child == 0) {
        if (search_path) setenv("PATH", search_path, 1);
        dup2(fileno(out), STDOUT_FILENO);
        dup2(fileno(err), STDERR_FILENO);
        execv(program_path(), argv);
        _exit(127);
    }
    result->status = waitpid(child, &status, 0) == child && WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    take_text(out, result->out);
    take_text(err, result->err);
}

static inline void program_run(const char *line, const char *path, printed *result) { program_run_in(line, path, NULL, result); }

static inline void make_folder(char folder[FIXTURE_PATH_BYTES])
{
    if (temporary_folder(folder) != 0) abort();
}

static inline void write_file(const char *path, const void *data, size_t bytes)
{
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(data, 1, bytes, file) != bytes || fclose(file) != 0) abort();
}

#endif
