/* plot_prefill.c - the picture of prefill: TFLOP/s and error against length, a curve a precision. */
#include "plot_prefill.h"
#include "cli.h"
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 1200, LINE_HEIGHT = 19, PANELS = 720, POINTS_MOST = 1 << 16 };

struct plot_prefill_point {
    char scene[PLOT_LABEL_BYTES]; /* shape and machine in two lines */
    char curve[PLOT_TITLE_BYTES];
    int64_t tokens, keys;
    double tflops, with_quantisation, rel_error;
    size_t age;
};

void plot_prefill_fini(plot_prefill *of) { free(of->points); }

/* ---- reading ---- */

/* What a file's rows have in common. Options that a precision does not know are not said of it. */
typedef struct described {
    char scene[PLOT_LABEL_BYTES], stored[64], layout[16], scales[32];
    int smooth, smooth_v, rotate, f16_sums;
} described;

static int describe(json_t *root, described *of)
{
    json_int_t batch, q_heads, kv_heads, head_dim, window, threads;
    const char *mask, *scales, *layout, *k, *v, *device, *cpu, *isa;
    int smooth, smooth_v, rotate, f16_sums;
    double bias;
    const char *settings = "{s:I s:I s:I s:I s:s s:I s:s s:b s:b s:b s:b s:s s:s s:s s:F s:I s:s}";
    json_t *machine = json_object_get(root, "machine");
    if (json_unpack(json_object_get(root, "settings"), settings, "batch", &batch, "q_heads", &q_heads, "kv_heads", &kv_heads, "head_dim", &head_dim,
                    "mask", &mask, "window", &window, "scales", &scales, "smooth", &smooth, "smooth_v", &smooth_v, "rotate", &rotate,
                    "f16_sums", &f16_sums, "layout", &layout, "cache_k", &k, "cache_v", &v, "bias", &bias, "threads", &threads, "device", &device) != 0 ||
        json_unpack(machine, "{s:s s:s}", "cpu", &cpu, "isa", &isa) != 0)
        return -1;
    char wide[32] = "", offset[48] = "";
    if (window > 0) snprintf(wide, sizeof wide, ", window %" PRId64, (int64_t)window);
    if (bias != 0) snprintf(offset, sizeof offset, ", a bias of %g on four channels of K", bias);
    snprintf(of->scene, sizeof of->scene, "batch %" PRId64 ", %" PRId64 " query heads, %" PRId64 " kv heads of %" PRId64 ", %.10s%s%s\n%.100s, %.20s, %.10s, %" PRId64 " threads",
             (int64_t)batch, (int64_t)q_heads, (int64_t)kv_heads, (int64_t)head_dim, mask, wide, offset, cpu, isa, device, (int64_t)threads);
    snprintf(of->stored, sizeof of->stored, "K %.10s, V %.10s", k, v);
    snprintf(of->layout, sizeof of->layout, "%.8s", layout);
    snprintf(of->scales, sizeof of->scales, "%s%.8s", strcmp(scales, "block") ? ", a scale a " : "", strcmp(scales, "block") ? scales : "");
    of->smooth = smooth, of->smooth_v = smooth_v, of->rotate = rotate, of->f16_sums = f16_sums;
    return 0;
}

static int add_row(plot_prefill *of, const described *as, json_t *row)
{
    const char *precision, *layout = as->layout; /* files of one layout alone name it in their settings */
    json_int_t tokens, keys;
    plot_prefill_point point;
    if (json_unpack(row, "{s?s s:s s:I s:I s:F s:F s:F}", "layout", &layout, "precision", &precision, "tokens", &tokens, "keys", &keys, "tflops", &point.tflops,
                    "tflops_with_quantisation", &point.with_quantisation, "rel_error", &point.rel_error) != 0 ||
        tokens < 1 || keys < 1 || !(point.with_quantisation > 0) || of->count == POINTS_MOST)
        return -1;
    if (of->count == of->room) {
        const size_t room = of->room ? 2 * of->room : 64;
        plot_prefill_point *more = realloc(of->points, room * sizeof *more);
        if (!more) return -1;
        of->points = more, of->room = room;
    }
    point.tokens = tokens, point.keys = keys, point.age = of->count;
    snprintf(point.scene, sizeof point.scene, "%s", as->scene);
    const int pages = strcmp(layout, "pages") == 0;
    const int sage = strncmp(precision, "sage", 4) == 0;
    snprintf(point.curve, sizeof point.curve, "%.10s, %s%s%.8s%s%s%s%s%s", precision, as->stored, pages ? "" : ", ", pages ? "" : layout,
             strcmp(precision, "exact") ? as->scales : "", sage && !as->smooth ? ", not smoothed" : "",
             as->smooth_v && strcmp(precision, "sage2") == 0 ? ", V smoothed" : "", as->rotate && strcmp(precision, "fp8") == 0 ? ", rotated" : "",
             as->f16_sums && strcmp(precision, "sage1") == 0 ? ", sums in f16" : "");
    for (char *c = point.scene; *c; c++)
        if (((unsigned char)*c < 0x20 && *c != '\n') || (unsigned char)*c >= 0x7f) *c = '?';
    for (char *c = point.curve; *c; c++)
        if ((unsigned char)*c < 0x20 || (unsigned char)*c >= 0x7f) *c = '?';
    of->points[of->count++] = point;
    return 0;
}

int plot_prefill_load(plot_prefill *of, const char *path, char *reason, size_t reason_bytes)
{
    json_error_t error;
    described as;
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    const char *schema = root ? json_string_value(json_object_get(root, "schema")) : NULL;
    int status = 0;
    if (!root) snprintf(reason, reason_bytes, "line %d: %.100s", error.line, error.text);
    else if (!schema || strcmp(schema, "octavo-bench-prefill-1") != 0) snprintf(reason, reason_bytes, "it is not of octavo bench prefill");
    else if (describe(root, &as) != 0) snprintf(reason, reason_bytes, "a member of settings or machine is missing");
    else {
        size_t i;
        json_t *row;
        json_array_foreach(json_object_get(root, "results"), i, row) if (status == 0) status = add_row(of, &as, row);
        if (status == 0) {
            json_decref(root);
            return 0;
        }
        snprintf(reason, reason_bytes, "a row of results is incomplete");
    }
    json_decref(root);
    return -1;
}

/* ---- curves ---- */

static int compare(const void *left, const void *right)
{
    const plot_prefill_point *a = left, *b = right;
    int order = strcmp(a->scene, b->scene);
    if (order == 0) order = strcmp(a->curve, b->curve);
    if (order == 0) order = (a->keys > b->keys) - (a->keys < b->keys);
    if (order == 0) order = (a->tokens > b->tokens) - (a->tokens < b->tokens);
    return order ? order : (a->age < b->age) - (a->age > b->age); /* the latest first */
}

static int same_length(const plot_prefill_point *a, const plot_prefill_point *b) { return a->keys == b->keys && a->tokens == b->tokens; }

/* One block of rows a curve; returns how many. */
static size_t write_data(FILE *data, const plot_prefill_point *points, size_t count, const plot_prefill_point *first[PLOT_CURVES_MOST])
{
    size_t curves = 0;
    fprintf(data, "# keys\ttokens\ttflops\ttflops_with_quantisation\terror_percent\n");
    for (size_t i = 0; i < count; i++) {
        const int begins = i == 0 || strcmp(points[i].curve, points[i - 1].curve) != 0;
        if (begins && curves == PLOT_CURVES_MOST) break;
        if (begins) fprintf(data, "%s# %s\n", curves ? "\n\n" : "", points[i].curve), first[curves++] = &points[i];
        if (!begins && same_length(&points[i], &points[i - 1])) continue; /* measured again */
        fprintf(data, "%" PRId64 "\t%" PRId64 "\t%.6g\t%.6g\t%.6g\n", points[i].keys, points[i].tokens, points[i].tflops, points[i].with_quantisation,
                100 * points[i].rel_error);
    }
    return curves;
}

static void write_script(FILE *script, const char *stem, const plot_prefill_point *const *first, size_t curves, int height)
{
    const double keys = (double)(LINE_HEIGHT * (int)curves + 10) / height, panels = 1 - keys;
    fprintf(script, "set logscale x 2\nset xtics rotate by 30 right\nset lmargin 11\nset rmargin 4\nset multiplot\nunset key\n");
    fprintf(script, "set tmargin at screen %.3f\nset bmargin at screen %.3f\nset yrange [0:*]\n", 1 - 80.0 / height, keys + 0.50 * panels);
    fprintf(script, "set ylabel 'TFLOP/s (dashed: K and V prepared)'\nset format x ''\nplot ");
    for (size_t i = 0; i < curves; i++) {
        fprintf(script, "%s'%s.tsv' index %zu using 1:4 with linespoints linewidth 2 pointtype %d linecolor rgb '%s'", i ? ", \\\n  " : "", stem, i,
                plot_marker(i), plot_colour(i));
        fprintf(script, ", \\\n  '' index %zu using 1:3 with linespoints linewidth 1.5 dashtype 2 pointtype %d pointsize 0.7 linecolor rgb '%s'", i,
                plot_marker(i), plot_colour(i));
    }
    fprintf(script, "\nunset label 1\nunset label 2\nunset label 3\nset format x '%%.0f'\n");
    fprintf(script, "set tmargin at screen %.3f\nset bmargin at screen %.3f\nset logscale y\nset yrange [*:*]\n", keys + 0.47 * panels, keys + 95.0 / height);
    fprintf(script, "set ylabel 'error, %% (log)'\nset xlabel 'keys (log)'\n");
    fprintf(script, "set key at screen 0.5, screen %.3f center top maxcols 1 samplen 3 reverse Left\nplot ", keys);
    for (size_t i = 0; i < curves; i++) {
        fprintf(script, "%s'%s.tsv' index %zu using 1:($5 > 0 ? $5 : NaN) with linespoints linewidth 2 pointtype %d linecolor rgb '%s' title ",
                i ? ", \\\n  " : "", stem, i, plot_marker(i), plot_colour(i));
        plot_quote(script, first[i]->curve);
    }
    fprintf(script, "\nunset multiplot\n");
}

static int write_scene(const char *folder, const char *stem, const plot_prefill_point *points, size_t count)
{
    const plot_prefill_point *first[PLOT_CURVES_MOST];
    FILE *data = plot_open(folder, stem, "tsv");
    if (!data) return EXIT_REFUSED;
    const size_t curves = write_data(data, points, count, first);
    const int status = plot_close(data, stem), height = PANELS + LINE_HEIGHT * (int)curves;
    FILE *script = status == EXIT_DONE ? plot_open(folder, stem, "gp") : NULL;
    if (!script) return EXIT_REFUSED;
    char shape[PLOT_LABEL_BYTES];
    snprintf(shape, sizeof shape, "%s", points[0].scene);
    char *machine = strchr(shape, '\n');
    if (machine) *machine++ = '\0';
    plot_begin_labelled(script, stem, "Prefill: speed and error against length", shape, machine ? machine : "", WIDTH, height);
    write_script(script, stem, first, curves, height);
    plot_end(script);
    return plot_close(script, stem);
}

int plot_prefill_write(plot_prefill *of, const char *folder, char stems[][PLOT_STEM_BYTES], size_t *stem_count, size_t most)
{
    int number = 0;
    if (of->count == 0) return EXIT_DONE;
    qsort(of->points, of->count, sizeof *of->points, compare);
    for (size_t at = 0; at < of->count && *stem_count < most;) {
        size_t end = at + 1;
        while (end < of->count && strcmp(of->points[end].scene, of->points[at].scene) == 0) end++;
        number++;
        if (number > 1) snprintf(stems[*stem_count], PLOT_STEM_BYTES, "prefill-%d", number);
        else            snprintf(stems[*stem_count], PLOT_STEM_BYTES, "prefill");
        if (write_scene(folder, stems[*stem_count], of->points + at, end - at) != EXIT_DONE) return EXIT_REFUSED;
        (*stem_count)++;
        at = end;
    }
    return EXIT_DONE;
}
