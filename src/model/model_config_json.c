/* model_config_json.c - fields of a JSON object, taken with their limits; what is wrong is named by file and field. */
#include "model/model_config_json.h"
#include "base/error.h"
#include <inttypes.h>
#include <math.h>

octavo_status octavo_json_read(const char *label, const char *text, size_t bytes, size_t bytes_max, json_t **root)
{
    json_error_t error;
    *root = NULL;
    if (bytes > bytes_max) return octavo_fail(OCTAVO_E_FORMAT, "%s: has %zu bytes, expected at most %zu", label, bytes, bytes_max);
    json_t *parsed = json_loadb(text, bytes, JSON_REJECT_DUPLICATES, &error);
    if (!parsed && json_error_code(&error) == json_error_out_of_memory)
        return octavo_fail(OCTAVO_E_NOMEM, "%s: no memory for its %zu bytes of JSON", label, bytes);
    if (!parsed) return octavo_fail(OCTAVO_E_FORMAT, "%s: line %d is refused: %s", label, error.line, error.text);
    if (!json_is_object(parsed)) {
        json_decref(parsed);
        return octavo_fail(OCTAVO_E_FORMAT, "%s: is not a JSON object", label);
    }
    *root = parsed;
    return OCTAVO_OK;
}

static octavo_status find(const octavo_json_object *o, const char *key, octavo_json_need need, const json_t **value)
{
    *value = json_object_get(o->json, key);
    if (json_is_null(*value)) *value = NULL;
    if (*value || need == OCTAVO_JSON_OPTIONAL) return OCTAVO_OK;
    return octavo_fail(OCTAVO_E_FORMAT, "%s: has no field '%s%s'", o->label, o->prefix, key);
}

static octavo_status refuse(const octavo_json_object *o, const char *key, const char *expected)
{
    return octavo_fail(OCTAVO_E_FORMAT, "%s: field '%s%s' is not %s", o->label, o->prefix, key, expected);
}

octavo_status octavo_json_int64(const octavo_json_object *object, const char *key, octavo_json_need need, int64_t low, int64_t high,
                                int64_t *value)
{
    const json_t *found;
    OCTAVO_TRY(find(object, key, need, &found));
    if (!found) return OCTAVO_OK;
    if (!json_is_integer(found)) return refuse(object, key, "a whole number");
    const int64_t number = json_integer_value(found);
    if (number < low || number > high)
        return octavo_fail(OCTAVO_E_FORMAT, "%s: field '%s%s' is %" PRId64 ", expected %" PRId64 " to %" PRId64, object->label,
                           object->prefix, key, number, low, high);
    *value = number;
    return OCTAVO_OK;
}

octavo_status octavo_json_int32(const octavo_json_object *object, const char *key, octavo_json_need need, int32_t low, int32_t high,
                                int32_t *value)
{
    int64_t wide = *value;
    OCTAVO_TRY(octavo_json_int64(object, key, need, low, high, &wide));
    *value = (int32_t)wide;
    return OCTAVO_OK;
}

octavo_status octavo_json_number(const octavo_json_object *object, const char *key, octavo_json_need need, double low, double high,
                                 double *value)
{
    const json_t *found;
    OCTAVO_TRY(find(object, key, need, &found));
    if (!found) return OCTAVO_OK;
    if (!json_is_number(found)) return refuse(object, key, "a number");
    const double number = json_number_value(found);
    if (!(number >= low && number <= high))
        return octavo_fail(OCTAVO_E_FORMAT, "%s: field '%s%s' is %g, expected %g to %g", object->label, object->prefix, key, number, low,
                           high);
    *value = number;
    return OCTAVO_OK;
}

octavo_status octavo_json_flag(const octavo_json_object *object, const char *key, bool *value)
{
    const json_t *found;
    OCTAVO_TRY(find(object, key, OCTAVO_JSON_OPTIONAL, &found));
    if (!found) return OCTAVO_OK;
    if (!json_is_boolean(found)) return refuse(object, key, "true or false");
    *value = json_is_true(found);
    return OCTAVO_OK;
}

octavo_status octavo_json_text(const octavo_json_object *object, const char *key, octavo_json_need need, const char **value)
{
    const json_t *found;
    OCTAVO_TRY(find(object, key, need, &found));
    if (!found) return OCTAVO_OK;
    if (!json_is_string(found)) return refuse(object, key, "a string");
    *value = json_string_value(found);
    return OCTAVO_OK;
}

octavo_status octavo_json_child(const octavo_json_object *object, const char *key, const char *prefix, octavo_json_object *child)
{
    *child = (octavo_json_object){ object->label, prefix, NULL };
    OCTAVO_TRY(find(object, key, OCTAVO_JSON_OPTIONAL, &child->json));
    return !child->json || json_is_object(child->json) ? OCTAVO_OK : refuse(object, key, "an object");
}

octavo_status octavo_json_list(const octavo_json_object *object, const char *key, const json_t **list)
{
    OCTAVO_TRY(find(object, key, OCTAVO_JSON_OPTIONAL, list));
    return !*list || json_is_array(*list) ? OCTAVO_OK : refuse(object, key, "a list");
}
