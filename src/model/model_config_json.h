/* model_config_json.h - fields of a JSON object, taken with their limits; what is wrong is named by file and field. */
#ifndef OCTAVO_MODEL_MODEL_CONFIG_JSON_H
#define OCTAVO_MODEL_MODEL_CONFIG_JSON_H

#include "octavo/status.h"
#include <jansson.h>
#include <stdbool.h>

/* An object of a file. `json` NULL: the object itself is missing, and with it every field. */
typedef struct octavo_json_object {
    const char *label;  /* the file, for messages                                  */
    const char *prefix; /* of its fields' names in messages: "", "rope_scaling."   */
    const json_t *json;
} octavo_json_object;

typedef enum octavo_json_need { OCTAVO_JSON_REQUIRED, OCTAVO_JSON_OPTIONAL } octavo_json_need;

/* The text of a whole file, which must be an object without duplicate keys. *root is the caller's reference. */
octavo_status octavo_json_read(const char *label, const char *text, size_t bytes, size_t bytes_max, json_t **root);

/* A missing field and null are the same: OCTAVO_E_FORMAT where it is required, else *value stays as it was. */
octavo_status octavo_json_int64(const octavo_json_object *object, const char *key, octavo_json_need need, int64_t low, int64_t high,
                                int64_t *value);
octavo_status octavo_json_int32(const octavo_json_object *object, const char *key, octavo_json_need need, int32_t low, int32_t high,
                                int32_t *value);
octavo_status octavo_json_number(const octavo_json_object *object, const char *key, octavo_json_need need, double low, double high,
                                 double *value);
octavo_status octavo_json_flag(const octavo_json_object *object, const char *key, bool *value);
/* Borrowed from the object. */
octavo_status octavo_json_text(const octavo_json_object *object, const char *key, octavo_json_need need, const char **value);
/* child->json and *list are NULL where there is none. `prefix` names the child's fields and must outlive it. */
octavo_status octavo_json_child(const octavo_json_object *object, const char *key, const char *prefix, octavo_json_object *child);
octavo_status octavo_json_list(const octavo_json_object *object, const char *key, const json_t **list);

#endif
