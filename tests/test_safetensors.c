/* test_safetensors.c - the reader takes what the format allows and refuses the rest; what the writer writes comes back. */
#define _GNU_SOURCE 1
#include "octavo/safetensors.h"
#include "safetensors_fixture.h"
#include "temporary.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define A "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
#define T(name, dtype, shape, offsets) "\"" name "\":{\"dtype\":\"" dtype "\",\"shape\":" shape ",\"data_offsets\":" offsets "}"
#define LENGTH(list) (sizeof(list) / sizeof *(list))

static char folder[TEMPORARY_BYTES];
static char path[TEMPORARY_BYTES + 64];

static int make_folder(void **state)
{
    (void)state;
    return temporary_folder(folder);
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder);
}

static const char *in_folder(const char *name)
{
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void write_bytes(const char *to, const void *bytes, size_t size)
{
    FILE *file = fopen(to, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, size, file), size);
    assert_int_equal(fclose(file), 0);
}

static void assert_sentence(const char *fragment)
{
    if (!strstr(octavo_last_error(), fragment)) fail_msg("'%s' does not say '%s'", octavo_last_error(), fragment);
}

/* fragment NULL: accepted. */
static void check_open(fixture f, octavo_status want, const char *fragment)
{
    octavo_safetensors *file = (octavo_safetensors *)&f;
    const octavo_status status = octavo_safetensors_open_memory(f.bytes, f.size, &file);
    if (status != want) fail_msg("status %d, expected %d with '%s'; last error '%s'", status, want, fragment ? fragment : "", octavo_last_error());
    if (fragment) {
        assert_null(file);
        assert_sentence(fragment);
    }
    octavo_safetensors_close(file);
    free(f.bytes);
}

static void refuses_contradictions(void **state)
{
    (void)state;
    static const struct { const char *header; size_t data_bytes; const char *fragment; } CASES[] = {
        { "[1,2]", 0, "not a JSON object" },
        { "", 0, "not a JSON object" },
        { " {}", 0, "not a JSON object" },
        { "{", 0, "refused at byte" },
        { "{} {}", 0, "refused at byte" },
        { "{\"a\":1e999}", 0, "refused at byte" },
        { "{\"\xff\":{}}", 0, "refused at byte" },
        { "{\"a\\u0000b\":{}}", 0, "refused at byte" },
        { "{" A "," A "}", 8, "duplicate" },
        { "{\"a\":{\"dtype\":\"U8\",\"dtype\":\"U8\",\"shape\":[0],\"data_offsets\":[0,0]}}", 0, "duplicate" },
        { "{\"a\":1}", 0, "'a' is not described by an object" },
        { "{\"a\":{}}", 0, "no dtype" },
        { "{\"a\":{\"dtype\":7}}", 0, "no dtype" },
        { "{" T("a", "F7", "[1]", "[0,4]") "}", 4, "unknown dtype 'F7'" },
        { "{" T("a", "F32", "2", "[0,8]") "}", 8, "no shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "no shape" },
        { "{" T("a", "F32", "[2,-1]", "[0,8]") "}", 8, "entry 1 is not a whole number" },
        { "{" T("a", "F32", "[2.0]", "[0,8]") "}", 8, "entry 0 is not a whole number" },
        { "{" T("a", "F32", "[\"2\"]", "[0,8]") "}", 8, "entry 0 is not a whole number" },
        { "{" T("a", "F32", "[9223372036854775808]", "[0,8]") "}", 8, "refused at byte" },
        { "{" T("a", "F32", "[4294967296,4294967296]", "[0,0]") "}", 0, "product overflows" },
        { "{" T("a", "F32", "[0,4294967296,4294967296]", "[0,0]") "}", 0, "product overflows" },
        { "{" T("a", "F32", "[4611686018427387904]", "[0,0]") "}", 0, "bytes overflow" },
        { "{" T("a", "F32", "[2]", "[0,4]") "}", 4, "4 bytes of data, expected 2 elements of F32" },
        { "{" T("a", "F32", "[2]", "[0,9]") "}", 9, "9 bytes of data" },
        { "{" T("a", "F4", "[3]", "[0,1]") "}", 1, "expected 3 elements of F4" },
        { "{" T("a", "F32", "[2]", "[0,8]") "}", 7, "within the file's 7 bytes" },
        { "{" T("a", "F32", "[2]", "[8,0]") "}", 8, "data_offsets 8 to 0" },
        { "{" T("a", "F32", "[2]", "[-8,0]") "}", 8, "data_offsets -8 to 0" },
        { "{" T("a", "F32", "[2]", "[9223372036854775800,9223372036854775807]") "}", 8, "data_offsets 9223372036854775800" },
        { "{" T("a", "F32", "[2]", "[0]") "}", 8, "no data_offsets" },
        { "{" T("a", "F32", "[2]", "[0,8,8]") "}", 8, "no data_offsets" },
        { "{" T("a", "F32", "[2]", "[0,8.0]") "}", 8, "no data_offsets" },
        { "{" T("a", "F32", "[2]", "\"0,8\"") "}", 8, "no data_offsets" },
        { "{" A "," T("b", "F32", "[2]", "[4,12]") "}", 12, "'a' and 'b' overlap" },
        { "{" A "," T("b", "F32", "[2]", "[0,8]") "}", 8, "overlap" },
        { "{" A "," T("b", "F32", "[0]", "[4,4]") "}", 8, "'a' and 'b' overlap" },
        { "{" A "," T("b", "F32", "[2]", "[12,20]") "}", 20, "4 bytes of data before 'b'" },
        { "{" T("b", "F32", "[2]", "[8,16]") "}", 16, "8 bytes of data before 'b'" },
        { "{" A "}", 11, "3 bytes after the last tensor" },
        { "{}", 1, "1 bytes after the last tensor" },
        { "{\"__metadata__\":7}", 0, "__metadata__ is not an object" },
        { "{\"__metadata__\":{\"k\":7}}", 0, "'k' is not a string" },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++)
        check_open(fixture_make_aligned(CASES[i].header, CASES[i].data_bytes, 1), OCTAVO_E_FORMAT, CASES[i].fragment);
}

static void refuses_what_is_no_header(void **state)
{
    (void)state;
    octavo_safetensors *file;
    static const uint8_t HUGE_HEADER[16] = { 1, 0xe1, 0xf5, 5, [8] = '{', '}' }; /* 100 000 001 */
    static const uint8_t LONG_HEADER[16] = { 9, [8] = '{', '}' };
    assert_int_equal(octavo_safetensors_open_memory(NULL, 0, &file), OCTAVO_E_FORMAT);
    assert_sentence("too few");
    assert_int_equal(octavo_safetensors_open_memory(HUGE_HEADER, 16, &file), OCTAVO_E_FORMAT);
    assert_sentence("100000001 bytes, expected at most 100000000");
    assert_int_equal(octavo_safetensors_open_memory(LONG_HEADER, 16, &file), OCTAVO_E_FORMAT);
    assert_sentence("header of 9 bytes, but the file has only 16");
    assert_int_equal(octavo_safetensors_open_memory(NULL, 1, &file), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_safetensors_open_memory(LONG_HEADER, 16, NULL), OCTAVO_E_ARGUMENT);
}

static void refuses_deep_nesting(void **state)
{
    (void)state;
    enum { DEPTH = 100000 };
    char *header = malloc(2 * DEPTH + 16);
    memcpy(header, "{\"a\":", 5);
    memset(header + 5, '[', DEPTH);
    memset(header + 5 + DEPTH, ']', DEPTH);
    memcpy(header + 5 + 2 * DEPTH, "}", 2);
    check_open(fixture_make(header, 0), OCTAVO_E_FORMAT, "depth");
    free(header);
}

static void refuses_every_truncation(void **state)
{
    (void)state;
    const fixture whole = fixture_make("{" A "," T("b", "U8", "[3]", "[8,11]") "}", 11);
    for (size_t size = 0; size < whole.size; size++) {
        fixture cut = { malloc(size + 1), size };
        memcpy(cut.bytes, whole.bytes, size);
        check_open(cut, OCTAVO_E_FORMAT, "safetensors in memory: ");
    }
    check_open(whole, OCTAVO_OK, NULL);
}

static void gives_views(void **state)
{
    (void)state;
    /* Neither names nor data in order; a scalar; an empty tensor. */
    fixture f = fixture_make("{" T("z", "BF16", "[2,3]", "[8,20]") ",\"__metadata__\":{\"layout\":\"q\",\"\":\"empty\"}," A ","
                             T("m.s", "F8_E4M3", "[]", "[20,21]") "," T("e", "F64", "[4,0,2]", "[0,0]") "}", 21);
    octavo_safetensors *file = NULL;
    octavo_tensor t;
    assert_int_equal(octavo_safetensors_open_memory(f.bytes, f.size, &file), OCTAVO_OK);
    static const char *const NAMES[] = { "a", "e", "m.s", "z" };
    assert_int_equal(octavo_safetensors_count(file), 4);
    for (size_t i = 0; i < 4; i++) assert_string_equal(octavo_safetensors_name(file, i), NAMES[i]);
    assert_null(octavo_safetensors_name(file, 4));
    assert_string_equal(octavo_safetensors_metadata(file, "layout"), "q");
    assert_string_equal(octavo_safetensors_metadata(file, ""), "empty");
    assert_null(octavo_safetensors_metadata(file, "a"));
    assert_string_equal(octavo_safetensors_dtype(file, "m.s"), "F8_E4M3");
    assert_null(octavo_safetensors_dtype(file, "__metadata__"));

    assert_int_equal(octavo_safetensors_find(file, "z", &t), OCTAVO_OK);
    assert_int_equal(t.dtype, OCTAVO_BF16);
    assert_int_equal(t.ndim, 2);
    assert_true(t.shape[0] == 2 && t.shape[1] == 3 && t.strides[0] == 3 && t.strides[1] == 1);
    assert_ptr_equal(t.data, f.bytes + f.size - 21 + 8);
    assert_int_equal(octavo_safetensors_find(file, "m.s", &t), OCTAVO_OK);
    assert_int_equal(t.ndim, 0);
    assert_int_equal(*(uint8_t *)t.data, 20);
    assert_int_equal(octavo_safetensors_find(file, "e", &t), OCTAVO_OK);
    assert_true(t.shape[0] == 4 && t.shape[1] == 0 && t.shape[2] == 2);

    assert_int_equal(octavo_safetensors_find(file, "b", &t), OCTAVO_E_RANGE);
    assert_sentence("has no tensor 'b'");
    assert_int_equal(octavo_safetensors_find(file, NULL, &t), OCTAVO_E_ARGUMENT);
    octavo_safetensors_close(file);
    free(f.bytes);
    octavo_safetensors_close(NULL);
    check_open(fixture_make("{}", 0), OCTAVO_OK, NULL);
}

static void knows_all_dtypes(void **state)
{
    (void)state;
    static const struct { const char *name; octavo_dtype dtype; size_t bytes; } TYPES[] = {
        { "F64", OCTAVO_F64, 8 }, { "F32", OCTAVO_F32, 4 }, { "F16", OCTAVO_F16, 2 }, { "BF16", OCTAVO_BF16, 2 },
        { "F8_E4M3", OCTAVO_E4M3, 1 }, { "F8_E5M2", OCTAVO_E5M2, 1 }, { "I8", OCTAVO_INT8, 1 }, { "U8", OCTAVO_UINT8, 1 },
        { "I32", OCTAVO_INT32, 4 }, { "I64", OCTAVO_INT64, 8 },
        { "I16", 0, 2 }, { "U16", 0, 2 }, { "U32", 0, 4 }, { "U64", 0, 8 }, { "BOOL", 0, 1 }, { "C64", 0, 8 },
    };
    for (size_t i = 0; i < LENGTH(TYPES); i++) {
        char header[160];
        octavo_safetensors *file;
        octavo_tensor t;
        snprintf(header, sizeof header, "{" T("a", "%s", "[2]", "[0,%zu]") "}", TYPES[i].name, 2 * TYPES[i].bytes);
        fixture f = fixture_make(header, 2 * TYPES[i].bytes);
        assert_int_equal(octavo_safetensors_open_memory(f.bytes, f.size, &file), OCTAVO_OK);
        assert_string_equal(octavo_safetensors_dtype(file, "a"), TYPES[i].name);
        if (TYPES[i].dtype) {
            assert_int_equal(octavo_safetensors_find(file, "a", &t), OCTAVO_OK);
            assert_int_equal(t.dtype, TYPES[i].dtype);
        } else {
            assert_int_equal(octavo_safetensors_find(file, "a", &t), OCTAVO_E_UNSUPPORTED);
            assert_sentence(TYPES[i].name);
        }
        octavo_safetensors_close(file);
        free(f.bytes);
    }
}

static void lists_what_it_cannot_view(void **state)
{
    (void)state;
    octavo_safetensors *file;
    octavo_tensor t;
    fixture f = fixture_make_aligned("{" T("a", "U8", "[1]", "[0,1]") "," T("b", "BF16", "[2]", "[1,5]") ","
                                     T("c", "U8", "[1,1,1,1,1,1,1]", "[5,6]") "," T("d", "F4", "[2,2]", "[6,8]") "}", 8, 8);
    assert_int_equal(octavo_safetensors_open_memory(f.bytes, f.size, &file), OCTAVO_OK);
    assert_int_equal(octavo_safetensors_count(file), 4);
    assert_int_equal(octavo_safetensors_find(file, "b", &t), OCTAVO_E_UNSUPPORTED);
    assert_sentence("expected a multiple of BF16's 2 bytes");
    assert_int_equal(octavo_safetensors_find(file, "c", &t), OCTAVO_E_UNSUPPORTED);
    assert_sentence("7 dimensions, expected at most 6");
    assert_int_equal(octavo_safetensors_find(file, "d", &t), OCTAVO_E_UNSUPPORTED);
    octavo_safetensors_close(file);
    free(f.bytes);
}

static void refuses_paths(void **state)
{
    (void)state;
    octavo_safetensors *file = (octavo_safetensors *)path;
    assert_int_equal(octavo_safetensors_open(in_folder("missing"), &file), OCTAVO_E_IO);
    assert_null(file);
    assert_sentence("missing");
    assert_int_equal(octavo_safetensors_open(folder, &file), OCTAVO_E_IO);
    assert_sentence(folder);
    assert_int_equal(octavo_safetensors_open("/dev/null", &file), OCTAVO_E_IO);
    assert_int_equal(octavo_safetensors_open(NULL, &file), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_safetensors_open(path, NULL), OCTAVO_E_ARGUMENT);
    write_bytes(in_folder("empty"), "", 0);
    assert_int_equal(octavo_safetensors_open(path, &file), OCTAVO_E_FORMAT);
    assert_sentence("empty");
    unlink(path);
    write_bytes(in_folder("short"), "\x20\0\0\0\0\0\0\0{}", 10);
    assert_int_equal(octavo_safetensors_open(path, &file), OCTAVO_E_FORMAT);
    assert_sentence("/short: claims a header of 32 bytes");
    unlink(path);
}

/* A path longer than a sentence has room for is named by its end. */
static void shortens_long_paths(void **state)
{
    (void)state;
    octavo_safetensors *file;
    char name[256];
    memset(name, 'n', sizeof name);
    snprintf(name + 200, 16, "/%s", "x.safetensors");
    memcpy(name, folder, strlen(folder));
    name[strlen(folder)] = '/';
    char *slash = strrchr(name, '/');
    *slash = 0;
    assert_int_equal(mkdir(name, 0700), 0);
    *slash = '/';
    write_bytes(name, "short", 5);
    assert_int_equal(octavo_safetensors_open(name, &file), OCTAVO_E_FORMAT);
    assert_sentence("/x.safetensors: has 5 bytes");
    assert_int_equal(strncmp(octavo_last_error(), "...nnn", 6), 0);
    assert_true(strlen(octavo_last_error()) < 256);
    unlink(name);
    *slash = 0;
    rmdir(name);
}

static octavo_status write_two(const char *to, const char *first, const char *second, octavo_tensor x, octavo_tensor y)
{
    const char *const names[] = { first, second };
    const octavo_tensor tensors[] = { x, y };
    static const octavo_safetensors_pair METADATA[] = { { "what", "a \"test\"\n" }, { "licence", "none" } };
    octavo_safetensors_write_params p = OCTAVO_SAFETENSORS_WRITE_PARAMS_INIT;
    p.count = 2, p.names = names, p.tensors = tensors, p.metadata_count = 2, p.metadata = METADATA;
    return octavo_safetensors_write(to, &p);
}

static uint8_t bytes_of_x[3] = { 1, 2, 3 };
static double values_of_y[4] = { 1.5, -2.5, 3.5, 4.5 };
static octavo_tensor tensor_x(void) { return octavo_tensor_view(bytes_of_x, OCTAVO_UINT8, 1, (const int64_t[]){ 3 }); }
static octavo_tensor tensor_y(void) { return octavo_tensor_view(values_of_y, OCTAVO_F64, 2, (const int64_t[]){ 2, 2 }); }

static void reads_what_it_wrote(void **state)
{
    (void)state;
    octavo_safetensors *file;
    octavo_tensor t;
    for (int pass = 0; pass < 2; pass++) { /* the second replaces the first */
        values_of_y[0] += 1;
        assert_int_equal(write_two(in_folder("two"), "x \xc3\xa9", "y", tensor_x(), tensor_y()), OCTAVO_OK);
    }
    assert_int_equal(octavo_safetensors_open(path, &file), OCTAVO_OK);
    assert_int_equal(octavo_safetensors_count(file), 2);
    assert_string_equal(octavo_safetensors_metadata(file, "what"), "a \"test\"\n");
    assert_int_equal(octavo_safetensors_find(file, "y", &t), OCTAVO_OK);
    assert_true(t.dtype == OCTAVO_F64 && t.ndim == 2 && t.shape[0] == 2 && t.shape[1] == 2);
    assert_int_equal((uintptr_t)t.data % 64, 0);
    assert_memory_equal(t.data, values_of_y, sizeof values_of_y);
    assert_int_equal(octavo_safetensors_find(file, "x \xc3\xa9", &t), OCTAVO_OK);
    assert_memory_equal(t.data, bytes_of_x, sizeof bytes_of_x);
    octavo_safetensors_close(file);
    unlink(path);
}

static void writer_refuses(void **state)
{
    (void)state;
    octavo_tensor strided = tensor_y(), no_data = tensor_y(), no_type = tensor_y(), far = tensor_y(), negative = tensor_y();
    strided.strides[0] = 3;
    no_data.data = NULL;
    no_type.dtype = 99;
    far.device_kind = OCTAVO_DEVICE_CUDA;
    negative.shape[0] = -2;
    const octavo_tensor invalid = octavo_tensor_view(NULL, OCTAVO_UINT8, 7, NULL);
    const struct { const char *first, *second; octavo_tensor y; octavo_status status; const char *fragment; } cases[] = {
        { "a", "a", tensor_y(), OCTAVO_E_ARGUMENT, "'a' twice" },
        { "a", "__metadata__", tensor_y(), OCTAVO_E_ARGUMENT, "reserves" },
        { "a", "\xff", tensor_y(), OCTAVO_E_ARGUMENT, "not UTF-8" },
        { "a", NULL, tensor_y(), OCTAVO_E_ARGUMENT, "NULL" },
        { "a", "b", strided, OCTAVO_E_UNSUPPORTED, "'b' is strided" },
        { "a", "b", no_data, OCTAVO_E_ARGUMENT, "'b' has no data" },
        { "a", "b", no_type, OCTAVO_E_ARGUMENT, "'b' has no valid dtype" },
        { "a", "b", far, OCTAVO_E_UNSUPPORTED, "'b' is on a device" },
        { "a", "b", negative, OCTAVO_E_SHAPE, "'b' has a negative size" },
        { "a", "b", invalid, OCTAVO_E_SHAPE, "'b' has -1 dimensions" },
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        assert_int_equal(write_two(in_folder("no"), cases[i].first, cases[i].second, tensor_x(), cases[i].y), cases[i].status);
        assert_sentence(cases[i].fragment);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    assert_int_equal(write_two(in_folder("none/no"), "a", "b", tensor_x(), tensor_y()), OCTAVO_E_IO);
    assert_int_equal(write_two(folder, "a", "b", tensor_x(), tensor_y()), OCTAVO_E_IO);
    octavo_safetensors_write_params p = OCTAVO_SAFETENSORS_WRITE_PARAMS_INIT;
    assert_int_equal(octavo_safetensors_write(NULL, &p), OCTAVO_E_ARGUMENT);
    p.count = 1;
    assert_int_equal(octavo_safetensors_write(path, &p), OCTAVO_E_ARGUMENT);
    p.struct_size = 1;
    assert_int_equal(octavo_safetensors_write(path, &p), OCTAVO_E_VERSION);
}

/* A file by the official library. */
static void reads_a_real_model(void **state)
{
    (void)state;
    const char *shared = getenv("OCTAVO_SHARED");
    char model[512];
    octavo_safetensors *file;
    octavo_tensor t;
    snprintf(model, sizeof model, "%s/models/pycode-32m/model.safetensors", shared ? shared : "../shared");
    if (access(model, R_OK) != 0) {
        print_message("skipped: '%s' is not there\n", model);
        skip();
    }
    assert_int_equal(octavo_safetensors_open(model, &file), OCTAVO_OK);
    assert_true(octavo_safetensors_count(file) > 10);
    for (size_t i = 0; i < octavo_safetensors_count(file); i++)
        assert_int_equal(octavo_safetensors_find(file, octavo_safetensors_name(file, i), &t), OCTAVO_OK);
    octavo_safetensors_close(file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_contradictions),   cmocka_unit_test(refuses_what_is_no_header),
        cmocka_unit_test(refuses_deep_nesting),     cmocka_unit_test(refuses_every_truncation),
        cmocka_unit_test(gives_views),              cmocka_unit_test(knows_all_dtypes),
        cmocka_unit_test(lists_what_it_cannot_view), cmocka_unit_test(refuses_paths),
        cmocka_unit_test(shortens_long_paths),      cmocka_unit_test(reads_what_it_wrote),
        cmocka_unit_test(writer_refuses),           cmocka_unit_test(reads_a_real_model),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
