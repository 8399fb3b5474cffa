/* cli_model_fixture.h - runs the program with the tiny checkpoint of tests/golden and reads what it printed. */
#ifndef OCTAVO_TESTS_CLI_MODEL_FIXTURE_H
#define OCTAVO_TESTS_CLI_MODEL_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include "octavo/safetensors.h"
#include "program_fixture.h"

static char folder[FIXTURE_PATH_BYTES]; /* of this test program alone */
static char model[FIXTURE_PATH_BYTES];  /* the checkpoint's */
static printed result;

enum { LINE_BYTES = 2048 }; /* of a command, as the program fixture takes it */
enum { TINY_LAYERS = 2, TINY_KV_HEADS = 2, TINY_Q_HEADS = 4, TINY_HEAD_DIM = 16, TINY_VOCAB = 298, TINY_CONTEXT = 256, TINY_BATCH = 2, TINY_TOKENS = 24 };

/* Runs `line`, in which a word "@" stands for the checkpoint's folder. */
static inline void run_model(const char *line) { program_run(line, model, &result); }

/* The same with a text in the place of "%s". */
static inline void run_model_with(const char *format, const char *text)
{
    char line[LINE_BYTES];
    snprintf(line, sizeof line, format, text);
    run_model(line);
}

static inline void path_in_folder(char path[2 * FIXTURE_PATH_BYTES], const char *name)
{
    snprintf(path, 2 * FIXTURE_PATH_BYTES, "%s/%s", folder, name);
}

/* Writes a file into the folder and gives its path. */
static inline void text_file(char path[2 * FIXTURE_PATH_BYTES], const char *name, const char *text)
{
    path_in_folder(path, name);
    write_file(path, text, strlen(text));
}

/* Status 2, one sentence on stderr that holds `fragment`, nothing on stdout. */
static inline void assert_refused(const char *line, const char *fragment)
{
    run_model(line);
    const size_t length = strlen(result.err);
    if (result.status != 2 || !strstr(result.err, fragment)) fail_msg("'%s': status %d, '%s'", line, result.status, result.err);
    assert_string_equal(result.out, "");
    assert_memory_equal(result.err, "octavo: ", 8);
    assert_ptr_equal(strchr(result.err, '\n'), result.err + length - 1);
}

static inline json_t *parse_output(void)
{
    json_error_t error;
    if (result.status != 0) fail_msg("status %d: %s", result.status, result.err);
    json_t *root = json_loads(result.out, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL, &error);
    if (!root) fail_msg("line %d: %s", error.line, error.text);
    return root;
}

static inline double number(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_number(value)) fail_msg("'%s' is no number", name);
    return json_number_value(value);
}

static inline const char *text(const json_t *object, const char *name)
{
    const json_t *value = json_object_get(object, name);
    if (!json_is_string(value)) fail_msg("'%s' is no text", name);
    return json_string_value(value);
}

static inline int start_folder(void **state)
{
    (void)state;
    const char *source = getenv("OCTAVO_SOURCE_DIR");
    snprintf(model, sizeof model, "%s/tests/golden/tiny-llama", source ? source : ".");
    make_folder(folder);
    return 0;
}

static inline int remove_folder(void **state)
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

#endif
