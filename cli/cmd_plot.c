/* cmd_plot.c - `octavo plot`: pictures of the measurements in some folders. */
#define _GNU_SOURCE
#include "cli.h"
#include "external.h"
#include "options.h"
#include "plot_prefill.h"
#include "plot_script.h"
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FOLDERS_MOST = 64, RESULTS_MOST = 4096, SCENES_MOST = 64, PATH_BYTES = 4096 };

typedef struct plot_files {
    bench_result *results; /* [RESULTS_MOST] the oldest file first */
    double *times;         /* [RESULTS_MOST] */
    size_t count;
    plot_prefill prefill;
} plot_files;

typedef int plot_writer(const char *folder, const char *stem, plot_span scene);

/* Keeps results in the order of their files' times. */
static void insert_result(plot_files *files, const bench_result *result, double time)
{
    size_t at = files->count++;
    for (; at > 0 && files->times[at - 1] > time; at--) {
        files->results[at] = files->results[at - 1];
        files->times[at] = files->times[at - 1];
    }
    files->results[at] = *result;
    files->times[at] = time;
}

static int is_prefill(const char *name) { return strncmp(name, "prefill-", 8) == 0; }

static int is_result_name(const struct dirent *entry)
{
    const char *name = entry->d_name;
    const size_t length = strlen(name);
    return (strncmp(name, "decode-", 7) == 0 || is_prefill(name)) && length > 5 && strcmp(name + length - 5, ".json") == 0;
}

static int load_folder(plot_files *files, const char *folder)
{
    struct dirent **entries;
    const int count = scandir(folder, &entries, is_result_name, alphasort);
    if (count < 0) return cli_refuse("the folder '%s' cannot be read: %s", folder, strerror(errno));
    for (int i = 0; i < count; i++) {
        char path[PATH_BYTES], reason[160];
        struct stat about;
        bench_result result;
        const int length = snprintf(path, sizeof path, "%s/%s", folder, entries[i]->d_name), prefill = is_prefill(entries[i]->d_name);
        free(entries[i]);
        if (length >= (int)sizeof path || files->count == RESULTS_MOST || stat(path, &about) != 0) continue;
        if (prefill) {
            if (plot_prefill_load(&files->prefill, path, reason, sizeof reason) != 0) cli_say("%s: %s; left out", path, reason);
            continue;
        }
        if (bench_result_load(path, &result, reason, sizeof reason) != 0)
            cli_say("%s: %s; left out", path, reason);
        else
            insert_result(files, &result, (double)about.st_mtim.tv_sec + 1e-9 * (double)about.st_mtim.tv_nsec);
    }
    free(entries);
    return EXIT_DONE;
}

/* "speed-FILE-layer-1": letters, digits and dashes alone. */
static void stem_of(const char *kind, const bench_result *result, size_t number, char stem[PLOT_STEM_BYTES])
{
    char name[RESULT_TEXT_BYTES + 32], suffix[32] = "";
    if (strcmp(result->data, "recording") == 0)
        snprintf(name, sizeof name, "%.*s-layer-%" PRId64, (int)strcspn(result->file, "."), result->file, result->layer);
    else
        snprintf(name, sizeof name, "synthetic");
    for (char *c = name; *c; c++)
        if (!isascii((unsigned char)*c) || !isalnum((unsigned char)*c)) *c = '-';
    if (number > 1) snprintf(suffix, sizeof suffix, "-%zu", number);
    snprintf(stem, PLOT_STEM_BYTES, "%s-%.80s%s", kind, name, suffix);
}

/* Draws every scene; `stems` collects the names that were given. */
static int write_scenes(const char *folder, const char *kind, plot_writer *write, const plot_point *points, size_t count,
                        char stems[][PLOT_STEM_BYTES], size_t *stem_count)
{
    const size_t first = *stem_count;
    for (size_t at = 0; at < count && *stem_count < 2 * SCENES_MOST;) {
        const plot_span scene = plot_scene(points + at, count - at);
        char *stem = stems[*stem_count];
        int taken = 1;
        for (size_t number = 1; taken; number++) {
            stem_of(kind, scene.points[0].result, number, stem);
            taken = 0;
            for (size_t i = first; i < *stem_count; i++) taken |= strcmp(stems[i], stem) == 0;
        }
        if (write(folder, stem, scene) != EXIT_DONE) return EXIT_REFUSED;
        (*stem_count)++;
        at += scene.count;
    }
    return EXIT_DONE;
}

static int run_gnuplot(const char *folder, char stems[][PLOT_STEM_BYTES], size_t count)
{
    int status = EXIT_DONE;
    if (!external_exists("gnuplot")) {
        cli_say("gnuplot is not installed: the data files and scripts are written, the pictures are not");
        return EXIT_DONE;
    }
    for (size_t i = 0; i < count; i++) {
        char script[PLOT_STEM_BYTES + 4], program[] = "gnuplot", defaults[] = "-d";
        char *const argv[] = { program, defaults, script, NULL };
        snprintf(script, sizeof script, "%s.gp", stems[i]);
        if (external_run(folder, argv) != 0) status = cli_refuse("gnuplot failed on %s.gp", stems[i]);
    }
    return status;
}

/* Moves what was made into place, or removes it; then the working folder. */
static int empty_working_folder(const char *working, const char *folder, int keep, char stems[][PLOT_STEM_BYTES], size_t count)
{
    static const char *const SUFFIXES[] = { "tsv", "gp", "svg", "png" };
    int status = EXIT_DONE;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < sizeof SUFFIXES / sizeof *SUFFIXES; j++) {
            char from[2 * PATH_BYTES], to[2 * PATH_BYTES];
            snprintf(from, sizeof from, "%s/%s.%s", working, stems[i], SUFFIXES[j]);
            snprintf(to, sizeof to, "%s/%s.%s", folder, stems[i], SUFFIXES[j]);
            if (access(from, F_OK) != 0) continue;
            if (keep && rename(from, to) == 0)
                printf("%s\n", to);
            else if (unlink(from) != 0 || keep)
                status = cli_refuse("'%s' cannot be written: %s", to, strerror(errno));
        }
    rmdir(working);
    return status;
}

static int draw(plot_files *files, const char *folder)
{
    char working[PATH_BYTES];
    static char stems[2 * SCENES_MOST + 1][PLOT_STEM_BYTES];
    size_t count, stem_count = 0;
    plot_point *points = plot_points_of(files->results, files->count, &count);
    if (!points) return cli_refuse("there is no memory for the curves");
    if (snprintf(working, sizeof working, "%s/.plot-XXXXXX", folder) >= (int)sizeof working || !mkdtemp(working)) {
        free(points);
        return cli_refuse("the folder '%s' cannot be written to: %s", folder, strerror(errno));
    }
    plot_points_sort(points, &count, PLOT_BY_THRESHOLD);
    int status = write_scenes(working, "speed", plot_speed, points, count, stems, &stem_count);
    plot_points_sort(points, &count, PLOT_BY_CURVE);
    if (status == EXIT_DONE) status = write_scenes(working, "frontier", plot_frontier, points, count, stems, &stem_count);
    if (status == EXIT_DONE) status = plot_prefill_write(&files->prefill, working, stems, &stem_count, 2 * SCENES_MOST);
    if (status == EXIT_DONE) status = run_gnuplot(working, stems, stem_count);
    const int moved = empty_working_folder(working, folder, status == EXIT_DONE, stems, stem_count + (status != EXIT_DONE));
    free(points);
    return status == EXIT_DONE ? moved : status;
}

int cmd_plot(int argc, char **argv)
{
    const char *folders[FOLDERS_MOST];
    int folder_count = 0, status;
    const option options[] = { { 0 } };
    const command_line line = {
        .usage = "octavo plot DIR [DIR...]",
        .about = "Reads what bench decode --out and bench prefill --out kept in the folders and draws,\n"
                 "as SVG and PNG in the first of them: of decode time against length with the share of\n"
                 "skipped blocks, and error against bytes read; of prefill TFLOP/s and error against\n"
                 "length. Without gnuplot only the data files and scripts are written.\n",
        .options = options,
        .words_most = FOLDERS_MOST,
        .words = folders,
        .word_count = &folder_count,
    };
    if (options_parse(&line, argc, argv, &status) == OPTIONS_STOP) return status;
    if (folder_count == 0) return cli_refuse("a folder is missing, expected octavo plot DIR");
    plot_files files = { calloc(RESULTS_MOST, sizeof(bench_result)), calloc(RESULTS_MOST, sizeof(double)), 0, { 0 } };
    if (!files.results || !files.times) status = cli_refuse("there is no memory for the measurements");
    for (int i = 0; status == EXIT_DONE && i < folder_count; i++) status = load_folder(&files, folders[i]);
    if (status == EXIT_DONE && files.count == 0 && files.prefill.count == 0)
        status = cli_refuse("'%s' holds no measurement of octavo bench decode --out or bench prefill --out", folders[0]);
    if (status == EXIT_DONE) status = draw(&files, folders[0]);
    for (size_t i = 0; i < files.count; i++) bench_result_fini(&files.results[i]);
    plot_prefill_fini(&files.prefill);
    free(files.results);
    free(files.times);
    return status == EXIT_DONE ? cli_finish_output() : status;
}
