/* plot_frontier.c - the picture of error against bytes read, one curve a format and rule, a point a threshold. */
#include "cli.h"
#include "plot_script.h"
#include <inttypes.h>
#include <math.h>
#include <string.h>

enum { WIDTH = 1200, LINE_HEIGHT = 19 };

/* Errors below are those of rounding alone: a log axis that reached them would squeeze what matters. */
static const double ROUNDING = 2e-5;

static int64_t longest_length(plot_span scene)
{
    int64_t longest = 0;
    for (size_t i = 0; i < scene.count; i++)
        if (scene.points[i].row->tokens > longest) longest = scene.points[i].row->tokens;
    return longest;
}

/* What the picture shows; errors below `bottom` are drawn on it. */
typedef struct frontier_range {
    double left, right, bottom, top;
} frontier_range;

static frontier_range range_of(plot_span scene, int64_t tokens)
{
    frontier_range range = { INFINITY, 0, INFINITY, 0 };
    for (size_t i = 0; i < scene.count; i++) {
        const bench_row *row = scene.points[i].row;
        if (row->tokens != tokens || !(row->bytes_token_head > 0)) continue;
        range.left = fmin(range.left, row->bytes_token_head);
        range.right = fmax(range.right, row->bytes_token_head);
        if (row->rel_error < ROUNDING) continue;
        range.bottom = fmin(range.bottom, row->rel_error);
        range.top = fmax(range.top, row->rel_error);
    }
    if (!(range.left <= range.right)) range.left = range.right = 1;
    if (!(range.bottom <= range.top)) range.bottom = range.top = ROUNDING;
    return (frontier_range){ range.left / 1.3, range.right * 1.3, range.bottom / 2.5, range.top * 1.8 };
}

/* The title, with what cannot be seen in the picture. */
static void title_of(plot_span curve, int own_block, int64_t tokens, double bottom, char title[PLOT_TITLE_BYTES])
{
    snprintf(title, PLOT_TITLE_BYTES, "%.90s%s%s", curve.points[0].curve, own_block ? ", " : "", own_block ? curve.points[0].block : "");
    for (size_t i = 0; i < curve.count; i++)
        if (curve.points[i].row->tokens == tokens && curve.points[i].row->rel_error < bottom) {
            const size_t length = strlen(title);
            snprintf(title + length, PLOT_TITLE_BYTES - length, " (error %.0e, drawn on the lower edge)", curve.points[i].row->rel_error);
            return;
        }
}

/* One block of rows a curve; the titles of those that have a point. */
static size_t write_data(FILE *data, plot_span scene, int64_t tokens, double bottom, char titles[][PLOT_TITLE_BYTES])
{
    size_t curves = 0;
    fprintf(data, "# bytes_token_head\terror_percent\tworst_percent\tskipped_percent\tthreshold\tdrawn_percent\n");
    for (size_t at = 0; at < scene.count && curves < PLOT_CURVES_MOST;) {
        const plot_span curve = plot_curve(scene.points + at, scene.count - at, PLOT_BY_CURVE);
        size_t written = 0;
        for (size_t i = 0; i < curve.count; i++) {
            const bench_row *row = curve.points[i].row;
            if (row->tokens != tokens) continue;
            if (written++ == 0) fprintf(data, "%s# %s\n", curves ? "\n\n" : "", curve.points[0].curve);
            fprintf(data, "%.6g\t%.6g\t%.6g\t%.6g\t%s\t%.6g\n", row->bytes_token_head, 100 * row->rel_error, 100 * row->rel_error_max,
                    100 * row->skip_ratio, curve.points[i].number[0] ? curve.points[i].number : " ",
                    100 * (row->rel_error > bottom ? row->rel_error : 1.02 * bottom));
        }
        if (written) title_of(curve, !plot_has_one_block(scene), tokens, bottom, titles[curves++]);
        at += curve.count;
    }
    return curves;
}

int plot_frontier(const char *folder, const char *stem, plot_span scene)
{
    char titles[PLOT_CURVES_MOST][PLOT_TITLE_BYTES], heading[128];
    const int64_t tokens = longest_length(scene);
    const frontier_range range = range_of(scene, tokens);
    FILE *data = plot_open(folder, stem, "tsv");
    if (!data) return EXIT_REFUSED;
    const size_t curves = write_data(data, scene, tokens, range.bottom, titles);
    const int status = plot_close(data, stem);
    FILE *script = status == EXIT_DONE ? plot_open(folder, stem, "gp") : NULL;
    if (!script) return EXIT_REFUSED;
    const int height = 640 + LINE_HEIGHT * (int)curves;
    snprintf(heading, sizeof heading, "Decode: error against bytes read, %" PRId64 " tokens", tokens);
    plot_begin(script, stem, heading, scene, WIDTH, height);
    const double keys = (double)(LINE_HEIGHT * (int)curves) / height;
    fprintf(script, "set lmargin 11\nset rmargin 6\nset tmargin 5.5\nset bmargin at screen %.3f\nset logscale xy\n", keys + 85.0 / height);
    fprintf(script, "set xtics (4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096)\n");
    fprintf(script, "set ytics (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)\n");
    fprintf(script, "set xlabel 'bytes of the cache read for each token and kv head (log)'\nset format y '%%g %%%%'\n");
    fprintf(script, "set ylabel 'relative error of the output (log)'\nset xrange [%.6g:%.6g]\nset yrange [%.6g:%.6g]\n", range.left, range.right,
            100 * range.bottom, 100 * range.top);
    fprintf(script, "set key at screen 0.5, screen %.3f center top maxcols 1 samplen 3 reverse Left\nplot ", keys + 8.0 / height);
    for (size_t i = 0; i < curves; i++) {
        fprintf(script, "%s'%s.tsv' index %zu using 1:6 with linespoints linewidth 2 pointtype %d pointsize 1.2 linecolor rgb '%s' title ",
                i ? ", \\\n  " : "", stem, i, plot_marker(i), plot_colour(i));
        plot_quote(script, titles[i]);
        fprintf(script, ", \\\n  '' index %zu using 1:6:5 with labels font ',9' offset %s textcolor rgb '%s' notitle", i,
                i % 2 ? "-0.8,-0.5 right" : "0.8,0.5 left", plot_colour(i)); /* neighbours on opposite sides */
    }
    fprintf(script, "\n");
    plot_end(script);
    return plot_close(script, stem);
}
