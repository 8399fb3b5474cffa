/* test_base.c - checked sizes, files, the clock, CPU features, and tensors with their DLPack exchange. */
#define _GNU_SOURCE 1
#include "base/atomic_file.h"
#include "base/checked.h"
#include "base/clock.h"
#include "base/cpu_features.h"
#include "base/dlpack_abi.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "octavo/tensor.h"
#include "temporary.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { PATH_BYTES = 512 };

static char folder[TEMPORARY_BYTES];

static const char *in_folder(char *path, const char *name)
{
    assert_true(snprintf(path, PATH_BYTES, "%s/%s", folder, name) < PATH_BYTES);
    return path;
}

static int make_folder(void **state)
{
    (void)state;
    return temporary_folder(folder);
}

static int remove_folder(void **state)
{
    (void)state;
    return rmdir(folder); /* fails, and with it the test, where something was left behind */
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, strlen(text), f), strlen(text));
    assert_int_equal(fclose(f), 0);
}

static void assert_file_is(const char *path, const char *text)
{
    octavo_mapped_file file;
    assert_int_equal(octavo_mapped_file_init(&file, path, OCTAVO_MAP_SEQUENTIAL | OCTAVO_MAP_PREFETCH), OCTAVO_OK);
    assert_int_equal(file.bytes, strlen(text));
    assert_memory_equal(file.data, text, file.bytes);
    octavo_mapped_file_fini(&file);
    assert_null(file.data);
}

static int entries_in_folder(void)
{
    DIR *d = opendir(folder);
    assert_non_null(d);
    int count = 0;
    while (readdir(d)) count++;
    closedir(d);
    return count - 2; /* . and .. */
}

static void assert_last_error_has(const char *text)
{
    if (!strstr(octavo_last_error(), text)) fail_msg("'%s' does not name '%s'", octavo_last_error(), text);
}

static void test_checked_sizes(void **state)
{
    (void)state;
    size_t s;
    int64_t i;
    assert_true(octavo_checked_add_size(SIZE_MAX - 1, 1, &s) && s == SIZE_MAX);
    assert_false(octavo_checked_add_size(SIZE_MAX, 1, &s));
    assert_true(octavo_checked_mul_size(SIZE_MAX / 2, 2, &s) && s == SIZE_MAX - 1);
    assert_false(octavo_checked_mul_size(SIZE_MAX / 2 + 1, 2, &s));
    assert_true(octavo_checked_mul_size(0, SIZE_MAX, &s) && s == 0);
    assert_true(octavo_checked_add_int64(INT64_MAX, INT64_MIN, &i) && i == -1);
    assert_false(octavo_checked_add_int64(INT64_MAX, 1, &i));
    assert_false(octavo_checked_add_int64(INT64_MIN, -1, &i));
    assert_true(octavo_checked_mul_int64(INT64_C(1) << 31, -(INT64_C(1) << 32), &i) && i == INT64_MIN);
    assert_false(octavo_checked_mul_int64(INT64_MIN, -1, &i));
    assert_false(octavo_checked_mul_int64(INT64_C(1) << 32, INT64_C(1) << 31, &i));
    assert_true(octavo_checked_size_from_int64(7, &s) && s == 7);
    assert_false(octavo_checked_size_from_int64(-1, &s));
}

static void test_mapped_file_errors(void **state)
{
    (void)state;
    char path[PATH_BYTES], below[PATH_BYTES];
    octavo_mapped_file file;
    assert_int_equal(octavo_mapped_file_init(&file, NULL, 0), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_mapped_file_init(&file, "", 0), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_mapped_file_init(&file, in_folder(path, "missing"), 0), OCTAVO_E_IO);
    assert_last_error_has("missing' does not exist");
    assert_int_equal(octavo_mapped_file_init(&file, folder, 0), OCTAVO_E_IO);
    assert_last_error_has("is a directory");

    write_text(in_folder(path, "empty"), "");
    assert_int_equal(octavo_mapped_file_init(&file, path, 0), OCTAVO_E_FORMAT);
    assert_last_error_has("empty' is empty");
    assert_null(file.data);
    octavo_mapped_file_fini(&file);
    assert_int_equal(octavo_mapped_file_init(&file, in_folder(below, "empty/below"), 0), OCTAVO_E_IO);
    assert_last_error_has("cannot be read");
    assert_int_equal(unlink(path), 0);

    assert_int_equal(mkfifo(in_folder(path, "pipe"), 0600), 0);
    assert_int_equal(octavo_mapped_file_init(&file, path, 0), OCTAVO_E_IO);
    assert_last_error_has("is not a regular file");
    assert_int_equal(unlink(path), 0);
}

static void test_mapped_file_without_permission(void **state)
{
    (void)state;
    enum { NOBODY = 65534 };
    char path[PATH_BYTES];
    octavo_mapped_file file;
    write_text(in_folder(path, "secret"), "secret");
    assert_int_equal(chmod(path, 0), 0);
    assert_int_equal(chmod(folder, 0755), 0);
    const int is_root = geteuid() == 0;
    if (is_root) assert_int_equal(seteuid(NOBODY), 0); /* root may read everything */
    const octavo_status status = octavo_mapped_file_init(&file, path, 0);
    if (is_root) assert_int_equal(seteuid(0), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(status, OCTAVO_E_IO);
    assert_last_error_has("secret' cannot be read: Permission denied");
}

static void test_atomic_file_appears_at_commit(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    octavo_atomic_file file;
    write_text(in_folder(path, "result"), "old");
    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(octavo_atomic_file_init(&file, path), OCTAVO_OK);
    assert_int_equal(octavo_atomic_file_write(&file, "new ", 4), OCTAVO_OK);
    assert_int_equal(octavo_atomic_file_write(&file, NULL, 0), OCTAVO_OK);
    fprintf(file.stream, "%d", 8);
    assert_file_is(path, "old");
    assert_int_equal(octavo_atomic_file_commit(&file), OCTAVO_OK);
    octavo_atomic_file_abort(&file);
    assert_file_is(path, "new 8");

    struct stat info;
    assert_int_equal(stat(path, &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_int_equal(entries_in_folder(), 1);
    assert_int_equal(unlink(path), 0);
}

static void test_atomic_file_abort_leaves_nothing(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    octavo_atomic_file file;
    assert_int_equal(octavo_atomic_file_init(&file, in_folder(path, "never")), OCTAVO_OK);
    assert_int_equal(octavo_atomic_file_write(&file, "half", 4), OCTAVO_OK);
    assert_int_equal(entries_in_folder(), 1);
    octavo_atomic_file_abort(&file);
    assert_int_equal(entries_in_folder(), 0);
    octavo_atomic_file_abort(&file);
}

static void test_atomic_file_follows_a_link(void **state)
{
    (void)state;
    char path[PATH_BYTES], link_path[PATH_BYTES];
    octavo_atomic_file file;
    write_text(in_folder(path, "target"), "old");
    assert_int_equal(symlink("target", in_folder(link_path, "link")), 0);
    assert_int_equal(octavo_atomic_file_init(&file, link_path), OCTAVO_OK);
    assert_int_equal(octavo_atomic_file_write(&file, "new", 3), OCTAVO_OK);
    assert_int_equal(octavo_atomic_file_commit(&file), OCTAVO_OK);
    assert_file_is(path, "new");
    struct stat info;
    assert_int_equal(lstat(link_path, &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(unlink(link_path), 0);
    assert_int_equal(unlink(path), 0);
}

static void test_atomic_file_errors(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    octavo_atomic_file file;
    assert_int_equal(octavo_atomic_file_init(&file, NULL), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_atomic_file_init(&file, in_folder(path, "absent/file")), OCTAVO_E_IO);
    assert_last_error_has("absent/file' cannot be written");
    assert_int_equal(octavo_atomic_file_init(&file, folder), OCTAVO_E_IO);
    assert_last_error_has("is a directory");
    assert_int_equal(octavo_atomic_file_init(&file, "/dev/null"), OCTAVO_E_IO);
    assert_last_error_has("is not a regular file");

    /* The name turns into a folder while the file is written. */
    assert_int_equal(octavo_atomic_file_init(&file, in_folder(path, "taken")), OCTAVO_OK);
    assert_int_equal(octavo_atomic_file_write(&file, "x", 1), OCTAVO_OK);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(octavo_atomic_file_commit(&file), OCTAVO_E_IO);
    assert_last_error_has("taken' cannot be replaced");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(entries_in_folder(), 0);
}

static void test_atomic_file_reports_a_failed_write(void **state)
{
    (void)state;
    char path[PATH_BYTES];
    octavo_atomic_file file;
    assert_int_equal(octavo_atomic_file_init(&file, in_folder(path, "full")), OCTAVO_OK);
    FILE *full = fopen("/dev/full", "wb");
    if (!full) {
        octavo_atomic_file_abort(&file);
        skip();
    }
    assert_int_equal(fclose(file.stream), 0);
    file.stream = full;
    fputs("does not fit", file.stream);
    assert_int_equal(octavo_atomic_file_commit(&file), OCTAVO_E_IO);
    assert_last_error_has("full' cannot be written: No space left");
    assert_int_equal(entries_in_folder(), 0);
}

static void test_clock_does_not_go_back(void **state)
{
    (void)state;
    const double start = octavo_clock_seconds();
    double now = start;
    while (now == start) {
        const double next = octavo_clock_seconds();
        assert_true(next >= now);
        now = next;
    }
}

static void test_cpu_features_agree(void **state)
{
    (void)state;
    const octavo_cpu_features f = octavo_cpu_features_detect();
#if defined(__x86_64__)
    assert_int_equal(f.avx2, __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"));
    assert_int_equal(f.avx512, __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw")
                                   && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"));
    assert_int_equal(f.avx512_vbmi, __builtin_cpu_supports("avx512vbmi") != 0);
    assert_int_equal(f.avx512_vnni, __builtin_cpu_supports("avx512vnni") != 0);
    assert_int_equal(f.avx512_bf16, __builtin_cpu_supports("avx512bf16") != 0);
    assert_int_equal(f.slow_bf16, f.avx512_bf16 && __builtin_cpu_is("intel"));
    assert_false(f.neon);
#elif defined(__aarch64__)
    assert_true(f.neon && !f.avx2 && !f.avx512);
#endif
    assert_true(f.avx2 || !f.avx512);
    assert_true(f.amx_tile || (!f.amx_int8 && !f.amx_bf16));
    const octavo_status status = octavo_cpu_features_request_amx();
    if (f.amx_tile) assert_true(status == OCTAVO_OK || status == OCTAVO_E_UNSUPPORTED);
    else assert_int_equal(status, OCTAVO_E_UNSUPPORTED);
}

static void test_dtypes(void **state)
{
    (void)state;
    assert_int_equal(octavo_dtype_bytes(OCTAVO_F64), 8);
    assert_int_equal(octavo_dtype_bytes(OCTAVO_BF16), 2);
    assert_int_equal(octavo_dtype_bytes(OCTAVO_E4M3), 1);
    assert_string_equal(octavo_dtype_name(OCTAVO_E5M2), "e5m2");
    assert_string_equal(octavo_dtype_name(OCTAVO_INT64), "int64");
    static const int outside[] = { -1, 0, OCTAVO_INT64 + 1 };
    for (int i = 0; i < 3; i++) {
        assert_int_equal(octavo_dtype_bytes((octavo_dtype)outside[i]), 0);
        assert_string_equal(octavo_dtype_name((octavo_dtype)outside[i]), "unknown");
    }
}

static void test_tensor_view(void **state)
{
    (void)state;
    float data[24];
    const int64_t shape[] = { 2, 3, 4 }, empty[] = { 2, 0, 4 };
    const octavo_tensor t = octavo_tensor_view(data, OCTAVO_F32, 3, shape);
    assert_ptr_equal(t.data, data);
    assert_int_equal(t.ndim, 3);
    assert_true(t.strides[0] == 12 && t.strides[1] == 4 && t.strides[2] == 1);
    assert_int_equal(octavo_tensor_view(data, OCTAVO_F32, 0, NULL).ndim, 0);
    assert_int_equal(octavo_tensor_view(data, OCTAVO_F32, 3, empty).ndim, 3);

    const int64_t negative[] = { 2, -1 }, huge[] = { INT64_C(1) << 32, INT64_C(1) << 31 };
    assert_int_equal(octavo_tensor_view(data, OCTAVO_F32, 2, negative).ndim, -1);
    assert_int_equal(octavo_tensor_view(data, OCTAVO_F32, 2, huge).ndim, -1);
    assert_int_equal(octavo_tensor_view(data, OCTAVO_F32, -1, shape).ndim, -1);
    assert_int_equal(octavo_tensor_view(data, OCTAVO_F32, OCTAVO_MAX_DIMS + 1, shape).ndim, -1);
}

static void test_dlpack_round_trip(void **state)
{
    (void)state;
    double data[24];
    const int64_t shape[] = { 2, 3, 4 };
    for (int dtype = OCTAVO_F64; dtype <= OCTAVO_INT64; dtype++)
        for (int kind = OCTAVO_DEVICE_CPU; kind <= OCTAVO_DEVICE_CUDA; kind++) {
            octavo_tensor t = octavo_tensor_view(data, (octavo_dtype)dtype, 3, shape), back;
            t.device_kind = (octavo_device_kind)kind;
            t.device_index = kind == OCTAVO_DEVICE_CUDA ? 3 : 0;
            t.strides[0] = 24;
            octavo_dlpack_tensor dl;
            assert_int_equal(octavo_tensor_to_dlpack(&t, &dl), OCTAVO_OK);
            assert_int_equal(dl.dtype.bits, 8 * octavo_dtype_bytes(t.dtype));
            assert_int_equal(dl.device.type, kind == OCTAVO_DEVICE_CUDA ? 2 : 1);
            memset(&back, 0xFF, sizeof back);
            assert_int_equal(octavo_tensor_from_dlpack(&dl, &back), OCTAVO_OK);
            assert_ptr_equal(back.data, t.data);
            assert_true(back.dtype == t.dtype && back.ndim == 3);
            assert_true(back.device_kind == t.device_kind && back.device_index == t.device_index);
            assert_memory_equal(back.shape, t.shape, sizeof shape);
            assert_memory_equal(back.strides, t.strides, sizeof shape);
        }
}

static octavo_dlpack_tensor example_dlpack(float *data, int64_t *shape)
{
    return (octavo_dlpack_tensor){
        .data = data, .device = { 1, 0 }, .ndim = 2, .dtype = { OCTAVO_DLPACK_FLOAT, 32, 1 }, .shape = shape
    };
}

static void test_dlpack_offset_and_missing_strides(void **state)
{
    (void)state;
    float data[12];
    int64_t shape[] = { 2, 3 };
    octavo_tensor t;
    octavo_dlpack_tensor dl = example_dlpack(data, shape);
    dl.byte_offset = 8;
    assert_int_equal(octavo_tensor_from_dlpack(&dl, &t), OCTAVO_OK);
    assert_ptr_equal(t.data, data + 2);
    assert_true(t.strides[0] == 3 && t.strides[1] == 1);
    dl.device.type = OCTAVO_DLPACK_CUDA_HOST;
    assert_int_equal(octavo_tensor_from_dlpack(&dl, &t), OCTAVO_OK);
    assert_int_equal(t.device_kind, OCTAVO_DEVICE_CPU);
    dl.byte_offset = 2;
    assert_int_equal(octavo_tensor_from_dlpack(&dl, &t), OCTAVO_E_ARGUMENT);
    assert_last_error_has("not aligned");
}

static void test_dlpack_refuses_what_has_no_counterpart(void **state)
{
    (void)state;
    float data[6];
    int64_t shape[] = { 2, 3 };
    octavo_tensor t = octavo_tensor_view(data, OCTAVO_F32, 2, shape), untouched = t;
    octavo_dlpack_tensor dl = example_dlpack(data, shape);
    assert_int_equal(octavo_tensor_from_dlpack(NULL, &t), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_tensor_to_dlpack(&t, NULL), OCTAVO_E_ARGUMENT);

    dl.dtype.lanes = 2;
    assert_int_equal(octavo_tensor_from_dlpack(&dl, &t), OCTAVO_E_UNSUPPORTED);
    dl = example_dlpack(data, shape), dl.dtype.code = 6; /* bool */
    assert_int_equal(octavo_tensor_from_dlpack(&dl, &t), OCTAVO_E_UNSUPPORTED);
    dl = example_dlpack(data, shape), dl.device.type = 10; /* ROCm */
    assert_int_equal(octavo_tensor_from_dlpack(&dl, &t), OCTAVO_E_UNSUPPORTED);
    dl = example_dlpack(data, shape), dl.ndim = OCTAVO_MAX_DIMS + 1;
    assert_int_equal(octavo_tensor_from_dlpack(&dl, &t), OCTAVO_E_UNSUPPORTED);
    dl = example_dlpack(data, shape), shape[1] = -3;
    assert_int_equal(octavo_tensor_from_dlpack(&dl, &t), OCTAVO_E_SHAPE);
    assert_memory_equal(&t, &untouched, sizeof t);

    t.dtype = (octavo_dtype)99;
    assert_int_equal(octavo_tensor_to_dlpack(&t, &dl), OCTAVO_E_UNSUPPORTED);
    t = untouched, t.device_kind = (octavo_device_kind)5;
    assert_int_equal(octavo_tensor_to_dlpack(&t, &dl), OCTAVO_E_UNSUPPORTED);
    t = untouched, t.ndim = -1;
    assert_int_equal(octavo_tensor_to_dlpack(&t, &dl), OCTAVO_E_UNSUPPORTED);
}

static void test_error_text_is_one_clean_line(void **state)
{
    (void)state;
    assert_int_equal(octavo_fail(OCTAVO_E_FORMAT, "name '%s'", "a\n\x1b[2J\x7f"), OCTAVO_E_FORMAT);
    assert_string_equal(octavo_last_error(), "name 'a??[2J?'");
    for (int status = OCTAVO_OK; status >= OCTAVO_E_VERSION; status--)
        assert_string_not_equal(octavo_status_text((octavo_status)status), "unknown status");
    assert_string_equal(octavo_status_text((octavo_status)1), "unknown status");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checked_sizes),
        cmocka_unit_test(test_mapped_file_errors),
        cmocka_unit_test(test_mapped_file_without_permission),
        cmocka_unit_test(test_atomic_file_appears_at_commit),
        cmocka_unit_test(test_atomic_file_abort_leaves_nothing),
        cmocka_unit_test(test_atomic_file_follows_a_link),
        cmocka_unit_test(test_atomic_file_errors),
        cmocka_unit_test(test_atomic_file_reports_a_failed_write),
        cmocka_unit_test(test_clock_does_not_go_back),
        cmocka_unit_test(test_cpu_features_agree),
        cmocka_unit_test(test_dtypes),
        cmocka_unit_test(test_tensor_view),
        cmocka_unit_test(test_dlpack_round_trip),
        cmocka_unit_test(test_dlpack_offset_and_missing_strides),
        cmocka_unit_test(test_dlpack_refuses_what_has_no_counterpart),
        cmocka_unit_test(test_error_text_is_one_clean_line),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
