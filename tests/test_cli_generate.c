/* test_cli_generate.c - octavo generate over the tiny checkpoint. */
#define _GNU_SOURCE
#include "cli_model_fixture.h"
#include <errno.h>
#include <termios.h>

static json_t *generate(const char *options)
{
    char line[LINE_BYTES];
    snprintf(line, sizeof line, "generate -m @ --json %s", options);
    run_model(line);
    return parse_output();
}

static void assert_same_ids(const json_t *a, const json_t *b, int same)
{
    assert_int_equal(json_equal(json_object_get(a, "ids"), json_object_get(b, "ids")), same);
}

static void test_wrong_use(void **state)
{
    (void)state;
    static const struct {
        const char *line, *fragment;
    } CASES[] = {
        { "generate -m @", "--prompt TEXT" },
        { "generate -m @ -p a --prompt-ids 1", "--prompt TEXT" },
        { "generate -p a", "--model DIR is needed" },
        { "generate -m @ -p", "--prompt needs a value" },
        { "generate -m @ --prompt-file /nonexistent-file", "/nonexistent-file" },
        { "generate -m @ --prompt-ids 1,,2", "--prompt-ids" },
        { "generate -m @ --prompt-ids 1,298", "token 1 is 298" },
        { "generate -m @ -p \xff", "UTF-8" },
        { "generate -m @ -p a -n 0", "'0'" },
        { "generate -m @ -p a --temperature -1", "--temperature is -1" },
        { "generate -m @ -p a --temperature nan", "'nan'" },
        { "generate -m @ -p a --top-p 1.5", "--top-p is 1.5" },
        { "generate -m @ -p a --min-p -0.5", "--min-p is -0.5" },
        { "generate -m @ -p a --top-k -1", "'-1'" },
        { "generate -m @ -p a -s -1", "'-1'" },
        { "generate -m @ -p a --stop= -n 2", "empty" },
        { "generate -m @ -p a --stop \xc3 -n 2", "not UTF-8" },
        { "generate -m @ -p a --stop x --ids", "exclude" },
        { "generate -m @ -p a --bos --no-bos", "exclude" },
        { "generate -m @ -p a -c 257", "made for 256" },
        { "generate -m @ --prompt-ids 1,2,3 -c 2", "room for 2" },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) assert_refused(CASES[i].line, CASES[i].fragment);
}

/* The same seed gives the same answer, in pieces of any size and on any number of threads; another seed another one. */
static void test_seeds(void **state)
{
    (void)state;
    json_t *first = generate("-p def -n 40 -s 5 --temperature 1 --top-k 0 --top-p 1 --min-p 0");
    json_t *again = generate("-p def -n 40 -s 5 --temperature 1 --top-k 0 --top-p 1 --min-p 0 -t 1");
    json_t *other = generate("-p def -n 40 -s 6 --temperature 1 --top-k 0 --top-p 1 --min-p 0");
    assert_same_ids(first, again, 1);
    assert_string_equal(text(first, "text"), text(again, "text"));
    assert_same_ids(first, other, 0);
    assert_string_equal(text(first, "schema"), "octavo-generate-1");
    assert_true(number(first, "tokens") == (double)json_array_size(json_object_get(first, "ids")));
    assert_int_equal(json_array_size(json_object_get(first, "logprobs")), json_array_size(json_object_get(first, "ids")));
    assert_true(number(json_object_get(first, "sampling"), "seed") == 5);
    json_decref(first);
    json_decref(again);
    json_decref(other);
}

/* Temperature 0, top-k 1 and a tiny top-p all leave the likeliest token. */
static void test_greedy(void **state)
{
    (void)state;
    json_t *greedy = generate("--prompt-ids 5,6,7 -n 12 --temperature 0 -s 1");
    static const char *const SAME[] = { "--prompt-ids 5,6,7 -n 12 --temperature 0 -s 2", "--prompt-ids 5,6,7 -n 12 --top-k 1",
                                        "--prompt-ids 5,6,7 -n 12 --top-p 0.0001", "--prompt-ids 5,6,7 -n 12 --min-p 1",
                                        "--prompt-ids 5,6,7 -n 12 --temperature 0 --chunk 2" };
    for (size_t i = 0; i < sizeof SAME / sizeof *SAME; i++) {
        json_t *other = generate(SAME[i]);
        assert_same_ids(greedy, other, 1);
        json_decref(other);
    }
    for (size_t i = 0; i < json_array_size(json_object_get(greedy, "logprobs")); i++)
        assert_true(json_number_value(json_array_get(json_object_get(greedy, "logprobs"), i)) < 0);
    json_decref(greedy);
}

/* Without --json the same text comes as a stream, and the figures on stderr. */
static void test_stream(void **state)
{
    (void)state;
    static const char LINE[] = "-p mean -n 60 -s 3 --temperature 2 --top-k 0 --top-p 1 --min-p 0 --ignore-eos";
    json_t *root = generate(LINE);
    run_model_with("generate -m @ %s", LINE);
    assert_int_equal(result.status, 0);
    assert_string_equal(result.out, text(root, "text"));
    assert_non_null(strstr(result.err, "tokens, "));
    assert_non_null(strstr(result.err, "bytes of cache a token"));
    assert_non_null(strstr(result.err, "ended by length"));
    assert_ptr_equal(strchr(result.err, '\n'), result.err + strlen(result.err) - 1);

    run_model_with("generate -m @ --ids %s", LINE);
    char ids[PRINTED_BYTES] = "", *end = ids;
    size_t i;
    json_t *id;
    json_array_foreach(json_object_get(root, "ids"), i, id)
        end += sprintf(end, "%s%d", i ? " " : "", (int)json_integer_value(id));
    snprintf(end, 2, "\n");
    assert_string_equal(result.out, ids);
    json_decref(root);
}

/* Figures that follow from the shapes. */
static void test_figures(void **state)
{
    (void)state;
    json_t *root = generate("--prompt-ids 5,6,7,8,9 -n 4 --ignore-eos");
    assert_true(number(root, "prefill_tokens") == 5 && number(root, "decode_tokens") == 3 && number(root, "tokens") == 4);
    /* three tokens over caches of 6, 7 and 8 */
    assert_true(number(root, "cache_bytes_per_token") == 7 * TINY_LAYERS * TINY_KV_HEADS * TINY_HEAD_DIM * 8);
    assert_true(number(root, "skip_ratio") == 0 && number(root, "weight_bytes_per_token") > 0);
    assert_true(number(root, "decode_tokens_per_second") > 0 && number(root, "prefill_tokens_per_second") > 0);
    assert_int_equal(json_array_size(json_object_get(root, "prompt_ids")), 5);
    assert_string_equal(text(root, "finish"), "length");
    json_decref(root);
}

/* An answer ends where the context does; its last token needs no room. */
static void test_context(void **state)
{
    (void)state;
    json_t *root = generate("--prompt-ids 5,6,7,8,9 -n 100 --ignore-eos -c 8");
    assert_true(number(root, "tokens") == 4);
    assert_string_equal(text(root, "finish"), "context");
    json_decref(root);
    root = generate("--prompt-ids 5 -n 1000 --ignore-eos");
    assert_true(number(root, "tokens") == TINY_CONTEXT);
    json_decref(root);
}

/* The token that ends a text ends the answer, and gives no text. */
static void test_end_of_text(void **state)
{
    (void)state;
    for (int seed = 1; seed < 40; seed++) {
        char options[256];
        snprintf(options, sizeof options, "-p x -n 200 --temperature 3 --top-k 0 --top-p 1 --min-p 0 -s %d", seed);
        json_t *root = generate(options);
        if (strcmp(text(root, "finish"), "eos") != 0) {
            json_decref(root);
            continue;
        }
        const json_t *ids = json_object_get(root, "ids");
        assert_int_equal(json_integer_value(json_array_get(ids, json_array_size(ids) - 1)), 1);
        assert_null(strstr(text(root, "text"), "end_of_text"));
        snprintf(options + strlen(options), 32, " --ignore-eos");
        json_t *longer = generate(options);
        assert_string_equal(text(longer, "finish"), "length");
        assert_int_equal(strncmp(text(longer, "text"), text(root, "text"), strlen(text(root, "text"))), 0);
        json_decref(longer);
        json_decref(root);
        return;
    }
    fail_msg("no seed gave the token that ends a text");
}

/* Any part of an answer that is used as a stop string ends it there, however its bytes lie in tokens. */
static void test_stop(void **state)
{
    (void)state;
    static const char OPTIONS[] = "-p def -n 80 -s 2 --temperature 2 --top-k 0 --top-p 1 --min-p 0 --ignore-eos";
    json_t *whole = generate(OPTIONS);
    const char *answer = text(whole, "text");
    int tried = 0;
    for (size_t at = 4; at + 8 < strlen(answer) && tried < 6; at += 7) {
        char stop[16] = "", line[LINE_BYTES];
        size_t begin = at, bytes = 0;
        while ((answer[begin] & 0xc0) == 0x80) begin++; /* not inside a character */
        while (bytes < 4 || (answer[begin + bytes] & 0xc0) == 0x80) bytes++;
        memcpy(stop, answer + begin, bytes);
        if (strpbrk(stop, " \t\n\r\v\f") || strcmp(stop, "@") == 0) continue; /* the fixture splits at blanks */
        snprintf(line, sizeof line, "%s --stop %s --stop never-there", OPTIONS, stop);
        json_t *root = generate(line);
        const size_t expected = (size_t)(strstr(answer, stop) - answer);
        assert_string_equal(text(root, "finish"), "stop");
        assert_int_equal(strlen(text(root, "text")), expected);
        assert_memory_equal(text(root, "text"), answer, expected);
        json_decref(root);
        tried++;
    }
    assert_true(tried >= 3);
    json_decref(whole);
}

static void test_prompts(void **state)
{
    (void)state;
    char path[2 * FIXTURE_PATH_BYTES], options[LINE_BYTES];
    text_file(path, "prompt.txt", "<|begin_of_text|>def mean(values):\n");
    snprintf(options, sizeof options, "--prompt-file %s -n 8", path);
    json_t *from_file = generate(options);
    assert_int_equal(json_integer_value(json_array_get(json_object_get(from_file, "prompt_ids"), 0)), 0);
    text_file(path, "prompt.txt", "def mean(values):\n");
    snprintf(options, sizeof options, "--prompt-file %s -n 8 --bos", path);
    json_t *with_bos = generate(options);
    assert_true(json_equal(json_object_get(from_file, "prompt_ids"), json_object_get(with_bos, "prompt_ids")));
    assert_same_ids(from_file, with_bos, 1);

    const int input = dup(STDIN_FILENO);
    assert_true(freopen(path, "rb", stdin) != NULL);
    json_t *from_input = generate("--prompt-file - -n 8 --bos");
    if (input >= 0) {
        dup2(input, STDIN_FILENO);
        close(input);
    }
    assert_same_ids(from_file, from_input, 1);
    json_decref(from_file);
    json_decref(with_bos);
    json_decref(from_input);
    text_file(path, "prompt.txt", "");
    run_model_with("generate -m @ --prompt-file %s", path);
    assert_int_equal(result.status, 2);
    assert_non_null(strstr(result.err, "prompt is empty"));
}

/* A folder of links to files of the tiny checkpoint; the names end with NULL. */
static void linked_checkpoint(char path[2 * FIXTURE_PATH_BYTES], const char *const *names)
{
    char from[3 * FIXTURE_PATH_BYTES], to[3 * FIXTURE_PATH_BYTES];
    path_in_folder(path, "linked-XXXXXX");
    assert_non_null(mkdtemp(path));
    for (; *names; names++) {
        snprintf(from, sizeof from, "%s/%s", model, *names);
        snprintf(to, sizeof to, "%s/%s", path, *names);
        char *const source = realpath(from, NULL);
        assert_non_null(source);
        assert_int_equal(symlink(source, to), 0);
        free(source);
    }
}

static json_t *generate_in(const char *checkpoint, const char *options)
{
    char line[LINE_BYTES];
    snprintf(line, sizeof line, "generate -m %s --json %s", checkpoint, options);
    run_model(line);
    return parse_output();
}

static void write_text(const char *path, const char *content) { write_file(path, content, strlen(content)); }

static int close_to(const json_t *sampling, const char *name, double value) { return fabs(number(sampling, name) - value) < 1e-6; }

/* generation_config.json gives the defaults of sampling and more ends; options have the last word. */
static void test_generation_config(void **state)
{
    (void)state;
    static const char *const FILES[] = { "config.json", "model.safetensors", "tokenizer.json", NULL };
    char path[2 * FIXTURE_PATH_BYTES], file[3 * FIXTURE_PATH_BYTES], text_of[128];
    linked_checkpoint(path, FILES);
    snprintf(file, sizeof file, "%s/generation_config.json", path);
    write_text(file, "{\"temperature\":0.25,\"top_p\":0.5}");
    json_t *by_file = generate_in(path, "-p def -n 12");
    const json_t *sampling = json_object_get(by_file, "sampling");
    assert_true(close_to(sampling, "temperature", 0.25) && close_to(sampling, "top_p", 0.5));
    assert_true(close_to(sampling, "top_k", 40) && close_to(sampling, "min_p", 0.05));
    json_t *by_options = generate("-p def -n 12 --temperature 0.25 --top-p 0.5");
    assert_same_ids(by_file, by_options, 1);
    json_t *given = generate_in(path, "-p def -n 12 --temperature 0.8 --top-p 0.95");
    json_t *plain = generate("-p def -n 12");
    assert_same_ids(given, plain, 1);

    write_text(file, "{\"do_sample\":false}");
    json_t *greedy = generate_in(path, "-p def -n 12"), *zero = generate("-p def -n 12 --temperature 0");
    assert_true(close_to(json_object_get(greedy, "sampling"), "temperature", 0));
    assert_same_ids(greedy, zero, 1);

    const json_int_t third = json_integer_value(json_array_get(json_object_get(zero, "ids"), 2));
    snprintf(text_of, sizeof text_of, "{\"eos_token_id\":[%lld],\"do_sample\":false}", (long long)third);
    write_text(file, text_of);
    json_t *ended = generate_in(path, "-p def -n 12");
    assert_string_equal(text(ended, "finish"), "eos");
    assert_true(number(ended, "tokens") <= 3);
    json_t *all[] = { by_file, by_options, given, plain, greedy, zero, ended };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) json_decref(all[i]);

    char line[LINE_BYTES];
    write_text(file, "{\"top_p\":7}");
    snprintf(line, sizeof line, "generate -m %s -p def -n 2", path);
    assert_refused(line, "generation_config.json: field 'top_p' is 7");
}

/* A tokenizer whose post_processor begins texts with a token has it in front of prompts, once. */
static void test_begin_of_text(void **state)
{
    (void)state;
    static const char *const FILES[] = { "config.json", "model.safetensors", NULL };
    char path[2 * FIXTURE_PATH_BYTES], file[3 * FIXTURE_PATH_BYTES];
    snprintf(file, sizeof file, "%s/tokenizer.json", model);
    json_t *tokenizer = json_load_file(file, 0, NULL);
    assert_non_null(tokenizer);
    json_object_set_new(tokenizer, "post_processor", json_pack("{s:s, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:[], s:{s:{s:s, s:[i], s:[s]}}}", "type",
                        "TemplateProcessing", "single", "SpecialToken", "id", "<|begin_of_text|>", "type_id", 0, "Sequence", "id", "A", "type_id", 0,
                        "pair", "special_tokens", "<|begin_of_text|>", "id", "<|begin_of_text|>", "ids", 0, "tokens", "<|begin_of_text|>"));
    linked_checkpoint(path, FILES);
    snprintf(file, sizeof file, "%s/tokenizer.json", path);
    assert_int_equal(json_dump_file(tokenizer, file, 0), 0);
    json_decref(tokenizer);
    json_t *with = generate_in(path, "-p def -n 2"), *twice = generate_in(path, "-p <|begin_of_text|>def -n 2");
    json_t *without = generate_in(path, "-p def -n 2 --no-bos"), *plain = generate("-p def -n 2"), *forced = generate("-p def -n 2 --bos");
    assert_true(json_equal(json_object_get(with, "prompt_ids"), json_object_get(forced, "prompt_ids")));
    assert_true(json_equal(json_object_get(with, "prompt_ids"), json_object_get(twice, "prompt_ids")));
    assert_true(json_equal(json_object_get(without, "prompt_ids"), json_object_get(plain, "prompt_ids")));
    assert_false(json_equal(json_object_get(with, "prompt_ids"), json_object_get(without, "prompt_ids")));
    json_t *all[] = { with, twice, without, plain, forced };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) json_decref(all[i]);
}

/* A checkpoint without tokenizer.json serves ids. */
static void test_without_tokenizer(void **state)
{
    (void)state;
    static const char *const FILES[] = { "config.json", "model.safetensors", NULL };
    char bare[2 * FIXTURE_PATH_BYTES], line[LINE_BYTES];
    linked_checkpoint(bare, FILES);
    snprintf(line, sizeof line, "generate -m %s --prompt-ids 5,6 -n 3 --ids", bare);
    run_model(line);
    assert_int_equal(result.status, 0);
    snprintf(line, sizeof line, "generate -m %s --prompt-ids 5,6 -n 3", bare);
    assert_refused(line, "tokenizer.json");
}

/* Runs the program on a pseudo-terminal and keeps what it sends there. */
static void on_terminal(char *const argv[], char *out, size_t bytes)
{
    const int master = posix_openpt(O_RDWR | O_NOCTTY);
    if (master < 0 || grantpt(master) != 0 || unlockpt(master) != 0) skip(); /* the machine has no pseudo-terminals */
    const int slave = open(ptsname(master), O_RDWR | O_NOCTTY);
    struct termios mode;
    assert_int_equal(tcgetattr(slave, &mode), 0);
    cfmakeraw(&mode);
    assert_int_equal(tcsetattr(slave, TCSANOW, &mode), 0);
    const pid_t child = fork();
    if (child == 0) {
        dup2(slave, STDOUT_FILENO);
        dup2(open("/dev/null", O_WRONLY), STDERR_FILENO);
        close(master);
        execv(program_path(), argv);
        _exit(127);
    }
    close(slave);
    size_t size = 0;
    for (ssize_t count; (count = read(master, out + size, bytes - 1 - size)) > 0 || (count < 0 && errno == EINTR);)
        if (count > 0) size += (size_t)count;
    out[size] = '\0';
    close(master);
    int status;
    assert_true(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
}

/* Control characters that the model makes reach a pipe, but no terminal. */
static void test_terminal(void **state)
{
    (void)state;
    static char words[][16] = { "octavo", "generate", "-m", "", "-p", "x", "-n", "250", "--temperature", "50", "--ignore-eos", "--top-p", "1",
                                "--min-p", "0", "--top-k", "0" };
    enum { COUNT = sizeof words / sizeof *words };
    char *argv[COUNT + 1] = { NULL }, shown[PRINTED_BYTES];
    char line[LINE_BYTES] = "";
    for (int i = 0; i < COUNT; i++) {
        argv[i] = words[i];
        if (i > 0) snprintf(line + strlen(line), sizeof line - strlen(line), "%s ", words[i][0] ? words[i] : "@");
    }
    argv[3] = model;
    run_model(line);
    assert_int_equal(result.status, 0);
    int controls = 0;
    for (const char *c = result.out; *c; c++) controls += (unsigned char)*c < 0x20 && *c != '\n' && *c != '\t';
    assert_true(controls > 0); /* else the next lines would show nothing */
    on_terminal(argv, shown, sizeof shown);
    for (const char *c = shown; *c; c++) assert_true((unsigned char)*c >= 0x20 || *c == '\n' || *c == '\t');
    assert_true(strlen(shown) > strlen(result.out) / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wrong_use), cmocka_unit_test(test_seeds),       cmocka_unit_test(test_greedy),
        cmocka_unit_test(test_stream),    cmocka_unit_test(test_figures),     cmocka_unit_test(test_context),
        cmocka_unit_test(test_end_of_text), cmocka_unit_test(test_stop),      cmocka_unit_test(test_prompts),
        cmocka_unit_test(test_generation_config), cmocka_unit_test(test_begin_of_text), cmocka_unit_test(test_without_tokenizer), cmocka_unit_test(test_terminal),
    };
    if (!program_path()) {
        fprintf(stderr, "skipped: OCTAVO_PROGRAM does not name the program\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, start_folder, remove_folder);
}
