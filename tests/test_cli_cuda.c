/* test_cli_cuda.c - the program with --device cuda:0 beside the CPU over the tiny checkpoint: verify, perplexity, generate, record, rollout. */
#define _GNU_SOURCE
#include "cli_model_fixture.h"
#include "octavo/recording.h"

/* Skips where `octavo info` knows of no GPU. */
static void need_gpu(void)
{
    program_run("info --json", NULL, &result);
    json_t *root = parse_output();
    const size_t gpus = json_array_size(json_object_get(root, "gpus"));
    if (gpus == 0) print_message("no GPU is tried: %s\n", text(root, "cuda_reason"));
    json_decref(root);
    if (gpus == 0) skip();
}

static const char *const DEVICES[] = { "cpu", "cuda:0" };

/* The JSON that `line` prints with each of the devices. */
static void run_both(const char *line, json_t *roots[2])
{
    for (int i = 0; i < 2; i++) {
        char whole[LINE_BYTES];
        snprintf(whole, sizeof whole, "%s --device %s", line, DEVICES[i]);
        run_model(whole);
        roots[i] = parse_output();
        assert_string_equal(text(json_object_get(roots[i], "settings"), "device"), DEVICES[i]);
    }
}

static void test_verify(void **state)
{
    (void)state;
    static const char *const LINES[] = { "verify -m @ --json", "verify -m @ --json --decode", "verify -m @ --json --chunk 5" };
    need_gpu();
    for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++) {
        json_t *roots[2];
        run_both(LINES[i], roots);
        assert_true(number(roots[1], "rel_error") < 1e-5 && number(roots[1], "top1_agreement") == 1);
        json_decref(roots[0]), json_decref(roots[1]);
    }
}

/* Eight bits of a model this small leave few predictions that a last bit does not move. */
static void test_perplexity(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        double most;
    } CASES[] = {
        { "--linear f32", 1e-5 },
        { "--linear f32 --decode", 1e-5 },
        { "--linear f32 --chunk 3", 1e-5 },
        { "--linear bf16 --decode", 1e-2 },
        { "--linear bf16 --cache-k e4m3x2 --cache-v e4m3 --block 16 --select mass --compensate mean", 2e-2 },
        { "--linear bf16 --cache-k int8x2 --cache-v int8 --block 16 --select certified", 2e-2 },
        { "--linear fp8 --decode-attention fp8 --cache-k e4m3 --cache-v e4m3 --decode", 1e-1 },
        { "--linear int8", 1e-1 },
        { "--linear bf16 --attention fp8", 1e-1 },
        { "--linear bf16 --attention sage", 1e-1 },
    };
    need_gpu();
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        json_t *roots[2];
        char line[LINE_BYTES];
        snprintf(line, sizeof line, "perplexity -m @ --json --ids %s/golden.safetensors %s", model, CASES[i].options);
        run_both(line, roots);
        const double off = number(roots[1], "mean_loss") - number(roots[0], "mean_loss");
        if (!(fabs(off) <= CASES[i].most)) fail_msg("'%s': the losses differ by %g", CASES[i].options, off);
        json_decref(roots[0]), json_decref(roots[1]);
    }
}

static void test_generate(void **state)
{
    (void)state;
    json_t *roots[2];
    need_gpu();
    run_both("generate -m @ --json --linear f32 --temperature 0 -n 40 --ignore-eos --prompt-ids 5,6,7,8", roots);
    assert_string_equal(text(roots[1], "text"), text(roots[0], "text"));
    json_decref(roots[0]), json_decref(roots[1]);
}

static void open_recording(const char *path, octavo_recording *recording)
{
    *recording = (octavo_recording)OCTAVO_RECORDING_INIT;
    if (octavo_recording_open(path, 1, recording) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
}

static void assert_near(const octavo_tensor *a, const octavo_tensor *b)
{
    int64_t count = 1;
    for (int i = 0; i < a->ndim; i++) assert_int_equal(a->shape[i], b->shape[i]), count *= a->shape[i];
    for (int64_t i = 0; i < count; i++) {
        const float x = ((const float *)a->data)[i], y = ((const float *)b->data)[i];
        if (!(fabsf(x - y) <= 1e-4f * (1.0f + fabsf(x)))) fail_msg("element %d is %g, on the CPU %g", (int)i, (double)y, (double)x);
    }
}

static void test_record(void **state)
{
    (void)state;
    char path[2][2 * FIXTURE_PATH_BYTES], line[LINE_BYTES];
    octavo_recording r[2];
    need_gpu();
    for (int i = 0; i < 2; i++) {
        path_in_folder(path[i], i ? "gpu.safetensors" : "cpu.safetensors");
        snprintf(line, sizeof line, "record -m @ --ids %s/golden.safetensors --layers 1 --queries 9 --chunk 7 --dtype f32 --with-h --with-unrotated "
                                    "--linear f32 --device %s --out %s", model, DEVICES[i], path[i]);
        run_model(line);
        if (result.status != 0) fail_msg("%s", result.err);
        open_recording(path[i], &r[i]);
    }
    assert_near(&r[0].q, &r[1].q), assert_near(&r[0].k, &r[1].k), assert_near(&r[0].v, &r[1].v), assert_near(&r[0].h, &r[1].h);
    assert_near(&r[0].q_unrope, &r[1].q_unrope), assert_near(&r[0].k_unrope, &r[1].k_unrope);
    octavo_recording_close(&r[0]), octavo_recording_close(&r[1]);
}

/* The lines of a rollout's file, the header first. */
static json_t *answers_of(const char *path)
{
    json_t *all = json_array();
    char *line = NULL;
    size_t capacity = 0;
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    while (getline(&line, &capacity, file) > 0) json_array_append_new(all, json_loads(line, JSON_ALLOW_NUL, NULL));
    free(line);
    fclose(file);
    return all;
}

static void test_rollout(void **state)
{
    (void)state;
    char prompts[2 * FIXTURE_PATH_BYTES], path[2][2 * FIXTURE_PATH_BYTES], line[LINE_BYTES];
    json_t *all[2];
    need_gpu();
    text_file(prompts, "prompts.jsonl", "{\"ids\": [5, 6, 7, 8]}\n{\"ids\": [100, 20, 3]}\n");
    for (int i = 0; i < 2; i++) {
        path_in_folder(path[i], i ? "gpu.jsonl" : "cpu.jsonl");
        snprintf(line, sizeof line, "rollout -m @ --prompts %s --samples 2 -n 12 --temperature 0 --ignore-eos --ids --linear f32 --score f32 --device %s --out %s",
                 prompts, DEVICES[i], path[i]);
        run_model(line);
        if (result.status != 0) fail_msg("%s", result.err);
        all[i] = answers_of(path[i]);
    }
    assert_int_equal(json_array_size(all[0]), 5);
    assert_int_equal(json_array_size(all[1]), 5);
    for (size_t n = 1; n < 5; n++)
        for (size_t m = 1; m < 5; m++) {
            const json_t *a = json_array_get(all[0], n), *b = json_array_get(all[1], m);
            if (number(a, "prompt") != number(b, "prompt") || number(a, "sample") != number(b, "sample")) continue;
            assert_true(json_equal(json_object_get(a, "ids"), json_object_get(b, "ids")));
            for (size_t i = 0; i < 12; i++) {
                const json_t *of_a = json_array_get(json_object_get(a, "score_logprobs"), i), *of_b = json_array_get(json_object_get(b, "score_logprobs"), i);
                assert_true(fabs(json_number_value(of_a) - json_number_value(of_b)) < 1e-4);
            }
        }
    json_decref(all[0]), json_decref(all[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_verify), cmocka_unit_test(test_perplexity), cmocka_unit_test(test_generate), cmocka_unit_test(test_record),
        cmocka_unit_test(test_rollout),
    };
    if (!program_path()) {
        fprintf(stderr, "skipped: OCTAVO_PROGRAM does not name the program\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, start_folder, remove_folder);
}
