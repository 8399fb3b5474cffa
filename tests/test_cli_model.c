/* test_cli_model.c - octavo verify, perplexity and record over the tiny checkpoint, whose logits an independent program wrote. */
#define _GNU_SOURCE
#include "cli_model_fixture.h"
#include "octavo/recording.h"

/* ---- the golden file ---- */

typedef struct golden {
    octavo_safetensors *file;
    const int32_t *ids;  /* [TINY_BATCH, TINY_TOKENS]             */
    const float *logits; /* [TINY_BATCH, TINY_TOKENS, TINY_VOCAB] */
} golden;

static golden golden_open(void)
{
    char path[2 * FIXTURE_PATH_BYTES];
    golden g;
    octavo_tensor ids, logits;
    snprintf(path, sizeof path, "%s/golden.safetensors", model);
    assert_int_equal(octavo_safetensors_open(path, &g.file), OCTAVO_OK);
    assert_int_equal(octavo_safetensors_find(g.file, "input_ids", &ids), OCTAVO_OK);
    assert_int_equal(octavo_safetensors_find(g.file, "logits", &logits), OCTAVO_OK);
    assert_int_equal(logits.shape[0] * logits.shape[1] * logits.shape[2], TINY_BATCH * TINY_TOKENS * TINY_VOCAB);
    g.ids = ids.data;
    g.logits = logits.data;
    return g;
}

/* -log softmax(logits[row, position])[the next token] */
static double golden_loss(const golden *g, int row, int position)
{
    const float *logits = g->logits + (row * TINY_TOKENS + position) * TINY_VOCAB;
    double sum = 0;
    for (int i = 0; i < TINY_VOCAB; i++) sum += exp((double)logits[i]);
    return log(sum) - (double)logits[g->ids[row * TINY_TOKENS + position + 1]];
}

/* The mean over predictions of tokens [first, tokens) of both rows. */
static double golden_mean_loss(int first, int tokens)
{
    golden g = golden_open();
    double sum = 0;
    for (int row = 0; row < TINY_BATCH; row++)
        for (int t = first; t < tokens; t++) sum += golden_loss(&g, row, t - 1);
    octavo_safetensors_close(g.file);
    return sum / (TINY_BATCH * (tokens - first));
}

/* ---- wrong use ---- */

static void test_help(void **state)
{
    (void)state;
    static const char *const LINES[] = { "verify --help", "perplexity -h", "record --help", "generate --help", "rollout --help --nonsense" };
    for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++) {
        run_model(LINES[i]);
        assert_int_equal(result.status, 0);
        assert_memory_equal(result.out, "usage: octavo ", 14);
        assert_non_null(strstr(result.out, "--cache-k"));
        assert_string_equal(result.err, "");
    }
}

static void test_wrong_use(void **state)
{
    (void)state;
    static const struct {
        const char *line, *fragment;
    } CASES[] = {
        { "verify", "--model DIR is needed" },
        { "verify -m /nonexistent-folder", "/nonexistent-folder" },
        { "verify -m @ --golden /nonexistent-file", "/nonexistent-file" },
        { "verify -m @ --linear f16", "'f16'" },
        { "verify -m @ --attention sage9", "sage9" },
        { "verify -m @ --decode-attention sage", "expected exact or fp8" },
        { "verify -m @ --attention-scales page", "'page'" },
        { "verify -m @ --cache-k e9m9", "e9m9" },
        { "verify -m @ --cache-v int4x2", "int4x2" },
        { "verify -m @ --dense-layers 0,x", "'0,x'" },
        { "verify -m @ --dense-layers 0,", "'0,'" },
        { "verify -m @ --dense-layers 0,2", "layer 2" },
        { "verify -m @ --device abacus", "abacus" },
        { "verify -m @ --block 64 --sub-block 24", "--sub-block is 24" },
        { "verify -m @ --tolerance soon", "'soon'" },
        { "verify -m @ -c 23", "23" },
        { "verify -m @ extra", "'extra'" },
        { "perplexity -m @", "--text FILE" },
        { "perplexity -m @ --text a --ids b", "exclude" },
        { "perplexity -m @ --text /nonexistent-file", "/nonexistent-file" },
        { "perplexity -m @ --ids /nonexistent-file", "/nonexistent-file" },
        { "perplexity -m @ --ids @/config.json", "config.json" },
        { "perplexity -m @ --ids @/golden.safetensors --tokens 25", "has 24" },
        { "perplexity -m @ --ids @/golden.safetensors --tokens 1", "'1'" },
        { "perplexity -m @ --ids @/golden.safetensors --context 1", "--context is 1" },
        { "perplexity -m @ --ids @/golden.safetensors --select best", "best" },
        { "perplexity -m @ --ids @/golden.safetensors --select certified --cache-k e4m3", "certified" },
        { "record -m @ --ids @/golden.safetensors --out x", "--layers N,N is needed" },
        { "record -m @ --ids @/golden.safetensors --layers 1", "--out FILE is needed" },
        { "record -m @ --ids @/golden.safetensors --layers 2 --out x", "layer 2" },
        { "record -m @ --ids @/golden.safetensors --layers 1,1 --out x", "twice" },
        { "record -m @ --ids @/golden.safetensors --layers 1 --out x --h-tokens 3", "--with-h" },
        { "record -m @ --ids @/golden.safetensors --layers 1 --out x --dtype f16", "'f16'" },
        { "record -m @ --ids @/golden.safetensors --layers 1 --out /nonexistent-folder/x", "/nonexistent-folder/x" },
        { "record -m @ --ids @/golden.safetensors --layers 1 --out x --tokens 25", "has 24" },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        char line[LINE_BYTES];
        const char *file = strstr(CASES[i].line, "@/"); /* a file of the checkpoint */
        snprintf(line, sizeof line, "%.*s%s%s", file ? (int)(file - CASES[i].line) : (int)strlen(CASES[i].line), CASES[i].line, file ? model : "",
                 file ? file + 1 : "");
        assert_refused(line, CASES[i].fragment);
    }
}

/* ---- verify ---- */

static void test_verify(void **state)
{
    (void)state;
    static const char *const LINES[] = { "verify -m @ --json", "verify -m @ --json --decode", "verify -m @ --json --chunk 5 -t 1",
                                         "verify -m @ --json --block 8 -c 100" };
    for (size_t i = 0; i < sizeof LINES / sizeof *LINES; i++) {
        run_model(LINES[i]);
        json_t *root = parse_output();
        assert_string_equal(text(root, "schema"), "octavo-verify-1");
        assert_true(number(root, "rel_error") > 0 && number(root, "rel_error") < 2e-6);
        assert_true(number(root, "max_error") < 1e-4);
        assert_true(number(root, "top1_agreement") == 1 && number(root, "tolerance") == 1e-5);
        assert_true(number(root, "batch") == TINY_BATCH && number(root, "tokens") == TINY_TOKENS && number(root, "vocab") == TINY_VOCAB);
        assert_string_equal(text(json_object_get(root, "settings"), "linear"), "f32");
        assert_string_equal(text(json_object_get(root, "settings"), "cache_k"), "f32");
        json_decref(root);
    }
}

/* Every switch makes the logits worse, by about what it is known to cost, and says so. */
static void test_verify_lower_precision(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        double least, most;
    } CASES[] = {
        { "--linear bf16", 1e-4, 3e-2 },
        { "--linear fp8", 1e-3, 0.3 },
        { "--linear int8", 1e-4, 0.1 },
        { "--cache-k e4m3", 1e-4, 0.1 },
        { "--cache-v int8", 1e-5, 3e-2 },
        { "--attention fp8", 1e-4, 0.2 },
        { "--attention fp8 --attention-scales tensor", 1e-4, 0.2 },
        { "--attention sage1 --attention-scales token", 1e-5, 0.1 },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        run_model_with("verify -m @ --tolerance 1 --json %s", CASES[i].options);
        json_t *root = parse_output();
        const double error = number(root, "rel_error");
        if (!(error > CASES[i].least && error < CASES[i].most)) fail_msg("%s: relative error %g", CASES[i].options, error);
        json_decref(root);
    }
}

static void test_verify_fails(void **state)
{
    (void)state;
    run_model("verify -m @ --tolerance 1e-12");
    assert_int_equal(result.status, 1);
    assert_non_null(strstr(result.out, "FAILED"));
    run_model("verify -m @ --tolerance 0 --json");
    assert_int_equal(result.status, 1);
    assert_non_null(strstr(result.out, "\"passed\": false"));
}

/* A golden file with these ids and logits of this shape, all `value`. */
static void write_golden(const char *path, octavo_dtype dtype, int64_t last_id, int64_t vocab, float value)
{
    enum { COUNT = 3 };
    int64_t wide[COUNT] = { 1, 2, last_id };
    int32_t narrow[COUNT] = { 1, 2, (int32_t)last_id };
    const int64_t shape[] = { 1, COUNT }, logits_shape[] = { 1, COUNT, vocab };
    float *logits = malloc((size_t)(COUNT * vocab) * sizeof *logits);
    for (int64_t i = 0; i < COUNT * vocab; i++) logits[i] = value;
    const char *const names[] = { "input_ids", "logits" };
    const octavo_tensor tensors[] = { octavo_tensor_view(dtype == OCTAVO_INT64 ? (void *)wide : (void *)narrow, dtype, 2, shape),
                                      octavo_tensor_view(logits, OCTAVO_F32, 3, logits_shape) };
    octavo_safetensors_write_params params = OCTAVO_SAFETENSORS_WRITE_PARAMS_INIT;
    params.count = 2;
    params.names = names;
    params.tensors = tensors;
    assert_int_equal(octavo_safetensors_write(path, &params), OCTAVO_OK);
    free(logits);
}

static void test_bad_golden(void **state)
{
    (void)state;
    char path[2 * FIXTURE_PATH_BYTES], line[LINE_BYTES];
    path_in_folder(path, "bad.safetensors");
    snprintf(line, sizeof line, "verify -m @ --golden %s", path);
    write_golden(path, OCTAVO_INT32, 297, TINY_VOCAB, 0.0f);
    assert_refused(line, "all zero");
    write_golden(path, OCTAVO_INT32, 297, TINY_VOCAB, NAN);
    assert_refused(line, "not finite");
    write_golden(path, OCTAVO_INT32, 298, TINY_VOCAB, 1.0f);
    assert_refused(line, "token 2 is 298");
    write_golden(path, OCTAVO_INT32, -1, TINY_VOCAB, 1.0f);
    assert_refused(line, "token 2 is -1");
    write_golden(path, OCTAVO_INT64, INT64_C(1) << 32, TINY_VOCAB, 1.0f);
    assert_refused(line, "no token id");
    write_golden(path, OCTAVO_INT32, 3, TINY_VOCAB - 1, 1.0f);
    assert_refused(line, "vocabulary of 297");
    write_golden(path, OCTAVO_F32, 3, TINY_VOCAB, 1.0f);
    assert_refused(line, "expected I32 or I64");
    write_golden(path, OCTAVO_INT64, 3, TINY_VOCAB, 1.0f);
    run_model(line);
    assert_int_equal(result.status, 1); /* readable, and wrong */
}

/* ---- perplexity ---- */

static json_t *perplexity(const char *options)
{
    char line[LINE_BYTES];
    snprintf(line, sizeof line, "perplexity -m @ --ids %s/golden.safetensors --json %s", model, options);
    run_model(line);
    return parse_output();
}

static void test_perplexity(void **state)
{
    (void)state;
    static const struct {
        const char *options;
        int first, tokens; /* what is scored */
    } CASES[] = {
        { "", 1, TINY_TOKENS },
        { "--tokens 10", 1, 10 },
        { "--last 5", TINY_TOKENS - 5, TINY_TOKENS },
        { "--last 500", 1, TINY_TOKENS },
        { "--tokens 10 --last 1", 9, 10 },
        { "--decode", 1, TINY_TOKENS },
        { "--decode --last 7", TINY_TOKENS - 7, TINY_TOKENS },
        { "--chunk 3", 1, TINY_TOKENS },
        { "--context 100", 1, TINY_TOKENS },
        /* every block is kept while the mass that may be dropped is next to nothing */
        { "--select mass --epsilon 1e-9 --block 4 --last 9", TINY_TOKENS - 9, TINY_TOKENS },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        json_t *root = perplexity(CASES[i].options);
        const double expected = golden_mean_loss(CASES[i].first, CASES[i].tokens), loss = number(root, "mean_loss");
        if (!(fabs(loss - expected) < 1e-5)) fail_msg("'%s': loss %.8f, expected %.8f", CASES[i].options, loss, expected);
        assert_true(fabs(number(root, "perplexity") - exp(loss)) < 1e-5 * exp(loss));
        assert_true(number(root, "predictions") == TINY_BATCH * (CASES[i].tokens - CASES[i].first));
        assert_true(number(root, "tokens") == CASES[i].tokens && number(root, "windows") == TINY_BATCH);
        json_decref(root);
    }
}

/* Windows know nothing of each other: 24 tokens in windows of 8 are three texts of 8, of which the first can be checked. */
static void test_windows(void **state)
{
    (void)state;
    json_t *root = perplexity("--context 8");
    assert_true(number(root, "predictions") == TINY_BATCH * 3 * 7 && number(root, "windows") == TINY_BATCH * 3);
    json_decref(root);
    root = perplexity("--tokens 9 --context 8"); /* the ninth token predicts nothing */
    assert_true(fabs(number(root, "mean_loss") - golden_mean_loss(1, 8)) < 1e-5);
    assert_true(number(root, "predictions") == TINY_BATCH * 7);
    json_decref(root);
    root = perplexity("--tokens 10 --context 8");
    assert_true(number(root, "predictions") == TINY_BATCH * 8 && number(root, "windows") == TINY_BATCH * 2);
    json_decref(root);
}

/* Bytes that decode reads follow from the formats. */
static void test_cache_bytes(void **state)
{
    (void)state;
    static const double ROWS = TINY_LAYERS * TINY_KV_HEADS;
    json_t *root = perplexity("");
    assert_string_equal(text(root, "path"), "prefill");
    assert_true(number(root, "cache_bytes_per_token") == ROWS * TINY_TOKENS * TINY_HEAD_DIM * 8); /* f32: K and V */
    assert_true(number(root, "decode_tokens") == 0 && number(root, "prefill_tokens") == TINY_BATCH * (TINY_TOKENS - 1));
    json_decref(root);
    root = perplexity("--decode --last 1 --cache-k bf16 --cache-v bf16");
    assert_string_equal(text(root, "path"), "decode");
    assert_true(number(root, "cache_bytes_per_token") == ROWS * (TINY_TOKENS - 1) * TINY_HEAD_DIM * 4);
    json_decref(root);
    root = perplexity("--last 1 --select base --cache-k int8x2 --cache-v int8");
    assert_true(number(root, "cache_bytes_per_token") == ROWS * (TINY_TOKENS - 1) * (2 * TINY_HEAD_DIM + 4));
    json_decref(root);
}

/* FP8 products of single tokens cost a little where there are single tokens, and nothing of a prompt. */
static void test_decode_attention(void **state)
{
    (void)state;
    static const struct { const char *path; double least, most; } PATHS[] = { { "--decode --last 12", 1e-5, 0.1 }, { "", 0.0, 1e-12 } };
    for (int i = 0; i < 2; i++) {
        char line[LINE_BYTES];
        json_t *root = perplexity(PATHS[i].path);
        const double exact = number(root, "mean_loss");
        json_decref(root);
        snprintf(line, sizeof line, "%s --decode-attention fp8", PATHS[i].path);
        root = perplexity(line);
        const double cost = fabs(number(root, "mean_loss") - exact);
        if (!(cost >= PATHS[i].least && cost <= PATHS[i].most)) fail_msg("%s: %g more", line, cost);
        assert_string_equal(text(json_object_get(root, "settings"), "decode_attention"), "fp8");
        json_decref(root);
    }
}

/* Dropping blocks loses a little and reads less; layers that stay dense read everything. */
static void test_selection(void **state)
{
    (void)state;
    static const char OPTIONS[] = "--last 12 --cache-k e4m3x2 --cache-v bf16 --block 4 --select mass --epsilon 0.3 --compensate mean --splits fixed";
    char dense[256];
    json_t *root = perplexity(OPTIONS);
    const double skipped = number(root, "skip_ratio"), bytes = number(root, "cache_bytes_per_token"), loss = number(root, "mean_loss");
    assert_true(skipped > 0 && skipped < 1);
    assert_true(fabs(loss - golden_mean_loss(TINY_TOKENS - 12, TINY_TOKENS)) < 0.5);
    assert_string_equal(text(json_object_get(root, "settings"), "compensate"), "mean");
    assert_string_equal(text(json_object_get(root, "settings"), "splits"), "fixed");
    json_decref(root);
    snprintf(dense, sizeof dense, "%s --dense-layers 0", OPTIONS);
    root = perplexity(dense);
    assert_true(number(root, "skip_ratio") < skipped && number(root, "skip_ratio") > 0);
    assert_int_equal(json_array_size(json_object_get(json_object_get(root, "settings"), "dense_layers")), 1);
    json_decref(root);
    snprintf(dense, sizeof dense, "%s --dense-layers 1,0", OPTIONS);
    root = perplexity(dense);
    assert_true(number(root, "skip_ratio") == 0 && number(root, "cache_bytes_per_token") > 0 && bytes > 0);
    assert_true(fabs(number(root, "mean_loss") - golden_mean_loss(TINY_TOKENS - 12, TINY_TOKENS)) < 0.02);
    json_decref(root);
}

static void test_perplexity_of_text(void **state)
{
    (void)state;
    char path[2 * FIXTURE_PATH_BYTES], line[LINE_BYTES];
    text_file(path, "text.txt", "<|begin_of_text|>def mean(values):\n    return sum(values)\n");
    snprintf(line, sizeof line, "perplexity -m @ --text %s", path);
    run_model(line);
    assert_int_equal(result.status, 0);
    assert_memory_equal(result.out, "loss ", 5);
    assert_string_equal(result.err, "");
    text_file(path, "text.txt", "<|begin_of_text|>\xff\xfe");
    assert_refused(line, "UTF-8");
    text_file(path, "text.txt", "<|begin_of_text|>");
    assert_refused(line, "has 1 token");
    text_file(path, "text.txt", "");
    assert_refused(line, "has 0 token");
    char *longer = calloc(1, 301);
    memset(longer, 'x', 300);
    text_file(path, "text.txt", longer);
    free(longer);
    assert_refused(line, "--context N");
}

/* ---- record ---- */

static void open_recording(const char *path, int32_t layer, octavo_recording *recording)
{
    *recording = (octavo_recording)OCTAVO_RECORDING_INIT;
    if (octavo_recording_open(path, layer, recording) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
}

static void test_record(void **state)
{
    (void)state;
    char path[2 * FIXTURE_PATH_BYTES], line[LINE_BYTES];
    octavo_recording r;
    path_in_folder(path, "layers.safetensors");
    snprintf(line, sizeof line, "record -m @ --ids %s/golden.safetensors --layers 1,0 --queries 5 --chunk 7 --out %s", model, path);
    run_model(line);
    if (result.status != 0) fail_msg("%s", result.err);
    open_recording(path, 0, &r);
    assert_true(r.batch == TINY_BATCH && r.q_heads == TINY_Q_HEADS && r.kv_heads == TINY_KV_HEADS && r.queries == 5);
    assert_true(r.tokens == TINY_TOKENS && r.head_dim == TINY_HEAD_DIM && r.value_dim == TINY_HEAD_DIM && r.k.dtype == OCTAVO_BF16);
    assert_true(!r.h.data && !r.q_unrope.data && !r.k_unrope.data);
    octavo_recording_close(&r);
    snprintf(line, sizeof line, "bench decode --data %s --layer 1 --queries all --repeat 1 -t 1 --json", path);
    run_model(line);
    json_t *root = parse_output();
    assert_true(number(json_array_get(json_object_get(root, "results"), 0), "rel_error") < 1e-5);
    json_decref(root);
}

/* Rotation leaves position 0 alone and keeps the length of each pair. */
static void check_rotation(const octavo_tensor *before, const octavo_tensor *after, int64_t first_position)
{
    enum { HALF = TINY_HEAD_DIM / 2 };
    const float *x = before->data, *y = after->data;
    double turned = 0;
    for (int64_t row = 0; row < before->shape[1] * before->shape[2]; row++, x += TINY_HEAD_DIM, y += TINY_HEAD_DIM)
        for (int i = 0; i < HALF; i++) {
            const double length = hypot((double)x[i], (double)x[i + HALF]);
            assert_true(fabs(hypot((double)y[i], (double)y[i + HALF]) - length) <= 1e-5 * (length + 1));
            if (first_position + row % before->shape[2] == 0) assert_true(fabsf(y[i] - x[i]) <= 1e-6f);
            turned += fabs((double)(y[i] - x[i]));
        }
    assert_true(turned > 1);
}

static void test_record_everything(void **state)
{
    (void)state;
    char path[2 * FIXTURE_PATH_BYTES], line[LINE_BYTES];
    octavo_recording r;
    path_in_folder(path, "everything.safetensors");
    snprintf(line, sizeof line, "record -m @ --ids %s/golden.safetensors --layers 1 --tokens 20 --queries 99 --dtype f32 --with-h --h-tokens 6 "
                                "--with-unrotated --chunk 6 --out %s", model, path);
    run_model(line);
    if (result.status != 0) fail_msg("%s", result.err);
    open_recording(path, 1, &r);
    assert_true(r.queries == 20 && r.tokens == 20 && r.k.dtype == OCTAVO_F32);
    assert_true(r.h.data && r.h.shape[0] == TINY_BATCH && r.h.shape[1] == 6);
    check_rotation(&r.k_unrope, &r.k, 0);
    check_rotation(&r.q_unrope, &r.q, 0);
    octavo_recording_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_help),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_verify),
        cmocka_unit_test(test_verify_lower_precision),
        cmocka_unit_test(test_verify_fails),
        cmocka_unit_test(test_bad_golden),
        cmocka_unit_test(test_perplexity),
        cmocka_unit_test(test_windows),
        cmocka_unit_test(test_cache_bytes),
        cmocka_unit_test(test_decode_attention),
        cmocka_unit_test(test_selection),
        cmocka_unit_test(test_perplexity_of_text),
        cmocka_unit_test(test_record),
        cmocka_unit_test(test_record_everything),
    };
    if (!program_path()) {
        fprintf(stderr, "skipped: OCTAVO_PROGRAM does not name the program\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, start_folder, remove_folder);
}
