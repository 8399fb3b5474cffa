/* test_tokenizer.c - the ids are those of the package that the files were written for, and come back as the same text. */
#define _GNU_SOURCE 1
#include "octavo/tokenizer.h"
#include "tokenizer_fixture.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <jansson.h>
#include <stdbool.h>
#include <unistd.h>

enum { IDS_MOST = 1 << 21, TEXT_MOST = 1 << 23 };

static int32_t ids[IDS_MOST];
static char back[TEXT_MOST];

static octavo_tokenizer *open_parts(const tokenizer_parts *parts)
{
    octavo_tokenizer *tokenizer = NULL;
    const char *text = fixture_tokenizer(parts);
    if (octavo_tokenizer_open_memory(text, strlen(text), &tokenizer) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
    return tokenizer;
}

static size_t encode(const octavo_tokenizer *tokenizer, const char *text, size_t bytes, unsigned flags)
{
    size_t count = IDS_MOST;
    if (octavo_tokenizer_encode(tokenizer, text, bytes, flags, ids, &count) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
    return count;
}

static size_t decode(const octavo_tokenizer *tokenizer, size_t count, unsigned flags)
{
    size_t bytes = TEXT_MOST;
    if (octavo_tokenizer_decode(tokenizer, ids, count, flags, back, &bytes) != OCTAVO_OK) fail_msg("%s", octavo_last_error());
    return bytes;
}

static void assert_ids(const octavo_tokenizer *tokenizer, const char *text, unsigned flags, const int32_t *want, size_t count)
{
    const size_t given = encode(tokenizer, text, strlen(text), flags);
    if (given != count || memcmp(ids, want, count * sizeof *ids) != 0) fail_msg("'%s' gives %zu ids, %zu were expected", text, given, count);
}
#define ASSERT_IDS(tokenizer, text, flags, ...) \
    assert_ids(tokenizer, text, flags, (const int32_t[]){ __VA_ARGS__ }, sizeof((const int32_t[]){ __VA_ARGS__ }) / sizeof(int32_t))

/* ---- goldens ----------------------------------------------------------------------------------------------------- */

/* Whether token_bytes of all ids, one after the other, are the decoded text but for what its start leaves out. */
static void check_stream(const octavo_tokenizer *tokenizer, size_t count, const char *decoded, size_t bytes)
{
    size_t made = 0;
    for (size_t i = 0; i < count; i++) {
        const uint8_t *piece;
        size_t length;
        assert_int_equal(octavo_tokenizer_token_bytes(tokenizer, ids[i], &piece, &length), OCTAVO_OK);
        memcpy(back + made, piece, length);
        made += length;
    }
    assert_true(made >= bytes);
    assert_memory_equal(back + made - bytes, decoded, bytes);
}

static void check_case(const octavo_tokenizer *tokenizer, const char *name, const json_t *entry)
{
    const json_t *text = json_object_get(entry, "text"), *want = json_object_get(entry, "ids"), *decoded = json_object_get(entry, "decoded");
    const unsigned flags = json_is_true(json_object_get(entry, "plain")) ? OCTAVO_TOKENIZER_PLAIN : OCTAVO_TOKENIZER_PARSE_SPECIAL;
    const size_t count = encode(tokenizer, json_string_value(text), json_string_length(text), flags);
    bool same = count == json_array_size(want);
    for (size_t i = 0; same && i < count; i++) same = ids[i] == json_integer_value(json_array_get(want, i));
    if (!same) fail_msg("%s: '%s' gives other ids", name, json_string_value(text));
    if (!decoded) return;
    assert_int_equal(decode(tokenizer, count, OCTAVO_TOKENIZER_PLAIN), json_string_length(decoded));
    assert_memory_equal(back, json_string_value(decoded), json_string_length(decoded));
    check_stream(tokenizer, count, json_string_value(decoded), json_string_length(decoded));
}

static void agrees_with_goldens(void **state)
{
    (void)state;
    static const char *const KINDS[] = { "gpt2", "prefixed", "llama3", "qwen2", "o200k", "punctuated", "behaviors", "llama2", "mistral", "metaspace" };
    const char *source = getenv("OCTAVO_SOURCE_DIR");
    for (size_t i = 0; i < sizeof KINDS / sizeof *KINDS; i++) {
        char path[512];
        octavo_tokenizer *tokenizer = NULL;
        snprintf(path, sizeof path, "%s/tests/golden/tokenizer_%s.json", source ? source : ".", KINDS[i]);
        json_t *root = json_load_file(path, JSON_ALLOW_NUL, NULL);
        const json_t *cases = json_object_get(root, "cases");
        char *file = json_dumps(json_object_get(root, "tokenizer"), JSON_COMPACT);
        if (!file || json_array_size(cases) < 50) fail_msg("%s is missing or broken", path);
        if (octavo_tokenizer_open_memory(file, strlen(file), &tokenizer) != OCTAVO_OK) fail_msg("%s: %s", path, octavo_last_error());
        for (size_t c = 0; c < json_array_size(cases); c++) check_case(tokenizer, KINDS[i], json_array_get(cases, c));
        octavo_tokenizer_close(tokenizer);
        free(file);
        json_decref(root);
    }
}

static void shared_path(char *path, size_t size, const char *name)
{
    const char *shared = getenv("OCTAVO_SHARED");
    snprintf(path, size, "%s/%s", shared ? shared : "../shared", name);
    if (access(path, R_OK) == 0) return;
    print_message("skipped: %s is not there\n", path);
    skip();
}

static void agrees_with_the_reference_model(void **state)
{
    (void)state;
    char model[512], golden[512], heldout[512];
    octavo_tokenizer *tokenizer = NULL;
    shared_path(model, sizeof model, "models/pycode-32m");
    shared_path(golden, sizeof golden, "checkpoints/tokenizer_golden.json");
    shared_path(heldout, sizeof heldout, "data/heldout.txt");
    assert_int_equal(octavo_tokenizer_open(model, &tokenizer), OCTAVO_OK);
    assert_int_equal(octavo_tokenizer_vocab_size(tokenizer), 8192);

    json_t *cases = json_load_file(golden, JSON_ALLOW_NUL, NULL);
    assert_true(json_array_size(cases) > 100);
    for (size_t i = 0; i < json_array_size(cases); i++) {
        json_t *entry = json_array_get(cases, i);
        json_object_set(entry, "decoded", json_object_get(entry, "text"));
        check_case(tokenizer, "tokenizer_golden", entry);
    }
    json_decref(cases);

    FILE *file = fopen(heldout, "rb");
    assert_non_null(file);
    char *text = malloc(TEXT_MOST);
    const size_t bytes = fread(text, 1, TEXT_MOST, file), count = encode(tokenizer, text, bytes, OCTAVO_TOKENIZER_PARSE_SPECIAL);
    fclose(file);
    assert_int_equal(count, 104657);
    assert_int_equal(decode(tokenizer, count, OCTAVO_TOKENIZER_PLAIN), bytes);
    assert_memory_equal(back, text, bytes);
    free(text);
    octavo_tokenizer_close(tokenizer);
}

/* ---- what the goldens do not show -------------------------------------------------------------------------------- */

/* Where the pieces of a text begin is told by which letters "xx" merge: they do within a piece alone. */
static void assert_pieces(const char *regex, const char *text, size_t tokens)
{
    char pre[1024];
    const tokenizer_parts parts = { .pre = pre, .vocab = ",\"xx\":256", .merges = "\"x x\"" };
    snprintf(pre, sizeof pre, FIXTURE_SPLIT("%s"), regex);
    octavo_tokenizer *tokenizer = open_parts(&parts);
    const size_t count = encode(tokenizer, text, strlen(text), OCTAVO_TOKENIZER_PLAIN);
    if (count != tokens) fail_msg("/%s/ makes %zu tokens of '%s', expected %zu", regex, count, text, tokens);
    octavo_tokenizer_close(tokenizer);
}

static void reads_expressions_as_they_were_meant(void **state)
{
    (void)state;
    static const struct {
        const char *regex, *text;
        size_t tokens; /* bytes less one for every "xx" in one piece */
    } CASES[] = {
        { "y", "xxyxx", 3 },                  { "x", "xxxx", 4 },                        { "^x", "x\nxx", 4 },
        { "(?<=x)x", "xx", 2 },               { "x{1}", "xx", 2 },                       { "x{2,3}", "xxx", 2 },
        { "x{2,}?", "xxxx", 2 },              { "\\\\u0078", "xx", 2 },                  { "\\\\x78", "xx", 2 },
        { "\\\\x{78}", "xx", 2 },             { "[\\\\u0078]", "xx", 2 },                { "\\\\p{Ll}", "xx", 2 },
        { "\\\\p{Lu}", "xx", 1 },             { "\\\\p{^Lu}", "xx", 2 },                 { "\\\\P{Letter}", "xx", 1 },
        { "\\\\p{Latin}", "xx", 2 },          { "\\\\p{Greek}", "xx", 1 },               { "\\\\p{alpha}", "xx", 2 },
        { "\\\\h", "xxf", 2 },                { "\\\\H", "xx", 2 },                      { "[\\\\h]", "xx", 1 },
        { "\\\\w", "xx", 2 },                 { "\\\\W", "xx", 1 },                      { "[\\\\w]", "xx", 2 },
        { "\\\\v", "xx", 1 },                 { "[\\\\b]", "xx", 1 },                    { "x\\\\B", "xxx", 3 },
        { "x\\\\b", "xxx", 2 },               { "\\\\S", "xx", 2 },                      { "\\\\D", "xx", 2 },
        { "\\\\d", "xx", 1 },                 { "(?i)X|y", "xx", 2 },                    { "(?i:X)", "xx", 2 },
        { "(?i:(?-i:X))", "xx", 1 },          { "(x)", "xx", 2 },                        { "(?>x|xx)", "xx", 2 },
        { "x(?!x)", "xxx", 2 },               { "x(?=x)", "xxx", 3 },                    { "(?<!x)x", "xxx", 2 },
        { "]|}|x", "xx", 2 },                 { "[^x\\\\]]", "xx", 1 },                 { "\\\\Ax", "xxx", 2 },
        { "x\\\\z", "xxx", 2 },               { "x\\\\Z|q", "xxx", 2 },                  { "x$", "xx\nx", 4 },
        { "[x\\\\]]", "xx", 2 },              { ".", "xx", 2 },                          { "\\\\ |x", "xx", 2 },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) assert_pieces(CASES[i].regex, CASES[i].text, CASES[i].tokens);
}

static void finds_added_tokens(void **state)
{
    (void)state;
#define PLAIN_SWITCHES FIXTURE_SWITCHES(false, false, false, false)
    static const tokenizer_parts PARTS = {
        .added = FIXTURE_ADDED(300, "<a>", true, PLAIN_SWITCHES) "," FIXTURE_ADDED(301, "<a>b", false, PLAIN_SWITCHES) ","
                 FIXTURE_ADDED(302, "<l>", false, FIXTURE_SWITCHES(false, true, true, false)) ","
                 FIXTURE_ADDED(303, "word", false, FIXTURE_SWITCHES(true, false, false, false)) ","
                 FIXTURE_ADDED(304, "QQ", false, FIXTURE_SWITCHES(false, false, false, true)) "," FIXTURE_ADDED(305, "", false, PLAIN_SWITCHES),
        .normalizer = "{\"type\":\"Replace\",\"pattern\":{\"String\":\"q\"},\"content\":\"QQ\"}",
    };
    octavo_tokenizer *t = open_parts(&PARTS);
    ASSERT_IDS(t, "<a>b<a>", OCTAVO_TOKENIZER_PARSE_SPECIAL, 301, 300);
    ASSERT_IDS(t, "<a>", OCTAVO_TOKENIZER_PLAIN, '<', 'a', '>');
    ASSERT_IDS(t, "x \n<l>\xe3\x80\x80 y", OCTAVO_TOKENIZER_PLAIN, 'x', 302, 'y');
    ASSERT_IDS(t, "word", OCTAVO_TOKENIZER_PLAIN, 303);
    ASSERT_IDS(t, "aword", OCTAVO_TOKENIZER_PLAIN, 'a', 'w', 'o', 'r', 'd');
    ASSERT_IDS(t, "word\xc3\xa9", OCTAVO_TOKENIZER_PLAIN, 'w', 'o', 'r', 'd', 0xc3, 0xa9);
    ASSERT_IDS(t, "-word.", OCTAVO_TOKENIZER_PLAIN, '-', 303, '.');
    ASSERT_IDS(t, "qx", OCTAVO_TOKENIZER_PLAIN, 304, 'x');
    assert_int_equal(octavo_tokenizer_vocab_size(t), 305);
    assert_int_equal(octavo_tokenizer_find(t, "<a>b"), 301);
    assert_int_equal(octavo_tokenizer_find(t, "nothing"), -1);
    assert_int_equal(octavo_tokenizer_find(t, "\xc4\xa0"), ' ');
    assert_true(octavo_tokenizer_is_special(t, 300));
    assert_false(octavo_tokenizer_is_special(t, 301));
    assert_false(octavo_tokenizer_is_special(t, 299));
    ids[0] = 'x', ids[1] = 300, ids[2] = 'y';
    assert_int_equal(decode(t, 3, OCTAVO_TOKENIZER_SKIP_SPECIAL), 2);
    assert_memory_equal(back, "xy", 2);
    assert_int_equal(decode(t, 3, OCTAVO_TOKENIZER_PLAIN), 5);
    octavo_tokenizer_close(t);
}

static void normalises(void **state)
{
    (void)state;
    static const tokenizer_parts PARTS = { .normalizer = "{\"type\":\"NFC\"}" };
    static const char *const PAIRS[][2] = {
        { "A\u030a", "\u00c5" }, { "\u212b", "\u00c5" }, { "\u1e9b\u0323", "\u1e9b\u0323" }, { "q\u0307\u0323", "q\u0323\u0307" },
        { "\u1112\u1161\u11ab", "\ud55c" }, { "\ud558\u11ab", "\ud55c" }, { "\u0344", "\u0308\u0301" }, { "\u0958", "\u0915\u093c" },
        { "a\u0315\u0300\u05ae\u0300b", "\u00e0\u05ae\u0300\u0315b" }, { "plain", "plain" }, { "\u0301", "\u0301" },
    };
    octavo_tokenizer *t = open_parts(&PARTS);
    for (size_t i = 0; i < sizeof PAIRS / sizeof *PAIRS; i++) {
        const size_t count = encode(t, PAIRS[i][0], strlen(PAIRS[i][0]), OCTAVO_TOKENIZER_PLAIN);
        assert_int_equal(decode(t, count, OCTAVO_TOKENIZER_PLAIN), strlen(PAIRS[i][1]));
        assert_memory_equal(back, PAIRS[i][1], strlen(PAIRS[i][1]));
    }
    octavo_tokenizer_close(t);
}

/* A row of marks, and pieces of a megabyte: what is quadratic anywhere would not come to an end. */
static void takes_long_pieces(void **state)
{
    (void)state;
    static const tokenizer_parts PARTS = {
        .normalizer = "{\"type\":\"NFC\"}", .pre = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false}",
        .vocab = ",\"xx\":256,\"xxxx\":257,\"xxxxxxxx\":258", .merges = "\"x x\",\"xx xx\",[\"xxxx\",\"xxxx\"]",
    };
    enum { LENGTH = 1 << 20 };
    octavo_tokenizer *t = open_parts(&PARTS);
    char *text = malloc(LENGTH);
    memset(text, 'x', LENGTH);
    assert_int_equal(encode(t, text, LENGTH, OCTAVO_TOKENIZER_PLAIN), LENGTH / 8);
    memset(text, ' ', LENGTH);
    assert_int_equal(encode(t, text, LENGTH, OCTAVO_TOKENIZER_PLAIN), LENGTH);
    for (size_t i = 0; i < LENGTH; i += 2) memcpy(text + i, i % 4 ? "\xcc\x81" : "\xcc\xa7", 2);
    assert_int_equal(encode(t, text, LENGTH, OCTAVO_TOKENIZER_PLAIN), LENGTH);
    free(text);
    octavo_tokenizer_close(t);
}

static void knows_how_texts_begin_and_end(void **state)
{
    (void)state;
#define ADDED_PAIR FIXTURE_ADDED(300, "<b>", true, PLAIN_SWITCHES) "," FIXTURE_ADDED(301, "</s>", true, PLAIN_SWITCHES)
#define TABLE "\"special_tokens\":{\"B\":{\"id\":\"B\",\"ids\":[300],\"tokens\":[\"<b>\"]}}"
    static const struct {
        const char *post;
        int32_t bos, eos;
    } CASES[] = {
        { NULL, -1, 301 },
        { "{\"type\":\"ByteLevel\"}", -1, 301 },
        { "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"B\"}},{\"Sequence\":{\"id\":\"A\"}}]," TABLE "}", 300, 301 },
        { "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}},{\"SpecialToken\":{\"id\":\"B\"}}]," TABLE "}", -1, 300 },
        { "{\"type\":\"TemplateProcessing\",\"single\":[]," TABLE "}", -1, 301 },
        { "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"RobertaProcessing\",\"cls\":[\"<b>\",300],\"sep\":[\"x\",7]}]}", 300, 7 },
    };
    for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
        const tokenizer_parts parts = { .added = ADDED_PAIR, .post = CASES[i].post };
        octavo_tokenizer *t = open_parts(&parts);
        assert_int_equal(octavo_tokenizer_bos_id(t), CASES[i].bos);
        assert_int_equal(octavo_tokenizer_eos_id(t), CASES[i].eos);
        const size_t count = encode(t, "x", 1, OCTAVO_TOKENIZER_ADD_BOS);
        assert_int_equal(count, CASES[i].bos < 0 ? 1 : 2);
        if (CASES[i].bos >= 0) assert_int_equal(ids[0], CASES[i].bos);
        octavo_tokenizer_close(t);
    }
}

static void counts_before_it_writes(void **state)
{
    (void)state;
    octavo_tokenizer *t = open_parts(&(tokenizer_parts){ 0 });
    size_t count = 0, bytes = 0;
    assert_int_equal(octavo_tokenizer_encode(t, "abc", 3, 0, NULL, &count), OCTAVO_OK);
    assert_int_equal(count, 3);
    count = 2;
    ids[2] = -7;
    assert_int_equal(octavo_tokenizer_encode(t, "abc", 3, 0, ids, &count), OCTAVO_E_RANGE);
    assert_int_equal(count, 3);
    assert_int_equal(ids[1], 'b');
    assert_int_equal(ids[2], -7);
    ids[2] = 'c';
    assert_int_equal(octavo_tokenizer_decode(t, ids, 3, 0, NULL, &bytes), OCTAVO_OK);
    assert_int_equal(bytes, 3);
    bytes = 2;
    assert_int_equal(octavo_tokenizer_decode(t, ids, 3, 0, back, &bytes), OCTAVO_E_RANGE);
    assert_int_equal(bytes, 3);
    ids[2] = 256;
    bytes = 8;
    assert_int_equal(octavo_tokenizer_decode(t, ids, 3, 0, back, &bytes), OCTAVO_E_RANGE);
    assert_non_null(strstr(octavo_last_error(), "256"));
    octavo_tokenizer_close(t);
}

static void refuses_wrong_arguments(void **state)
{
    (void)state;
    static const char *const INVALID[] = { "ab\xff", "ab\xc3", "ab\xc0\x80", "ab\xed\xa0\x80", "ab\xf4\x90\x80\x80", "ab\xe0\x80\x80", "ab\x80" };
    octavo_tokenizer *t = open_parts(&(tokenizer_parts){ 0 }), *none = t;
    const uint8_t *bytes;
    size_t count = 0;
    for (size_t i = 0; i < sizeof INVALID / sizeof *INVALID; i++) {
        assert_int_equal(octavo_tokenizer_encode(t, INVALID[i], strlen(INVALID[i]), 0, NULL, &count), OCTAVO_E_ARGUMENT);
        assert_non_null(strstr(octavo_last_error(), "not UTF-8 at byte 2"));
    }
    assert_int_equal(octavo_tokenizer_encode(t, NULL, 1, 0, NULL, &count), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_tokenizer_encode(t, "a", 1, 0, NULL, NULL), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_tokenizer_encode(NULL, "a", 1, 0, NULL, &count), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_tokenizer_encode(t, NULL, 0, 0, NULL, &count), OCTAVO_OK);
    count = 1;
    assert_int_equal(octavo_tokenizer_encode(t, "a", 1, 0, NULL, &count), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_tokenizer_decode(t, NULL, 1, 0, back, &count), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_tokenizer_decode(t, ids, 1, 0, NULL, &count), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_tokenizer_decode(NULL, ids, 0, 0, back, &count), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_tokenizer_token_bytes(t, 256, &bytes, &count), OCTAVO_E_RANGE);
    assert_int_equal(octavo_tokenizer_token_bytes(t, -1, &bytes, &count), OCTAVO_E_RANGE);
    assert_int_equal(octavo_tokenizer_token_bytes(t, 1, NULL, &count), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_tokenizer_open_memory(NULL, 0, &none), OCTAVO_E_ARGUMENT);
    assert_null(none);
    assert_int_equal(octavo_tokenizer_open(NULL, &none), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_tokenizer_open("a", NULL), OCTAVO_E_ARGUMENT);
    assert_int_equal(octavo_tokenizer_vocab_size(NULL), 0);
    octavo_tokenizer_close(t);
    octavo_tokenizer_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(agrees_with_goldens),
        cmocka_unit_test(agrees_with_the_reference_model),
        cmocka_unit_test(reads_expressions_as_they_were_meant),
        cmocka_unit_test(finds_added_tokens),
        cmocka_unit_test(normalises),
        cmocka_unit_test(takes_long_pieces),
        cmocka_unit_test(knows_how_texts_begin_and_end),
        cmocka_unit_test(counts_before_it_writes),
        cmocka_unit_test(refuses_wrong_arguments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
