/* plot_points.h - measurements sorted into pictures and curves. */
#ifndef OCTAVO_CLI_PLOT_POINTS_H
#define OCTAVO_CLI_PLOT_POINTS_H

#include "bench_result.h"

enum { PLOT_LABEL_BYTES = 640, PLOT_TITLE_BYTES = 192 };

/* One length of one measurement. */
typedef struct plot_point {
    const bench_result *result;
    const bench_row *row;
    char scene[PLOT_LABEL_BYTES]; /* data, shape and machine in two lines: what one picture shows */
    char curve[PLOT_TITLE_BYTES]; /* formats and rule                                            */
    char block[48];               /* "block 64", "block 64/16"                                   */
    char number[32];              /* the rule's threshold, or ""                                 */
    double threshold;
    size_t age;                   /* of two measurements of the same the later one counts        */
} plot_point;

/* Consecutive points that belong together. */
typedef struct plot_span {
    const plot_point *points;
    size_t count;
} plot_span;

/* What a speed picture tells apart (formats, rule, block and threshold), or a frontier (all but the threshold). */
typedef enum plot_by { PLOT_BY_THRESHOLD, PLOT_BY_CURVE } plot_by;

/* All rows of the results, which must outlive them; NULL: no memory. */
plot_point *plot_points_of(const bench_result *results, size_t result_count, size_t *count);

/* Sorts into scenes, in them into curves, in those by length or by threshold, and removes what was measured again. */
void plot_points_sort(plot_point *points, size_t *count, plot_by by);

/* The span that starts at points[0]. */
plot_span plot_scene(const plot_point *points, size_t count);
plot_span plot_curve(const plot_point *points, size_t count, plot_by by);

/* 1: the whole scene has one block size, which then is said once. */
int plot_has_one_block(plot_span scene);

#endif
