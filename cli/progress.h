/* progress.h - how far long work is, with the time left, on a terminal; silent in a pipe. */
#ifndef OCTAVO_CLI_PROGRESS_H
#define OCTAVO_CLI_PROGRESS_H

#include <stdint.h>

typedef struct progress_bar {
    const char *what;
    int64_t total;
    double start, shown; /* seconds */
    int terminal;
} progress_bar;

void progress_start(progress_bar *bar, const char *what, int64_t total);
void progress_step(progress_bar *bar, int64_t done);
void progress_end(progress_bar *bar); /* wipes the line */

#endif
