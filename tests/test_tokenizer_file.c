/* test_tokenizer_file.c - hostile, lying and unknown tokenizer.json files are refused with a sentence that names the field. */
#define _GNU_SOURCE 1
#include "octavo/tokenizer.h"
#include "tokenizer_fixture.h"
#include "temporary.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <sys/stat.h>
#include <unistd.h>

#define LENGTH(list) (sizeof(list) / sizeof *(list))
#define PLAIN FIXTURE_SWITCHES(false, false, false, false)

static void check_open(const char *text, size_t bytes, octavo_status want, const char *fragment)
{
    octavo_tokenizer *tokenizer = NULL;
    const octavo_status status = octavo_tokenizer_open_memory(text, bytes, &tokenizer);
    if (status != want || tokenizer) fail_msg("'%.200s': status %d, expected %d with '%s'; %s", text, status, want, fragment, octavo_last_error());
    if (!strstr(octavo_last_error(), fragment)) fail_msg("'%s' lacks '%s'", octavo_last_error(), fragment);
    if (!strstr(octavo_last_error(), "tokenizer in memory")) fail_msg("'%s' does not name the file", octavo_last_error());
}

typedef struct refusal {
    tokenizer_parts parts;
    octavo_status status;
    const char *fragment;
} refusal;

static void check_all(const refusal *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const char *text = fixture_tokenizer(&cases[i].parts);
        check_open(text, strlen(text), cases[i].status, cases[i].fragment);
    }
}

static void refuses_what_is_no_tokenizer(void **state)
{
    (void)state;
    static const struct {
        const char *text, *fragment;
    } CASES[] = {
        { "", "is refused at line" },
        { "{", "is refused at line 1" },
        { "[]", "is not an object" },
        { "{\"a\":1,\"a\":2}", "duplicate" },
        { "{\"a\":\"\xff\"}", "is refused" },
        { "{\"a\":\"\\u0000\"}", "is refused" },
        { "{\"decoder\":{\"type\":\"ByteLevel\"}}", "model is not an object" },
        { "{\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{}}", "model.vocab is not an object" },
        { "{\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"vocab\":{}}}", "model.merges is not a list" },
        { "{\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"vocab\":{},\"merges\":[]}}", "model has no tokens" },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) check_open(CASES[i].text, strlen(CASES[i].text), OCTAVO_E_FORMAT, CASES[i].fragment);
    char *deep = malloc(100000);
    memset(deep, '[', 100000);
    check_open(deep, 100000, OCTAVO_E_FORMAT, "depth");
    free(deep);
}

static void refuses_models(void **state)
{
    (void)state;
    static const refusal CASES[] = {
        { { .model = ",\"dropout\":0.1" }, OCTAVO_E_UNSUPPORTED, "model.dropout" },
        { { .model = ",\"continuing_subword_prefix\":\"##\"" }, OCTAVO_E_UNSUPPORTED, "model.continuing_subword_prefix is '##'" },
        { { .model = ",\"end_of_word_suffix\":\"</w>\"" }, OCTAVO_E_UNSUPPORTED, "model.end_of_word_suffix" },
        { { .model = ",\"end_of_word_suffix\":7" }, OCTAVO_E_FORMAT, "model.end_of_word_suffix is not a string" },
        { { .model = ",\"speed\":1" }, OCTAVO_E_UNSUPPORTED, "model.speed is not known" },
        { { .model = ",\"fuse_unk\":1" }, OCTAVO_E_FORMAT, "model.fuse_unk is neither" },
        { { .model = ",\"byte_fallback\":null" }, OCTAVO_E_FORMAT, "model.byte_fallback is neither" },
        { { .model = ",\"unk_token\":\"<unk>\"" }, OCTAVO_E_FORMAT, "model.unk_token is '<unk>'" },
        { { .model = ",\"unk_token\":[]" }, OCTAVO_E_FORMAT, "model.unk_token is not a string" },
        { { .vocab = ",\"xx\":-1" }, OCTAVO_E_FORMAT, "model.vocab.xx is not a whole number" },
        { { .vocab = ",\"xx\":1.5" }, OCTAVO_E_FORMAT, "model.vocab.xx is not a whole number" },
        { { .vocab = ",\"xx\":2147483647" }, OCTAVO_E_FORMAT, "model.vocab.xx is not a whole number" },
        { { .vocab = ",\"xx\":97" }, OCTAVO_E_FORMAT, "id 97 to two tokens" },
        { { .merges = "\"x x\"" }, OCTAVO_E_FORMAT, "model.merges[0] needs 'the merged token'" },
        { { .merges = "\"q\"" }, OCTAVO_E_FORMAT, "model.merges[0] is not two tokens" },
        { { .merges = "\"q q q\"" }, OCTAVO_E_FORMAT, "model.merges[0] is not two tokens" },
        { { .merges = "[\"q\"]" }, OCTAVO_E_FORMAT, "model.merges[0] is not a list of two" },
        { { .merges = "[\"q\",7]" }, OCTAVO_E_FORMAT, "model.merges[0][1] is not a string" },
        { { .merges = "[\"zz\",\"x\"]" }, OCTAVO_E_FORMAT, "needs 'zz'" },
        { { .merges = "[\"x\",\"zz\"]" }, OCTAVO_E_FORMAT, "needs 'zz'" },
        { { .merges = "7" }, OCTAVO_E_FORMAT, "model.merges[0] is not a string" },
        { { .added = "7" }, OCTAVO_E_FORMAT, "added_tokens[0] is not an object" },
        { { .added = "{}" }, OCTAVO_E_FORMAT, "added_tokens[0].id is not a whole number" },
        { { .added = "{\"id\":300}" }, OCTAVO_E_FORMAT, "added_tokens[0].content is not a string" },
        { { .added = "{\"id\":300,\"content\":\"a\"}" }, OCTAVO_E_FORMAT, "added_tokens[0].single_word is neither" },
        { { .added = FIXTURE_ADDED(300, "a", 7, PLAIN) }, OCTAVO_E_FORMAT, "added_tokens[0].special is neither" },
        { { .added = FIXTURE_ADDED(300, "a", false, "\"odd\":1," PLAIN) }, OCTAVO_E_UNSUPPORTED, "added_tokens[0].odd" },
        { { .added = FIXTURE_ADDED(300, "a", false, PLAIN) }, OCTAVO_E_FORMAT, "gives 'a' the id 300, elsewhere it is 97" },
        { { .added = FIXTURE_ADDED(97, "<a>", false, PLAIN) }, OCTAVO_E_FORMAT, "id 97 to two tokens" },
    };
    check_all(CASES, LENGTH(CASES));
}

#define STEP(members) "{\"type\":" members "}"
#define MODE(pattern, mode) "{\"type\":\"Split\",\"pattern\":" pattern ",\"behavior\":" mode "}"

static void refuses_steps(void **state)
{
    (void)state;
    static const refusal CASES[] = {
        { { .normalizer = "7" }, OCTAVO_E_FORMAT, "normalizer is not an object" },
        { { .normalizer = "{}" }, OCTAVO_E_FORMAT, "normalizer.type is not a string" },
        { { .normalizer = STEP("\"Lowercase\"") }, OCTAVO_E_UNSUPPORTED, "normalizer.type is 'Lowercase'" },
        { { .normalizer = STEP("\"Sequence\",\"normalizers\":[{\"type\":\"NFKC\"}]") }, OCTAVO_E_UNSUPPORTED, "normalizer.normalizers[0].type is 'NFKC'" },
        { { .normalizer = STEP("\"Sequence\",\"normalizers\":7") }, OCTAVO_E_FORMAT, "normalizer.normalizers is not a list" },
        { { .normalizer = STEP("\"NFC\",\"fast\":true") }, OCTAVO_E_UNSUPPORTED, "normalizer.fast" },
        { { .normalizer = STEP("\"Prepend\"") }, OCTAVO_E_FORMAT, "normalizer.prepend is not a string" },
        { { .normalizer = STEP("\"Replace\",\"pattern\":{},\"content\":\"\"") }, OCTAVO_E_FORMAT, "normalizer.pattern.String is not a string" },
        { { .normalizer = STEP("\"Replace\",\"pattern\":\"x\",\"content\":\"\"") }, OCTAVO_E_FORMAT, "normalizer.pattern is not an object" },
        { { .normalizer = STEP("\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"") }, OCTAVO_E_UNSUPPORTED, "normalizer.pattern.String is empty" },
        { { .normalizer = STEP("\"Replace\",\"pattern\":{\"String\":\"x\"}") }, OCTAVO_E_FORMAT, "normalizer.content" },
        { { .pre = STEP("\"Whitespace\"") }, OCTAVO_E_UNSUPPORTED, "pre_tokenizer.type is 'Whitespace'" },
        { { .pre = STEP("\"ByteLevel\"") }, OCTAVO_E_FORMAT, "pre_tokenizer.add_prefix_space" },
        { { .pre = STEP("\"ByteLevel\",\"add_prefix_space\":true,\"use_regex\":7") }, OCTAVO_E_FORMAT, "pre_tokenizer.use_regex" },
        { { .pre = STEP("\"Digits\"") }, OCTAVO_E_FORMAT, "pre_tokenizer.individual_digits" },
        { { .pre = STEP("\"Metaspace\",\"replacement\":\"__\"") }, OCTAVO_E_FORMAT, "pre_tokenizer.replacement is not one character" },
        { { .pre = STEP("\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"often\"") }, OCTAVO_E_UNSUPPORTED, "pre_tokenizer.prepend_scheme is 'often'" },
        { { .pre = STEP("\"Sequence\",\"pretokenizers\":[" FIXTURE_BYTES_ONLY "," FIXTURE_BYTES_ONLY "]") }, OCTAVO_E_UNSUPPORTED, "pre_tokenizer.pretokenizers[1] rewrites" },
        { { .pre = MODE("{\"String\":\"x\"}", "\"Loose\"") }, OCTAVO_E_UNSUPPORTED, "pre_tokenizer.behavior is 'Loose'" },
        { { .pre = MODE("{\"String\":\"x\"}", "7") }, OCTAVO_E_FORMAT, "pre_tokenizer.behavior is not a string" },
        { { .pre = MODE("{\"Glob\":\"x\"}", "\"Removed\"") }, OCTAVO_E_UNSUPPORTED, "pre_tokenizer.pattern.Glob" },
        { { .pre = MODE("{\"Regex\":7}", "\"Removed\"") }, OCTAVO_E_FORMAT, "pre_tokenizer.pattern.Regex is not a string" },
        { { .decoder = "null" }, OCTAVO_E_UNSUPPORTED, "decoder is missing" },
        { { .decoder = STEP("\"WordPiece\"") }, OCTAVO_E_UNSUPPORTED, "decoder.type is 'WordPiece'" },
        { { .decoder = STEP("\"Strip\",\"content\":\" \",\"start\":1,\"stop\":0") }, OCTAVO_E_UNSUPPORTED, "decoder does not come once and behind Fuse" },
        { { .decoder = STEP("\"Strip\",\"content\":\" \",\"start\":1,\"stop\":1") }, OCTAVO_E_UNSUPPORTED, "decoder.stop is 1" },
        { { .decoder = STEP("\"Strip\",\"content\":\" \",\"start\":-1,\"stop\":0") }, OCTAVO_E_FORMAT, "decoder.start is not a whole number" },
        { { .decoder = STEP("\"Replace\",\"pattern\":{\"Regex\":\"x\"},\"content\":\"\"") }, OCTAVO_E_UNSUPPORTED, "decoder.pattern.Regex" },
        { { .decoder = STEP("\"Replace\",\"pattern\":{\"String\":\"\"},\"content\":\"\"") }, OCTAVO_E_UNSUPPORTED, "decoder.pattern.String is empty" },
        { { .decoder = STEP("\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"ByteLevel\"}]") }, OCTAVO_E_UNSUPPORTED, "decoder.decoders[1] comes behind" },
        { { .decoder = STEP("\"Sequence\",\"decoders\":[{\"type\":\"Fuse\"},{\"type\":\"Metaspace\",\"replacement\":\"_\"}]") }, OCTAVO_E_UNSUPPORTED, "decoder.decoders[1] replaces after" },
        { { .post = "7" }, OCTAVO_E_FORMAT, "post_processor is not an object" },
        { { .post = STEP("\"TemplateProcessing\"") }, OCTAVO_E_FORMAT, "post_processor.single is not a list" },
        { { .post = STEP("\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"B\"}}]") }, OCTAVO_E_FORMAT, "post_processor.special_tokens.B.ids[0]" },
        { { .post = STEP("\"RobertaProcessing\",\"cls\":[\"a\",999]") }, OCTAVO_E_FORMAT, "post_processor.cls[1] is the id of no token" },
    };
    check_all(CASES, LENGTH(CASES));
}

static void refuses_expressions(void **state)
{
    (void)state;
    static const char *const CASES[] = {
        "(?:x", "x)", "[x", "[]x]", "[[x]y]", "[x&&y]", "[[:alpha:]]", "(?<name>x)", "(?x) x", "x(?i)y", "(?m:.)", "(*COMMIT)x", "(?1)", "(?R)",
        "(x)\\\\1", "\\\\k<a>", "\\\\K", "\\\\G", "\\\\R", "\\\\X", "\\\\C", "\\\\Q", "\\\\pL", "\\\\p{}", "\\\\p{L", "\\\\p{no such script}",
        "\\\\p{Nosuch}", "\\\\u12", "\\\\xff", "\\\\x{", "\\\\x{110000}", "[\\\\W]", "[\\\\H]", "x{", "x{,3}", "x{3,1}", "x{1001}", "x{2}?", "x{1,2}+",
        "x{1,2}{3}", "x**", "(?<=x+)y", "x\\\\", "(?#x)", "*x", "\\\\c",
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) {
        char pre[512];
        const tokenizer_parts parts = { .pre = pre };
        snprintf(pre, sizeof pre, FIXTURE_SPLIT("%s"), CASES[i]);
        const char *text = fixture_tokenizer(&parts);
        check_open(text, strlen(text), OCTAVO_E_UNSUPPORTED, "pre_tokenizer.pretokenizers[0].pattern.Regex");
    }
    check_open("{\"pre_tokenizer\":" MODE("{\"Regex\":\"\"}", "\"Removed\"") "}", strlen("{\"pre_tokenizer\":" MODE("{\"Regex\":\"\"}", "\"Removed\"") "}"),
               OCTAVO_E_FORMAT, "pre_tokenizer.pattern.Regex is empty");
}

/* `unit` repeated, with `front` and `end` around it. */
static char *repeat(const char *front, const char *unit, size_t count, const char *end)
{
    const size_t length = strlen(unit);
    char *text = malloc(strlen(front) + count * length + strlen(end) + 1);
    char *at = stpcpy(text, front);
    for (size_t i = 0; i < count; i++) at = stpcpy(at, unit);
    stpcpy(at, end);
    return text;
}

static void refuses_too_much_of_anything(void **state)
{
    (void)state;
    static const struct {
        const char *member, *front, *unit, *end, *fragment;
        size_t count;
    } CASES[] = {
        { "pre", "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"", "x", "\"}}", "has 3000 bytes", 3000 },
        { "pre", "{\"type\":\"Split\",\"behavior\":\"Isolated\",\"pattern\":{\"Regex\":\"", "(?:", "\"}}", "pattern.Regex", 60 },
        { "pre", "", "{\"type\":\"Sequence\",\"pretokenizers\":[", "", "is a sequence within 8", 20 },
        { "pre", "{\"type\":\"Sequence\",\"pretokenizers\":[" MODE("{\"String\":\"x\"}", "\"Removed\""), "," MODE("{\"String\":\"x\"}", "\"Removed\""), "]}", "is one step too many", 40 },
        { "normalizer", "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"NFC\"}", ",{\"type\":\"NFC\"}", "]}", "is one step too many", 40 },
        { "normalizer", "", "{\"type\":\"Sequence\",\"normalizers\":[", "", "is a sequence within 8", 20 },
        { "normalizer", "{\"type\":\"Prepend\",\"prepend\":\"", "x", "\"}", "has 257 bytes", 257 },
        { "decoder", "", "{\"type\":\"Sequence\",\"decoders\":[", "", "is a sequence within 8", 20 },
        { "decoder", "{\"type\":\"Replace\",\"pattern\":{\"String\":\"x\"},\"content\":\"", "y", "\"}", "decoder makes tokens", 9000 },
        { "post", "", "{\"type\":\"Sequence\",\"processors\":[", "", "is a sequence within 8", 20 },
        { "added", "{\"id\":300," PLAIN ",\"special\":true,\"content\":\"", "x", "\"}", "added_tokens[0].content has 1025 bytes", 1025 },
    };
    for (size_t i = 0; i < LENGTH(CASES); i++) {
        tokenizer_parts parts = { 0 };
        char *member = repeat(CASES[i].front, CASES[i].unit, CASES[i].count, CASES[i].end);
        if (!CASES[i].front[0]) { /* nested: as many ends as beginnings, around a leaf */
            char *ends = repeat("{\"type\":\"ByteLevel\",\"add_prefix_space\":false}", "]}", CASES[i].count, "");
            char *whole = malloc(strlen(member) + strlen(ends) + 1);
            stpcpy(stpcpy(whole, member), ends);
            free(member);
            free(ends);
            member = whole;
        }
        *(CASES[i].member[0] == 'n' ? &parts.normalizer : CASES[i].member[0] == 'd' ? &parts.decoder : CASES[i].member[0] == 'a' ? &parts.added :
          CASES[i].member[1] == 'o' ? &parts.post : &parts.pre) = member;
        const char *text = fixture_tokenizer(&parts);
        check_open(text, strlen(text), OCTAVO_E_UNSUPPORTED, CASES[i].fragment);
        free(member);
    }
}

/* Patterns that would take hours end with a status; so does a text that a normaliser blows up. */
static void gives_up_on_hostile_patterns(void **state)
{
    (void)state;
    static const char *const PATTERNS[] = { "(?:a+)+$", "(?:a|aa)+b|a", "(?:a*)*b|.", "(?=(?:a|a)*b)a|a", "((a*)*)*b", "(?:.*){20}z|." };
    enum { BYTES = 1 << 16 };
    char *text = malloc(BYTES);
    for (size_t i = 0; i < BYTES; i++) text[i] = i % 500 == 499 ? '!' : 'a';
    for (size_t i = 0; i < LENGTH(PATTERNS); i++) {
        char pre[512];
        const tokenizer_parts parts = { .pre = pre };
        size_t count = 0;
        octavo_tokenizer *tokenizer = NULL;
        snprintf(pre, sizeof pre, FIXTURE_SPLIT("%s"), PATTERNS[i]);
        const char *file = fixture_tokenizer(&parts);
        assert_int_equal(octavo_tokenizer_open_memory(file, strlen(file), &tokenizer), OCTAVO_OK);
        assert_int_equal(octavo_tokenizer_encode(tokenizer, text, BYTES, 0, NULL, &count), OCTAVO_E_UNSUPPORTED);
        assert_non_null(strstr(octavo_last_error(), "tokenizer in memory: a pattern"));
        octavo_tokenizer_close(tokenizer);
    }
    char *normalizer = repeat("{\"type\":\"Replace\",\"pattern\":{\"String\":\"a\"},\"content\":\"", "a", 200, "\"}");
    const tokenizer_parts parts = { .normalizer = normalizer };
    const char *file = fixture_tokenizer(&parts);
    octavo_tokenizer *tokenizer = NULL;
    size_t count = 0;
    assert_int_equal(octavo_tokenizer_open_memory(file, strlen(file), &tokenizer), OCTAVO_OK);
    assert_int_equal(octavo_tokenizer_encode(tokenizer, text, BYTES, 0, NULL, &count), OCTAVO_E_UNSUPPORTED);
    assert_non_null(strstr(octavo_last_error(), "normalizer"));
    octavo_tokenizer_close(tokenizer);
    free(normalizer);
    free(text);
}

static void opens_files_and_folders(void **state)
{
    (void)state;
    char folder[TEMPORARY_BYTES], path[TEMPORARY_BYTES + 64], longest[6000];
    octavo_tokenizer *tokenizer = NULL;
    assert_int_equal(temporary_folder(folder), 0);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    assert_int_equal(octavo_tokenizer_open(folder, &tokenizer), OCTAVO_E_IO);
    assert_non_null(strstr(octavo_last_error(), "/tokenizer.json"));
    const char *text = fixture_tokenizer(&(tokenizer_parts){ 0 });
    for (size_t cut = 0; cut < 2; cut++) {
        const size_t bytes = strlen(text) - (cut ? 0 : 20);
        FILE *file = fopen(path, "wb");
        assert_true(file && fwrite(text, 1, bytes, file) == bytes && fclose(file) == 0);
        for (size_t i = 0; i < 2; i++) {
            assert_int_equal(octavo_tokenizer_open(i ? path : folder, &tokenizer), cut ? OCTAVO_OK : OCTAVO_E_FORMAT);
            if (!cut) assert_non_null(strstr(octavo_last_error(), path));
            octavo_tokenizer_close(tokenizer);
        }
    }
    unlink(path);
    rmdir(folder);
    memset(longest, '/', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(octavo_tokenizer_open(longest, &tokenizer), OCTAVO_E_IO);
    longest[4094] = '\0';
    assert_int_equal(octavo_tokenizer_open(longest, &tokenizer), OCTAVO_E_IO);
    assert_null(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_no_tokenizer),
        cmocka_unit_test(refuses_models),
        cmocka_unit_test(refuses_steps),
        cmocka_unit_test(refuses_expressions),
        cmocka_unit_test(refuses_too_much_of_anything),
        cmocka_unit_test(gives_up_on_hostile_patterns),
        cmocka_unit_test(opens_files_and_folders),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
