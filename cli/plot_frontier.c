/* plot_frontier.c - the picture of error against bytes read, one curve a format and rule, a point a threshold. */
#include "cli.h"
#include "plot_script.h"
#include <inttypes.h>
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

/* The lower edge of the picture; errors below it are drawn on it. */
static double lower_edge(plot_span scene, int64_t tokens)
{
    double least = 1;
    for (size_t i = 0; i < scene.count; i++) {
        const bench_row *row = scene.points[i].row;
        if (row->tokens == tokens && row->rel_error >= ROUNDING && row->rel_error < least) least = row->rel_error;
    }
    return least / 2;
}

/* The title, with what cannot be seen in the picture. */
static void title_of(plot_span curve, int64_t tokens, double edge, char title[PLOT_TITLE_BYTES])
{
    snprintf(title, PLOT_TITLE_BYTES, "%s", curve.points[0].curve);
    for (size_t i = 0; i < curve.count; i++)
        if (curve.points[i].row->tokens == tokens && curve.points[i].row->rel_error < edge) {
            const size_t length = strlen(title);
            snprintf(title + length, PLOT_TITLE_BYTES - length, " (error %.0e, below the picture)", curve.points[i].row->rel_error);
            return;
        }
}

/* One block of rows a curve; the titles of those that have a point. */
static size_t write_data(FILE *data, plot_span scene, int64_t tokens, double edge, char titles[][PLOT_TITLE_BYTES])
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
                    100 * (row->rel_error > edge ? row->rel_error : edge));
        }
        if (written) title_of(curve, tokens, edge, titles[curves++]);
        at += curve.count;
    }
    return curves;
}

int plot_frontier(const char *folder, const char *stem, plot_span scene)
{
    char titles[PLOT_CURVES_MOST][PLOT_TITLE_BYTES], heading[128];
    const int64_t tokens = longest_length(scene);
    const double edge = lower_edge(scene, tokens);
    FILE *data = plot_open(folder, stem, "tsv");
    if (!data) return EXIT_REFUSED;
    const size_t curves = write_data(data, scene, tokens, edge, titles);
    const int status = plot_close(data, stem);
    FILE *script = status == EXIT_DONE ? plot_open(folder, stem, "gp") : NULL;
    if (!script) return EXIT_REFUSED;
    const int height = 640 + LINE_HEIGHT * (int)curves;
    snprintf(heading, sizeof heading, "Decode: error against bytes read, %" PRId64 " tokens", tokens);
    plot_begin(script, stem, heading, scene.points[0].scene, WIDTH, height);
    const double keys = (double)(LINE_HEIGHT * (int)curves) / height;
    fprintf(script, "set lmargin 11\nset rmargin 6\nset tmargin 5.5\nset bmargin at screen %.3f\nset logscale xy\n", keys + 85.0 / height);
    fprintf(script, "set xtics (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048)\n");
    fprintf(script, "set xlabel 'bytes of the cache read for each token and kv head (log)'\nset format y '%%g %%%%'\n");
    fprintf(script, "set ylabel 'relative error of the output (log)'\nset yrange [%.4g:*]\nset offsets graph 0.05, graph 0.06, graph 0.08, 0\n",
            100 * edge);
    fprintf(script, "set key at screen 0.5, screen %.3f center top maxcols 1 samplen 3 left reverse Left\nplot ", keys + 5.0 / height);
    for (size_t i = 0; i < curves; i++) {
        fprintf(script, "%s'%s.tsv' index %zu using 1:6 with linespoints linewidth 2 pointtype %d pointsize 1.2 linecolor rgb '%s' title ",
                i ? ", \\\n  " : "", stem, i, plot_marker(i), plot_colour(i));
        plot_quote(script, titles[i]);
        fprintf(script, ", \\\n  '' index %zu using 1:6:5 with labels offset 1,0.5 left textcolor rgb '%s' notitle", i, plot_colour(i));
    }
    fprintf(script, "\n");
    plot_end(script);
    return plot_close(script, stem);
}
