/* test_cuda_odd.c - GPUs that are too old, lost, full or without a kernel: what calls and the program say, through a backend that only pretends. */
#define _GNU_SOURCE 1
#include "octavo/octavo.h"
#include "program_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

static octavo_context *context;

static void assert_says(const char *words)
{
    if (!strstr(octavo_last_error(), words)) fail_msg("'%s' does not say '%s'", octavo_last_error(), words);
}

static octavo_device *open_gpu(const char *name)
{
    octavo_device *gpu;
    if (octavo_device_open(context, name, &gpu) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
    return gpu;
}

static void an_old_gpu_is_refused(void **state)
{
    (void)state;
    octavo_device *gpu;
    assert_int_equal(octavo_device_open(context, "cuda:0", &gpu), OCTAVO_E_DEVICE);
    assert_null(gpu);
    assert_says("cuda:0 (Odd GPU 0) has compute capability 7.5, expected 8.0 or later");
    assert_int_equal(octavo_device_open(context, "cuda:3", &gpu), OCTAVO_E_DEVICE);
    assert_says("expected cuda:0 to cuda:2");
}

static void a_lost_gpu_says_so(void **state)
{
    (void)state;
    octavo_device *gpu = open_gpu("cuda:1");
    octavo_exec exec = OCTAVO_EXEC_INIT;
    octavo_kvcache_config config = OCTAVO_KVCACHE_CONFIG_INIT;
    octavo_kvcache *cache;
    void *memory = &gpu;
    int32_t word = 0;
    exec.device = gpu;
    assert_int_equal(octavo_device_allocate(gpu, 64, &memory), OCTAVO_E_DEVICE);
    assert_null(memory);
    assert_says("cudaMalloc: the GPU has fallen off the bus");
    assert_int_equal(octavo_device_upload(&exec, &word, &word, sizeof word), OCTAVO_E_DEVICE);
    assert_int_equal(octavo_device_download(&exec, &word, &word, sizeof word), OCTAVO_E_DEVICE);
    assert_int_equal(octavo_device_synchronize(&exec), OCTAVO_E_DEVICE);
    assert_says("waiting for the stream");
    config.page.k_format = OCTAVO_K_BF16, config.page.v_format = OCTAVO_V_BF16, config.page.kv_heads = 1, config.page.head_dim = 64;
    config.max_sequences = 1, config.max_tokens = 64, config.pages = 1;
    assert_int_equal(octavo_kvcache_create(gpu, &config, &cache), OCTAVO_E_DEVICE);
    assert_null(cache);
    octavo_device_close(gpu);
}

static void a_full_gpu_says_so(void **state)
{
    (void)state;
    octavo_device *gpu = open_gpu("cuda:2");
    void *memory = &gpu;
    assert_int_equal(octavo_device_allocate(gpu, 1 << 20, &memory), OCTAVO_E_NOMEM);
    assert_null(memory);
    assert_says("no memory for 1048576 bytes on cuda:2");
    octavo_device_close(gpu);
}

static octavo_tensor tensor_there(float *data, const int64_t shape[4])
{
    octavo_tensor tensor = octavo_tensor_view(data, OCTAVO_F32, 4, shape);
    tensor.device_kind = OCTAVO_DEVICE_CUDA;
    return tensor;
}

/* Nothing runs on the CPU instead. */
static void a_missing_kernel_is_no_trip_to_the_cpu(void **state)
{
    (void)state;
    static _Alignas(64) float q[64], out[64], k[64 * 64], workspace[1 << 16];
    static const int32_t LENGTHS[] = { 64 };
    const int64_t q_shape[] = { 1, 1, 1, 64 }, k_shape[] = { 1, 64, 1, 64 };
    octavo_device *gpu = open_gpu("cuda:1");
    octavo_exec exec = OCTAVO_EXEC_INIT;
    octavo_page_config page = OCTAVO_PAGE_CONFIG_INIT;
    octavo_kv_view view = OCTAVO_KV_VIEW_INIT;
    octavo_decode_params decode = OCTAVO_DECODE_PARAMS_INIT;
    octavo_prefill_params prefill = OCTAVO_PREFILL_PARAMS_INIT;
    const octavo_tensor keys = tensor_there(k, k_shape);
    page.k_format = OCTAVO_K_F32, page.v_format = OCTAVO_V_F32, page.kv_heads = 1, page.head_dim = 64;
    assert_int_equal(octavo_kv_view_over_tensors(&page, &keys, NULL, &keys, NULL, LENGTHS, &view), OCTAVO_OK);
    exec.device = gpu, exec.workspace = workspace, exec.workspace_bytes = sizeof workspace;
    decode.kv = &view, decode.q = tensor_there(q, q_shape), decode.out = tensor_there(out, q_shape);
    assert_int_equal(octavo_attention_decode(&exec, &decode), OCTAVO_E_UNSUPPORTED);
    assert_says("the device cuda:1 has no decode_fused");
    prefill.kv = &view, prefill.q = decode.q, prefill.out = decode.out;
    assert_int_equal(octavo_attention_prefill(&exec, &prefill), OCTAVO_E_UNSUPPORTED);
    assert_says("the device cuda:1 has no attention_prefill");
    octavo_device_close(gpu);
}

static void the_program_says_it_in_a_sentence(void **state)
{
    (void)state;
    static const struct { const char *line, *words; } CASES[] = {
        { "bench decode --synthetic tokens=64 --repeat 1 --device cuda:0", "expected 8.0 or later" },
        { "bench decode --synthetic tokens=64 --repeat 1 --device cuda:1", "fallen off the bus" },
        { "bench prefill --tokens 64 --repeat 1 --device cuda:2", "no memory for" },
        { "bench kproj --tokens 1 --repeat 1 --device cuda:2", "no memory for" },
        { "bench decode --synthetic tokens=64 --repeat 1 --device cuda:3", "expected cuda:0 to cuda:2" },
    };
    static printed result;
    if (!program_path()) skip();
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        program_run(CASES[i].line, NULL, &result);
        if (result.status != 2 || !strstr(result.err, CASES[i].words)) fail_msg("%s: status %d, '%s'", CASES[i].line, result.status, result.err);
    }
    program_run("info", NULL, &result);
    assert_int_equal(result.status, 0);
    assert_non_null(strstr(result.out, "cuda:0 (Odd GPU 0, 7 multiprocessors"));
}

static int open_context(void **state)
{
    (void)state;
    return setenv("OCTAVO_CUDA_PATH", OCTAVO_PLUGIN_ODD_GPUS, 1) || octavo_context_create(NULL, &context) != OCTAVO_OK;
}

static int close_context(void **state)
{
    (void)state;
    octavo_context_destroy(context);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_old_gpu_is_refused), cmocka_unit_test(a_lost_gpu_says_so), cmocka_unit_test(a_full_gpu_says_so),
        cmocka_unit_test(a_missing_kernel_is_no_trip_to_the_cpu), cmocka_unit_test(the_program_says_it_in_a_sentence),
    };
    return cmocka_run_group_tests(tests, open_context, close_context);
}
