/* plot_script.h - data files and scripts for gnuplot. */
#ifndef OCTAVO_CLI_PLOT_SCRIPT_H
#define OCTAVO_CLI_PLOT_SCRIPT_H

#include "plot_points.h"

enum { PLOT_STEM_BYTES = 128, PLOT_CURVES_MOST = 24 };

/* Opens FOLDER/STEM.SUFFIX for writing; NULL after a sentence. */
FILE *plot_open(const char *folder, const char *stem, const char *suffix);
/* Closes it; EXIT_REFUSED after a sentence when something could not be written. */
int plot_close(FILE *file, const char *stem);

/* Everything before the first plot command: it is run once for SVG and once for PNG, until plot_end. */
void plot_begin(FILE *script, const char *stem, const char *heading, plot_span scene, int width, int height);
void plot_begin_labelled(FILE *script, const char *stem, const char *heading, const char *first, const char *second, int width, int height);
void plot_end(FILE *script);

/* Text between single quotes, as gnuplot wants it. */
void plot_quote(FILE *script, const char *text);
/* A curve's colour, and its marker as a gnuplot point type. */
const char *plot_colour(size_t curve);
int plot_marker(size_t curve);

/* Writes STEM.tsv and STEM.gp for the scene into the folder. EXIT_REFUSED after a sentence. */
int plot_speed(const char *folder, const char *stem, plot_span scene);
int plot_frontier(const char *folder, const char *stem, plot_span scene);

#endif
