/* test_cli.c - the program: what it refuses, what it prints, what it keeps. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include "program_fixture.h"
#include "safetensors_fixture.h"

static char folder[FIXTURE_PATH_BYTES];
static printed result;

static int files_in(const char *path)
{
    int count = 0;
    DIR *directory = opendir(path);
    if (!directory) return -1;
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;) count += entry->d_name[0] != '.';
    closedir(directory);
    return count;
}

/* Status 2, one sentence on stderr that holds `fragment`, nothing on stdout. */
static void assert_refused(const char *line, const char *path, const char *fragment)
{
    program_run(line, path, &result);
    const size_t length = strlen(result.err);
    if (result.status != 2 || !strstr(result.err, fragment)) fail_msg("'%s': status %d, '%s'", line, result.status, result.err);
    assert_string_equal(result.out, "");
    assert_memory_equal(result.err, "octavo: ", 8);
    assert_ptr_equal(strchr(result.err, '\n'), result.err + length - 1);
}

static json_t *parse_output(void)
{
    json_error_t error;
    if (result.status != 0) fail_msg("status %d: %s", result.status, result.err);
    json_t *root = json_loads(result.out, JSON_REJECT_DUPLICATES, &error);
    if (!root) fail_msg("line %d: %s", error.line, error.text);
    return root;
}

static double number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value)) fail_msg("'%s' is no number", name);
    return json_number_value(value);
}

static void test_help(void **state)
{
    (void)state;
    static const char *const LINES[] = { "--help", "info --help", "bench --help", "bench decode --help", "plot --help", "bench decode -h --nonsense" };
    for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++) {
        program_run(LINES[i], NULL, &result);
        assert_int_equal(result.status, 0);
        assert_memory_equal(result.out, "usage: octavo ", 14);
        assert_string_equal(result.err, "");
    }
}

static void test_wrong_use(void **state)
{
    (void)state;
    static const struct {
        const char *line, *fragment;
    } CASES[] = {
        { "", "command is missing" },
        { "dance", "'dance'" },
        { "bench dance", "'dance'" },
        { "info --nonsense", "'--nonsense'" },
        { "info --json=1", "takes no value" },
        { "info extra", "'extra'" },
        { "bench decode", "--data FILE" },
        { "bench decode --synthetic tokens=64 --nonsense", "'--nonsense'" },
        { "bench decode --synthetic tokens=64 -x 3", "'-x'" },
        { "bench decode --synthetic tokens=64 --repeat", "--repeat needs a value" },
        { "bench decode --synthetic tokens=64 --repeat 3x", "'3x'" },
        { "bench decode --synthetic tokens=64 --repeat 0", "'0'" },
        { "bench decode --synthetic tokens=64 -t -1", "'-1'" },
        { "bench decode --synthetic tokens=64 --repeat 99999999999999999999", "99999999999999999999" },
        { "bench decode --synthetic tokens=64 --select mass --epsilon 0", "--epsilon is 0" },
        { "bench decode --synthetic tokens=64 --select mass --epsilon 1", "--epsilon is 1" },
        { "bench decode --synthetic tokens=64 --select mass --epsilon -0.1", "--epsilon is -0.1" },
        { "bench decode --synthetic tokens=64 --select mass --epsilon nan", "'nan'" },
        { "bench decode --synthetic tokens=64 --select delta --delta nan", "'nan'" },
        { "bench decode --synthetic tokens=64 --select delta --delta inf", "'inf'" },
        { "bench decode --synthetic tokens=64 --select delta --delta -1", "--delta is -1" },
        { "bench decode --synthetic tokens=64 --select best", "best" },
        { "bench decode --synthetic tokens=64 --cache-k e9m9", "e9m9" },
        { "bench decode --synthetic tokens=64 --cache-v int4x2", "int4x2" },
        { "bench decode --synthetic tokens=64 --compensate twice", "'twice'" },
        { "bench decode --synthetic tokens=64 --attention fp9", "'fp9'" },
        { "bench decode --synthetic tokens=64 --splits some", "splits is 'some', expected fill or fixed" },
        { "bench decode --synthetic tokens=64 --attention sage", "expected exact or fp8" },
        { "bench decode --synthetic tokens=64 --attention fp8 --cache-k int8x2 --select certified", "fp8 with select certified" },
        { "bench decode --synthetic tokens=64 --block 64 --sub-block 24", "--sub-block is 24" },
        { "bench decode --synthetic tokens=64 --block 0", "'0'" },
        { "bench decode --synthetic tokens=64 --cache-k e4m3 --select certified", "certified" },
        { "bench decode --synthetic tokens=64 --queries some", "'some'" },
        { "bench decode --synthetic tokens=64 --queries 2", "2 queries" },
        { "bench decode --synthetic tokens=64 --lengths 128", "128 tokens" },
        { "bench decode --synthetic tokens=64 --lengths 64:16:8", "FROM:TO:STEP" },
        { "bench decode --synthetic tokens=64 --lengths 8:64", "FROM:TO:STEP" },
        { "bench decode --synthetic tokens=64 --lengths 8,,9", "8,,9" },
        { "bench decode --synthetic tokens=64 --lengths 0", "'0'" },
        { "bench decode --synthetic tokens=64 --device cuda:7", "cuda:7" },
        { "bench decode --synthetic tokens=64 --data x --layer 1", "exclude" },
        { "bench decode --synthetic tokens=64 --layer 1", "--layer" },
        { "bench decode --data x", "--layer" },
        { "bench decode --synthetic tokens=0", "tokens '0'" },
        { "bench decode --synthetic tokens=64,tokens=64", "twice" },
        { "bench decode --synthetic tokens=64,colour=3", "'colour'" },
        { "bench decode --synthetic tokens", "'tokens'" },
        { "bench decode --synthetic tokens=64,hot=1.5", "'1.5'" },
        { "bench decode --synthetic tokens=64,q_heads=6,kv_heads=4", "multiple of kv_heads" },
        { "bench decode --synthetic tokens=64,batch=2 --batch 3", "batch=2" },
        { "bench decode --synthetic tokens=2147483647", "MiB are available" },
        { "bench decode --synthetic tokens=2147483647,batch=1024", "larger than can be addressed" },
        { "bench decode --synthetic tokens=2147483647,q_heads=65536,kv_heads=65536,head_dim=65536", "6553" },
        { "plot", "folder is missing" },
        { "plot /nonexistent-folder", "/nonexistent-folder" },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) assert_refused(CASES[i].line, NULL, CASES[i].fragment);
}

static const char LAYER_HEADER[] = "{\"layer_3.k_rope\":{\"dtype\":\"BF16\",\"shape\":[1,2,100,16],\"data_offsets\":[0,6400]},"
                                   "\"layer_3.q_rope\":{\"dtype\":\"BF16\",\"shape\":[1,4,5,16],\"data_offsets\":[6400,7040]},"
                                   "\"layer_3.v\":{\"dtype\":\"BF16\",\"shape\":[1,2,100,16],\"data_offsets\":[7040,13440]}}";
enum { LAYER_BYTES = 13440 };

/* Finite bf16 values of both signs around 1. */
static void write_recording(const char *path, const char *header, size_t data_bytes)
{
    fixture file = fixture_make(header, data_bytes);
    uint8_t *data = file.bytes + file.size - data_bytes;
    uint32_t random = 1;
    for (size_t i = 0; i + 1 < data_bytes; i += 2) {
        random = random * 1664525u + 1013904223u;
        data[i] = (uint8_t)(random >> 24);
        data[i + 1] = (uint8_t)(0x3f | (random >> 16 & 0x80));
    }
    write_file(path, file.bytes, file.size);
    free(file.bytes);
}

static void assert_file_refused(const char *header, size_t data_bytes, size_t shorter_by, const char *fragment)
{
    char path[2 * FIXTURE_PATH_BYTES], line[4 * FIXTURE_PATH_BYTES], out[2 * FIXTURE_PATH_BYTES];
    snprintf(path, sizeof path, "%s/bad.safetensors", folder);
    snprintf(out, sizeof out, "%s/never", folder);
    fixture file = fixture_make(header, data_bytes);
    write_file(path, file.bytes, file.size - shorter_by);
    free(file.bytes);
    snprintf(line, sizeof line, "bench decode --data @ --layer 3 --out %s", out);
    assert_refused(line, path, fragment);
    assert_int_equal(files_in(out), -1);
    unlink(path);
}

static void test_bad_files(void **state)
{
    (void)state;
    char path[2 * FIXTURE_PATH_BYTES];
    snprintf(path, sizeof path, "%s/missing.safetensors", folder);
    assert_refused("bench decode --data @ --layer 3", path, "missing.safetensors");
    write_file(path, "", 0);
    assert_refused("bench decode --data @ --layer 3", path, "missing.safetensors");
    unlink(path);
    assert_file_refused(LAYER_HEADER, LAYER_BYTES, 1, "bad.safetensors");                /* truncated */
    assert_file_refused(LAYER_HEADER, LAYER_BYTES, LAYER_BYTES + 20, "bad.safetensors"); /* in its header */
    assert_file_refused("{\"layer_3.v\":{\"dtype\":\"BF16\",\"shape\":[1,2,100,16],\"data_offsets\":[0,6402]}}", 6402, 0, "layer_3.v"); /* lying */
    assert_file_refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
                        4, 0, "bad.safetensors"); /* duplicate keys */
    assert_file_refused("{\"layer_2.v\":{\"dtype\":\"BF16\",\"shape\":[1,2,100,16],\"data_offsets\":[0,6400]}}", 6400, 0, "layer 3");
    assert_file_refused("{\"layer_3.k_rope\":{\"dtype\":\"I16\",\"shape\":[1,2,100,16],\"data_offsets\":[0,6400]},"
                        "\"layer_3.q_rope\":{\"dtype\":\"I16\",\"shape\":[1,4,5,16],\"data_offsets\":[6400,7040]},"
                        "\"layer_3.v\":{\"dtype\":\"I16\",\"shape\":[1,2,100,16],\"data_offsets\":[7040,13440]}}",
                        LAYER_BYTES, 0, "I16");
    assert_file_refused("{\"layer_3.k_rope\":{\"dtype\":\"BF16\",\"shape\":[1,2,100,16],\"data_offsets\":[0,6400]},"
                        "\"layer_3.q_rope\":{\"dtype\":\"BF16\",\"shape\":[1,5,4,16],\"data_offsets\":[6400,7040]},"
                        "\"layer_3.v\":{\"dtype\":\"BF16\",\"shape\":[1,2,100,16],\"data_offsets\":[7040,13440]}}",
                        LAYER_BYTES, 0, "layer_3.q_rope"); /* five heads over two */
}

static void test_unwritable_folder(void **state)
{
    (void)state;
    assert_refused("bench decode --synthetic tokens=64 --out /dev/null/x", NULL, "/dev/null/x");
    assert_refused("bench decode --synthetic tokens=64 --out /dev/null", NULL, "/dev/null");
    assert_refused("bench decode --synthetic tokens=64 --out /nonexistent-folder/deeper", NULL, "/nonexistent-folder/deeper");
}

static void check_row(const json_t *row, double tokens)
{
    static const char *const NAMES[] = { "ms", "gbps", "read_share", "rel_error", "rel_error_max", "cosine", "max_error", "baseline_ms",
                                         "skip_ratio", "dropped_mass_bound", "bytes" };
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++) assert_true(isfinite(number(row, NAMES[i])));
    assert_true(number(row, "tokens") == tokens);
    assert_true(number(row, "ms") > 0 && number(row, "baseline_ms") > 0 && number(row, "gbps") > 0);
    assert_true(number(row, "rel_error") <= number(row, "rel_error_max"));
    assert_true(number(row, "baseline_rel_error") < 1e-5);
}

/* A recording, several lengths, all queries; e4m3x2 holds bf16 so closely that only float32 rounding is left. */
static void test_measure_recording(void **state)
{
    (void)state;
    char path[2 * FIXTURE_PATH_BYTES];
    snprintf(path, sizeof path, "%s/layer.safetensors", folder);
    write_recording(path, LAYER_HEADER, LAYER_BYTES);
    program_run("bench decode --data @ --layer 3 --lengths 20:100:40 --queries all --block 16 --repeat 1 -t 1 --json", path, &result);
    json_t *root = parse_output();
    const json_t *rows = json_object_get(root, "results"), *settings = json_object_get(root, "settings");
    assert_int_equal(json_array_size(rows), 3);
    for (size_t i = 0; i < 3; i++) {
        check_row(json_array_get(rows, i), (double)(20 + 40 * i));
        assert_true(number(json_array_get(rows, i), "rel_error") < 5e-6);
        assert_true(number(json_array_get(rows, i), "skip_ratio") == 0);
    }
    assert_true(number(root, "read_gbps") > 0);
    assert_true(json_is_false(json_object_get(root, "cached")));
    assert_true(number(settings, "queries") == 5 && number(settings, "layer") == 3 && number(settings, "kv_heads") == 2);
    assert_string_equal(json_string_value(json_object_get(settings, "file")), "layer.safetensors");
    json_decref(root);
    assert_refused("bench decode --data @ --layer 3 --queries 6", path, "6 queries");
    assert_refused("bench decode --data @ --layer 3 --lengths 101", path, "101 tokens");
    assert_refused("bench decode --data @ --layer 3 --lengths 3 --queries 4", path, "4 queries");
    unlink(path);
}

static char *only_file(const char *path)
{
    static char name[4 * FIXTURE_PATH_BYTES];
    DIR *directory = opendir(path);
    for (struct dirent *entry; (entry = readdir(directory)) != NULL;)
        if (entry->d_name[0] != '.') snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
    closedir(directory);
    return name;
}

static double kept_ms(const char *line, const char *path, int expect_cached)
{
    program_run(line, path, &result);
    json_t *root = parse_output();
    assert_int_equal(json_is_true(json_object_get(root, "cached")), expect_cached);
    const double ms = number(json_array_get(json_object_get(root, "results"), 0), "ms");
    json_decref(root);
    return ms;
}

/* The second run reads the first one's result back; other settings, --fresh and a damaged file measure again. */
static void test_kept_results(void **state)
{
    (void)state;
    static const char LINE[] = "bench decode --synthetic batch=2,tokens=300,q_heads=4,kv_heads=2,head_dim=32 --repeat 1 -t 1 --json --out @ "
                               "--cache-k int4x2 --cache-v int8 --select mass --compensate mean --block 32";
    char out[2 * FIXTURE_PATH_BYTES], fresh[1024];
    snprintf(out, sizeof out, "%s/kept", folder);
    const double ms = kept_ms(LINE, out, 0);
    assert_int_equal(files_in(out), 1);
    assert_true(fabs(kept_ms(LINE, out, 1) - ms) <= 1e-7 * ms);
    assert_non_null(strstr(result.err, "read back"));
    snprintf(fresh, sizeof fresh, "%s --fresh", LINE);
    kept_ms(fresh, out, 0);
    assert_int_equal(files_in(out), 1);

    const char *kept = only_file(out);
    write_file(kept, "{\"schema\":", 10);
    kept_ms(LINE, out, 0);
    assert_non_null(strstr(result.err, "measuring again"));
    kept_ms(LINE, out, 1);

    snprintf(fresh, sizeof fresh, "%s --epsilon 0.2", LINE);
    kept_ms(fresh, out, 0);
    assert_int_equal(files_in(out), 2);

    program_run_in("plot @", out, "/nonexistent-folder", &result);
    assert_int_equal(result.status, 0);
    assert_non_null(strstr(result.err, "gnuplot is not installed"));
    assert_non_null(strstr(result.out, "frontier-synthetic.tsv"));
    assert_non_null(strstr(result.out, "speed-synthetic.gp"));
    assert_int_equal(files_in(out), 6);
}

/* Prefill is measured in every precision, kept, and drawn beside decode. */
static void test_prefill(void **state)
{
    (void)state;
    char out[2 * FIXTURE_PATH_BYTES], line[3 * FIXTURE_PATH_BYTES];
    snprintf(out, sizeof out, "%s/prefill-XXXXXX", folder);
    assert_non_null(mkdtemp(out));
    snprintf(line, sizeof line, "bench prefill --tokens 64,150 --q-heads 4 --kv-heads 2 --head-dim 64 --repeat 1 --layout hnd,pages --json --out %s", out);
    program_run(line, NULL, &result);
    json_t *root = parse_output(), *row;
    size_t index;
    assert_int_equal(json_array_size(json_object_get(root, "results")), 16);
    json_array_foreach(json_object_get(root, "results"), index, row) {
        assert_string_equal(json_string_value(json_object_get(row, "layout")), index % 8 < 4 ? "hnd" : "pages");
        assert_true(number(row, "tflops") > 0 && number(row, "tflops_with_quantisation") > 0 && number(row, "lse_error") < 0.2);
        assert_true(number(row, "rel_error") > 0 && number(row, "rel_error") <= (index % 4 == 0 ? 0.004 : 0.06));
    }
    json_decref(root);
    assert_int_equal(files_in(out), 1);
    program_run_in("plot @", out, "/nonexistent-folder", &result);
    assert_int_equal(result.status, 0);
    assert_non_null(strstr(result.out, "prefill.tsv"));
    assert_int_equal(files_in(out), 3);
    program_run("bench prefill --tokens 64 --q-heads 2 --kv-heads 1 --head-dim 64 --repeat 1 --samples 2 --precision sage1 --f16-sums", NULL, &result);
    assert_int_equal(result.status, 0);
    assert_non_null(strstr(result.out, "sums in f16"));
    assert_refused("bench prefill --precision int4", NULL, "int4");
    assert_refused("bench prefill --q-heads 6 --kv-heads 4", NULL, "multiple");
    assert_refused("bench prefill --layout nhd --cache-k e4m3", NULL, "pages");
    assert_refused("bench prefill --layout pages,rows", NULL, "rows");
    assert_refused("bench prefill --layout nhd,hnd,pages,nhd", NULL, "layouts");
    assert_refused("bench prefill --tokens 10 --keys 9", NULL, "causal");
}

/* Its reference has the cap, too. */
static void test_prefill_capped(void **state)
{
    (void)state;
    program_run("bench prefill --tokens 64 --q-heads 2 --kv-heads 1 --head-dim 64 --repeat 1 --precision exact --soft-cap 0.5 --json", NULL, &result);
    json_t *root = parse_output();
    const json_t *row = json_array_get(json_object_get(root, "results"), 0);
    assert_true(number(json_object_get(root, "settings"), "soft_cap") == 0.5);
    assert_true(number(row, "rel_error") > 0 && number(row, "rel_error") <= 0.004 && number(row, "lse_error") < 0.01);
    json_decref(root);
}

static void test_plot_of_nothing(void **state)
{
    (void)state;
    char out[2 * FIXTURE_PATH_BYTES], path[3 * FIXTURE_PATH_BYTES];
    snprintf(out, sizeof out, "%s/empty-XXXXXX", folder);
    assert_non_null(mkdtemp(out));
    assert_refused("plot @", out, "holds no measurement");
    snprintf(path, sizeof path, "%s/decode-0.json", out);
    write_file(path, "[]", 2);
    program_run("plot @", out, &result);
    assert_int_equal(result.status, 2);
    assert_non_null(strstr(result.err, "left out"));
    assert_int_equal(files_in(out), 1);
}

static void test_info(void **state)
{
    (void)state;
    program_run("info", NULL, &result);
    assert_int_equal(result.status, 0);
    assert_memory_equal(result.out, "octavo 0.", 9);
    program_run("info --json", NULL, &result);
    json_t *root = parse_output();
    int chosen = 0;
    size_t index;
    json_t *level;
    json_array_foreach(json_object_get(root, "isa_levels"), index, level) {
        const int is_chosen = json_is_true(json_object_get(level, "chosen"));
        chosen += is_chosen;
        if (is_chosen) assert_true(json_is_true(json_object_get(level, "available")));
    }
    assert_int_equal(chosen, 1);
    assert_true(number(root, "threads") >= 1 && number(root, "llc_bytes") > 0);
    assert_int_equal(strlen(json_string_value(json_object_get(root, "build_id"))), 16);
    json_decref(root);
    setenv("OCTAVO_ISA", "generic", 1);
    program_run("info --json", NULL, &result);
    root = parse_output();
    assert_string_equal(json_string_value(json_object_get(root, "isa")), "generic");
    json_decref(root);
    setenv("OCTAVO_ISA", "mmx", 1);
    assert_refused("info", NULL, "mmx");
    unsetenv("OCTAVO_ISA");
}

static int make_working_folder(void **state)
{
    (void)state;
    make_folder(folder);
    return 0;
}

static int remove_working_folder(void **state)
{
    (void)state;
    char name[] = "rm", option[] = "-rf";
    char *const argv[] = { name, option, folder, NULL };
    const pid_t child = fork();
    if (child == 0) {
        execvp(argv[0], argv);
        _exit(127);
    }
    return waitpid(child, NULL, 0) == child ? 0 : -1;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_bad_files),
        cmocka_unit_test(test_unwritable_folder),
        cmocka_unit_test(test_measure_recording),
        cmocka_unit_test(test_kept_results),
        cmocka_unit_test(test_prefill),
        cmocka_unit_test(test_prefill_capped),
        cmocka_unit_test(test_plot_of_nothing),
        cmocka_unit_test(test_info),
    };
    if (!program_path()) {
        fprintf(stderr, "skipped: OCTAVO_PROGRAM does not name the program\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, make_working_folder, remove_working_folder);
}
