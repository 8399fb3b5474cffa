/* plot_script.c - the parts that all gnuplot scripts share. */
#include "plot_script.h"
#include "cli.h"
#include <errno.h>
#include <string.h>

static const char *const COLOURS[] = { "#1f5fa8", "#d1495b", "#2e8b57", "#e08e1b", "#7b4ea3", "#178f9c", "#8c5a2b", "#c2408f", "#6b7a1e", "#4a4a4a" };
static const int MARKERS[] = { 7, 5, 9, 11, 13, 6, 4, 8, 10, 12 };
enum { COLOUR_COUNT = sizeof COLOURS / sizeof *COLOURS };

const char *plot_colour(size_t curve) { return COLOURS[curve % COLOUR_COUNT]; }
int plot_marker(size_t curve) { return MARKERS[(curve + curve / COLOUR_COUNT) % COLOUR_COUNT]; }

FILE *plot_open(const char *folder, const char *stem, const char *suffix)
{
    char path[4096];
    const int length = snprintf(path, sizeof path, "%s/%s.%s", folder, stem, suffix);
    FILE *file = length < (int)sizeof path ? fopen(path, "w") : NULL;
    if (!file) cli_refuse("'%s' cannot be written: %s", path, strerror(errno));
    return file;
}

int plot_close(FILE *file, const char *stem)
{
    const int failed = ferror(file);
    if (fclose(file) != 0 || failed) return cli_refuse("a file of '%s' cannot be written: %s", stem, strerror(errno));
    return EXIT_DONE;
}

void plot_quote(FILE *script, const char *text)
{
    fputc('\'', script);
    for (; *text; text++) {
        if (*text == '\'') fputc('\'', script);
        fputc((unsigned char)*text < 0x20 || *text == 0x7f ? ' ' : *text, script);
    }
    fputc('\'', script);
}

void plot_begin_labelled(FILE *script, const char *stem, const char *heading, const char *first, const char *second, int width, int height)
{
    fprintf(script, "# %s.gp - run gnuplot in this folder to draw the pictures anew\nset encoding utf8\n", stem);
    fprintf(script, "do for [picture=1:2] {\nreset\n");
    fprintf(script, "if (picture == 1) {\n  set terminal svg size %d,%d font 'DejaVu Sans,13' background rgb 'white' noenhanced\n", width, height);
    fprintf(script, "  set output '%s.svg'\n} else {\n  if (strstrt(GPVAL_TERMINALS, 'pngcairo')) {\n", stem);
    fprintf(script, "    set terminal pngcairo size %d,%d font 'DejaVu Sans,10' background rgb 'white' noenhanced\n", width, height);
    fprintf(script, "  } else {\n    set terminal png size %d,%d noenhanced\n  }\n  set output '%s.png'\n}\n", width, height, stem);
    fprintf(script, "set label 1 ");
    plot_quote(script, heading);
    fprintf(script, " at screen 0.5, screen 1 offset 0,-1.2 center font ',15'\nset label 2 ");
    plot_quote(script, first);
    fprintf(script, " at screen 0.5, screen 1 offset 0,-2.6 center textcolor rgb '#555555'\nset label 3 ");
    plot_quote(script, second);
    fprintf(script, " at screen 0.5, screen 1 offset 0,-3.8 center textcolor rgb '#555555'\n");
    fprintf(script, "set border linecolor rgb '#555555'\nset grid linecolor rgb '#dddddd' linetype 1\nset datafile separator tab\n");
}

void plot_begin(FILE *script, const char *stem, const char *heading, plot_span scene, int width, int height)
{
    const char *label = scene.points[0].scene, *second = strchr(label, '\n');
    char first[PLOT_LABEL_BYTES + 64];
    snprintf(first, sizeof first, "%.*s%s%s", second ? (int)(second - label) : (int)strlen(label), label,
             plot_has_one_block(scene) ? ", " : "", plot_has_one_block(scene) ? scene.points[0].block : "");
    plot_begin_labelled(script, stem, heading, first, second ? second + 1 : "", width, height);
}

void plot_end(FILE *script) { fprintf(script, "unset output\n}\n"); }
