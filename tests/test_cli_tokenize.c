/* test_cli_tokenize.c - octavo tokenize: text to ids and back, as text and as JSON, and what it refuses. */
#define _GNU_SOURCE 1
#include "tokenizer_fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include "program_fixture.h"

static char folder[FIXTURE_PATH_BYTES], input[2 * FIXTURE_PATH_BYTES], file[2 * FIXTURE_PATH_BYTES];
static printed result;

/* The program's standard input is a file that holds these bytes. */
static void feed(const char *line, const void *bytes, size_t count)
{
    write_file(input, bytes, count);
    const int descriptor = open(input, O_RDONLY);
    if (descriptor < 0 || dup2(descriptor, STDIN_FILENO) < 0) abort();
    close(descriptor);
    program_run(line, folder, &result);
}

static void assert_prints(const char *line, const char *in, const char *out)
{
    feed(line, in, strlen(in));
    if (result.status != 0) fail_msg("'%s': status %d, '%s'", line, result.status, result.err);
    assert_string_equal(result.err, "");
    assert_string_equal(result.out, out);
}

static void assert_refused(const char *line, const char *in, const char *fragment)
{
    feed(line, in, strlen(in));
    if (result.status != 2 || !strstr(result.err, fragment)) fail_msg("'%s': status %d, '%s'", line, result.status, result.err);
    assert_string_equal(result.out, "");
}

static void goes_there_and_back(void **state)
{
    (void)state;
    assert_prints("tokenize -m @", "abc", "97 98 99\n");
    assert_prints("tokenize -m @", "a<s>", "97 300\n");
    assert_prints("tokenize -m @ --no-parse-special", "a<s>", "97 60 115 62\n");
    assert_prints("tokenize -m @ --add-bos", "a", "300 97\n");
    assert_prints("tokenize -m @", "", "\n");
    assert_prints("tokenize -m @ --decode", " 97\n98\t300 27 \r\n", "ab<s>\x1b");
    assert_prints("tokenize -m @ --decode", "", "");
    assert_prints("tokenize -m @ --decode", "[195,169]", "\xc3\xa9");
    assert_prints("tokenize -m @ --decode", "169", "\xa9"); /* half a character stays what it is */
    assert_prints("tokenize -m @ --json", "a\xc3\xa9", "{\"schema\":\"octavo-tokenize-1\",\"ids\":[97,195,169],\"tokens\":3,\"bytes\":3}\n");
    assert_prints("tokenize -m @ --decode --json", "{\"schema\":\"x\",\"ids\":[97,169,27]}",
                  "{\"schema\":\"octavo-tokenize-1\",\"text\":\"a\\uFFFD\\u001B\",\"tokens\":3,\"bytes\":3}\n");
}

static void takes_every_byte(void **state)
{
    (void)state;
    char text[3 * 0x800];
    size_t bytes = 0;
    for (uint32_t point = 0; point < 0x800; point++) bytes += octavo_utf8_encode(point, text + bytes);
    feed("tokenize -m @", text, bytes);
    assert_int_equal(result.status, 0);
    char *ids = strdup(result.out);
    feed("tokenize -m @ --decode", ids, strlen(ids));
    free(ids);
    assert_int_equal(result.status, 0);
    assert_memory_equal(result.out, text, bytes);
    feed("tokenize -m @ --json", text, bytes);
    json_t *root = json_loads(result.out, 0, NULL);
    assert_int_equal(json_array_size(json_object_get(root, "ids")), bytes);
    json_decref(root);
}

static void refuses_wrong_input(void **state)
{
    (void)state;
    assert_refused("tokenize", "a", "--model is missing");
    assert_refused("tokenize -m nowhere-at-all", "a", "nowhere-at-all");
    assert_refused("tokenize -m @ extra", "a", "extra");
    assert_refused("tokenize -m @", "a\xff", "not UTF-8 at byte 1");
    assert_refused("tokenize -m @ --decode", "97 x", "'x' at byte 3");
    assert_refused("tokenize -m @ --decode", "-1", "'-1' at byte 0");
    assert_refused("tokenize -m @ --decode", "9999999999", "9999999999");
    assert_refused("tokenize -m @ --decode", "1111111111111111111111111111111111", "at byte 0");
    assert_refused("tokenize -m @ --decode", "299", "no token with the id 299");
    assert_refused("tokenize -m @ --decode", "[1,", "standard input: line 1");
    assert_refused("tokenize -m @ --decode", "[1,\"2\"]", "ids[1]");
    assert_refused("tokenize -m @ --decode", "{\"text\":\"a\"}", "'ids' is not a list");
    write_file(file, "{}", 2);
    assert_refused("tokenize -m @", "a", "tokenizer.json: decoder is missing");
}

static int start(void **state)
{
    (void)state;
    static const tokenizer_parts PARTS = { .added = FIXTURE_ADDED(300, "<s>", true, FIXTURE_SWITCHES(false, false, false, false)) };
    const char *text = fixture_tokenizer(&PARTS);
    make_folder(folder);
    snprintf(file, sizeof file, "%s/tokenizer.json", folder);
    snprintf(input, sizeof input, "%s/input", folder);
    write_file(file, text, strlen(text));
    return program_path() ? 0 : 1;
}

static int finish(void **state)
{
    (void)state;
    unlink(file);
    unlink(input);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(goes_there_and_back),
        cmocka_unit_test(takes_every_byte),
        cmocka_unit_test(refuses_wrong_input),
    };
    return cmocka_run_group_tests(tests, start, finish);
}
