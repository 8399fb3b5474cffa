/* external.h - other programs, found in PATH and run without a shell. */
#ifndef OCTAVO_CLI_EXTERNAL_H
#define OCTAVO_CLI_EXTERNAL_H

/* 1: PATH holds an executable file of that name. */
int external_exists(const char *program);

/* Runs argv[0] in `folder` and waits: its exit status, or -1. Its output goes to stderr. */
int external_run(const char *folder, char *const argv[]);

#endif
