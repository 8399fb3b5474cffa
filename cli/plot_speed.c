/* plot_speed.c - the picture of speed: against length with the skip ratio on a second axis, or bars for a single length. */
#include "cli.h"
#include "plot_script.h"
#include <inttypes.h>
#include <string.h>

enum { WIDTH = 1200, LINE_HEIGHT = 19 };

static void title_of(const plot_point *point, char title[PLOT_TITLE_BYTES])
{
    const char *block = strstr(point->curve, ", block");
    if (!point->number[0] || !block)
        snprintf(title, PLOT_TITLE_BYTES, "%s", point->curve);
    else
        snprintf(title, PLOT_TITLE_BYTES, "%.*s %.30s%.60s", (int)(block - point->curve), point->curve, point->number, block);
}

static int has_one_length(plot_span scene)
{
    for (size_t i = 1; i < scene.count; i++)
        if (scene.points[i].row->tokens != scene.points[0].row->tokens) return 0;
    return 1;
}

/* One block of rows a curve; the number of curves. */
static size_t write_data(FILE *data, plot_span scene)
{
    size_t curves = 0;
    fprintf(data, "# tokens\tms\ttimes_bf16\tskipped_percent\tgbps\tread_share\tbf16_ms\n");
    for (size_t at = 0; at < scene.count && curves < PLOT_CURVES_MOST; curves++) {
        const plot_span curve = plot_curve(scene.points + at, scene.count - at, PLOT_BY_THRESHOLD);
        char title[PLOT_TITLE_BYTES];
        title_of(curve.points, title);
        fprintf(data, "%s# %s\n", curves ? "\n\n" : "", title);
        for (size_t i = 0; i < curve.count; i++) {
            const bench_row *row = curve.points[i].row;
            fprintf(data, "%" PRId64 "\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\n", row->tokens, row->ms,
                    row->ms > 0 ? row->baseline_ms / row->ms : 0, 100 * row->skip_ratio, row->gbps, row->read_share, row->baseline_ms);
        }
        at += curve.count;
    }
    return curves;
}

/* The baseline of every curve was measured beside it; the picture shows that of the curve with most lengths. */
static size_t longest_curve(plot_span scene)
{
    size_t best = 0, best_count = 0, index = 0;
    for (size_t at = 0; at < scene.count && index < PLOT_CURVES_MOST; index++) {
        const plot_span curve = plot_curve(scene.points + at, scene.count - at, PLOT_BY_THRESHOLD);
        if (curve.count > best_count) {
            best_count = curve.count;
            best = index;
        }
        at += curve.count;
    }
    return best;
}

static void write_lines(FILE *script, const char *stem, plot_span scene, size_t curves)
{
    fprintf(script, "set logscale x 2\nset format x '%%.0f'\nset xtics rotate by 30 right\nset lmargin 11\nset rmargin 11\n");
    fprintf(script, "set multiplot\nset size 1,%.3f\nset origin 0,%.3f\nset tmargin 5\nset bmargin 2.5\nunset key\n", 0.40, 0.60);
    fprintf(script, "set logscale y\nset ylabel 'ms a call (log)'\nset ytics nomirror\nset y2tics 0,20,100\nset y2range [0:100]\n");
    fprintf(script, "set y2label 'blocks skipped, %% (dashed)'\nset format x ''\nplot ");
    fprintf(script, "'%s.tsv' index %zu using 1:7 with lines linewidth 3 linecolor rgb 'black'", stem, longest_curve(scene));
    for (size_t i = 0; i < curves; i++) {
        fprintf(script, ", \\\n  '' index %zu using 1:2 with linespoints linewidth 2 pointtype %d linecolor rgb '%s'", i, plot_marker(i),
                plot_colour(i));
        fprintf(script, ", \\\n  '' index %zu using 1:($4 > 0 ? $4 : 1/0) axes x1y2 with linespoints dashtype 2 pointsize 0.5 pointtype %d linecolor rgb '%s'", i,
                plot_marker(i), plot_colour(i));
    }
    const double keys = (double)(curves + 1) * LINE_HEIGHT / (760 + (double)(curves + 1) * LINE_HEIGHT);
    fprintf(script, "\nunset label 1\nunset label 2\nunset label 3\nunset y2tics\nunset y2label\nset ytics mirror\n");
    fprintf(script, "set origin 0,0\nset size 1,0.60\nset tmargin 1\nset bmargin at screen %.3f\nset format x '%%.0f'\n", keys + 0.10);
    fprintf(script, "unset logscale y\nset yrange [0:*]\nset ylabel 'times as fast as exact bf16'\nset xlabel 'tokens in the cache (log)'\n");
    fprintf(script, "set key at screen 0.5, screen %.3f center top maxcols 1 samplen 3 left reverse Left\nplot ", keys + 0.005);
    fprintf(script, "1 with lines linewidth 3 linecolor rgb 'black' title 'exact bf16'");
    for (size_t i = 0, at = 0; i < curves; i++) {
        const plot_span curve = plot_curve(scene.points + at, scene.count - at, PLOT_BY_THRESHOLD);
        char title[PLOT_TITLE_BYTES];
        title_of(curve.points, title);
        fprintf(script, ", \\\n  '%s.tsv' index %zu using 1:3 with linespoints linewidth 2 pointtype %d linecolor rgb '%s' title ", stem, i,
                plot_marker(i), plot_colour(i));
        plot_quote(script, title);
        at += curve.count;
    }
    fprintf(script, "\nunset multiplot\n");
}

/* Horizontal bars, the first curve on top, with the skip ratio as marks on the upper axis. */
static void write_bars(FILE *script, const char *stem, plot_span scene, size_t curves)
{
    fprintf(script, "set lmargin at screen 0.40\nset rmargin 6\nset tmargin 8.5\nset bmargin 4.5\nset style fill solid 0.85 noborder\n");
    fprintf(script, "set yrange [%zu.6:-0.6]\nset xrange [0:*]\nset x2range [0:100]\nset x2tics 0,20,100\nset xtics nomirror\n", curves);
    fprintf(script, "set xlabel 'ms a call at %" PRId64 " tokens (bars)'\nset x2label 'blocks skipped, %% (diamonds)'\nset grid noy\n",
            scene.points[0].row->tokens);
    fprintf(script, "set key off\nset ytics nomirror scale 0 (");
    double exact = 0;
    size_t index = 0, at = 0;
    for (; index < curves; index++) {
        const plot_span curve = plot_curve(scene.points + at, scene.count - at, PLOT_BY_THRESHOLD);
        char title[PLOT_TITLE_BYTES];
        title_of(curve.points, title);
        plot_quote(script, title);
        fprintf(script, " %zu, ", index);
        exact += curve.points[0].row->baseline_ms / (double)curves;
        at += curve.count;
    }
    fprintf(script, "'exact bf16, beside them' %zu)\nplot ", curves);
    for (size_t i = 0; i < curves; i++)
        fprintf(script, "%s'%s.tsv' index %zu using ($2/2):(%zu):($2/2):(0.32) with boxxyerror linecolor rgb '%s', \\\n  ", "", stem, i, i,
                plot_colour(i));
    fprintf(script, "'+' every ::0::0 using (%.6g/2):(%zu):(%.6g/2):(0.32) with boxxyerror linecolor rgb '#999999'", exact, curves, exact);
    for (size_t i = 0; i < curves; i++)
        fprintf(script, ", \\\n  '%s.tsv' index %zu using 4:(%zu) axes x2y1 with points pointtype 13 pointsize 1.6 linecolor rgb 'black'", stem, i, i);
    fprintf(script, "\n");
}

int plot_speed(const char *folder, const char *stem, plot_span scene)
{
    FILE *data = plot_open(folder, stem, "tsv");
    if (!data) return EXIT_REFUSED;
    const size_t curves = write_data(data, scene);
    int status = plot_close(data, stem);
    FILE *script = status == EXIT_DONE ? plot_open(folder, stem, "gp") : NULL;
    if (!script) return EXIT_REFUSED;
    if (has_one_length(scene)) {
        plot_begin(script, stem, "Decode: time of a call", scene.points[0].scene, WIDTH, 230 + 34 * (int)(curves + 1));
        write_bars(script, stem, scene, curves);
    } else {
        plot_begin(script, stem, "Decode: speed against length", scene.points[0].scene, WIDTH, 760 + LINE_HEIGHT * (int)(curves + 1));
        write_lines(script, stem, scene, curves);
    }
    plot_end(script);
    return plot_close(script, stem);
}
