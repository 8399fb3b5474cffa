/* json_field.c - typed access to JSON values, refusing with the name of the field. */
#include "tokenizer/json_field.h"
#include "base/error.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { FIELD_PATH_BYTES = 160, REASON_BYTES = 256, NAME_BYTES_MOST = 60 };

octavo_json_field octavo_json_member(const octavo_json_field *parent, const char *name)
{
    return (octavo_json_field){ parent, parent->label, name, 0, json_object_get(parent->value, name) };
}

octavo_json_field octavo_json_element(const octavo_json_field *parent, size_t index)
{
    return (octavo_json_field){ parent, parent->label, NULL, index, json_array_get(parent->value, index) };
}

/* Appends "a.b[3]" to what `path` holds in its first `used` bytes; returns what it holds then. */
static size_t print_path(const octavo_json_field *field, char path[FIELD_PATH_BYTES], size_t used)
{
    int written;
    if (!field->parent) return used;
    used = print_path(field->parent, path, used);
    if (field->name) written = snprintf(path + used, FIELD_PATH_BYTES - used, "%s%.*s", used ? "." : "", NAME_BYTES_MOST, field->name);
    else written = snprintf(path + used, FIELD_PATH_BYTES - used, "[%zu]", field->index);
    used += written > 0 ? (size_t)written : 0;
    return used < FIELD_PATH_BYTES ? used : FIELD_PATH_BYTES - 1;
}

octavo_status octavo_json_fail(octavo_status status, const octavo_json_field *field, const char *format, ...)
{
    char path[FIELD_PATH_BYTES] = "", reason[REASON_BYTES];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(reason, sizeof reason, format, arguments);
    va_end(arguments);
    if (print_path(field, path, 0) == 0) return octavo_fail(status, "%s: %s", field->label, reason);
    return octavo_fail(status, "%s: %s %s", field->label, path, reason);
}

bool octavo_json_absent(const octavo_json_field *field) { return !field->value || json_is_null(field->value); }

octavo_status octavo_json_bool(const octavo_json_field *field, octavo_json_need need, bool *value)
{
    if (!field->value && need == OCTAVO_JSON_OPTIONAL) return OCTAVO_OK;
    if (!json_is_boolean(field->value)) return octavo_json_fail(OCTAVO_E_FORMAT, field, "is neither true nor false");
    *value = json_is_true(field->value);
    return OCTAVO_OK;
}

octavo_status octavo_json_whole(const octavo_json_field *field, int64_t least, int64_t most, int64_t *value)
{
    const json_int_t number = json_is_integer(field->value) ? json_integer_value(field->value) : 0;
    if (!json_is_integer(field->value) || number < least || number > most)
        return octavo_json_fail(OCTAVO_E_FORMAT, field, "is not a whole number from %" PRId64 " to %" PRId64, least, most);
    *value = number;
    return OCTAVO_OK;
}

octavo_status octavo_json_field_text(const octavo_json_field *field, const char **text, size_t *bytes)
{
    if (!json_is_string(field->value)) return octavo_json_fail(OCTAVO_E_FORMAT, field, "is not a string");
    *text = json_string_value(field->value);
    *bytes = json_string_length(field->value);
    return OCTAVO_OK;
}

octavo_status octavo_json_field_list(const octavo_json_field *field, size_t *count)
{
    if (!json_is_array(field->value)) return octavo_json_fail(OCTAVO_E_FORMAT, field, "is not a list");
    *count = json_array_size(field->value);
    return OCTAVO_OK;
}

octavo_status octavo_json_object(const octavo_json_field *field)
{
    if (!json_is_object(field->value)) return octavo_json_fail(OCTAVO_E_FORMAT, field, "is not an object");
    return OCTAVO_OK;
}

static bool is_word_of(const char *words, const char *word)
{
    const size_t length = strlen(word);
    for (const char *at = words; length && (at = strstr(at, word)) != NULL; at += length)
        if ((at == words || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0')) return true;
    return false;
}

octavo_status octavo_json_known(const octavo_json_field *field, const char *known)
{
    const char *key;
    json_t *value;
    OCTAVO_TRY(octavo_json_object(field));
    json_object_foreach((json_t *)(uintptr_t)field->value, key, value)
        if (!is_word_of(known, key)) {
            const octavo_json_field member = octavo_json_member(field, key);
            return octavo_json_fail(OCTAVO_E_UNSUPPORTED, &member, "is not known here");
        }
    return OCTAVO_OK;
}
