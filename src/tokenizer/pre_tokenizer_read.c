/* pre_tokenizer_read.c - reads a pre_tokenizer as a list of small steps: Split, ByteLevel, Digits, Metaspace and sequences. */
#include "base/error.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/utf8.h"
#include <string.h>

/* GPT-2's, which ByteLevel has built in. */
#define BYTE_LEVEL_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define DIGITS_PATTERN "\\p{N}"

enum { DEPTH_MOST = 8 };

static octavo_status add_step(octavo_pre_tokenizer *pre, const octavo_json_field *field, octavo_pre_tokenizer_kind kind,
                              octavo_pre_tokenizer_step **step)
{
    if (pre->count == PRE_TOKENIZER_STEPS_MOST)
        return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "is one step too many, expected at most %d", PRE_TOKENIZER_STEPS_MOST);
    for (size_t i = 0; i < pre->count; i++) /* each may double a text */
        if (kind != OCTAVO_PRE_SPLIT && pre->steps[i].kind == kind)
            return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "rewrites the text as a step before it does");
    *step = &pre->steps[pre->count++];
    (*step)->kind = kind;
    return OCTAVO_OK;
}

static octavo_status read_byte_level(octavo_pre_tokenizer *pre, const octavo_json_field *field)
{
    const octavo_json_field prefix = octavo_json_member(field, "add_prefix_space"), regex = octavo_json_member(field, "use_regex");
    bool add_prefix = true, use_regex = true;
    octavo_pre_tokenizer_step *step = NULL;
    OCTAVO_TRY(octavo_json_known(field, "type add_prefix_space trim_offsets use_regex"));
    OCTAVO_TRY(octavo_json_bool(&prefix, OCTAVO_JSON_NEEDED, &add_prefix));
    OCTAVO_TRY(octavo_json_bool(&regex, OCTAVO_JSON_OPTIONAL, &use_regex));
    if (add_prefix) {
        OCTAVO_TRY(add_step(pre, field, OCTAVO_PRE_PREFIX, &step));
        OCTAVO_TRY(octavo_byte_buffer_append(&step->text, " ", 1));
    }
    if (use_regex) {
        OCTAVO_TRY(add_step(pre, field, OCTAVO_PRE_SPLIT, &step));
        OCTAVO_TRY(octavo_pattern_init(&step->pattern, BYTE_LEVEL_PATTERN, strlen(BYTE_LEVEL_PATTERN), field));
    }
    return add_step(pre, field, OCTAVO_PRE_BYTES, &step);
}

static octavo_status read_digits(octavo_pre_tokenizer *pre, const octavo_json_field *field)
{
    const octavo_json_field each = octavo_json_member(field, "individual_digits");
    bool individual = false;
    octavo_pre_tokenizer_step *step = NULL;
    OCTAVO_TRY(octavo_json_known(field, "type individual_digits"));
    OCTAVO_TRY(octavo_json_bool(&each, OCTAVO_JSON_NEEDED, &individual));
    OCTAVO_TRY(add_step(pre, field, OCTAVO_PRE_SPLIT, &step));
    step->behavior = individual ? OCTAVO_SPLIT_ISOLATED : OCTAVO_SPLIT_CONTIGUOUS;
    return octavo_pattern_init(&step->pattern, DIGITS_PATTERN, strlen(DIGITS_PATTERN), field);
}

static octavo_status read_split(octavo_pre_tokenizer *pre, const octavo_json_field *field)
{
    static const char *const BEHAVIORS[] = {
        [OCTAVO_SPLIT_ISOLATED] = "Isolated", [OCTAVO_SPLIT_REMOVED] = "Removed", [OCTAVO_SPLIT_WITH_PREVIOUS] = "MergedWithPrevious",
        [OCTAVO_SPLIT_WITH_NEXT] = "MergedWithNext", [OCTAVO_SPLIT_CONTIGUOUS] = "Contiguous",
    };
    const octavo_json_field pattern = octavo_json_member(field, "pattern"), behavior = octavo_json_member(field, "behavior");
    const octavo_json_field invert = octavo_json_member(field, "invert");
    const char *name;
    size_t bytes;
    octavo_pre_tokenizer_step *step = NULL;
    OCTAVO_TRY(octavo_json_known(field, "type pattern behavior invert"));
    OCTAVO_TRY(add_step(pre, field, OCTAVO_PRE_SPLIT, &step));
    OCTAVO_TRY(octavo_json_bool(&invert, OCTAVO_JSON_OPTIONAL, &step->invert));
    OCTAVO_TRY(octavo_json_field_text(&behavior, &name, &bytes));
    for (size_t i = 0; i < sizeof BEHAVIORS / sizeof *BEHAVIORS; i++)
        if (strcmp(name, BEHAVIORS[i]) == 0) {
            step->behavior = (octavo_split_behavior)i;
            return octavo_pattern_read(&step->pattern, &pattern);
        }
    return octavo_json_fail(OCTAVO_E_UNSUPPORTED, &behavior, "is '%.40s', expected Isolated, Removed, MergedWithPrevious, MergedWithNext "
                            "or Contiguous", name);
}

typedef enum prepend_scheme { PREPEND_ALWAYS, PREPEND_FIRST, PREPEND_NEVER } prepend_scheme;

/* Older files say add_prefix_space where newer ones have prepend_scheme. */
static octavo_status read_scheme(const octavo_json_field *field, prepend_scheme *scheme)
{
    static const char *const NAMES[] = { [PREPEND_ALWAYS] = "always", [PREPEND_FIRST] = "first", [PREPEND_NEVER] = "never" };
    const octavo_json_field prefix = octavo_json_member(field, "add_prefix_space"), named = octavo_json_member(field, "prepend_scheme");
    bool add = true;
    const char *name;
    size_t bytes;
    OCTAVO_TRY(octavo_json_bool(&prefix, OCTAVO_JSON_OPTIONAL, &add));
    *scheme = add ? PREPEND_ALWAYS : PREPEND_NEVER;
    if (octavo_json_absent(&named)) return OCTAVO_OK;
    OCTAVO_TRY(octavo_json_field_text(&named, &name, &bytes));
    for (size_t i = 0; i < sizeof NAMES / sizeof *NAMES; i++)
        if (strcmp(name, NAMES[i]) == 0) {
            *scheme = (prepend_scheme)i;
            return OCTAVO_OK;
        }
    return octavo_json_fail(OCTAVO_E_UNSUPPORTED, &named, "is '%.40s', expected always, first or never", name);
}

static octavo_status read_metaspace(octavo_pre_tokenizer *pre, const octavo_json_field *field)
{
    const octavo_json_field mark = octavo_json_member(field, "replacement"), split = octavo_json_member(field, "split");
    const char *text;
    size_t bytes;
    bool cut = true;
    prepend_scheme scheme;
    octavo_pre_tokenizer_step *step = NULL;
    OCTAVO_TRY(octavo_json_known(field, "type replacement add_prefix_space prepend_scheme split str_rep"));
    OCTAVO_TRY(octavo_json_field_text(&mark, &text, &bytes));
    if (!bytes || bytes != octavo_utf8_bytes(*text)) return octavo_json_fail(OCTAVO_E_FORMAT, &mark, "is not one character");
    OCTAVO_TRY(read_scheme(field, &scheme));
    OCTAVO_TRY(octavo_json_bool(&split, OCTAVO_JSON_OPTIONAL, &cut));
    OCTAVO_TRY(add_step(pre, field, OCTAVO_PRE_SPACES, &step));
    OCTAVO_TRY(octavo_byte_buffer_append(&step->text, text, bytes));
    if (scheme != PREPEND_NEVER) {
        OCTAVO_TRY(add_step(pre, field, scheme == PREPEND_FIRST ? OCTAVO_PRE_PREFIX_FIRST : OCTAVO_PRE_PREFIX, &step));
        OCTAVO_TRY(octavo_byte_buffer_append(&step->text, text, bytes));
    }
    if (!cut) return OCTAVO_OK;
    OCTAVO_TRY(add_step(pre, field, OCTAVO_PRE_SPLIT, &step));
    step->behavior = OCTAVO_SPLIT_WITH_NEXT;
    return octavo_pattern_init_literal(&step->pattern, text, bytes);
}

static octavo_status read_any(octavo_pre_tokenizer *pre, const octavo_json_field *field, int depth)
{
    const octavo_json_field name = octavo_json_member(field, "type"), list = octavo_json_member(field, "pretokenizers");
    const char *type;
    size_t bytes, count;
    OCTAVO_TRY(octavo_json_object(field));
    OCTAVO_TRY(octavo_json_field_text(&name, &type, &bytes));
    if (strcmp(type, "ByteLevel") == 0) return read_byte_level(pre, field);
    if (strcmp(type, "Split") == 0) return read_split(pre, field);
    if (strcmp(type, "Digits") == 0) return read_digits(pre, field);
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(pre, field);
    if (strcmp(type, "Sequence") != 0)
        return octavo_json_fail(OCTAVO_E_UNSUPPORTED, &name, "is '%.40s', expected Sequence, Split, ByteLevel, Digits or Metaspace", type);
    OCTAVO_TRY(octavo_json_known(field, "type pretokenizers"));
    OCTAVO_TRY(octavo_json_field_list(&list, &count));
    if (depth == DEPTH_MOST) return octavo_json_fail(OCTAVO_E_UNSUPPORTED, field, "is a sequence within %d others", DEPTH_MOST);
    for (size_t i = 0; i < count; i++) {
        const octavo_json_field element = octavo_json_element(&list, i);
        OCTAVO_TRY(read_any(pre, &element, depth + 1));
    }
    return OCTAVO_OK;
}

octavo_status octavo_pre_tokenizer_init(octavo_pre_tokenizer *pre, const octavo_json_field *field)
{
    return octavo_json_absent(field) ? OCTAVO_OK : read_any(pre, field, 0);
}

void octavo_pre_tokenizer_fini(octavo_pre_tokenizer *pre)
{
    for (size_t i = 0; i < pre->count; i++) {
        octavo_pattern_fini(&pre->steps[i].pattern);
        octavo_byte_buffer_fini(&pre->steps[i].text);
    }
}
