/* plot_prefill.h - pictures of what `octavo bench prefill --out` kept. */
#ifndef OCTAVO_CLI_PLOT_PREFILL_H
#define OCTAVO_CLI_PLOT_PREFILL_H

#include "plot_script.h"

typedef struct plot_prefill_point plot_prefill_point;

typedef struct plot_prefill {
    plot_prefill_point *points;
    size_t count, room;
} plot_prefill;

/* Adds the rows of one file. 0, or -1 after `reason` says in a few words what is wrong with it. */
int plot_prefill_load(plot_prefill *of, const char *path, char *reason, size_t reason_bytes);
void plot_prefill_fini(plot_prefill *of);

/* Writes a picture of each shape: TFLOP/s and error against length, a curve a precision. `stems` collects their names, up to `most`. */
int plot_prefill_write(plot_prefill *of, const char *folder, char stems[][PLOT_STEM_BYTES], size_t *stem_count, size_t most);

#endif
