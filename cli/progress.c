/* progress.c - one line on a terminal's stderr, rewritten at most five times a second. */
#define _GNU_SOURCE
#include "progress.h"
#include "machine.h"
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

void progress_start(progress_bar *bar, const char *what, int64_t total)
{
    bar->what = what;
    bar->total = total;
    bar->start = bar->shown = machine_seconds();
    bar->terminal = isatty(STDERR_FILENO);
}

void progress_step(progress_bar *bar, int64_t done)
{
    const double now = machine_seconds();
    if (!bar->terminal || now - bar->shown < 0.2) return;
    const double left = done > 0 ? (now - bar->start) * (double)(bar->total - done) / (double)done : 0;
    fprintf(stderr, "\r\033[K%s: %" PRId64 " of %" PRId64 ", %.0f s left", bar->what, done, bar->total, left);
    bar->shown = now;
}

void progress_end(progress_bar *bar)
{
    if (bar->terminal) fputs("\r\033[K", stderr);
}
