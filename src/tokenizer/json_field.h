/* json_field.h - values of a JSON file that know where they stand in it, so that every refusal names file and field. */
#ifndef OCTAVO_TOKENIZER_JSON_FIELD_H
#define OCTAVO_TOKENIZER_JSON_FIELD_H

#include "octavo/status.h"
#include <jansson.h>
#include <stdbool.h>

typedef struct octavo_json_field {
    const struct octavo_json_field *parent; /* NULL: the whole file */
    const char *label;                      /* what the file is called */
    const char *name;                       /* in its parent; NULL: an element of a list */
    size_t index;
    const json_t *value; /* borrowed; NULL: absent */
} octavo_json_field;

/* Views that borrow `parent`, which must outlive them. */
octavo_json_field octavo_json_member(const octavo_json_field *parent, const char *name);
octavo_json_field octavo_json_element(const octavo_json_field *parent, size_t index);

/* octavo_fail() with "FILE: FIELD " in front. */
octavo_status octavo_json_fail(octavo_status status, const octavo_json_field *field, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Absent or null. */
bool octavo_json_absent(const octavo_json_field *field);

/* OCTAVO_E_FORMAT: another type. An absent bool is what *value was before, where `needed` is not OCTAVO_JSON_NEEDED. */
typedef enum octavo_json_need { OCTAVO_JSON_OPTIONAL, OCTAVO_JSON_NEEDED } octavo_json_need;
octavo_status octavo_json_bool(const octavo_json_field *field, octavo_json_need need, bool *value);
octavo_status octavo_json_whole(const octavo_json_field *field, int64_t least, int64_t most, int64_t *value);
/* Text without a zero byte in it. */
octavo_status octavo_json_field_text(const octavo_json_field *field, const char **text, size_t *bytes);
octavo_status octavo_json_field_list(const octavo_json_field *field, size_t *count);
octavo_status octavo_json_object(const octavo_json_field *field);
/* OCTAVO_E_UNSUPPORTED: an object with a member that is not among the blank-separated words of `known`. */
octavo_status octavo_json_known(const octavo_json_field *field, const char *known);

#endif
