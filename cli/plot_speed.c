/* plot_speed.c - the picture of speed: against length with the skip ratio on a second axis, or bars for a single length. */
#include "cli.h"
#include "plot_script.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { WIDTH = 1200, LINE_HEIGHT = 19, PANELS = 720, LINES_MOST = 10 };

typedef struct speed_curves {
    plot_span scene, spans[PLOT_CURVES_MOST];
    size_t count;
} speed_curves;

static void title_of(const speed_curves *curves, size_t index, char title[PLOT_TITLE_BYTES])
{
    const plot_point *point = curves->spans[index].points;
    const int own_block = !plot_has_one_block(curves->scene);
    snprintf(title, PLOT_TITLE_BYTES, "%.90s%s%s%s%s", point->curve, point->number[0] ? " " : "", point->number, own_block ? ", " : "",
             own_block ? point->block : "");
}

static int has_one_length(plot_span scene)
{
    for (size_t i = 1; i < scene.count; i++)
        if (scene.points[i].row->tokens != scene.points[0].row->tokens) return 0;
    return 1;
}

/* How far a threshold is from the rule's default. */
static double distance(const plot_point *point)
{
    if (point->threshold <= 0) return 0;
    return fabs(log(point->threshold / (strcmp(point->result->select, "delta") == 0 ? 5.545 : 0.1)));
}

/* All curves, or where a sweep has too many lines for one picture, of each rule the threshold nearest to its default. */
static void choose_curves(speed_curves *curves, plot_span scene, size_t most)
{
    size_t all = 0;
    for (size_t at = 0; at < scene.count; all++) at += plot_curve(scene.points + at, scene.count - at, PLOT_BY_THRESHOLD).count;
    curves->scene = scene;
    curves->count = 0;
    for (size_t at = 0; at < scene.count;) {
        const plot_span curve = plot_curve(scene.points + at, scene.count - at, PLOT_BY_THRESHOLD);
        const plot_point *last = curves->count ? curves->spans[curves->count - 1].points : NULL;
        at += curve.count;
        if (all > most && last && strcmp(last->curve, curve.points->curve) == 0 && strcmp(last->block, curve.points->block) == 0) {
            if (distance(curve.points) < distance(last)) curves->spans[curves->count - 1] = curve;
        } else if (curves->count < PLOT_CURVES_MOST) {
            curves->spans[curves->count++] = curve;
        }
    }
}

/* One block of rows a curve. */
static void write_data(FILE *data, const speed_curves *curves)
{
    fprintf(data, "# tokens\tms\ttimes_bf16\tskipped_percent\tgbps\tread_share\tbf16_ms\n");
    for (size_t index = 0; index < curves->count; index++) {
        char title[PLOT_TITLE_BYTES];
        title_of(curves, index, title);
        fprintf(data, "%s# %s\n", index ? "\n\n" : "", title);
        for (size_t i = 0; i < curves->spans[index].count; i++) {
            const bench_row *row = curves->spans[index].points[i].row;
            fprintf(data, "%" PRId64 "\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\t%.6g\n", row->tokens, row->ms,
                    row->ms > 0 ? row->baseline_ms / row->ms : 0, 100 * row->skip_ratio, row->gbps, row->read_share, row->baseline_ms);
        }
    }
}

/* Every curve has its baseline beside it; the picture shows that of the curve with most lengths. */
static size_t longest_curve(const speed_curves *curves)
{
    size_t best = 0;
    for (size_t i = 1; i < curves->count; i++)
        if (curves->spans[i].count > curves->spans[best].count) best = i;
    return best;
}

/* Times in the lower half, skip ratios in the upper one: both axes reach twice as far as their data. */
static void write_time_range(FILE *script, const speed_curves *curves)
{
    double least = INFINITY, most = 0;
    for (size_t index = 0; index < curves->count; index++)
        for (size_t i = 0; i < curves->spans[index].count; i++) {
            const bench_row *row = curves->spans[index].points[i].row;
            least = fmin(least, fmin(row->ms, row->baseline_ms));
            most = fmax(most, fmax(row->ms, row->baseline_ms));
        }
    if (!(least > 0)) return;
    fprintf(script, "set yrange [%.6g:%.6g]\nset y2range [-115:105]\n", least / 1.3, most * 1.3 * most / least);
}

static void write_lines(FILE *script, const char *stem, const speed_curves *curves, int height)
{
    const double keys = (double)(LINE_HEIGHT * (int)(curves->count + 1) + 10) / height, panels = 1 - keys;
    fprintf(script, "set logscale x 2\nset xtics rotate by 30 right\nset lmargin 11\nset rmargin 11\nset multiplot\nunset key\n");
    fprintf(script, "set tmargin at screen %.3f\nset bmargin at screen %.3f\nset logscale y\nset ylabel 'ms a call (log)'\n", 1 - 80.0 / height,
            keys + 0.50 * panels);
    fprintf(script, "set ytics nomirror\nset y2tics 0,25,100\nset y2label 'blocks skipped, %% (dashed)'\nset format x ''\n");
    write_time_range(script, curves);
    fprintf(script, "plot '%s.tsv' index %zu using 1:7 with lines linewidth 3 linecolor rgb 'black'", stem, longest_curve(curves));
    for (size_t i = 0; i < curves->count; i++) {
        fprintf(script, ", \\\n  '' index %zu using 1:2 with linespoints linewidth 2 pointtype %d linecolor rgb '%s'", i, plot_marker(i),
                plot_colour(i));
        fprintf(script, ", \\\n  '' index %zu using 1:($4 > 0 ? $4 : NaN) axes x1y2 with linespoints linewidth 1.5 dashtype 2 pointtype %d"
                        " pointsize 0.7 linecolor rgb '%s'", i, plot_marker(i), plot_colour(i));
    }
    fprintf(script, "\nunset label 1\nunset label 2\nunset label 3\nunset y2tics\nunset y2label\nset ytics mirror\nset format x '%%.0f'\n");
    fprintf(script, "set tmargin at screen %.3f\nset bmargin at screen %.3f\nunset logscale y\nset yrange [0:*]\n", keys + 0.47 * panels,
            keys + 95.0 / height);
    fprintf(script, "set ylabel 'times as fast as exact bf16'\nset xlabel 'tokens in the cache (log)'\n");
    fprintf(script, "set key at screen 0.5, screen %.3f center top maxcols 1 samplen 3 reverse Left\nplot ", keys);
    fprintf(script, "1 with lines linewidth 3 linecolor rgb 'black' title 'exact bf16, the baseline'");
    for (size_t i = 0; i < curves->count; i++) {
        char title[PLOT_TITLE_BYTES];
        title_of(curves, i, title);
        fprintf(script, ", \\\n  '%s.tsv' index %zu using 1:3 with linespoints linewidth 2 pointtype %d linecolor rgb '%s' title ", stem, i,
                plot_marker(i), plot_colour(i));
        plot_quote(script, title);
    }
    fprintf(script, "\nunset multiplot\n");
}

/* Horizontal bars, the first curve on top, with the skip ratio as marks on the upper axis. */
static void write_bars(FILE *script, const char *stem, const speed_curves *curves)
{
    double exact = 0;
    fprintf(script, "set lmargin at screen 0.36\nset rmargin 6\nset tmargin 8.5\nset bmargin 4.5\nset style fill solid 0.85 noborder\n");
    fprintf(script, "set yrange [%zu.6:-0.6]\nset xrange [0:*]\nset x2range [0:100]\nset x2tics 0,20,100\nset xtics nomirror\n", curves->count);
    fprintf(script, "set xlabel 'ms a call at %" PRId64 " tokens (bars)'\nset x2label 'blocks skipped, %% (diamonds)'\nset grid noy\n",
            curves->scene.points[0].row->tokens);
    fprintf(script, "set key off\nset ytics nomirror scale 0 (");
    for (size_t i = 0; i < curves->count; i++) {
        char title[PLOT_TITLE_BYTES];
        title_of(curves, i, title);
        plot_quote(script, title);
        fprintf(script, " %zu, ", i);
        exact += curves->spans[i].points[0].row->baseline_ms / (double)curves->count;
    }
    fprintf(script, "'exact bf16, the baseline' %zu)\nplot ", curves->count);
    for (size_t i = 0; i < curves->count; i++)
        fprintf(script, "'%s.tsv' index %zu using ($2/2):(%zu):($2/2):(0.32) with boxxyerror linecolor rgb '%s', \\\n  ", stem, i, i,
                plot_colour(i));
    fprintf(script, "'+' every ::0::0 using (%.6g/2):(%zu):(%.6g/2):(0.32) with boxxyerror linecolor rgb '#999999'", exact, curves->count, exact);
    for (size_t i = 0; i < curves->count; i++)
        fprintf(script, ", \\\n  '%s.tsv' index %zu using ($4 > 0 ? $4 : NaN):(%zu) axes x2y1 with points pointtype 13 pointsize 1.6 linecolor rgb 'black'",
                stem, i, i);
    fprintf(script, "\n");
}

int plot_speed(const char *folder, const char *stem, plot_span scene)
{
    speed_curves curves;
    const int bars = has_one_length(scene);
    choose_curves(&curves, scene, bars ? PLOT_CURVES_MOST : LINES_MOST);
    FILE *data = plot_open(folder, stem, "tsv");
    if (!data) return EXIT_REFUSED;
    write_data(data, &curves);
    const int status = plot_close(data, stem);
    FILE *script = status == EXIT_DONE ? plot_open(folder, stem, "gp") : NULL;
    if (!script) return EXIT_REFUSED;
    if (bars) {
        plot_begin(script, stem, "Decode: time of a call", scene, WIDTH, 230 + 34 * (int)(curves.count + 1));
        write_bars(script, stem, &curves);
    } else {
        const int height = PANELS + LINE_HEIGHT * (int)(curves.count + 1);
        plot_begin(script, stem, "Decode: speed against length", scene, WIDTH, height);
        write_lines(script, stem, &curves, height);
    }
    plot_end(script);
    return plot_close(script, stem);
}
