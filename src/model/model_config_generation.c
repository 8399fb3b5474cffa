/* model_config_generation.c - reads generation_config.json: which tokens end a text, how tokens are drawn. */
#include "base/error.h"
#include "model/model_config.h"

static octavo_status read_share(const octavo_json_object *root, const char *key, double high, float *value)
{
    double number = (double)*value;
    OCTAVO_TRY(octavo_json_number(root, key, OCTAVO_JSON_OPTIONAL, 0, high, &number));
    *value = (float)number;
    return OCTAVO_OK;
}

/* A file that draws nothing takes the likeliest token, whatever else it says. Some write -1 for all tokens. */
static octavo_status read_drawing(const octavo_json_object *root, octavo_model_config *c)
{
    const double TEMPERATURE_MAX = 1e6;
    bool draws = true;
    OCTAVO_TRY(octavo_json_flag(root, "do_sample", &draws));
    OCTAVO_TRY(read_share(root, "temperature", TEMPERATURE_MAX, &c->temperature));
    OCTAVO_TRY(read_share(root, "top_p", 1, &c->top_p));
    OCTAVO_TRY(read_share(root, "min_p", 1, &c->min_p));
    const json_t *top_k = json_object_get(root->json, "top_k");
    OCTAVO_TRY(octavo_json_int32(root, "top_k", OCTAVO_JSON_OPTIONAL, -1, INT32_MAX, &c->top_k));
    if (json_is_integer(top_k) && c->top_k < 0) c->top_k = 0;
    if (!draws) c->temperature = 0.0f;
    return OCTAVO_OK;
}

octavo_status octavo_model_description_add_generation(octavo_model_description *description, const char *label, const char *text, size_t bytes)
{
    json_t *parsed;
    octavo_status status = octavo_json_read(label, text, bytes, OCTAVO_CONFIG_BYTES_MAX, &parsed);
    if (status == OCTAVO_OK) {
        const octavo_json_object root = { label, "", parsed };
        status = octavo_model_config_eos(&root, &description->config);
        if (status == OCTAVO_OK) status = read_drawing(&root, &description->config);
        json_decref(parsed);
    }
    if (status != OCTAVO_OK) octavo_model_description_fini(description);
    return status;
}
