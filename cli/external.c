/* external.c - looks programs up and runs them. */
#define _GNU_SOURCE
#include "external.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

int external_exists(const char *program)
{
    char path[4096];
    const char *rest = getenv("PATH");
    while (rest && *rest) {
        const size_t length = strcspn(rest, ":");
        const int written = snprintf(path, sizeof path, "%.*s/%s", (int)length, rest, program);
        if (length > 0 && written < (int)sizeof path && access(path, X_OK) == 0) return 1;
        rest += length + (rest[length] == ':');
    }
    return 0;
}

int external_run(const char *folder, char *const argv[])
{
    int status;
    const pid_t child = fork();
    if (child < 0) return -1;
    if (child == 0) {
        dup2(STDERR_FILENO, STDOUT_FILENO);
        if (chdir(folder) == 0) execvp(argv[0], argv);
        _exit(127);
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR) return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}
