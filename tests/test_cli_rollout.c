/* test_cli_rollout.c - octavo rollout over the tiny checkpoint: answers, their numbers, and runs that were stopped. */
#define _GNU_SOURCE
#include "cli_model_fixture.h"
#include <sys/file.h>
#include <sys/stat.h>

enum { LINES_MOST = 64 };
static const char OPTIONS[] = "--samples 3 --max-tokens 12 --cache-k e4m3 --cache-v e4m3";
static const char PROMPTS[] = "{\"prompt\": \"def mean(values):\\n\", \"id\": \"first\"}\n"
                              "\n"
                              "{\"ids\": [0, 5, 6, 7], \"id\": 17, \"ignored\": [1]}\n"
                              "{\"ids\": [9]}";

typedef struct answers {
    json_t *header, *lines[LINES_MOST];
    size_t count;
} answers;

static answers read_answers(const char *path)
{
    answers found = { 0 };
    char *line = NULL;
    size_t capacity = 0;
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    while (getline(&line, &capacity, file) > 0) {
        json_t *object = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(object);
        if (!found.header) {
            found.header = object;
        } else {
            assert_true(found.count < LINES_MOST);
            found.lines[found.count++] = object;
        }
    }
    free(line);
    fclose(file);
    return found;
}

static void release_answers(answers *found)
{
    for (size_t i = 0; i < found->count; i++) json_decref(found->lines[i]);
    json_decref(found->header);
}

static json_t *answer_of(const answers *found, int prompt, int sample)
{
    for (size_t i = 0; i < found->count; i++)
        if (number(found->lines[i], "prompt") == prompt && number(found->lines[i], "sample") == sample) return found->lines[i];
    fail_msg("no answer %d to prompt %d", sample, prompt);
    return NULL;
}

static void assert_same_answers(const answers *a, const answers *b)
{
    assert_int_equal(a->count, b->count);
    assert_true(json_equal(a->header, b->header));
    for (size_t i = 0; i < a->count; i++) {
        const json_t *other = answer_of(b, (int)number(a->lines[i], "prompt"), (int)number(a->lines[i], "sample"));
        assert_true(json_equal(a->lines[i], other));
    }
}

static void rollout_line(char line[LINE_BYTES], const char *options, const char *out)
{
    char prompts[2 * FIXTURE_PATH_BYTES], path[2 * FIXTURE_PATH_BYTES];
    path_in_folder(prompts, "prompts.jsonl");
    path_in_folder(path, out);
    if (snprintf(line, LINE_BYTES, "rollout -m @ --prompts %s --out %s %s", prompts, path, options) >= LINE_BYTES) abort();
}

/* Runs it and reads the file. */
static answers rollout(const char *options, const char *out)
{
    char line[LINE_BYTES], path[2 * FIXTURE_PATH_BYTES];
    rollout_line(line, options, out);
    path_in_folder(path, out);
    run_model(line);
    if (result.status != 0) fail_msg("'%s': %s", line, result.err);
    assert_string_equal(result.out, "");
    return read_answers(path);
}

static void write_prompts(const char *text)
{
    char path[2 * FIXTURE_PATH_BYTES];
    text_file(path, "prompts.jsonl", text);
}

/* ---- what a run writes ---- */

static void check_answer(const json_t *answer, size_t prompt_tokens)
{
    static const char *const LISTS[] = { "logprobs", "sampled_logprobs" };
    const size_t count = json_array_size(json_object_get(answer, "ids"));
    assert_true(count >= 1 && count <= 12 && number(answer, "prompt_tokens") == (double)prompt_tokens);
    for (size_t i = 0; i < sizeof LISTS / sizeof *LISTS; i++) {
        const json_t *list = json_object_get(answer, LISTS[i]);
        assert_int_equal(json_array_size(list), count);
        for (size_t k = 0; k < count; k++) assert_true(json_real_value(json_array_get(list, k)) <= 0);
    }
    assert_true(json_is_string(json_object_get(answer, "text")));
    assert_true(strcmp(text(answer, "finish"), "eos") == 0 || (strcmp(text(answer, "finish"), "length") == 0 && count == 12));
}

static void test_answers(void **state)
{
    (void)state;
    write_prompts(PROMPTS);
    answers found = rollout(OPTIONS, "answers.jsonl");
    assert_int_equal(found.count, 9);
    assert_string_equal(text(found.header, "schema"), "octavo-rollout-1");
    for (int sample = 0; sample < 3; sample++) {
        check_answer(answer_of(&found, 0, sample), (size_t)number(answer_of(&found, 0, 0), "prompt_tokens"));
        check_answer(answer_of(&found, 1, sample), 4);
        check_answer(answer_of(&found, 2, sample), 1);
        assert_string_equal(text(answer_of(&found, 0, sample), "id"), "first");
        assert_true(number(answer_of(&found, 1, sample), "id") == 17);
        assert_null(json_object_get(answer_of(&found, 2, sample), "id"));
    }
    for (int prompt = 0; prompt < 3; prompt++)
        assert_false(json_equal(json_object_get(answer_of(&found, prompt, 0), "ids"), json_object_get(answer_of(&found, prompt, 1), "ids")));
    release_answers(&found);
}

/* Where everything is float32, a token has the same probability wherever it is computed: as part of a batch that shares a prompt,
 * by the scoring session, and by octavo perplexity over prompt and answer. */
static void test_scores(void **state)
{
    (void)state;
    char path[2 * FIXTURE_PATH_BYTES], line[LINE_BYTES];
    write_prompts(PROMPTS);
    answers found = rollout("--samples 3 --max-tokens 12 --score f32 --ignore-eos", "scores.jsonl");
    for (size_t i = 0; i < found.count; i++) {
        const json_t *plain = json_object_get(found.lines[i], "logprobs"), *exact = json_object_get(found.lines[i], "score_logprobs");
        const json_t *drawn = json_object_get(found.lines[i], "sampled_logprobs");
        assert_int_equal(json_array_size(exact), 12);
        for (size_t k = 0; k < 12; k++) {
            const double p = json_real_value(json_array_get(plain, k));
            assert_true(fabs(p - json_real_value(json_array_get(exact, k))) < 1e-4);
            assert_true(fabs(p - json_real_value(json_array_get(drawn, k))) < 1e-4); /* temperature 1, no filter */
        }
    }
    const json_t *answer = answer_of(&found, 1, 2);
    int32_t ids[16] = { 0, 5, 6, 7 };
    double sum = 0;
    for (size_t k = 0; k < 12; k++) {
        ids[4 + k] = (int32_t)json_integer_value(json_array_get(json_object_get(answer, "ids"), k));
        sum -= json_real_value(json_array_get(json_object_get(answer, "logprobs"), k));
    }
    const char *const name = "input_ids";
    const int64_t shape[] = { 16 };
    const octavo_tensor tensor = octavo_tensor_view(ids, OCTAVO_INT32, 1, shape);
    octavo_safetensors_write_params params = OCTAVO_SAFETENSORS_WRITE_PARAMS_INIT;
    params.count = 1;
    params.names = &name;
    params.tensors = &tensor;
    path_in_folder(path, "ids.safetensors");
    assert_int_equal(octavo_safetensors_write(path, &params), OCTAVO_OK);
    snprintf(line, sizeof line, "perplexity -m @ --ids %s --last 12 --json", path);
    run_model(line);
    json_t *root = parse_output();
    assert_true(fabs(number(root, "mean_loss") - sum / 12) < 1e-5);
    json_decref(root);
    release_answers(&found);
}

/* Filters and temperature change the distribution that is drawn from, not the model's. */
static void test_filters(void **state)
{
    (void)state;
    write_prompts("{\"ids\": [0, 5, 6, 7]}");
    answers found = rollout("--samples 6 --max-tokens 8 --temperature 0.7 --top-k 3 --ignore-eos", "filters.jsonl");
    for (size_t i = 0; i < found.count; i++)
        for (size_t k = 0; k < 8; k++) {
            const double drawn = json_real_value(json_array_get(json_object_get(found.lines[i], "sampled_logprobs"), k));
            assert_true(drawn > json_real_value(json_array_get(json_object_get(found.lines[i], "logprobs"), k)) - 1e-6);
        }
    release_answers(&found);
    found = rollout("--samples 2 --max-tokens 8 --temperature 0 --ignore-eos --ids", "greedy.jsonl");
    assert_true(json_equal(json_object_get(found.lines[0], "ids"), json_object_get(found.lines[1], "ids")));
    assert_null(json_object_get(found.lines[0], "text"));
    release_answers(&found);
}

static void test_stop(void **state)
{
    (void)state;
    write_prompts("{\"ids\": [0, 5, 6, 7]}");
    answers whole = rollout("--samples 4 --max-tokens 40 --ignore-eos", "whole.jsonl"), stopped = rollout("--samples 4 --max-tokens 40 --ignore-eos --stop e", "stopped.jsonl");
    int found = 0;
    for (int sample = 0; sample < 4; sample++) {
        const char *all = text(answer_of(&whole, 0, sample), "text"), *part = text(answer_of(&stopped, 0, sample), "text");
        const char *at = strchr(all, 'e');
        assert_string_equal(text(answer_of(&stopped, 0, sample), "finish"), at ? "stop" : "length");
        assert_int_equal(strlen(part), at ? (size_t)(at - all) : strlen(all));
        assert_memory_equal(part, all, strlen(part));
        found += at != NULL;
    }
    assert_true(found > 0);
    release_answers(&whole);
    release_answers(&stopped);
}

/* ---- runs that were stopped ---- */

static size_t read_whole(const char *name, char *text, size_t bytes)
{
    char path[2 * FIXTURE_PATH_BYTES];
    path_in_folder(path, name);
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    const size_t size = fread(text, 1, bytes, file);
    fclose(file);
    assert_true(size < bytes);
    return size;
}

/* Wherever a run dies, the next one gives what the whole run gives. */
static void test_resume(void **state)
{
    (void)state;
    static char content[1 << 17];
    char path[2 * FIXTURE_PATH_BYTES];
    write_prompts(PROMPTS);
    answers whole = rollout(OPTIONS, "resume.jsonl");
    const size_t size = read_whole("resume.jsonl", content, sizeof content);
    const size_t header = (size_t)(strchr(content, '\n') - content) + 1;
    const size_t cuts[] = { 0, 1, header - 1, header, header + 1, header + (size - header) / 3, size / 2, size - 1, size };
    path_in_folder(path, "resume.jsonl");
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        write_file(path, content, cuts[i]);
        answers again = rollout(OPTIONS, "resume.jsonl");
        assert_same_answers(&whole, &again);
        release_answers(&again);
    }
    assert_non_null(strstr(result.err, "9 answers, 9 of them from before"));
    /* how many threads there are is no setting */
    write_file(path, content, size / 2);
    char options[256];
    snprintf(options, sizeof options, "%s -t 1", OPTIONS);
    answers again = rollout(options, "resume.jsonl");
    assert_same_answers(&whole, &again);
    release_answers(&again);
    release_answers(&whole);
}

static void test_other_settings(void **state)
{
    (void)state;
    static const struct {
        const char *options, *fragment;
    } CASES[] = {
        { "--samples 4 --max-tokens 12 --cache-k e4m3 --cache-v e4m3", "'samples' is 3 there, 4 here" },
        { "--samples 3 --max-tokens 12 --cache-k int8 --cache-v e4m3", "'cache_k' is \"e4m3\" there, \"int8\" here" },
        { "--samples 3 --max-tokens 12 --cache-k e4m3 --cache-v e4m3 -s 2", "'sampling'" },
        { "--samples 3 --max-tokens 12 --cache-k e4m3 --cache-v e4m3 --stop x", "'stop'" },
        { "--samples 3 --max-tokens 12 --cache-k e4m3 --cache-v e4m3 --score bf16", "'score'" },
    };
    char line[LINE_BYTES];
    write_prompts(PROMPTS);
    answers found = rollout(OPTIONS, "settings.jsonl");
    release_answers(&found);
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        rollout_line(line, CASES[i].options, "settings.jsonl");
        assert_refused(line, CASES[i].fragment);
    }
    write_prompts("{\"ids\": [1]}\n{\"ids\": [2]}\n{\"ids\": [3]}\n");
    rollout_line(line, OPTIONS, "settings.jsonl");
    assert_refused(line, "'prompts_hash'");
}

/* What was not written by a rollout is never touched. */
static void test_foreign_files(void **state)
{
    (void)state;
    static char content[1 << 17];
    static const char *const FOREIGN[] = { "notes", "notes\n", "{}\n", "{\"schema\":\"octavo-rollout-1\"}\n", "[1]\n", "\n" };
    char path[2 * FIXTURE_PATH_BYTES], line[LINE_BYTES];
    write_prompts(PROMPTS);
    rollout_line(line, OPTIONS, "foreign.jsonl");
    for (size_t i = 0; i < sizeof FOREIGN / sizeof *FOREIGN; i++) {
        text_file(path, "foreign.jsonl", FOREIGN[i]);
        assert_refused(line, "line 1");
        assert_int_equal(read_whole("foreign.jsonl", content, sizeof content), strlen(FOREIGN[i]));
    }
    /* good but for a line that repeats an answer, or names none */
    unlink(path);
    answers found = rollout(OPTIONS, "foreign.jsonl");
    release_answers(&found);
    const size_t size = read_whole("foreign.jsonl", content, sizeof content - 256);
    snprintf(content + size, 256, "{\"prompt\":0,\"sample\":0}\n");
    text_file(path, "foreign.jsonl", content);
    assert_refused(line, "line 11: it repeats an answer");
    snprintf(content + size, 256, "{\"prompt\":3,\"sample\":0}\n");
    text_file(path, "foreign.jsonl", content);
    assert_refused(line, "line 11: it names no answer of this run");
    assert_int_equal(read_whole("foreign.jsonl", content, sizeof content), size + 24);
}

static void test_one_writer(void **state)
{
    (void)state;
    char path[2 * FIXTURE_PATH_BYTES], line[LINE_BYTES];
    write_prompts(PROMPTS);
    text_file(path, "locked.jsonl", "");
    const int file = open(path, O_RDWR);
    assert_int_equal(flock(file, LOCK_EX), 0);
    rollout_line(line, OPTIONS, "locked.jsonl");
    assert_refused(line, "another run");
    close(file);
}

/* ---- wrong use, bad prompts ---- */

static void test_wrong_use(void **state)
{
    (void)state;
    static const struct {
        const char *options, *fragment;
    } CASES[] = {
        { "--samples 0", "'0'" },
        { "--max-tokens 0", "'0'" },
        { "--score fp8", "'fp8'" },
        { "--stop \xff", "not UTF-8" },
        { "--stop x --ids", "exclude" },
        { "--temperature -1", "--temperature is -1" },
        { "-c 2", "room for 2" },
        { "--cache-k e9m9", "e9m9" },
    };
    char line[LINE_BYTES];
    write_prompts(PROMPTS);
    assert_refused("rollout -m @ --out x", "--prompts FILE is needed");
    assert_refused("rollout -m @ --prompts x", "--out FILE is needed");
    assert_refused("rollout -m @ --prompts /nonexistent-file --out x", "/nonexistent-file");
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        rollout_line(line, CASES[i].options, "never.jsonl");
        assert_refused(line, CASES[i].fragment);
    }
    rollout_line(line, "--out /nonexistent-folder/x", "never.jsonl");
    assert_refused(line, "/nonexistent-folder/x");
    rollout_line(line, "--out /dev/null", "never.jsonl");
    assert_refused(line, "is not a file");
}

static void test_bad_prompts(void **state)
{
    (void)state;
    static const struct {
        const char *prompts, *fragment;
    } CASES[] = {
        { "", "no prompt" },
        { "\n \n", "no prompt" },
        { "{\"prompt\": \"x\"}\nnothing\n", "line 2: it is not JSON" },
        { "[1]\n", "line 1: it is not an object" },
        { "{}", "neither" },
        { "{\"prompt\": \"x\", \"ids\": [1]}", "both" },
        { "{\"prompt\": \"x\", \"prompt\": \"y\"}", "duplicate" },
        { "{\"prompt\": \"\"}", "at least one character" },
        { "{\"prompt\": 3}", "at least one character" },
        { "{\"prompt\": \"a\\u0000b\"}", "line 1: it is not JSON" },
        { "{\"ids\": []}", "at least one" },
        { "{\"ids\": \"1,2\"}", "at least one" },
        { "{\"ids\": [1, 2.5]}", "place 1" },
        { "{\"ids\": [-1]}", "place 0" },
        { "{\"ids\": [2147483648]}", "place 0" },
        { "{\"ids\": [1, 298]}", "token 1 is 298" },
        { "{\"ids\": [1], \"id\": [2]}", "'id'" },
    };
    char line[LINE_BYTES], path[2 * FIXTURE_PATH_BYTES];
    rollout_line(line, OPTIONS, "never.jsonl");
    path_in_folder(path, "never.jsonl");
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        write_prompts(CASES[i].prompts);
        assert_refused(line, CASES[i].fragment);
        assert_int_equal(access(path, F_OK), -1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers),        cmocka_unit_test(test_scores),        cmocka_unit_test(test_filters),
        cmocka_unit_test(test_stop),           cmocka_unit_test(test_resume),        cmocka_unit_test(test_other_settings),
        cmocka_unit_test(test_foreign_files),  cmocka_unit_test(test_one_writer),    cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_bad_prompts),
    };
    if (!program_path()) {
        fprintf(stderr, "skipped: OCTAVO_PROGRAM does not name the program\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, start_folder, remove_folder);
}
