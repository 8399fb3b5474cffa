/* test_cuda.c - the CUDA backend from the host's side: names, plug-ins that do not load, and what a call without a GPU says. */
#define _GNU_SOURCE 1
#include "device/cuda_plugin.h"
#include "device/device.h"
#include "octavo/octavo.h"
#include "octavo/version.h"
#include "temporary.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static octavo_context *context;
static octavo_device *cpu;

static void assert_says(const char *words)
{
    if (!strstr(octavo_last_error(), words)) fail_msg("'%s' does not say '%s'", octavo_last_error(), words);
}

static void device_names_are_read_exactly(void **state)
{
    (void)state;
    assert_int_equal(octavo_cuda_index("cuda:0"), 0);
    assert_int_equal(octavo_cuda_index("cuda:12"), 12);
    static const char *const wrong[] = { "cuda", "cuda:", "cuda:-1", "cuda:x", "cuda:1x", "cuda:999", "CUDA:0", "cpu", " cuda:0" };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) assert_int_equal(octavo_cuda_index(wrong[i]), -1);
    assert_int_equal(octavo_cuda_index(NULL), -1);
}

static void a_device_that_is_none_is_refused(void **state)
{
    (void)state;
    octavo_device *device = cpu;
    assert_int_equal(octavo_device_open(context, "gpu", &device), OCTAVO_E_DEVICE);
    assert_null(device);
    assert_says("'gpu'");
}

/* With or without a GPU: this number does not exist. */
static void a_gpu_that_is_not_there_is_refused(void **state)
{
    (void)state;
    octavo_device *device = cpu;
    const octavo_status status = octavo_device_open(context, "cuda:255", &device);
    assert_true(status == OCTAVO_E_DEVICE || status == OCTAVO_E_VERSION);
    assert_null(device);
    assert_true(strlen(octavo_last_error()) > 0);
}

/* With a GPU: asking for too much says so and leaves the device as it was. */
static void a_gpu_that_is_full_says_so(void **state)
{
    (void)state;
    octavo_device *gpu;
    void *memory = &gpu;
    if (octavo_device_open(context, "cuda:0", &gpu) != OCTAVO_OK) {
        print_message("no GPU is tried: %s\n", octavo_last_error());
        skip();
    }
    assert_int_equal(octavo_device_allocate(gpu, (size_t)1 << 50, &memory), OCTAVO_E_NOMEM);
    assert_null(memory);
    assert_says("cuda:0");
    octavo_kvcache_config config = OCTAVO_KVCACHE_CONFIG_INIT;
    octavo_kvcache *cache;
    config.page.k_format = OCTAVO_K_BF16, config.page.v_format = OCTAVO_V_BF16, config.page.kv_heads = 64, config.page.head_dim = 256;
    config.layers = 80, config.max_sequences = 1, config.max_tokens = INT32_MAX, config.pages = INT32_MAX / 64;
    assert_int_equal(octavo_kvcache_create(gpu, &config, &cache), OCTAVO_E_NOMEM);
    assert_null(cache);
    assert_int_equal(octavo_device_allocate(gpu, 4096, &memory), OCTAVO_OK);
    octavo_device_release(gpu, memory, 4096);
    octavo_device_close(gpu);
}

static void a_plugin_is_named_by_an_absolute_path(void **state)
{
    (void)state;
    const octavo_cuda_backend *backend;
    void *handle;
    assert_int_equal(octavo_cuda_plugin_load("liboctavo-cuda.so", &backend, &handle), OCTAVO_E_DEVICE);
    assert_null(backend);
    assert_says("absolute");
    assert_int_equal(octavo_cuda_plugin_load("/no/such/liboctavo-cuda.so", &backend, &handle), OCTAVO_E_DEVICE);
    assert_says("/no/such/liboctavo-cuda.so");
}

static void a_file_that_is_no_library_is_refused(void **state)
{
    (void)state;
    const octavo_cuda_backend *backend;
    void *handle;
    char path[TEMPORARY_BYTES];
    const int descriptor = mkstemp(temporary_name(path));
    assert_true(descriptor >= 0);
    assert_int_equal(write(descriptor, "not a library", 13), 13);
    close(descriptor);
    assert_int_equal(octavo_cuda_plugin_load(path, &backend, &handle), OCTAVO_E_DEVICE);
    assert_null(backend);
    assert_says("not loaded");
    unlink(path);
}

/* Compiled by the build: libraries with the entry's name and another version, and with no entry. */
static void plugins_of_other_builds_are_refused(void **state)
{
    (void)state;
    const octavo_cuda_backend *backend;
    void *handle;
    assert_int_equal(octavo_cuda_plugin_load(OCTAVO_PLUGIN_OTHER_BUILD, &backend, &handle), OCTAVO_E_VERSION);
    assert_null(backend);
    assert_says("9.9.9");
    assert_says(octavo_build_id());
    assert_int_equal(octavo_cuda_plugin_load(OCTAVO_PLUGIN_NO_ENTRY, &backend, &handle), OCTAVO_E_DEVICE);
    assert_null(backend);
    assert_says("is not a CUDA backend");
}

static void memory_calls_work_on_the_cpu(void **state)
{
    (void)state;
    octavo_exec exec = OCTAVO_EXEC_INIT;
    exec.device = cpu;
    uint64_t from[4] = { 1, 2, 3, UINT64_MAX }, to[4] = { 0 }, sum = 0;
    void *stream = &exec, *graph = NULL;
    assert_int_equal(octavo_device_kind_of(cpu), OCTAVO_DEVICE_CPU);
    assert_int_equal(octavo_device_upload(&exec, to, from, sizeof to), OCTAVO_OK);
    assert_memory_equal(from, to, sizeof to);
    from[0] = 7;
    assert_int_equal(octavo_device_download(&exec, to, from, sizeof to), OCTAVO_OK);
    assert_memory_equal(from, to, sizeof to);
    assert_int_equal(octavo_device_synchronize(&exec), OCTAVO_OK);
    assert_int_equal(octavo_device_stream_create(cpu, &stream), OCTAVO_OK);
    assert_null(stream);
    octavo_device_stream_destroy(cpu, stream);
    from[0] = 1; /* wraps around to 5 */
    if ((uintptr_t)from % 16 == 0) {
        assert_int_equal(octavo_device_checksum(&exec, from, sizeof from, &sum), OCTAVO_OK);
        assert_int_equal(sum, 5);
        assert_int_equal(octavo_device_checksum(&exec, from, 24, &sum), OCTAVO_E_ARGUMENT);
    }
    assert_int_equal(octavo_device_graph_begin(&exec), OCTAVO_E_UNSUPPORTED);
    assert_int_equal(octavo_device_graph_end(&exec, &graph), OCTAVO_E_UNSUPPORTED);
    assert_null(graph);
    octavo_device_graph_destroy(cpu, NULL);
    assert_int_equal(octavo_device_upload(&exec, NULL, from, 8), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_device_upload(&exec, to, from, 0), OCTAVO_OK);
}

/* What lies on a GPU is not read on the host: this view's pointers would crash. */
static void a_view_on_a_gpu_is_not_read(void **state)
{
    (void)state;
    octavo_page_config config = OCTAVO_PAGE_CONFIG_INIT;
    octavo_kv_view view = OCTAVO_KV_VIEW_INIT;
    config.k_format = OCTAVO_K_E4M3X2, config.v_format = OCTAVO_V_E4M3, config.kv_heads = 2, config.head_dim = 64;
    assert_int_equal(octavo_kv_view_over_pool(&config, (void *)(uintptr_t)0x1000, 4, 0, &view), OCTAVO_OK);
    view.batch = 1, view.max_tokens = 256, view.pages = 4, view.page_table_stride = 4;
    view.lengths = (const int32_t *)(uintptr_t)0x40, view.page_table = (const int32_t *)(uintptr_t)0x80;
    view.sequences = (const int32_t *)(uintptr_t)0xc0;
    view.device_kind = OCTAVO_DEVICE_CUDA;
    assert_int_equal(octavo_kv_view_check(&view), OCTAVO_OK);
    octavo_exec exec = OCTAVO_EXEC_INIT;
    exec.device = cpu;
    assert_int_equal(octavo_block_metadata(&exec, &view), OCTAVO_E_ARGUMENT);
    assert_says("GPU memory");
    view.device_kind = (octavo_device_kind)7;
    assert_int_equal(octavo_kv_view_check(&view), OCTAVO_E_ARGUMENT);
}

static int open_cpu(void **state)
{
    (void)state;
    return octavo_context_create(NULL, &context) != OCTAVO_OK || octavo_device_open(context, "cpu", &cpu) != OCTAVO_OK;
}

static int close_cpu(void **state)
{
    (void)state;
    octavo_device_close(cpu);
    octavo_context_destroy(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(device_names_are_read_exactly),
        cmocka_unit_test(a_device_that_is_none_is_refused),
        cmocka_unit_test(a_gpu_that_is_not_there_is_refused),
        cmocka_unit_test(a_gpu_that_is_full_says_so),
        cmocka_unit_test(a_plugin_is_named_by_an_absolute_path),
        cmocka_unit_test(a_file_that_is_no_library_is_refused),
        cmocka_unit_test(plugins_of_other_builds_are_refused),
        cmocka_unit_test(memory_calls_work_on_the_cpu),
        cmocka_unit_test(a_view_on_a_gpu_is_not_read),
    };
    return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
